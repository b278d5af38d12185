// Plain C++ for every machine: what the others are measured against, not a fast path.
#include <algorithm>

#include "backends/cpu/gemm_fp4_kernel.h"
#include "backends/cpu/linear_kernel.h"

namespace nibble {
namespace {

struct Generic {
  static constexpr int max_tokens = 4;
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

  static void decode_group(const uint8_t* lines, int64_t line_stride, uint8_t* out) {
    for (int i = 0; i < 8 * kLineBytes; i++) {
      const uint8_t byte = lines[i / (2 * kLineBytes) * line_stride + i % kLineBytes];
      out[i] = GemmLayout::table.bytes[i / kLineBytes % 2 == 0 ? byte & 15 : byte >> 4];
    }
  }

  template <class Layout, int first, int T>
  static void dot(const uint8_t* lines, int64_t line_stride, const ActivationGroup* x, Ints (&sums)[T]) {
    for (int t = 0; t < T; t++) sums[t] = {};
    for (int k = 0; k < Layout::dot_k; k++) {
      const uint8_t* bytes = lines + k / Layout::line_k * line_stride + k % 4;
      int32_t w[kBlockRows];
      for (int r = 0; r < kBlockRows; r++) {
        if constexpr (Layout::is_nibble) {
          const int shift = k % Layout::line_k / 4 * 4;
          w[r] = Layout::table.bytes[(bytes[4 * r] >> shift) & 15] - kOffset;
        } else {
          w[r] = bytes[4 * r] - Layout::code_offset;
        }
      }
      for (int t = 0; t < T; t++) {
        const int32_t q = 128 * x[t].high[first + k] + x[t].low[first + k];
        for (int r = 0; r < kBlockRows; r++) sums[t].lane[r] += w[r] * q;
      }
    }
  }
};

uint64_t read(const uint8_t* bytes, int64_t size) {
  uint64_t sums[8] = {};
  for (int64_t i = 0; i < size; i += kLineBytes) {
    __builtin_prefetch(bytes + i + kNear);
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
                                              .gemm_fp4 = gemm_fp4_strip<Generic>,
                                              .read = read};

}  // namespace nibble
