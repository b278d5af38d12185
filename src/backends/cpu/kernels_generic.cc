// Plain C++ for every machine: what the others are measured against, not a fast path.
#include <algorithm>

#include "backends/cpu/gemm_fp4_kernel.h"
#include "backends/cpu/linear_kernel.h"

namespace nibble {
namespace {

struct Generic {
  static constexpr int float_tokens = 4;
  static constexpr int register_tokens = 1;
  static constexpr int blocks = 1;
  static constexpr bool multiplies_pairs = false;
  static constexpr int side_tokens(int /*blocks*/) { return 1; }
  struct Floats {
    float lane[kBlockRows];
  };
  struct Ints {
    int32_t lane[kBlockRows];
  };

  template <class F>
  static Floats each(F value) {
    Floats out;
    for (int r = 0; r < kBlockRows; r++) out.lane[r] = value(r);
    return out;
  }

  static Floats zero() { return {}; }
  static Floats broadcast(const float* value) {
    return each([&](int) { return *value; });
  }
  static Floats load(const float* in) {
    return each([&](int r) { return in[r]; });
  }
  static Floats load(const float* in, int num_rows) {
    return each([&](int r) { return r < num_rows ? in[r] : 0.0f; });
  }
  static void store(float* out, const Floats& value) { store(out, value, kBlockRows); }
  static void store(float* out, const Floats& value, int num_rows) {
    for (int r = 0; r < num_rows; r++) out[r] = value.lane[r];
  }
  static Floats add(const Floats& a, const Floats& b) {
    return each([&](int r) { return a.lane[r] + b.lane[r]; });
  }
  static Floats mul(const Floats& a, const Floats& b) {
    return each([&](int r) { return a.lane[r] * b.lane[r]; });
  }
  static Floats fma(const Floats& a, const Floats& b, const Floats& c) {
    return each([&](int r) { return a.lane[r] * b.lane[r] + c.lane[r]; });  // rounded twice: a real one is a call here
  }
  static Floats to_float(const Ints& a) {
    return each([&](int r) { return static_cast<float>(a.lane[r]); });
  }
  static Ints broadcast_int(const int32_t* value) {
    Ints out;
    for (int32_t& lane : out.lane) lane = *value;
    return out;
  }

  static Floats load_half(const uint8_t* in) {
    return each([&](int r) { return half_to_float(load_unaligned<uint16_t>(in + 2 * r)); });
  }
  static Floats load_bf16(const uint8_t* in) {
    return each([&](int r) { return bf16_to_float(load_unaligned<uint16_t>(in + 2 * r)); });
  }
  static Floats load_e8m0(const uint8_t* in) {
    return each([&](int r) { return e8m0_to_float(in[r]); });
  }
  static Floats load_e4m3(const uint8_t* in) {
    return each([&](int r) { return e4m3_to_float(in[r]) * 0x1p-8f; });
  }

  static uint32_t largest(const float* x, uint32_t mask) {
    uint32_t most = 0;
    for (int k = 0; k < kGroup; k++) most = std::max(most, std::bit_cast<uint32_t>(x[k]) & mask);
    return most;
  }
  static int32_t sum(const int32_t* x) {
    int32_t all = 0;
    for (int k = 0; k < 16; k++) all += x[k];
    return all;
  }

  static void store_half(uint16_t* out, const Floats& value, int num_columns) {
    for (int r = 0; r < num_columns; r++) out[r] = float_to_half(value.lane[r]);
  }

  static const uint8_t* nibbles(const uint8_t* line) { return line; }
  template <int i, class Layout>
  static Floats code_values(const uint8_t* line) {
    return each([&](int r) {
      const int code = (line[4 * r + i / 2] >> (i % 2 * 4)) & 15;
      return static_cast<float>(Layout::table.bytes[code] - kOffset);
    });
  }

  struct Group {
    int8_t w[kGroup][kBlockRows];
  };

  template <class Layout>
  static Group decode(Lines lines) {
    Group group;
    decode<Layout, 0, kGroup>(lines, group);
    return group;
  }
  template <class Layout, int first, int last>
  static void decode(const auto& lines, Group& group) {
    const uint8_t* line = nullptr;
    for (int k = first; k < last; k++) {
      if (k % Layout::line_k == 0) line = lines.line(k / Layout::line_k);
      const uint8_t* bytes = line + k % 4;
      const int shift = k % Layout::line_k / 4 * 4;
      for (int r = 0; r < kBlockRows; r++) {
        const int byte = bytes[4 * r];
        group.w[k][r] = static_cast<int8_t>(Layout::is_nibble ? Layout::table.bytes[(byte >> shift) & 15] - kOffset
                                                              : byte - Layout::code_offset);
      }
    }
  }

  template <class Layout, int first, int num_planes>
  static Ints dot(const auto& lines, const ActivationGroup& x) {
    Group group;
    decode<Layout, first, first + Layout::dot_k>(lines, group);
    return dot<Layout, first, num_planes>(group, x);
  }
  template <class Layout, int first, int>
  static Ints dot(const Group& group, const ActivationGroup& x) {
    Ints sums{};
    for (int k = first; k < first + Layout::dot_k; k++) {
      const int32_t q = 128 * x.high[k] + x.low[k];
      for (int r = 0; r < kBlockRows; r++) sums.lane[r] += group.w[k][r] * q;
    }
    return sums;
  }
};

uint64_t read(const uint8_t* bytes, int64_t size) {
  uint64_t sums[8] = {};
  for (int64_t i = 0; i < size; i += kLineBytes) {
    prefetch_read(bytes + i);
    for (int j = 0; j < 8; j++) sums[j] ^= load_unaligned<uint64_t>(bytes + i + 8 * j);
  }
  for (int j = 1; j < 8; j++) sums[0] ^= sums[j];
  return sums[0];
}

}  // namespace

extern const CpuKernels kGenericKernels;
constinit const CpuKernels kGenericKernels = {.name = "generic",
                                              .prepare = prepare<Generic>,
                                              .linear = linear<Generic>,
                                              .interleave_rows = interleave_rows,
                                              .gemm_fp4 = gemm_fp4_strip<Generic>,
                                              .read = read};

}  // namespace nibble
