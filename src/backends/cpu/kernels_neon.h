// 128-bit vectors, 4 rows each: shared by the files that compile it for Armv8.2's SDOT (16 bytes times 4 activations of
// one lane, in four sums) and with the matrix instructions (SMMLA: 2 rows × 8 k times 2 columns × 8 k, in four sums).
//
// Included after the rules of linear_kernel.h.
#pragma once

#include <arm_neon.h>

#include <type_traits>

#include "backends/cpu/gemm_fp4_kernel.h"
#include "backends/cpu/linear_kernel.h"

namespace nibble {
namespace {

#if defined(__ARM_FEATURE_MATMUL_INT8)
constexpr bool kHasMatrices = true;
inline int32x4_t multiply_matrices(int32x4_t sums, int8x16_t a, int8x16_t b) { return vmmlaq_s32(sums, a, b); }
template <int lane>
int32x4_t dot_unsigned(int32x4_t sums, uint8x16_t a, int8x16_t b) {
  return vusdotq_laneq_s32(sums, a, b, lane);
}
#else
constexpr bool kHasMatrices = false;
inline int32x4_t multiply_matrices(int32x4_t sums, int8x16_t, int8x16_t) { return sums; }  // never called
template <int lane>
int32x4_t dot_unsigned(int32x4_t sums, uint8x16_t, int8x16_t) {  // nor this
  return sums;
}
#endif

struct Neon {
  static constexpr int float_tokens = 2;  // 16 of 32 registers hold sums
  static constexpr int register_tokens = 1;
  static constexpr int blocks = 1;
  static constexpr bool multiplies_pairs = false;
  static constexpr int side_tokens(int /*blocks*/) { return kHasMatrices ? 2 : 1; }
  static constexpr int kVectors = kBlockRows / 4;
  struct Floats {
    float32x4_t rows[kVectors];
  };
  struct Ints {
    int32x4_t rows[kVectors];
  };

  template <class Vector>
  static Floats each(Vector vector) {
    return {{vector(0), vector(1), vector(2), vector(3)}};
  }

  static Floats zero() {
    return each([](int) { return vdupq_n_f32(0); });
  }
  static Floats broadcast(const float* value) {
    const float32x4_t v = vld1q_dup_f32(value);
    return {{v, v, v, v}};
  }
  static Floats load(const float* in) {
    return each([&](int i) { return vld1q_f32(in + 4 * i); });
  }
  static Floats load(const float* in, int num_rows) {
    float padded[kBlockRows] = {};
    for (int r = 0; r < num_rows; r++) padded[r] = in[r];
    return load(padded);
  }
  static void store(float* out, const Floats& value) {
    for (int i = 0; i < kVectors; i++) vst1q_f32(out + 4 * i, value.rows[i]);
  }
  static void store(float* out, const Floats& value, int num_rows) {
    if (num_rows == kBlockRows) return store(out, value);
    float padded[kBlockRows];
    store(padded, value);
    for (int r = 0; r < num_rows; r++) out[r] = padded[r];
  }
  static Floats add(const Floats& a, const Floats& b) {
    return each([&](int i) { return vaddq_f32(a.rows[i], b.rows[i]); });
  }
  static Floats mul(const Floats& a, const Floats& b) {
    return each([&](int i) { return vmulq_f32(a.rows[i], b.rows[i]); });
  }
  static Floats fma(const Floats& a, const Floats& b, const Floats& c) {
    return each([&](int i) { return vfmaq_f32(c.rows[i], a.rows[i], b.rows[i]); });
  }
  static Floats to_float(const Ints& a) {
    return each([&](int i) { return vcvtq_f32_s32(a.rows[i]); });
  }
  static Ints broadcast_int(const int32_t* value) {
    const int32x4_t v = vld1q_dup_s32(value);
    return {{v, v, v, v}};
  }

