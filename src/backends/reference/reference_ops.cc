#include "backends/reference/reference_ops.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace nibble::reference {

void embed(std::span<const int32_t> tokens, const CanonicalWeight& w, Matrix out) {
  for (int64_t m = 0; m < out.rows; m++) decode_row(w, 0, tokens[static_cast<size_t>(m)], out.row(m));
}

void rms_norm(Matrix x, const float* weight, Matrix out, float eps, int64_t num_heads) {
  const int64_t width = x.width / num_heads;
  for (int64_t m = 0; m < x.rows; m++) {
    for (int64_t h = 0; h < num_heads; h++) {
      const float* from = x.row(m) + h * width;
      float* to = out.row(m) + h * width;
      double sum = 0;
      for (int64_t k = 0; k < width; k++) sum += static_cast<double>(from[k]) * from[k];
      const double factor = 1.0 / std::sqrt(sum / static_cast<double>(width) + eps);
      for (int64_t k = 0; k < width; k++) to[k] = static_cast<float>(from[k] * factor * weight[k]);
    }
  }
}

void linear(Matrix x, const CanonicalWeight& w, int64_t e, const float* bias, Matrix out, bool accumulate) {
  std::vector<float> row(static_cast<size_t>(w.K));
  for (int64_t n = 0; n < w.N; n++) {
    decode_row(w, e, n, row.data());
    for (int64_t m = 0; m < x.rows; m++) {
      double sum = bias != nullptr ? bias[n] : 0.0;
      for (int64_t k = 0; k < w.K; k++) sum += static_cast<double>(row[static_cast<size_t>(k)]) * x.row(m)[k];
      if (accumulate) sum += out.row(m)[n];
      out.row(m)[n] = static_cast<float>(sum);
    }
  }
}

void rope(Matrix x, std::span<const int32_t> pos, const Rotation& rotation, const RopeOp& op) {
  const auto half = static_cast<int64_t>(rotation.inv_freq.size());
  for (int64_t m = 0; m < x.rows; m++) {
    for (int64_t h = 0; h < op.num_heads; h++) {
      float* head = x.row(m) + h * op.head_dim + op.first;
      for (int64_t i = 0; i < half; i++) {
        const double angle =
            static_cast<double>(pos[static_cast<size_t>(m)]) * rotation.inv_freq[static_cast<size_t>(i)];
        const double cosine = std::cos(angle) * rotation.scale, sine = std::sin(angle) * rotation.scale;
        float& first = head[op.interleaved ? 2 * i : i];
        float& second = head[op.interleaved ? 2 * i + 1 : i + half];
        const double a = first, b = second;
        first = static_cast<float>(a * cosine - b * sine);
        second = static_cast<float>(b * cosine + a * sine);
      }
    }
  }
}

