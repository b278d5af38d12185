// What the backend under test, and the reference, refuse to pack.
#include <gtest/gtest.h>

#include "backends/random_weights.h"
#include "backends/step_comparison.h"
#include "base/error.h"

namespace nibble {
namespace {

// Sets element `at` to NaN, or infinity in float16.
void damage(FormatId format, int64_t at, uint8_t* codes) {
  const uint32_t bits = format == FormatId::f16 ? 0x7C00 : format == FormatId::bf16 ? 0x7FC0 : 0x7FC00000;
  const size_t size = format == FormatId::f32 ? 4 : 2;
  std::memcpy(codes + static_cast<size_t>(at) * size, &bits, size);
}

TEST(Pack, RefusesFloatsThatAreNotFinite) {
  auto backends = backends_under_test();
  backends.push_back(make_reference_backend());
  for (const FormatId format : {FormatId::bf16, FormatId::f16, FormatId::f32}) {
    const char* const shown = format == FormatId::f16 ? "inf" : "nan";
    for (const auto& [E, N, K] : {std::tuple{1, 1, 1}, {1, 37, 33}, {3, 18, 8}}) {
      for (const int64_t at : {0, (E * N * K) / 2, E * N * K - 1}) {
        std::vector<uint8_t> codes(static_cast<size_t>(E * N * code_bytes(format, K)));
        CanonicalWeight weight{.format = format,
                               .E = E,
                               .N = N,
                               .K = K,
                               .codes = codes,
                               .parts = {{0, std::vector<float>(static_cast<size_t>(E), 1.0f)}},
                               .unchecked_floats = "file: tensor x"};
        for (const auto& backend : backends) EXPECT_NO_THROW(backend->pack(weight)) << backend->description();
        damage(format, at, codes.data());
        for (const auto& backend : backends) {
          try {
            backend->pack(weight);
            ADD_FAILURE() << backend->description() << " packs " << format_name(format);
          } catch (const InputError& error) {
            EXPECT_EQ(error.what(),
                      fmt::format("file: tensor x: element {} is {}, a finite number expected; the file is damaged", at,
                                  shown));
          }
        }
      }
    }
  }
}

// Of experts one by one, the one that holds it is named, and the element by its place there.
TEST(Pack, NamesTheExpertWithTheFloat) {
  std::vector<uint8_t> good(2 * 5 * 7), bad = good;
  damage(FormatId::bf16, 34, bad.data());
  const CanonicalWeight one{.format = FormatId::bf16, .E = 1, .N = 5, .K = 7, .codes = good, .parts = {{0, {1.0f}}}};
  CanonicalWeight all{
      .format = FormatId::bf16, .E = 2, .N = 5, .K = 7, .parts = {{0, {1.0f, 1.0f}}}, .experts = {one, one}};
  all.experts[0].unchecked_floats = "expert 0";
  all.experts[1].unchecked_floats = "expert 1";
  all.experts[1].codes = bad;
  auto backends = backends_under_test();
  backends.push_back(make_reference_backend());
  for (const auto& backend : backends) {
    try {
      backend->pack(all);
      ADD_FAILURE() << backend->description();
    } catch (const InputError& error) {
      EXPECT_STREQ(error.what(), "expert 1: element 34 is nan, a finite number expected; the file is damaged");
    }
  }
}

}  // namespace
}  // namespace nibble
