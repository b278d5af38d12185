// The kernels of the packed linears, written once over an instruction set and a format.
//
// Cost    a block of 16 rows reads its codes and scales once for up to 8 tokens; activations stay in cache. M = 1 is
//         bound by memory: the bar is the measured read bandwidth (bench_gemm_fp4 --packed).
// Sums    exact integers within a group of 32 (NVFP4: 16), float32 fused multiply-adds across groups in the order of
//         k, so nothing but the row and the token decides the result.
//
// Included by one file per instruction set, each compiled with its own flags. Everything here and in those files lies
// in an anonymous namespace, and calls no inline function of another header: the linker must never take a copy compiled
// for AVX-512 where another file wants one. An instruction set is a struct Isa:
//
//   max_tokens                             that one pass over a block serves with the registers there are
//   Floats, Ints                           16 lanes, one for each row of a block
//   zero, load(in), load(in, num_rows), store(out, floats, num_rows), broadcast(float*), add, mul, fma(a, b, c),
//   to_float(ints), broadcast_int(int*)
//   largest(x, mask): of the bits of 32 floats, masked; sum(ints) of 16
//   load_half, load_bf16, load_e8m0, load_e4m3 (as halves: 2^8 too small), store_half
//   dot<Layout, first, T>(lines, line_stride, x, sums): sums[t] = sum of q * code over k = first … first + dot_k - 1
//   decode_group(lines, line_stride, out): 4 lines of nibbles to 8 lines of bytes
#pragma once

#include "backends/cpu/kernels.h"

