// Weights in formats without a kernel, as the CPU packs them, against decode_row.
#include "weights/convert.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "backends/cpu/packed_layout.h"
#include "backends/cpu/packed_matrix.h"
#include "backends/random_weights.h"
#include "base/error.h"
#include "base/hash.h"

namespace nibble {
namespace {

std::vector<FormatId> converted_formats() {
  std::vector<FormatId> formats;
  for (FormatId format : kAllFormatIds)
    if (cpu_format(format) != format) formats.push_back(format);
  return formats;
}

// Every weight of the matrix: within 1/250 of the largest of its 32 if it became Q8_0, half a step of 11 bits if F16,
// the same if Q4_1.
void expect_near_decoded(const CanonicalWeight& weight) {
  const PackedMatrix packed(weight);
  ASSERT_EQ(packed.format, kernel_format(weight.format));
  std::vector<float> wanted(static_cast<size_t>(weight.K)), got(static_cast<size_t>(weight.K));
  for (int64_t e = 0; e < weight.E; e++) {
    for (int64_t n = 0; n < weight.N; n++) {
      decode_row(weight, e, n, wanted.data());
      unpack_row(packed, e, n, got.data());
      for (size_t k = 0; k < wanted.size(); k++) {
        double bound = packed.format == FormatId::q4_1 ? 0.0 : std::fabs(wanted[k]) / 2048;
        if (packed.format == FormatId::q8_0)
          for (size_t i = k / 32 * 32; i < std::min(wanted.size(), k / 32 * 32 + 32); i++)
            bound = std::max(bound, std::fabs(wanted[i]) / 250.0);
        ASSERT_NEAR(got[k], wanted[k], bound)
            << format_name(weight.format) << " K " << weight.K << " row " << n << " k " << k;
      }
    }
  }
}

TEST(KernelFormat, IsTheFormatItselfWhereThereIsAKernel) {
  for (FormatId format : format_ids(KernelFormats{})) EXPECT_EQ(kernel_format(format), format) << format_name(format);
}

TEST(KernelFormat, IsQ8ForSourcesOfUpToSixBitsAndHalfForOthers) {
  for (FormatId format :
       {FormatId::q5_0, FormatId::q5_1, FormatId::q4_k, FormatId::q5_k, FormatId::q6_k, FormatId::iq4_nl})
    EXPECT_EQ(kernel_format(format), FormatId::q8_0) << format_name(format);
  for (FormatId format : converted_formats()) {
    if (kernel_format(format) == FormatId::q4_1) continue;
    const int bits = visit_format(format, [](auto tag) { return decltype(tag)::code_bits; });
    EXPECT_EQ(kernel_format(format), bits <= 6 ? FormatId::q8_0 : FormatId::f16) << format_name(format);
  }
}

TEST(KernelFormat, IsBf16ForTransposedFp4ExceptOnTheCpu) {
  for (FormatId format : {FormatId::mxfp4_transposed, FormatId::nvfp4_transposed}) {
    EXPECT_EQ(kernel_format(format), FormatId::bf16);
    EXPECT_EQ(cpu_format(format), format);
    const CanonicalWeight weight = random_weight(format, 2, 35, 40, 1, 7);
    RowConverter converter(format, weight.K);
    std::vector<uint8_t> codes(static_cast<size_t>(2 * weight.K));
    std::vector<float> wanted(static_cast<size_t>(weight.K));
    for (int64_t row = 0; row < 70; row++) {
      const CanonicalRow converted =
          converter.convert(CanonicalRows(weight).row(row / 35, row % 35), codes.data(), nullptr);
      decode_row(weight, row / 35, row % 35, wanted.data());
      for (int64_t k = 0; k < weight.K; k++)
        ASSERT_EQ(Bf16::decode(converted.codes, nullptr, k) * converted.tensor_scale, wanted[static_cast<size_t>(k)]);
    }
  }
}

TEST(KernelFormat, IsQ4_1ForAffineIntegersOfFourBits) {
  for (FormatId format : {FormatId::affine4_32, FormatId::affine4_64, FormatId::affine4_128})
    EXPECT_EQ(kernel_format(format), FormatId::q4_1) << format_name(format);
}

TEST(Convert, KeepsEveryWeightWithinTheBound) {
  uint32_t seed = 1;
  for (FormatId format : converted_formats()) {
    for (int64_t K : {1, 31, 32, 48, 130, 256, 264, 520})
      expect_near_decoded(random_weight(format, 1, 19, K, 1, seed++));
    expect_near_decoded(random_weight(format, 3, 17, 96, 1, seed++));   // experts
    expect_near_decoded(random_weight(format, 2, 45, 300, 3, seed++));  // fused parts
    expect_near_decoded(random_weight(format, 1, 0, 64, 1, seed++));
  }
}

TEST(Convert, IntegersTimesAHalfAreExact) {
  for (FormatId format : {FormatId::q5_0, FormatId::iq4_nl}) {
    for (int64_t K : {1, 40, 264}) {
      const CanonicalWeight weight = random_weight(format, 2, 19, K, 2, 11);
      const PackedMatrix packed(weight);
      EXPECT_EQ(packed.format, FormatId::q8_0);
      std::vector<float> wanted(static_cast<size_t>(K)), got(static_cast<size_t>(K));
      for (int64_t row = 0; row < 38; row++) {
        decode_row(weight, row / 19, row % 19, wanted.data());
        unpack_row(packed, row / 19, row % 19, got.data());
        ASSERT_EQ(got, wanted) << format_name(format) << " K " << K << " row " << row;
      }
    }
  }
}

// Two groups of all codes, 0 to 31, a row: the first with the scale `first`, the other with `second`; minima are 0.
CanonicalWeight q5_1_weight(std::initializer_list<std::pair<float, float>> rows) {
  auto storage = std::make_shared<std::vector<uint8_t>>(rows.size() * 48);
  uint8_t* codes = storage->data();
  uint8_t* scales = codes + rows.size() * 40;
  int64_t n = 0;
  for (const auto& [first, second] : rows) {
    for (int64_t k = 0; k < 64; k++) set_code<5>(codes + n * 40, k, static_cast<uint32_t>(k % 32));
    const uint16_t halves[] = {float_to_half(first), 0, float_to_half(second), 0};
    std::memcpy(scales + n++ * 8, halves, 8);
  }
  return {.format = FormatId::q5_1,
          .E = 1,
          .N = n,
          .K = 64,
          .codes = {codes, rows.size() * 40},
          .scales = {scales, rows.size() * 8},
          .parts = {{0, {1.0f}}},
          .storage = storage};
}

// Scales at the ends of a half's range, which Q8_0's scales alone could not hold; and far apart in one row.
TEST(Convert, ReachesTheWholeRangeOfTheSource) {
  expect_near_decoded(q5_1_weight(
      {{65504, 65504}, {65504, 1e-3f}, {-1e-3f, 2e-5f}, {0x1p-24f, 0x1p-24f}, {0x1p-24f, 1}, {0, 1}, {0, 0}}));
  // A group 2^40 below the row's largest: within 2^-39 of that.
  const PackedMatrix packed(q5_1_weight({{65504, 0x1p-24f}}));
  std::vector<float> row(64);
  unpack_row(packed, 0, 0, row.data());
  for (size_t k = 0; k < 32; k++)
    EXPECT_NEAR(row[32 + k], std::ldexp(static_cast<double>(k), -24), 65504 * 31 * 0x1p-39) << k;
}

TEST(Convert, LeavesTensorScalesApart) {
  CanonicalWeight small = q5_1_weight({{1, 3}, {0.5f, 0.25f}}), large = small;
  small.parts = {{0, {1e-30f}}, {1, {-3.0f}}};
  large.parts = {{0, {1e30f}}, {1, {0.0f}}};
  expect_near_decoded(small);
  expect_near_decoded(large);
}

TEST(Convert, ThePlanNamesTheFormatAndTheBytes) {
  for (FormatId format : converted_formats()) {
    const PackPlan plan = plan_pack(format, 2, 20, 300), target = plan_pack(kernel_format(format), 2, 20, 300);
    EXPECT_EQ(plan.format, kernel_format(format)) << format_name(format);
    EXPECT_EQ(plan.bytes, target.bytes);
    EXPECT_EQ(PackedMatrix(random_weight(format, 2, 20, 300, 1, 3)).bytes, plan.bytes);
  }
}

// check_weight refuses such scales; a format whose finite scales reach beyond float32 comes here.
TEST(Convert, AWeightThatIsNotFiniteIsAnInputError) {
  CanonicalWeight weight = q5_1_weight({{1, 1}, {1, std::numeric_limits<float>::infinity()}});
  EXPECT_THROW(PackedMatrix{weight}, InputError);
  WorkerPool pool(3);
  EXPECT_THROW(PackedMatrix(weight, &pool), InputError);
  weight.N = 1;
  EXPECT_NO_THROW(PackedMatrix(weight, &pool));
}

#if defined(__x86_64__)
// Files in packed caches hold these bytes. If this fails because they are others now, kPackedLayoutVersion (packed_layout.h)
// must be one more, and then the number here is to be changed.
TEST(PackedMatrix, ChangesItsBytesOnlyWithTheirVersion) {
  uint64_t hash = kPackedLayoutVersion;
  for (FormatId format : kAllFormatIds) {
    const PackedMatrix packed(random_weight(format, 2, 35, 300, 2, 7));
    hash = hash_bytes(packed.packed_bytes(), hash);
    const auto copy =
        std::make_shared<const std::vector<uint8_t>>(packed.packed_bytes().begin(), packed.packed_bytes().end());
    const PackedMatrix again(format, 2, 35, 300, {copy, copy->data()});
    std::vector<float> wanted(300), got(300);
    unpack_row(packed, 1, 34, wanted.data());
    unpack_row(again, 1, 34, got.data());
    EXPECT_EQ(got, wanted) << format_name(format);
  }
  EXPECT_EQ(hash, 11782702006653353817u);
}
#endif

}  // namespace
}  // namespace nibble