  // 16 halves.
  static Floats halves(uint16x8_t rows0, uint16x8_t rows8) {
    const float16x8_t a = vreinterpretq_f16_u16(rows0), b = vreinterpretq_f16_u16(rows8);
    return {{vcvt_f32_f16(vget_low_f16(a)), vcvt_high_f32_f16(a), vcvt_f32_f16(vget_low_f16(b)), vcvt_high_f32_f16(b)}};
  }
  // 16 floats of which these are the upper halves.
  static Floats upper_halves(uint16x8_t rows0, uint16x8_t rows8) {
    const uint16x8_t zeros = vdupq_n_u16(0);
    return {{vreinterpretq_f32_u16(vzip1q_u16(zeros, rows0)), vreinterpretq_f32_u16(vzip2q_u16(zeros, rows0)),
             vreinterpretq_f32_u16(vzip1q_u16(zeros, rows8)), vreinterpretq_f32_u16(vzip2q_u16(zeros, rows8))}};
  }
  static uint16x8_t load8(const uint8_t* in) { return vreinterpretq_u16_u8(vld1q_u8(in)); }
  static Floats load_half(const uint8_t* in) { return halves(load8(in), load8(in + 16)); }
  static Floats load_bf16(const uint8_t* in) { return upper_halves(load8(in), load8(in + 16)); }
  static Floats load_e8m0(const uint8_t* in) {  // code 0 is a subnormal: 2^-127
    const uint8x16_t codes = vld1q_u8(in);
    const uint16x8_t least = vdupq_n_u16(0x0040);
    return upper_halves(vmaxq_u16(vshll_n_u8(vget_low_u8(codes), 7), least),
                        vmaxq_u16(vshll_high_n_u8(codes, 7), least));
  }
  static Floats load_e4m3(const uint8_t* in) {
    const uint8x16_t codes = vld1q_u8(in);
    return halves(vshll_n_u8(vget_low_u8(codes), 7), vshll_high_n_u8(codes, 7));
  }

  static uint32_t largest(const float* x, uint32_t mask) {
    uint32x4_t most = vdupq_n_u32(0);
    for (int k = 0; k < kGroup; k += 4)
      most = vmaxq_u32(most, vandq_u32(vreinterpretq_u32_f32(vld1q_f32(x + k)), vdupq_n_u32(mask)));
    return vmaxvq_u32(most);
  }
  static int32_t sum(const int32_t* x) {
    return vaddvq_s32(
        vaddq_s32(vaddq_s32(vld1q_s32(x), vld1q_s32(x + 4)), vaddq_s32(vld1q_s32(x + 8), vld1q_s32(x + 12))));
  }

  static void store_half(uint16_t* out, const Floats& value, int num_columns) {
    uint16_t padded[kBlockRows];
    uint16_t* to = num_columns == kBlockRows ? out : padded;
    for (int i = 0; i < kVectors; i++) vst1_u16(to + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(value.rows[i])));
    if (to == padded)
      for (int r = 0; r < num_columns; r++) out[r] = padded[r];
  }

  // A line: 4 k of 16 rows in bytes, or 8 k in nibbles.
  struct Codes {
    uint8x16_t rows[kVectors];
  };
  template <class Vector>
  static Codes each_codes(Vector vector) {
    return {{vector(0), vector(1), vector(2), vector(3)}};
  }
  static Codes load_line(const uint8_t* line) {
    return each_codes([&](int i) { return vld1q_u8(line + 16 * i); });
  }

  // Signed codes: the tables without their offset, 8-bit codes likewise.
  template <class Layout>
  static uint8x16_t table() {
    return vsubq_u8(vld1q_u8(Layout::table.bytes), vdupq_n_u8(kOffset));
  }
  static uint8x16_t decode_low(uint8x16_t codes, uint8x16_t table) {
    return vqtbl1q_u8(table, vandq_u8(codes, vdupq_n_u8(15)));
  }
  static uint8x16_t decode_high(uint8x16_t codes, uint8x16_t table) { return vqtbl1q_u8(table, vshrq_n_u8(codes, 4)); }
  static uint8x16_t without_offset(uint8x16_t codes) { return veorq_u8(codes, vdupq_n_u8(0x80)); }