namespace nibble {
namespace {

// Bytes from here to the lines that are asked for now: a near one into the first-level cache, a far one into the
// second. Share of the roof with MXFP4 on one Emerald Rapids core: none 62 %, near alone 83 %, near and far 90 %,
// scales too 96 %. On one Zen 5 core: near at 512 79 %, none 86 %, near at 4096 93 %.
constexpr int64_t kNear = 4096, kFar = 16384, kScalesNear = 512;

void prefetch_codes(const uint8_t* line) {
  __builtin_prefetch(line + kNear, 0, 3);
  __builtin_prefetch(line + kFar, 0, 2);
}

// Tokens whose activations stay in a 2 MB second-level cache (0.7 MB at K = 4096) while blocks of rows stream by.
constexpr int64_t kTokensPerPass = 64;

// The groups of consecutive tokens of one tile: group g of token t at first + g * group_stride + t.
struct TokenGroups {
  ActivationGroup* first;
  int64_t group_stride;
};

TokenGroups token_groups(const Activations& x, int64_t token) {
  const int64_t tile = token / kTokenTile * kTokenTile;
  const int64_t width = x.M - tile < kTokenTile ? x.M - tile : kTokenTile;
  return {x.groups + tile * activation_groups(x.K) + (token - tile), width};
}

// 32 floats to one group. What is not a reduction the compiler vectorises well.
template <class Isa>
void quantize_group(const float* x, ActivationGroup& out) {
  // As integers, magnitudes are ordered: finite < infinity < NaN.
  const uint32_t largest_bits = Isa::largest(x, 0x7FFFFFFFu);
  if (largest_bits >= 0x7F800000u) {
    out = {.scale = __builtin_nanf("")};
    return;
  }
  float largest = __builtin_bit_cast(float, largest_bits);
  largest = largest > 0x1p-100f ? largest : 0x1p-100f;  // keeps the inverse finite; such activations round to 0
  const float inverse = kLargestActivation / largest;
  // Short loops over arrays of its own, or the compiler would have to fear that x and out overlap.
  int32_t q[kGroup];
  int8_t high[kGroup], low[kGroup];
  for (int k = 0; k < kGroup; k++) {
    const float rounded = x[k] * inverse + 0x1.8p23f;  // leaves the nearest integer in the low bits
    q[k] = __builtin_bit_cast(int32_t, rounded) - 0x4B400000;
  }
  for (int k = 0; k < kGroup; k++) {
    const int32_t h = (q[k] + 64) >> 7;
    high[k] = static_cast<int8_t>(h);
    low[k] = static_cast<int8_t>(q[k] - 128 * h);
  }
  __builtin_memcpy(out.high, high, kGroup);
  __builtin_memcpy(out.low, low, kGroup);
  out.scale = largest / kLargestActivation;
  out.half_offset[0] = -kOffset * Isa::sum(q);
  out.half_offset[1] = -kOffset * Isa::sum(q + 16);
  out.offset = out.half_offset[0] + out.half_offset[1];
}

template <class Isa>
void prepare(const Activations& x, int64_t first, int64_t last) {
  const int64_t num_groups = activation_groups(x.K);
  for (int64_t i = first; i < last; i++) {
    const int64_t token = i / num_groups, g = i % num_groups;
    const TokenGroups groups = token_groups(x, token);
    const float* from = x.x + token * x.x_stride + g * kGroup;
    ActivationGroup& to = groups.first[g * groups.group_stride];
    if ((g + 1) * kGroup <= x.K) {
      quantize_group<Isa>(from, to);
    } else {
      float padded[kGroup] = {};
      for (int64_t k = 0; k < x.K - g * kGroup; k++) padded[k] = from[k];
      quantize_group<Isa>(padded, to);
    }
  }
}

template <class Isa, class Layout>
typename Isa::Floats load_scale(const uint8_t* scales) {
  if constexpr (Layout::scale == ScaleKind::e8m0) return Isa::load_e8m0(scales);
  if constexpr (Layout::scale == ScaleKind::e4m3) return Isa::load_e4m3(scales);
  return Isa::load_half(scales);
}

// y[t] += the dot_k products from k = `first` of a group on, for T tokens.
template <class Isa, class Layout, int first, int T>
void add_dots(const uint8_t* lines, int64_t line_stride, const ActivationGroup* x, const uint8_t* scales,
              typename Isa::Floats (&y)[T]) {
  typename Isa::Ints sums[T];
  Isa::template dot<Layout, first, T>(lines, line_stride, x, sums);
  const typename Isa::Floats scale = load_scale<Isa, Layout>(scales);
  for (int t = 0; t < T; t++)
    y[t] = Isa::fma(Isa::mul(Isa::to_float(sums[t]), Isa::broadcast(&x[t].scale)), scale, y[t]);
  if constexpr (Layout::scale == ScaleKind::half_and_minimum) {
    // Each k adds the minimum once, so the group adds it times the sum of q, which the offset is a multiple of.
    constexpr float per_offset = -1.0f / kOffset;
    const typename Isa::Floats minimum = Isa::mul(Isa::load_half(scales + 32), Isa::broadcast(&per_offset));
    for (int t = 0; t < T; t++) {
      const typename Isa::Floats sum = Isa::to_float(Isa::broadcast_int(&x[t].offset));
      y[t] = Isa::fma(Isa::mul(sum, Isa::broadcast(&x[t].scale)), minimum, y[t]);
    }
  }
}

// y[t] = the 16 rows of block `block` times tokens first_token + t, before the row factors.
template <class Isa, class Layout, int T>
void integer_block(const LinearTask& task, int64_t block, int64_t first_token, typename Isa::Floats (&y)[T]) {
  constexpr int64_t group_bytes = kGroup / Layout::line_k * kLineBytes;
  constexpr int groups_per_scale_line = kLineBytes * Layout::scale_k / (Layout::scale_line_bytes * kGroup);
  const PackedMatrix& w = *task.w;
  const uint8_t* codes = w.codes + block * w.block_code_bytes;
  const uint8_t* scales = w.scales + block * w.block_scale_bytes;
  const TokenGroups tokens = token_groups(*task.x, first_token);
  const ActivationGroup* x = tokens.first;
  const int64_t num_groups = activation_groups(w.K);
  for (int t = 0; t < T; t++) y[t] = Isa::zero();
  for (int64_t g = 0; g < num_groups; g++) {
    if (g % groups_per_scale_line == 0) __builtin_prefetch(scales + kScalesNear);
    for (int64_t i = 0; i < group_bytes; i += kLineBytes) prefetch_codes(codes + i);
    if constexpr (Layout::dot_k == 16) {
      add_dots<Isa, Layout, 0, T>(codes, kLineBytes, x, scales, y);
      add_dots<Isa, Layout, 16, T>(codes + group_bytes / 2, kLineBytes, x, scales + Layout::scale_line_bytes, y);
      scales += 2 * Layout::scale_line_bytes;
    } else {
      constexpr int groups_per_scale = Layout::scale_k / kGroup;
      add_dots<Isa, Layout, 0, T>(codes, kLineBytes, x, scales, y);
      if (groups_per_scale == 1 || g % groups_per_scale == groups_per_scale - 1) scales += Layout::scale_line_bytes;
    }
    codes += group_bytes;
    x += tokens.group_stride;
  }
  for (int t = 0; t < T; t++) y[t] = Isa::mul(y[t], Isa::broadcast(&Layout::factor));
}

template <class Isa, class Layout>
typename Isa::Floats load_weights(const uint8_t* codes) {
  if constexpr (Layout::id == FormatId::f16) return Isa::load_half(codes);
  if constexpr (Layout::id == FormatId::bf16) return Isa::load_bf16(codes);
  return Isa::load(reinterpret_cast<const float*>(codes));
}

// The same for matrices of floats. Even and odd k are summed apart: two chains of multiply-adds hide their latency.
template <class Isa, class Layout, int T>
void float_block(const LinearTask& task, int64_t block, int64_t first_token, typename Isa::Floats (&y)[T]) {
  constexpr int64_t k_bytes = kBlockRows * Layout::code_bits / 8;
  const PackedMatrix& w = *task.w;
  const uint8_t* codes = w.codes + block * w.block_code_bytes;
  const float* x[T];
  typename Isa::Floats odd[T];
  for (int t = 0; t < T; t++) {
    x[t] = task.x->x + (first_token + t) * task.x->x_stride;
    y[t] = odd[t] = Isa::zero();
  }
  int64_t k = 0;
  for (; k + 1 < w.K; k += 2) {
    for (int64_t i = 0; i < 2 * k_bytes; i += kLineBytes) prefetch_codes(codes + i);
    const typename Isa::Floats even_weights = load_weights<Isa, Layout>(codes);
    const typename Isa::Floats odd_weights = load_weights<Isa, Layout>(codes + k_bytes);
    for (int t = 0; t < T; t++) y[t] = Isa::fma(even_weights, Isa::broadcast(x[t] + k), y[t]);
    for (int t = 0; t < T; t++) odd[t] = Isa::fma(odd_weights, Isa::broadcast(x[t] + k + 1), odd[t]);
    codes += 2 * k_bytes;
  }
  if (k < w.K)
    for (int t = 0; t < T; t++) y[t] = Isa::fma(load_weights<Isa, Layout>(codes), Isa::broadcast(x[t] + k), y[t]);
  for (int t = 0; t < T; t++) y[t] = Isa::add(y[t], odd[t]);
}

// One block for T tokens, from the i-th of the task on.
template <class Isa, class Layout, int T>
void block_for_tokens(const LinearTask& task, int64_t first_row, int64_t i) {
  const PackedMatrix& w = *task.w;
  const int64_t block = task.e * w.num_blocks + first_row / kBlockRows;
  typename Isa::Floats y[T];
  if constexpr (Layout::is_float) {
    float_block<Isa, Layout, T>(task, block, task.first_token + i, y);
  } else {
    integer_block<Isa, Layout, T>(task, block, task.first_token + i, y);
  }
  const int num_rows =
      static_cast<int>(task.last_row - first_row < kBlockRows ? task.last_row - first_row : kBlockRows);
  const typename Isa::Floats row_factors = Isa::load(w.row_factors + block * kBlockRows);
  typename Isa::Floats bias = Isa::zero();
  if (task.bias != nullptr) bias = Isa::load(task.bias + first_row, num_rows);
  for (int t = 0; t < T; t++) {
    float* out = task.out + (i + t) * task.out_stride + first_row;
    typename Isa::Floats value = Isa::fma(y[t], row_factors, bias);
    if (task.factors != nullptr) value = Isa::mul(value, Isa::broadcast(task.factors + i + t));
    if (task.accumulate) value = Isa::add(value, Isa::load(out, num_rows));
    Isa::store(out, value, num_rows);
  }
}

// As many tokens as one pass can take, at most `count`; returns how many they were.
template <class Isa, class Layout, int T = Isa::max_tokens>
int64_t block_for_some(const LinearTask& task, int64_t first_row, int64_t i, int64_t count) {
  if constexpr (T > 1)
    if (count < T) return block_for_some<Isa, Layout, T - 1>(task, first_row, i, count);
  block_for_tokens<Isa, Layout, T>(task, first_row, i);
  return T;
}

template <class Isa, class Layout>
void linear_of(const LinearTask& task) {
  for (int64_t pass = 0; pass < task.num_tokens; pass += kTokensPerPass) {
    const int64_t pass_end = pass + kTokensPerPass < task.num_tokens ? pass + kTokensPerPass : task.num_tokens;
    for (int64_t row = task.first_row; row < task.last_row; row += kBlockRows) {
      for (int64_t i = pass; i < pass_end;) {
        const int64_t left_in_tile = kTokenTile - (task.first_token + i) % kTokenTile;
        const int64_t left = pass_end - i;
        i += block_for_some<Isa, Layout>(task, row, i, left < left_in_tile ? left : left_in_tile);
      }
    }
  }
}

template <class Isa>
void linear(const LinearTask& task) {
  switch (task.w->format) {
    case FormatId::f32: return linear_of<Isa, PackedLayout<F32>>(task);
    case FormatId::f16: return linear_of<Isa, PackedLayout<F16>>(task);
    case FormatId::bf16: return linear_of<Isa, PackedLayout<Bf16>>(task);
    case FormatId::q8_0: return linear_of<Isa, PackedLayout<Q8_0>>(task);
    case FormatId::q4_0: return linear_of<Isa, PackedLayout<Q4_0>>(task);
    case FormatId::q4_1: return linear_of<Isa, PackedLayout<Q4_1>>(task);
    case FormatId::mxfp4: return linear_of<Isa, PackedLayout<Mxfp4>>(task);
    case FormatId::nvfp4: return linear_of<Isa, PackedLayout<Nvfp4>>(task);
    case FormatId::fp4_half_32: return linear_of<Isa, PackedLayout<Fp4Half<32>>>(task);
    case FormatId::fp4_half_64: return linear_of<Isa, PackedLayout<Fp4Half<64>>>(task);
    case FormatId::fp4_half_128: return linear_of<Isa, PackedLayout<Fp4Half<128>>>(task);
    default: break;  // not among KernelFormats: no matrix is packed in it
  }
}

}  // namespace
}  // namespace nibble