namespace {

double dot(const float* a, const float* b, int64_t size) {
  double sum = 0;
  for (int64_t i = 0; i < size; i++) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

// out = softmax(scores) · values, where `extra` logits take part in the softmax but have no value. values(i) is the row
// that goes with scores[i].
void weigh_values(std::vector<double>& scores, std::span<const float> extra, auto values, int64_t v_dim, float* out) {
  double largest = -INFINITY, total = 0;
  for (double score : scores) largest = std::max(largest, score);
  for (float logit : extra) largest = std::max<double>(largest, logit);
  for (double& score : scores) total += score = std::exp(score - largest);
  for (float logit : extra) total += std::exp(logit - largest);
  for (int64_t i = 0; i < v_dim; i++) {
    double sum = 0;
    for (size_t t = 0; t < scores.size(); t++) sum += scores[t] * values(static_cast<int64_t>(t))[i];
    out[i] = static_cast<float>(sum / total);
  }
}

}  // namespace

void attention(const float* q, const KvRows& kv, const AttentionOp& op, const float* sinks, float* out) {
  const int64_t group = op.num_heads / op.num_kv_heads;
  const int64_t first = op.window > 0 ? std::max<int64_t>(0, kv.len - op.window) : 0;
  std::vector<double> scores(static_cast<size_t>(kv.len - first));
  for (int64_t h = 0; h < op.num_heads; h++) {
    const int64_t offset = h / group * op.head_dim;
    for (int64_t t = first; t < kv.len; t++)
      scores[static_cast<size_t>(t - first)] = op.scale * dot(q + h * op.head_dim, kv.k_row(t) + offset, op.head_dim);
    const std::span<const float> sink(sinks != nullptr ? sinks + h : nullptr, sinks != nullptr ? 1 : 0);
    const auto values = [&](int64_t i) { return kv.v_row(first + i) + offset; };
    weigh_values(scores, sink, values, op.head_dim, out + h * op.head_dim);
  }
}

void head_linear(Matrix x, const CanonicalWeight& w, Matrix out) {
  const int64_t head_dim = x.width / w.E;
  for (int64_t e = 0; e < w.E; e++)
    linear({x.data + e * head_dim, x.rows, w.K, x.stride}, w, e, nullptr,
           {out.data + e * w.N, out.rows, w.N, out.stride}, false);
}

void latent_attention(const float* q_latent, const float* q, const KvRows& kv, const LatentAttentionOp& op,
                      float* out) {
  const int64_t q_head_dim = op.q.width / op.num_heads;
  std::vector<double> scores(static_cast<size_t>(kv.len));
  for (int64_t h = 0; h < op.num_heads; h++) {
    const float* q_rope = q + (h + 1) * q_head_dim - op.rope_dim;
    for (int64_t t = 0; t < kv.len; t++) {
      const float* k = kv.k_row(t);
      scores[static_cast<size_t>(t)] = op.scale * (dot(q_latent + h * op.latent_dim, k, op.latent_dim) +
                                                   dot(q_rope, k + op.latent_dim, op.rope_dim));
    }
    weigh_values(scores, {}, [&](int64_t t) { return kv.k_row(t); }, op.latent_dim, out + h * op.latent_dim);
  }
}

void swiglu(Matrix gate, Matrix up, Matrix out) {
  for (int64_t m = 0; m < out.rows; m++) {
    for (int64_t i = 0; i < out.width; i++) {
      const double g = gate.row(m)[i];
      out.row(m)[i] = static_cast<float>(g / (1.0 + std::exp(-g)) * up.row(m)[i]);
    }
  }
}

namespace {

// The numbers of the `count` largest values, the largest first, of equals the lower number. NaN is the smallest.
std::vector<size_t> largest_of(std::span<const double> values, int64_t count) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto key = [&](size_t i) { return std::isnan(values[i]) ? -INFINITY : values[i]; };
  std::ranges::sort(order, [&](size_t a, size_t b) { return key(a) != key(b) ? key(a) > key(b) : a < b; });
  order.resize(static_cast<size_t>(count));
  return order;
}

std::vector<double> router_scores(std::span<const float> logits, RouterScores kind) {
  std::vector<double> scores(logits.begin(), logits.end());
  if (kind == RouterScores::sigmoid) {
    for (double& score : scores) score = 1.0 / (1.0 + std::exp(-score));
  } else {
    const double largest = *std::ranges::max_element(scores);
    double total = 0;
    for (double& score : scores) total += score = std::exp(score - largest);
    for (double& score : scores) score /= total;
  }
  return scores;
}

// Excludes the experts of all groups but the best.
void exclude_groups(std::vector<double>& choice, int64_t num_groups, int64_t top_groups) {
  const size_t size = choice.size() / static_cast<size_t>(num_groups);
  std::vector<double> groups;
  for (size_t g = 0; g < static_cast<size_t>(num_groups); g++) {
    const std::span<const double> members(choice.data() + g * size, size);
    double sum = 0;
    for (size_t e : largest_of(members, std::min<int64_t>(2, static_cast<int64_t>(size)))) sum += members[e];
    groups.push_back(sum);
  }
  const std::vector<size_t> best = largest_of(groups, top_groups);
  for (size_t e = 0; e < choice.size(); e++)
    if (std::ranges::find(best, e / size) == best.end()) choice[e] = -INFINITY;
}

}  // namespace