  // A line of 4-bit codes, low nibbles and high ones. One byte in each four is moved to the top of its lane, and is there an
  // integer times 2^24.
  static Codes nibbles(const uint8_t* line) { return load_line(line); }
  template <int i, class Layout>
  static Floats code_values(const Codes& nibbles) {
    const uint8x16_t t = table<Layout>();
    return each([&](int v) {
      const uint8x16_t bytes = i % 2 == 0 ? decode_low(nibbles.rows[v], t) : decode_high(nibbles.rows[v], t);
      const int32x4_t lanes = vshlq_n_s32(vreinterpretq_s32_u8(bytes), 24 - i / 2 * 8);
      return vcvtq_n_f32_s32(vandq_s32(lanes, vdupq_n_s32(static_cast<int32_t>(0xFF000000u))), 24);
    });
  }

  // Decodes 16 k of a group, k = first …, to 4 k each. 8-bit codes keep their offset if they are to be dotted so.
  template <class Layout, bool keeps_offset = false, class LinesOf>
  static void decode_sixteen(const LinesOf& lines, int first, Codes* fours) {
    for (int i = 0; i < 16 / Layout::line_k; i++) {
      const Codes line = load_line(lines.line(first / Layout::line_k + i));
      if constexpr (Layout::is_nibble) {
        fours[2 * i] = each_codes([&](int j) { return decode_low(line.rows[j], table<Layout>()); });
        fours[2 * i + 1] = each_codes([&](int j) { return decode_high(line.rows[j], table<Layout>()); });
      } else {
        fours[i] = each_codes([&](int j) { return keeps_offset ? line.rows[j] : without_offset(line.rows[j]); });
      }
    }
  }

  // Rows 2i and 2i + 1 of two lines, each row's 8 bytes together.
  static uint8x16_t join(const Codes& a, const Codes& b, int i) {
    const uint32x4_t from_a = vreinterpretq_u32_u8(a.rows[i / 2]), from_b = vreinterpretq_u32_u8(b.rows[i / 2]);
    return vreinterpretq_u8_u32(i % 2 == 0 ? vzip1q_u32(from_a, from_b) : vzip2q_u32(from_a, from_b));
  }

  // Decoded groups, in memory. Fours: 4 k of 16 rows each. Pairs, for multiply_matrices: each vector has 8 k of 2 rows;
  // of 16 k, the first has 0 … 3 and 8 … 11, the second the others, so that lines are joined before they are decoded.
  struct Fours {
    Codes codes[kGroup / 4];
  };
  struct Pairs {
    uint8x16_t codes[kGroup / 8][2 * kVectors];
  };
  using Group = std::conditional_t<kHasMatrices, Pairs, Fours>;

  template <class Layout>
  static void decode_group(Lines lines, Fours& group) {
    for (int k = 0; k < kGroup; k += 16) decode_sixteen<Layout>(lines, k, group.codes + k / 4);
  }
  template <class Layout>
  static void decode_group(Lines lines, Pairs& group) {
    for (int k = 0; k < kGroup; k += 16) {
      const auto line = [&](int i) { return load_line(lines.line(k / Layout::line_k + i)); };
      auto *even = group.codes[k / 8], *odd = group.codes[k / 8 + 1];
      for (int i = 0; i < 2 * kVectors; i++) {
        if constexpr (Layout::is_nibble) {
          const uint8x16_t codes = join(line(0), line(1), i);
          even[i] = decode_low(codes, table<Layout>());
          odd[i] = decode_high(codes, table<Layout>());
        } else {
          even[i] = without_offset(join(line(0), line(2), i));
          odd[i] = without_offset(join(line(1), line(3), i));
        }
      }
    }
  }

