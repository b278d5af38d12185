// 16 rows times a few tokens in float32: matrices of floats, and of transposed NVFP4.
//
// Even and odd k are summed apart, so that chains of multiply-adds hide their latency. The order of a row's sums is the same
// for any number of tokens.
//
// Included after the rules of linear_kernel.h.
#pragma once

#include <type_traits>
#include <utility>

#include "backends/cpu/linear_task.h"
#include "backends/cpu/prefetch.h"

namespace nibble {
namespace {

template <class Isa, class Layout>
typename Isa::Floats load_weights(const uint8_t* codes) {
  if constexpr (Layout::id == FormatId::f16) return Isa::load_half(codes);
  if constexpr (Layout::id == FormatId::bf16) return Isa::load_bf16(codes);
  return Isa::load(reinterpret_cast<const float*>(codes));
}

// y[t * 16] = 16 rows of floats times tokens t < T.
template <class Isa, class Layout, int T>
void float_block(const LinearTask& task, int64_t block, int64_t first_token, float* out) {
  constexpr int64_t k_bytes = kBlockRows * Layout::code_bits / 8;
  const bool is_far = asks_far(T > 2);
  const PackedMatrix& w = *task.w;
  const uint8_t* codes = w.codes + block * w.block_code_bytes;
  const float* x[T];
  typename Isa::Floats y[T], odd[T];
  for (int t = 0; t < T; t++) {
    x[t] = task.x->x + (first_token + t) * task.x->x_stride;
    y[t] = odd[t] = Isa::zero();
  }
  int64_t k = 0;
  for (; k + 1 < w.K; k += 2) {
    prefetch_codes(codes, 2 * k_bytes, is_far);
    const typename Isa::Floats even_weights = load_weights<Isa, Layout>(codes);
    const typename Isa::Floats odd_weights = load_weights<Isa, Layout>(codes + k_bytes);
    for (int t = 0; t < T; t++) y[t] = Isa::fma(even_weights, Isa::broadcast(x[t] + k), y[t]);
    for (int t = 0; t < T; t++) odd[t] = Isa::fma(odd_weights, Isa::broadcast(x[t] + k + 1), odd[t]);
    codes += 2 * k_bytes;
  }
  if (k < w.K)
    for (int t = 0; t < T; t++) y[t] = Isa::fma(load_weights<Isa, Layout>(codes), Isa::broadcast(x[t] + k), y[t]);
  for (int t = 0; t < T; t++) Isa::store(out + t * kBlockRows, Isa::add(y[t], odd[t]));
}

// With registers for so many sums, each k of four has its own chain.
template <class Isa>
constexpr int kTransposedChains = Isa::float_tokens >= 8 ? 4 : 2;

// The same for transposed NVFP4: the scales of 32 k, which all 16 rows share, are multiplied into the activations, so that
// decoding a code is all that is left to do 16 times. Products of integers (transposed_linear.h) save less than rounding for 16
// rows costs: 64 tokens would take 30 % longer with AVX-512, 65 % with AVX2 (Zen 4).
template <class Isa, class Layout, int T>
void transposed_block(const LinearTask& task, int64_t block, int64_t first_token, float* out) {
  static_assert(Layout::id == FormatId::nvfp4_transposed && Layout::scale_blocks == 1);
  constexpr int kChains = kTransposedChains<Isa>;
  const bool is_far = asks_far(true);
  const PackedMatrix& w = *task.w;
  const uint8_t* codes = w.codes + block * w.block_code_bytes;
  const uint8_t* scales = w.scales + block * w.block_scale_bytes;
  typename Isa::Floats y[T][kChains];
  for (auto& chains : y)
    for (auto& chain : chains) chain = Isa::zero();
  for (int64_t first = 0; first < w.K; first += kGroup, scales += kGroup) {
    if (first % kLineBytes == 0) __builtin_prefetch(scales + kScalesNear);
    alignas(64) float x[T][kGroup];
    for (int k = 0; k < kGroup; k += 16) {
      const typename Isa::Floats scale = Isa::load_e4m3(scales + k);
      const int64_t left = w.K - first - k;
      const int count = left < 0 ? 0 : left < 16 ? static_cast<int>(left) : 16;
      for (int t = 0; t < T; t++) {
        const float* from = task.x->x + (first_token + t) * task.x->x_stride + first + k;
        Isa::store(x[t] + k, Isa::mul(count < 16 ? Isa::load(from, count) : Isa::load(from), scale));
      }
    }
    // Through memory, from which a broadcast is part of the multiply-add; out of registers it takes two shuffles.
    asm("" : "+m"(x));
    for (int k = 0; k < kGroup; k += Layout::line_k, codes += kLineBytes) {
      prefetch_codes(codes, kLineBytes, is_far);
      const auto line = Isa::nibbles(codes);
      const auto add = [&](auto nibble) {
        constexpr int i = decltype(nibble)::value, within = i / 2 + i % 2 * 4;
        const typename Isa::Floats weights = Isa::template code_values<i, Layout>(line);
        for (int t = 0; t < T; t++)
          y[t][within % kChains] = Isa::fma(weights, Isa::broadcast(x[t] + k + within), y[t][within % kChains]);
      };
      [&]<int... i>(std::integer_sequence<int, i...>) {
        (add(std::integral_constant<int, i>{}), ...);
      }(std::make_integer_sequence<int, Layout::line_k>{});
    }
  }
  for (int t = 0; t < T; t++) {
    for (int i = 2; i < kChains; i++) y[t][i % 2] = Isa::add(y[t][i % 2], y[t][i]);
    const typename Isa::Floats sum = Isa::add(y[t][0], y[t][1]);
    Isa::store(out + t * kBlockRows, Isa::mul(sum, Isa::broadcast(&Layout::factor)));
  }
}

template <class Isa, class Layout>
constexpr int kPassTokens = Layout::is_transposed ? 2 * Isa::float_tokens / kTransposedChains<Isa> : Isa::float_tokens;

// As many tokens as one pass can take, at most `count`; returns how many they were.
template <class Isa, class Layout, int T = kPassTokens<Isa, Layout>>
int64_t float_block_for_some(const LinearTask& task, int64_t block, int64_t token, int64_t count, float* y) {
  if constexpr (T > 1)
    if (count < T) return float_block_for_some<Isa, Layout, T / 2>(task, block, token, count, y);
  if constexpr (Layout::is_transposed) {
    transposed_block<Isa, Layout, T>(task, block, token, y);
  } else {
    float_block<Isa, Layout, T>(task, block, token, y);
  }
  return T;
}

template <class Isa, class Layout>
void float_linear(const LinearTask& task) {
  for_each_tile(task, [&](int64_t i, int64_t count) {
    for (int64_t row = task.first_row; row < task.last_row; row += kBlockRows) {
      const int64_t block = task.e * task.w->num_blocks + row / kBlockRows;
      alignas(64) float y[kTokenTile * kBlockRows];
      for (int64_t t = 0; t < count;)
        t += float_block_for_some<Isa, Layout>(task, block, task.first_token + i + t, count - t, y + t * kBlockRows);
      for (int64_t t = 0; t < count; t++) finish_token<Isa>(task, row, i + t, Isa::load(y + t * kBlockRows));
    }
  });
}

}  // namespace
}  // namespace nibble
