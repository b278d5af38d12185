#include "backends/reference/reference_ops.h"

#include <algorithm>
#include <cmath>
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

void rope(Matrix x, std::span<const int32_t> pos, const Rotation& rotation, int64_t num_heads, int64_t head_dim) {
  const auto half = static_cast<int64_t>(rotation.inv_freq.size());
  for (int64_t m = 0; m < x.rows; m++) {
    for (int64_t h = 0; h < num_heads; h++) {
      float* head = x.row(m) + h * head_dim;
      for (int64_t i = 0; i < half; i++) {
        const double angle =
            static_cast<double>(pos[static_cast<size_t>(m)]) * rotation.inv_freq[static_cast<size_t>(i)];
        const double cosine = std::cos(angle) * rotation.scale, sine = std::sin(angle) * rotation.scale;
        const double a = head[i], b = head[i + half];
        head[i] = static_cast<float>(a * cosine - b * sine);
        head[i + half] = static_cast<float>(b * cosine + a * sine);
      }
    }
  }
}

void attention(const float* q, const KvRows& kv, const AttentionOp& op, float* out) {
  const int64_t group = op.num_heads / op.num_kv_heads;
  std::vector<double> scores(static_cast<size_t>(kv.len));
  for (int64_t h = 0; h < op.num_heads; h++) {
    const int64_t offset = h / group * op.head_dim;
    double largest = -INFINITY;
    for (int64_t t = 0; t < kv.len; t++) {
      double sum = 0;
      for (int64_t i = 0; i < op.head_dim; i++)
        sum += static_cast<double>(q[h * op.head_dim + i]) * kv.k[t * kv.k_stride + offset + i];
      scores[static_cast<size_t>(t)] = sum * op.scale;
      largest = std::max(largest, scores[static_cast<size_t>(t)]);
    }
    double total = 0;
    for (double& score : scores) total += score = std::exp(score - largest);
    for (int64_t i = 0; i < op.head_dim; i++) {
      double sum = 0;
      for (int64_t t = 0; t < kv.len; t++) sum += scores[static_cast<size_t>(t)] * kv.v[t * kv.v_stride + offset + i];
      out[h * op.head_dim + i] = static_cast<float>(sum / total);
    }
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

}  // namespace nibble::reference
