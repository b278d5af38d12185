// Transposed MXFP4, whose groups run down the rows: 32 rows share a scale for each k. The scales are multiplied into the
// activations, which are then rounded for these rows, always to 15 bits, and the codes are multiplied as integers like any others.
//
// Cost    of 32 k, a token: one rounding for the two blocks of rows, then the products of each. In cache 21 ns (AVX-512, Zen 4);
//         multiplied as floats they took 41.
// Sums    exact integers within a group of 32, scaled and added in the order of k.
//
// Included after the rules of linear_kernel.h.
#pragma once

#include "backends/cpu/integer_linear.h"

namespace nibble {
namespace {

// Groups and tokens that are scaled and rounded, then multiplied by both blocks.
constexpr int64_t kScaledGroups = 8, kScaledTokens = 16;

// A group of `count` activations, scaled, and if is_small 2^64 times as large; zeros fill it up.
template <class Isa, bool is_small>
void scale_group(const float* x, int64_t count, const uint8_t* scales, float (&out)[kGroup]) {
  constexpr float kLarger = 0x1p64f;
  for (int64_t k = 0; k < kGroup; k += 16) {
    const int64_t left = count < k ? 0 : count - k;
    typename Isa::Floats values = left < 16 ? Isa::load(x + k, static_cast<int>(left)) : Isa::load(x + k);
    if constexpr (is_small) values = Isa::mul(values, Isa::broadcast(&kLarger));
    Isa::store(out + k, Isa::mul(values, Isa::load_e8m0(scales + k)));
  }
}

// Where all of them are too small for quantize_group: rounded to multiples of a power of two, which the sums can be multiplied by
// exactly, though it be subnormal.
template <class Isa>
[[gnu::noinline]] void quantize_small_group(const float* x, int64_t count, const uint8_t* scales,
                                            ActivationGroup& out) {
  alignas(64) float larger[kGroup];
  scale_group<Isa, true>(x, count, scales, larger);
  const uint32_t exponent = Isa::largest(larger, kInfinityBits);
  if (exponent == 0) return;  // zeros
  round_group<Isa>(larger, kLargestActivation * 0x1p-12f * __builtin_bit_cast(float, exponent), kActivationBits, out,
                   nullptr);
  out.scale *= 0x1p-64f;
}

// Groups from `first` on of `num_tokens` tokens from `token` on, scaled and rounded: group g of token t to x[g][t].
template <class Isa, int64_t tokens>
void quantize_scaled(const LinearTask& task, const uint8_t* scales, int64_t first, int64_t count, int64_t token,
                     int64_t num_tokens, ActivationGroup (&x)[kScaledGroups][tokens]) {
  for (int64_t k = 0; k < count * kGroup; k += kLineBytes) __builtin_prefetch(scales + kScalesNear + k);
  for (int64_t t = 0; t < num_tokens; t++) {
    const float* from = task.x->x + (token + t) * task.x->x_stride + first * kGroup;
    const int64_t K = task.w->K - first * kGroup;
    alignas(64) float scaled[kScaledGroups][kGroup];
    for (int64_t g = 0; g < count; g++)
      scale_group<Isa, false>(from + g * kGroup, K - g * kGroup, scales + g * kGroup, scaled[g]);
    quantize_groups<Isa>(scaled[0], count, kActivationBits, &x[0][t], tokens, nullptr);
    for (int64_t g = 0; g < count; g++)
      if (x[g][t].scale <= kSmallestLargest / kLargestActivation)
        quantize_small_group<Isa>(from + g * kGroup, K - g * kGroup, scales + g * kGroup, x[g][t]);
  }
}

// Rows from first_row to last_row, which share scales, times tokens i … i + num_tokens of the task. A single token takes its codes as
// LinesOfOne.
template <class Isa, class Layout, int64_t max_tokens, class LinesOfOne>
void transposed_rows(const LinearTask& task, const LinesAhead& ahead, int64_t first_row, int64_t last_row, int64_t i,
                     int64_t num_tokens) {
  const PackedMatrix& w = *task.w;
  const int64_t num_groups = activation_groups(w.K), first_block = first_row / kBlockRows;
  const int64_t num_blocks = (last_row - first_row + kBlockRows - 1) / kBlockRows;
  const int64_t scale_block = task.e * w.num_scale_blocks + first_block / Layout::scale_blocks;
  const uint8_t* scales = w.scales + scale_block * w.block_scale_bytes;
  alignas(64) float y[Layout::scale_blocks][max_tokens * kBlockRows];
  for (int64_t b = 0; b < num_blocks; b++)
    for (int64_t t = 0; t < num_tokens; t++) Isa::store(y[b] + t * kBlockRows, Isa::zero());
  for (int64_t first = 0; first < num_groups; first += kScaledGroups) {
    const int64_t count = num_groups - first < kScaledGroups ? num_groups - first : kScaledGroups;
    ActivationGroup x[kScaledGroups][max_tokens];
    quantize_scaled<Isa>(task, scales + first * kGroup, first, count, task.first_token + i, num_tokens, x);
    for (int64_t b = 0; b < num_blocks; b++) {
      const int64_t block = task.e * w.num_blocks + first_block + b;
      const uint8_t* codes = w.codes + block * w.block_code_bytes + first * kGroupBytes<Layout>;
      typename Isa::Floats of_one[1][1] = {{Isa::load(y[b])}};
      for (int64_t g = 0; g < count; g++, codes += kGroupBytes<Layout>) {
        const LinesAhead::Stretch stretch = ahead.stretch(codes);
        if constexpr (max_tokens == 1) {
          const LinesOfOne lines[1] = {{codes, codes + stretch.near, codes + stretch.far}};
          add_groups<Isa, Layout, 2>(lines, {{}}, x[g], of_one);
        } else {
          prefetch_lines(codes + stretch.near, codes + stretch.far, kGroupBytes<Layout>, ahead.is_far());
          const decltype(Isa::template decode<Layout>(Lines{})) group[1] = {
              Isa::template decode<Layout>(Lines{codes, kLineBytes})};
          add_groups_to_all<Isa, Layout, 2, Isa::side_tokens(1)>(group, {{}}, x[g], num_tokens, y[b], 0);
        }
      }
      if constexpr (max_tokens == 1) Isa::store(y[b], of_one[0][0]);
    }
  }
  for (int64_t b = 0; b < num_blocks; b++)
    for (int64_t t = 0; t < num_tokens; t++)
      finish_token<Isa>(task, first_row + b * kBlockRows, i + t,
                        Isa::mul(Isa::load(y[b] + t * kBlockRows), Isa::broadcast(&Layout::factor)));
}

template <class Isa, class Layout>
void transposed_linear(const LinearTask& task) {
  constexpr int64_t kRows = Layout::scale_blocks * kBlockRows;
  const LinesAhead ahead(task, true);
  for (int64_t row = task.first_row; row < task.last_row;) {
    const int64_t end = (row / kRows + 1) * kRows, last_row = end < task.last_row ? end : task.last_row;
    if (task.num_tokens == 1)
      with_lines_of_one<Isa, Layout>(ahead.is_far(), [&]<class LinesOfOne>() {
        transposed_rows<Isa, Layout, 1, LinesOfOne>(task, ahead, row, last_row, 0, 1);
      });
    else
      for (int64_t i = 0; i < task.num_tokens; i += kScaledTokens) {
        const int64_t left = task.num_tokens - i;
        transposed_rows<Isa, Layout, kScaledTokens, void>(task, ahead, row, last_row, i,
                                                          left < kScaledTokens ? left : kScaledTokens);
      }
    row = last_row;
  }
}

}  // namespace
}  // namespace nibble