void route(Matrix logits, const float* correction_bias, const RouteOp& op, Matrix experts, Matrix expert_weights) {
  for (int64_t m = 0; m < logits.rows; m++) {
    const std::vector<double> scores = router_scores({logits.row(m), static_cast<size_t>(logits.width)}, op.scores);
    std::vector<double> choice = scores;
    if (correction_bias != nullptr)
      for (size_t e = 0; e < choice.size(); e++) choice[e] += correction_bias[e];
    if (op.num_groups > 1) exclude_groups(choice, op.num_groups, op.top_groups);
    const std::vector<size_t> chosen = largest_of(choice, experts.width);
    double total = 0;
    for (size_t e : chosen) total += scores[e];
    for (size_t j = 0; j < chosen.size(); j++) {
      experts.row(m)[j] = static_cast<float>(chosen[j]);
      expert_weights.row(m)[j] =
          static_cast<float>(scores[chosen[j]] / (op.normalise ? std::max(total, 1e-20) : 1.0) * op.scale);
    }
  }
}

namespace {

// y[n] = w[e, n] · x + bias[e, n].
std::vector<double> expert_linear(const float* x, const CanonicalWeight& w, int64_t e, const float* bias) {
  std::vector<float> row(static_cast<size_t>(w.K));
  std::vector<double> y(static_cast<size_t>(w.N));
  for (int64_t n = 0; n < w.N; n++) {
    decode_row(w, e, n, row.data());
    y[static_cast<size_t>(n)] = dot(row.data(), x, w.K) + (bias != nullptr ? bias[e * w.N + n] : 0.0f);
  }
  return y;
}

double activate(double gate, double up, const MoeGateUpOp& op) {
  if (op.activation == ExpertActivation::silu) return gate / (1.0 + std::exp(-gate)) * up;
  gate = std::min<double>(gate, op.limit);
  up = std::clamp<double>(up, -op.limit, op.limit);
  return gate / (1.0 + std::exp(-op.alpha * gate)) * (up + 1.0);
}

}  // namespace

void moe_gate_up(Matrix x, const CanonicalWeight& gate, const CanonicalWeight& up, const float* gate_bias,
                 const float* up_bias, Matrix experts, const MoeGateUpOp& op, Matrix out) {
  for (int64_t m = 0; m < x.rows; m++) {
    for (int64_t j = 0; j < experts.width; j++) {
      const auto e = static_cast<int64_t>(experts.row(m)[j]);
      const std::vector<double> g = expert_linear(x.row(m), gate, e, gate_bias);
      const std::vector<double> u = expert_linear(x.row(m), up, e, up_bias);
      float* to = out.row(m) + j * gate.N;
      for (size_t n = 0; n < g.size(); n++) to[n] = static_cast<float>(activate(g[n], u[n], op));
    }
  }
}

void moe_down(Matrix x, const CanonicalWeight& down, const float* bias, Matrix experts, Matrix expert_weights,
              Matrix out) {
  for (int64_t m = 0; m < x.rows; m++) {
    std::vector<double> sums(static_cast<size_t>(down.N));
    for (int64_t j = 0; j < experts.width; j++) {
      const auto e = static_cast<int64_t>(experts.row(m)[j]);
      const std::vector<double> y = expert_linear(x.row(m) + j * down.K, down, e, bias);
      for (size_t n = 0; n < y.size(); n++) sums[n] += expert_weights.row(m)[j] * y[n];
    }
    for (size_t n = 0; n < sums.size(); n++) out.row(m)[n] = static_cast<float>(out.row(m)[n] + sums[n]);
  }
}

}  // namespace nibble::reference