  template <class Layout>
  static Group decode(Lines lines) {
    Group group;
    decode_group<Layout>(lines, group);
    return group;
  }

  // Of both planes: 16 activations, or sums.
  struct Planes {
    int8x16_t high, low;
  };
  struct PlaneSums {
    Ints high, low;
  };
  static Planes load_planes(const ActivationGroup& x, int k) { return {vld1q_s8(x.high + k), vld1q_s8(x.low + k)}; }
  static int32x4_t join_planes(int32x4_t high, int32x4_t low) {
    int32x4_t factor = vdupq_n_s32(128);
    asm("" : "+w"(factor));  // else the compiler shifts and adds: two instructions for one
    return vmlaq_s32(low, high, factor);
  }
  static Ints join_planes(const PlaneSums& sums) {
    Ints out;
    for (int i = 0; i < kVectors; i++) out.rows[i] = join_planes(sums.high.rows[i], sums.low.rows[i]);
    return out;
  }

  // Adds the products of 4 k with the activations of one lane.
  template <int lane, int num_planes, bool is_unsigned>
  static void add_four(const Codes& codes, const Planes& x, PlaneSums& sums) {
    const auto add = [&](int32x4_t& sum, uint8x16_t w, int8x16_t plane) {
      sum = is_unsigned ? dot_unsigned<lane>(sum, w, plane) : vdotq_laneq_s32(sum, vreinterpretq_s8_u8(w), plane, lane);
    };
    for (int i = 0; i < kVectors; i++) {
      add(sums.high.rows[i], codes.rows[i], x.high);
      if constexpr (num_planes == 2) add(sums.low.rows[i], codes.rows[i], x.low);
    }
  }
  template <int num_planes, bool is_unsigned = false>
  static void add_sixteen(const Codes* fours, const Planes& x, PlaneSums& sums) {
    add_four<0, num_planes, is_unsigned>(fours[0], x, sums);
    add_four<1, num_planes, is_unsigned>(fours[1], x, sums);
    add_four<2, num_planes, is_unsigned>(fours[2], x, sums);
    add_four<3, num_planes, is_unsigned>(fours[3], x, sums);
  }

  template <class Layout, int first, int num_planes>
  static Ints dot(const Fours& group, const ActivationGroup& x) {
    PlaneSums sums = {};
    for (int k = first; k < first + Layout::dot_k; k += 16)
      add_sixteen<num_planes>(group.codes + k / 4, load_planes(x, k), sums);
    return join_planes(sums);
  }

  template <class Layout, int first, int num_planes, class LinesOf>
  static Ints dot(const LinesOf& lines, const ActivationGroup& x) {
    constexpr bool is_unsigned = kHasMatrices && !Layout::is_nibble;  // saves 32 instructions of 200
    PlaneSums sums = {};
    if constexpr (is_unsigned) {
      sums.low = broadcast_int(Layout::dot_k == kGroup ? &x.offset : &x.half_offset[first / 16]);
      for (int32x4_t& rows : sums.low.rows) rows = vshlq_n_s32(rows, 3);  // theirs is 8 * kOffset
    }
    for (int k = first; k < first + Layout::dot_k; k += 16) {
      Codes fours[4];
      decode_sixteen<Layout, is_unsigned>(lines, k, fours);
      add_sixteen<num_planes, is_unsigned>(fours, load_planes(x, k), sums);
    }
    return join_planes(sums);
  }

