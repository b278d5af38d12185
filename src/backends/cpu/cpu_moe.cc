#include "backends/cpu/cpu_moe.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "backends/cpu/cpu_step.h"
#include "base/piece_queues.h"

namespace nibble {

namespace {

constexpr double kTaken = std::numeric_limits<double>::quiet_NaN();

// Takes the largest value out of `values`, of equals the first, and returns its number.
int64_t take_largest(std::span<double> values) {
  int64_t best = -1;
  for (int64_t i = 0; i < static_cast<int64_t>(values.size()); i++) {
    const double value = values[static_cast<size_t>(i)];
    if (!std::isnan(value) && (best < 0 || value > values[static_cast<size_t>(best)])) best = i;
  }
  values[static_cast<size_t>(best)] = kTaken;
  return best;
}

void fill_scores(RouterScores kind, const float* logits, std::span<double> scores) {
  std::copy_n(logits, scores.size(), scores.begin());
  if (kind == RouterScores::sigmoid) {
    for (double& score : scores) score = 1.0 / (1.0 + std::exp(-score));
    return;
  }
  const double largest = *std::ranges::max_element(scores);
  double total = 0;
  for (double& score : scores) total += score = std::exp(score - largest);
  for (double& score : scores) score /= total;
}

// Excludes the experts of all groups but the best, a group being worth the sum of its two best.
void exclude_groups(std::span<double> choice, std::span<double> groups, int64_t top_groups) {
  const size_t size = choice.size() / groups.size();
  for (size_t g = 0; g < groups.size(); g++) {
    double best = -INFINITY, second = -INFINITY;
    for (double value : choice.subspan(g * size, size)) {
      second = std::max(second, std::min(best, value));
      best = std::max(best, value);
    }
    groups[g] = size > 1 ? best + second : best;
  }
  for (int64_t i = 0; i < top_groups; i++) take_largest(groups);
  for (size_t e = 0; e < choice.size(); e++)
    if (!std::isnan(groups[e / size])) choice[e] = -INFINITY;
}

}  // namespace

size_t route_scratch_bytes(const RouteOp& op) {
  return static_cast<size_t>(2 * op.logits.width + op.num_groups) * sizeof(double);
}

void route_token(const RouteOp& op, const float* logits, const float* correction_bias, float* experts,
                 float* expert_weights, double* scratch) {
  const auto E = static_cast<size_t>(op.logits.width), top_k = static_cast<size_t>(op.experts.width);
  const std::span<double> scores(scratch, E), choice(scratch + E, E);
  fill_scores(op.scores, logits, scores);
  for (size_t e = 0; e < E; e++) {
    choice[e] = scores[e] + (correction_bias != nullptr ? correction_bias[e] : 0.0f);
    if (std::isnan(choice[e])) choice[e] = -INFINITY;
  }
  if (op.num_groups > 1) exclude_groups(choice, {scratch + 2 * E, static_cast<size_t>(op.num_groups)}, op.top_groups);
  double total = 0;
  for (size_t j = 0; j < top_k; j++) {
    const int64_t e = take_largest(choice);
    experts[j] = static_cast<float>(e);
    total += scores[static_cast<size_t>(e)];
  }
  const double divisor = op.normalise ? std::max(total, 1e-20) : 1.0;
  for (size_t j = 0; j < top_k; j++)
    expert_weights[j] = static_cast<float>(scores[static_cast<size_t>(experts[j])] / divisor * op.scale);
}

MoeShape moe_shape(const MoeGateUpOp& op, int64_t M, const WeightShape& w) {
  return {.M = M, .top_k = op.experts.width, .E = w.E, .N = w.N, .K = w.K, .num_outputs = 2, .alone = M == 1};
}

MoeShape moe_shape(const MoeDownOp& op, int64_t M, const WeightShape& w) {
  const int64_t top_k = op.experts.width;
  return {.M = M,
          .top_k = top_k,
          .E = w.E,
          .N = w.N,
          .K = w.K,
          .num_outputs = 1,
          .alone = M == 1 && top_k <= kRedundantTokens};
}

bool pieces_have_all_experts(const MoeShape& s) { return s.M <= kRedundantTokens; }

PiecesOf<ExpertPiece> expert_pieces(const MoeShape& s, const RowPieces& rows) {
  PiecesOf<ExpertPiece> all;
  for (const Range& own : rows.of_worker) {
    const auto first_piece = static_cast<int64_t>(all.pieces.size());
    const std::span<const RowShare> shares(rows.pieces.begin() + own.first, rows.pieces.begin() + own.last);
    if (pieces_have_all_experts(s)) {
      for (const RowShare& share : shares) all.pieces.push_back({{share.first_row, share.last_row}, {0, s.E}});
    } else if (!shares.empty()) {
      cut_in_halves(s.E, (s.E + 15) / 16, [&](int64_t first, int64_t last) {
        all.pieces.push_back({{shares.front().first_row, shares.back().last_row}, {first, last}});
      });
    }
    all.of_worker.push_back({first_piece, static_cast<int64_t>(all.pieces.size())});
  }
  return all;
}

int64_t moe_bytes(const MoeShape& s, int num_workers) {
  const int64_t num_pairs = s.M * s.top_k, floats = s.num_outputs * s.N + (s.alone ? 0 : s.K);
  return num_pairs * floats * int64_t{sizeof(float)} + (s.alone ? num_workers : 1) * activations_bytes(num_pairs, s.K);
}

MoeScratch::MoeScratch(const MoeShape& s, const Linears& l, int num_workers) : shape(s), linears(l) {
  const auto num_pairs = static_cast<size_t>(s.M * s.top_k);
  for (int worker = 0; worker < num_workers; worker++)
    orders.push_back({std::vector<int32_t>(num_pairs), std::vector<int32_t>(num_pairs),
                      std::vector<int32_t>(static_cast<size_t>(s.E + 1))});
  if (!s.alone) gathered = Buffer(num_pairs * static_cast<size_t>(s.K) * sizeof(float));
  const auto rows = static_cast<int64_t>(num_pairs);
  for (int i = 0; i < (s.alone ? num_workers : 1); i++) {
    const Buffer& groups = groups_.emplace_back(static_cast<size_t>(activations_bytes(rows, s.K)));
    rounded.push_back({.M = rows,
                       .K = s.K,
                       .x = gathered.as<float>(),
                       .x_stride = s.K,
                       .bits = l.activation_bits,
                       .groups = groups.as<ActivationGroup>()});
  }
  for (int i = 0; i < s.num_outputs; i++) outputs.emplace_back(num_pairs * static_cast<size_t>(s.N) * sizeof(float));
}

size_t MoeScratch::bytes() const {
  size_t sum = gathered.size();
  for (const Buffer& buffer : groups_) sum += buffer.size();
  for (const Buffer& buffer : outputs) sum += buffer.size();
  return sum;
}

void MoeScratch::sort(const FloatRows& experts, int worker) {
  PairOrder& order = orders[static_cast<size_t>(worker)];
  std::ranges::fill(order.first, 0);
  const auto expert_of = [&](int64_t pair) {
    return static_cast<size_t>(experts.row(pair / shape.top_k)[pair % shape.top_k]);
  };
  const int64_t num_pairs = shape.M * shape.top_k;
  for (int64_t pair = 0; pair < num_pairs; pair++) order.first[expert_of(pair) + 1]++;
  for (size_t e = 1; e < order.first.size(); e++) order.first[e] += order.first[e - 1];
  for (int64_t pair = 0; pair < num_pairs; pair++) {
    const int32_t place = order.first[expert_of(pair)]++;
    order.pairs[static_cast<size_t>(place)] = static_cast<int32_t>(pair);
    order.places[static_cast<size_t>(pair)] = place;
  }
  // What counted the places up to each expert's end now is the next one's beginning.
  for (size_t e = order.first.size() - 1; e > 0; e--) order.first[e] = order.first[e - 1];
  order.first[0] = 0;
}

int64_t MoeScratch::num_chosen(int worker) const {
  const std::vector<int32_t>& first = orders[static_cast<size_t>(worker)].first;
  int64_t count = 0;
  for (size_t e = 1; e < first.size(); e++) count += first[e] > first[e - 1] ? 1 : 0;
  return count;
}

namespace {

// Copies a worker's share of the sorted pairs and rounds them. source(pair) is the row that a pair multiplies by.
template <class Source>
void gather(MoeScratch& s, int worker, int num_workers, const Source& source) {
  const Activations& x = s.rounded.front();
  const auto [first, last] = worker_range(x.M, 1, worker, num_workers);
  for (int64_t i = first; i < last; i++)
    std::copy_n(source(s.orders[static_cast<size_t>(worker)].pairs[static_cast<size_t>(i)]), x.K,
                s.gathered.as<float>() + i * x.K);
  cpu_kernels().prepare(x, first * activation_groups(x.K), last * activation_groups(x.K));
}

// The first chosen expert from `e` on, or piece.experts.last.
int64_t chosen_from(const PairOrder& order, int64_t e, const ExpertPiece& piece) {
  while (e < piece.experts.last && order.first[static_cast<size_t>(e)] == order.first[static_cast<size_t>(e + 1)]) e++;
  return e;
}

// Some rows of those experts that are chosen, for all their pairs, into outputs[output]. Where the pairs are not gathered,
// row_of(pair) is the row of x that a pair multiplies by. `after` comes then.
template <class RowOf>
void multiply(const MoeScratch& s, const ExpertLinear& linear, const Activations& x, int output, int worker,
              const ExpertPiece& piece, const RowOf& row_of, RowsToCome after) {
  const PairOrder& order = s.orders[static_cast<size_t>(worker)];
  float* out = s.outputs[static_cast<size_t>(output)].as<float>();
  for (int64_t e = chosen_from(order, piece.experts.first, piece), next; e < piece.experts.last; e = next) {
    const int64_t first = order.first[static_cast<size_t>(e)], last = order.first[static_cast<size_t>(e + 1)];
    next = chosen_from(order, e + 1, piece);
    s.linears.run({.w = linear.w,
                   .e = e,
                   .first_row = piece.rows.first,
                   .last_row = piece.rows.last,
                   .x = &x,
                   .first_token = s.shape.alone ? row_of(order.pairs[static_cast<size_t>(first)]) : first,
                   .num_tokens = last - first,
                   .out = out + first * s.shape.N,
                   .out_stride = s.shape.N,
                   .bias = linear.bias != nullptr ? linear.bias + e * s.shape.N : nullptr,
                   .next = next < piece.experts.last ? rows_to_come(*linear.w, next, piece.rows.first) : after},
                  worker);
  }
}

}  // namespace

RowsToCome first_rows(const PackedMatrix& w, const MoeShape& shape, const FloatRows& experts,
                      const ExpertPiece& piece) {
  if (!pieces_have_all_experts(shape)) return {};
  float first = static_cast<float>(shape.E);
  for (int64_t m = 0; m < shape.M; m++)
    first = std::min(first, *std::min_element(experts.row(m), experts.row(m) + shape.top_k));
  if (!(first >= 0 && first < static_cast<float>(shape.E))) return {};  // of a worker that never chose for this shape
  return rows_to_come(w, static_cast<int64_t>(first), piece.rows.first);
}

void MoeGateUp::prepare(int worker, int num_workers, AskAhead& ahead) const {
  scratch->sort(experts[static_cast<size_t>(worker)], worker);
  if (scratch->shape.alone) {
    Activations& rounded = scratch->rounded[static_cast<size_t>(worker)];
    rounded.M = 1;
    rounded.x = x.data;
    prepare_asking(cpu_kernels(), rounded, 0, activation_groups(rounded.K), ahead);
  } else {
    gather(*scratch, worker, num_workers, [&](int64_t pair) { return x.row(pair / scratch->shape.top_k); });
  }
}

void MoeGateUp::compute(int worker, const ExpertPiece& piece, RowsToCome next) const {
  const MoeShape& shape = scratch->shape;
  const Activations& rounded = scratch->rounded[shape.alone ? static_cast<size_t>(worker) : 0];
  const auto row_of = [](int64_t) { return int64_t{0}; };
  const PairOrder& order = scratch->orders[static_cast<size_t>(worker)];
  const int64_t first_expert = chosen_from(order, piece.experts.first, piece);
  multiply(*scratch, gate, rounded, 0, worker, piece, row_of, rows_to_come(*up.w, first_expert, piece.rows.first));
  multiply(*scratch, up, rounded, 1, worker, piece, row_of, next);
  const int64_t first = order.first[static_cast<size_t>(piece.experts.first)];
  const int64_t last = order.first[static_cast<size_t>(piece.experts.last)];
  const Range& rows = piece.rows;
  for (int64_t place = first; place < last; place++) {
    const int64_t pair = order.pairs[static_cast<size_t>(place)];
    const int64_t at = place * shape.N + rows.first, size = rows.last - rows.first;
    const float* g = scratch->outputs[0].as<float>() + at;
    const float* u = scratch->outputs[1].as<float>() + at;
    float* to = out.row(pair / shape.top_k) + pair % shape.top_k * shape.N + rows.first;
    if (op.activation == ExpertActivation::silu) {
      float_kernels().swiglu(g, u, size, to);
    } else {
      float_kernels().clamped_swiglu(g, u, op.alpha, op.limit, size, to);
    }
  }
}

void MoeDown::prepare(int worker, int num_workers, AskAhead& ahead) const {
  const MoeShape& shape = scratch->shape;
  scratch->sort(experts, worker);
  const auto source = [&](int64_t pair) { return x.row(pair / shape.top_k) + pair % shape.top_k * shape.K; };
  if (shape.alone) {
    Activations& rounded = scratch->rounded[static_cast<size_t>(worker)];
    rounded.x = x.data;
    prepare_asking(cpu_kernels(), rounded, 0, rounded.M * activation_groups(rounded.K), ahead);
  } else {
    gather(*scratch, worker, num_workers, source);
  }
}

void MoeDown::compute(int worker, const ExpertPiece& piece, RowsToCome next) const {
  const MoeShape& shape = scratch->shape;
  const Activations& rounded = scratch->rounded[shape.alone ? static_cast<size_t>(worker) : 0];
  multiply(*scratch, down, rounded, 0, worker, piece, [](int64_t pair) { return pair; }, next);
  if (pieces_have_all_experts(shape)) sum(worker, piece.rows);
}

void MoeDown::sum(int worker, Range rows) const {
  const MoeShape& shape = scratch->shape;
  const PairOrder& order = scratch->orders[static_cast<size_t>(worker)];
  const float* y = scratch->outputs[0].as<float>();
  for (int64_t m = 0; m < shape.M; m++) {
    float* to = out.row(m);
    for (int64_t j = 0; j < shape.top_k; j++) {
      const float weight = expert_weights.row(m)[j];
      const float* from = y + order.places[static_cast<size_t>(m * shape.top_k + j)] * shape.N;
      for (int64_t n = rows.first; n < rows.last; n++) to[n] += weight * from[n];
    }
  }
}

}  // namespace nibble
