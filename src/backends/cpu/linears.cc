#include "backends/cpu/linears.h"

#include <algorithm>

namespace nibble {

namespace {

constexpr int64_t kTileTokens = 64, kTileRows = 64;

size_t float_bytes(int64_t count) { return static_cast<size_t>(count) * sizeof(float); }

}  // namespace

TokenTile::TokenTile(int64_t largest_K, int bits)
    : activation_bits_(bits),
      rows_(float_bytes(kTileTokens * largest_K)),
      groups_(static_cast<size_t>(activations_bytes(kTileTokens, largest_K))),
      out_(float_bytes(kTileTokens * kTileRows)) {}

void TokenTile::linear(const LinearTask& task) const {
  const CpuKernels& kernels = cpu_kernels();
  const int64_t K = task.w->K;
  auto* const rows = rows_.as<float>();
  auto* const out = out_.as<float>();
  const Activations x{.M = kTileTokens,
                      .K = K,
                      .x = rows,
                      .x_stride = K,
                      .bits = activation_bits_,
                      .groups = groups_.as<ActivationGroup>()};
  for (int64_t first = 0; first < task.num_tokens; first += kTileTokens) {
    const int64_t num_tokens = std::min(kTileTokens, task.num_tokens - first);
    const float* from = task.x->x + (task.first_token + first) * task.x->x_stride;
    for (int64_t m = 0; m < num_tokens; m++) std::copy_n(from + m * task.x->x_stride, K, rows + m * K);
    kernels.prepare(x, 0, num_tokens * activation_groups(K));
    for (int64_t row = task.first_row; row < task.last_row; row += kTileRows) {
      const int64_t num_rows = std::min(kTileRows, task.last_row - row);
      float* const to = task.out + first * task.out_stride + row;
      if (task.accumulate)
        for (int64_t m = 0; m < num_tokens; m++) std::copy_n(to + m * task.out_stride, num_rows, out + m * kTileRows);
      kernels.linear({.w = task.w,
                      .e = task.e,
                      .first_row = row,
                      .last_row = row + num_rows,
                      .x = &x,
                      .num_tokens = kTileTokens,
                      .out = out - row,  // where the matrix's first row would be
                      .out_stride = kTileRows,
                      .bias = task.bias,
                      .accumulate = task.accumulate});
      for (int64_t m = 0; m < num_tokens; m++) std::copy_n(out + m * kTileRows, num_rows, to + m * task.out_stride);
    }
    std::fill_n(rows, num_tokens * K, 0.0f);
    kernels.prepare(x, 0, num_tokens * activation_groups(K));
  }
}

Linears::Linears(LinearRoute route, int bits, std::span<const PackedWeight* const> weights, int num_workers)
    : activation_bits(bits) {
  if (route != LinearRoute::always_tiles) return;
  int64_t largest_K = 0;
  for (const PackedWeight* weight : weights)
    if (dynamic_cast<const PackedMatrix*>(weight) != nullptr) largest_K = std::max(largest_K, weight->K);
  for (int worker = 0; worker < num_workers; worker++) tiles_.emplace_back(largest_K, bits);
}

size_t Linears::scratch_bytes() const {
  size_t sum = 0;
  for (const TokenTile& tile : tiles_) sum += tile.bytes();
  return sum;
}

}  // namespace nibble