  // Products of 16 rows with two columns: [0] has rows 0 and 1, each with either column, and so on.
  struct Products {
    int32x4_t rows[2 * kVectors];
  };
  struct TwoInts {
    Ints of[2];
  };
  static TwoInts split(const Products& products) {
    TwoInts out;
    for (int i = 0; i < kVectors; i++) {
      out.of[0].rows[i] = vuzp1q_s32(products.rows[2 * i], products.rows[2 * i + 1]);
      out.of[1].rows[i] = vuzp2q_s32(products.rows[2 * i], products.rows[2 * i + 1]);
    }
    return out;
  }
  // 16 k of two columns, in the order of Pairs.
  struct Sixteen {
    int8x16_t even, odd;
  };
  static Sixteen load_columns(const int8_t* column0, const int8_t* column1) {
    const int32x4_t a = vreinterpretq_s32_s8(vld1q_s8(column0)), b = vreinterpretq_s32_s8(vld1q_s8(column1));
    return {vreinterpretq_s8_s32(vuzp1q_s32(a, b)), vreinterpretq_s8_s32(vuzp2q_s32(a, b))};
  }
  static int32x4_t add_products(const Pairs& group, int first, int i, const Sixteen& x, int32x4_t sums) {
    sums = multiply_matrices(sums, vreinterpretq_s8_u8(group.codes[first / 8][i]), x.even);
    return multiply_matrices(sums, vreinterpretq_s8_u8(group.codes[first / 8 + 1][i]), x.odd);
  }

  // Else the compiler keeps some of a group in registers from token to token, and moves it around in them: 30
  // instructions of 130.
  static const Pairs& reload(const Pairs& group) {
    const Pairs* from = &group;
    asm("" : "+r"(from));
    return *from;
  }

  // The columns are the two planes.
  template <class Layout, int first, int num_planes>
  static Ints dot(const Pairs& in_memory, const ActivationGroup& x) {
    const Pairs& group = reload(in_memory);
    Products sums = {};
    for (int k = first; k < first + Layout::dot_k; k += 16) {
      const Sixteen planes = load_columns(x.high + k, x.low + k);
      for (int i = 0; i < 2 * kVectors; i++) sums.rows[i] = add_products(group, k, i, planes, sums.rows[i]);
    }
    const TwoInts planes = split(sums);
    return join_planes({planes.of[0], planes.of[1]});
  }

  // The columns are the two tokens.
  template <class Layout, int first, int num_planes>
  static void dot_side_by_side(const Pairs (&in_memory)[1], const ActivationGroup* x, Ints (&sums)[1][2]) {
    const Pairs& group = reload(in_memory[0]);
    Products high = {}, low = {};
    for (int k = first; k < first + Layout::dot_k; k += 16) {
      const Sixteen x_high = load_columns(x[0].high + k, x[1].high + k),
                    x_low = load_columns(x[0].low + k, x[1].low + k);
      for (int i = 0; i < 2 * kVectors; i++) {
        high.rows[i] = add_products(group, k, i, x_high, high.rows[i]);
        if constexpr (num_planes == 2) low.rows[i] = add_products(group, k, i, x_low, low.rows[i]);
      }
    }
    for (int i = 0; i < 2 * kVectors; i++) high.rows[i] = join_planes(high.rows[i], low.rows[i]);
    const TwoInts of_tokens = split(high);
    for (int t = 0; t < 2; t++) sums[0][t] = of_tokens.of[t];
  }
};

uint64_t read(const uint8_t* bytes, int64_t size) {
  uint8x16_t sums[8] = {};
  for (int64_t i = 0; i < size; i += 2 * kLineBytes) {
    for (int j = 0; j < 2; j++) prefetch_read(bytes + i + j * kLineBytes);
    for (int j = 0; j < 8; j++) sums[j] = veorq_u8(sums[j], vld1q_u8(bytes + i + 16 * j));
  }
  for (int j = 1; j < 8; j++) sums[0] = veorq_u8(sums[0], sums[j]);
  const uint64x2_t lanes = vreinterpretq_u64_u8(sums[0]);
  return vgetq_lane_u64(lanes, 0) ^ vgetq_lane_u64(lanes, 1);
}

}  // namespace
}  // namespace nibble
