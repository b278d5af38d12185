// Rounds activations to groups of integers (activations.h), written once over an instruction set.
//
// Included after the rules of linear_kernel.h.
#pragma once

#include "backends/cpu/activations.h"

namespace nibble {
namespace {

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

constexpr int64_t kWordsBytes = kGroup * int64_t{sizeof(int16_t)};

typedef int16_t Words32 __attribute__((vector_size(64)));

// q, as ActivationGroup::words() has it.
[[maybe_unused]] void put_words(const int32_t (&q)[kGroup], uint8_t* to) {
  int16_t words[kGroup];
  for (int k = 0; k < kGroup; k++) words[k] = static_cast<int16_t>(q[k]);
  Words32 v;
  __builtin_memcpy(&v, words, sizeof v);
  v = __builtin_shufflevector(v, v, 0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15, 16, 18, 17, 19, 20, 22, 21,
                              23, 24, 26, 25, 27, 28, 30, 29, 31);
  __builtin_memcpy(to, &v, sizeof v);
}

// 32 floats to one group, and to its words if they are wanted. `largest`: what their magnitudes are at most; finite. What is not a
// reduction the compiler vectorises well.
template <class Isa>
[[gnu::always_inline]] inline void round_group(const float* x, float largest, int bits, ActivationGroup& out,
                                               uint8_t* words) {
  const int unused_bits = kActivationBits - bits;  // of q, which stay zero
  const float inverse = (bits == kActivationBits ? kLargestActivation : 127) / largest;
  // Short loops over arrays of its own, or the compiler would have to fear that x and out overlap.
  int32_t q[kGroup];
  int8_t high[kGroup], low[kGroup];
  for (int k = 0; k < kGroup; k++) {
    const float rounded = x[k] * inverse + 0x1.8p23f;  // leaves the nearest integer in the low bits
    q[k] = (__builtin_bit_cast(int32_t, rounded) - 0x4B400000) << unused_bits;
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
  if constexpr (Isa::multiplies_pairs) {
    Isa::offset_pairs(out.high, out.high_offsets);
    Isa::offset_pairs(out.low, out.low_offsets);
    if (words != nullptr) put_words(q, words);
    out.to_words = words != nullptr ? static_cast<int32_t>(words - reinterpret_cast<uint8_t*>(&out)) : 0;
  }
}

template <class Isa>
[[gnu::always_inline]] inline void quantize_group(const float* x, int bits, ActivationGroup& out,
                                                  uint8_t* words = nullptr) {
  // As integers, magnitudes are ordered: finite < infinity < NaN.
  const uint32_t largest_bits = Isa::largest(x, 0x7FFFFFFFu);
  if (largest_bits >= kInfinityBits) {
    out = {.scale = __builtin_nanf("")};
    return;
  }
  const auto largest = __builtin_bit_cast(float, largest_bits);
  round_group<Isa>(x, largest > kSmallestLargest ? largest : kSmallestLargest, bits, out, words);
}

// Groups whose floats lie one after the other, to out[0], out[stride] and so on, and to words for each group of out.
template <class Isa>
void quantize_groups(const float* x, int64_t count, int bits, ActivationGroup* out, int64_t stride, uint8_t* words) {
  if constexpr (requires { Isa::groups_at_once; }) {
    for (int64_t g = 0; g < count; g += Isa::groups_at_once) {
      const int64_t left = count - g;
      Isa::quantize_some(x + g * kGroup, left < Isa::groups_at_once ? static_cast<int>(left) : Isa::groups_at_once,
                         bits, out + g * stride, stride);
    }
  } else {
    for (int64_t g = 0; g < count; g++)
      quantize_group<Isa>(x + g * kGroup, bits, out[g * stride],
                          words != nullptr ? words + g * stride * kWordsBytes : nullptr);
  }
}

template <class Isa>
void prepare(const Activations& x, int64_t first, int64_t last) {
  const int64_t num_groups = activation_groups(x.K), whole_groups = x.K / kGroup;
  for (int64_t i = first; i < last;) {
    const int64_t token = i / num_groups, first_group = i % num_groups;
    const int64_t last_group = last - i < num_groups - first_group ? first_group + (last - i) : num_groups;
    const TokenGroups to = token_groups(x, token);
    const float* from = x.x + token * x.x_stride;
    auto* const words = reinterpret_cast<uint8_t*>(x.groups + x.M * num_groups);
    const auto quantize = [&](const float* groups, int64_t g, int64_t count) {
      ActivationGroup* out = to.first + g * to.group_stride;
      quantize_groups<Isa>(groups, count, x.bits, out, to.group_stride, words + (out - x.groups) * kWordsBytes);
    };
    const int64_t last_whole = last_group < whole_groups ? last_group : whole_groups;
    if (first_group < last_whole) quantize(from + first_group * kGroup, first_group, last_whole - first_group);
    if (whole_groups < last_group) {
      float padded[kGroup] = {};
      for (int64_t k = whole_groups * kGroup; k < x.K; k++) padded[k % kGroup] = from[k];
      quantize(padded, whole_groups, 1);
    }
    i += last_group - first_group;
  }
}

}  // namespace
}  // namespace nibble
