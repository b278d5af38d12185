// Every kernel table of this machine against double sums over decode_row.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include <gtest/gtest.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/packed_layout.h"
#include "backends/kernels_under_test.h"
#include "backends/random_weights.h"
#include "base/memory.h"

namespace nibble {
namespace {

constexpr auto kKernelFormats = format_ids(CpuFormats{});
constexpr float kGuard = -12345.0f;

#ifdef NIBBLE_TEST_SLOW_BUILD  // emulated
constexpr int64_t kRows[] = {1, 17, 33}, kColumns[] = {1, 48, 264};
constexpr int64_t kTokens[] = {0, 1, 2, 9, 65}, kMostTokens = 67;
#else
constexpr int64_t kRows[] = {1, 3, 15, 16, 17, 33}, kColumns[] = {1, 32, 40, 48, 96, 264};
constexpr int64_t kTokens[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 33, 64, 65}, kMostTokens = 131;
#endif

struct Prepared {
  Prepared(const CpuKernels& kernels, const std::vector<float>& x, int64_t M, int64_t K, int bits = kActivationBits)
      : storage(static_cast<size_t>(activations_bytes(M, K))) {
    activations = {.M = M, .K = K, .x = x.data(), .x_stride = K, .bits = bits, .groups = storage.as<ActivationGroup>()};
    kernels.prepare(activations, 0, M * activation_groups(K));
  }
  Buffer storage;
  Activations activations;
};

// All rows of expert e for all tokens: [M, N], with a guard after each row.
std::vector<float> run(const CpuKernels& kernels, const PackedMatrix& w, int64_t e, const Activations& x) {
  std::vector<float> out(static_cast<size_t>(x.M * (w.N + 1)), kGuard);
  kernels.linear({.w = &w,
                  .e = e,
                  .first_row = 0,
                  .last_row = w.N,
                  .x = &x,
                  .num_tokens = x.M,
                  .out = out.data(),
                  .out_stride = w.N + 1});
  return out;
}

struct Expected {
  double value, tolerance;
};

// Integer kernels round an activation, scaled first if there are `scales`, to within half a step of its group's largest / 16256; a
// float32 sum of n terms is within n * 2^-24 of the sum of their magnitudes, and a handful of roundings are made per term.
Expected expected(const std::vector<float>& row, const float* x, bool rounds_activations,
                  const std::vector<float>& scales = {}) {
  Expected sum{0, 1e-44};
  const auto K = static_cast<int64_t>(row.size());
  double magnitudes = 0;
  for (int64_t first = 0; first < K; first += kGroup) {
    const int64_t last = std::min<int64_t>(K, first + kGroup);
    const auto scale = [&](int64_t k) { return scales.empty() ? 1 : scales[static_cast<size_t>(k)]; };
    float largest = 0;
    for (int64_t k = first; k < last; k++) largest = std::max(largest, std::fabs(x[k] * scale(k)));
    for (int64_t k = first; k < last; k++) {
      const double w = row[static_cast<size_t>(k)];
      sum.value += w * x[k];
      magnitudes += std::fabs(w * x[k]);
      if (rounds_activations) sum.tolerance += std::fabs(w / scale(k)) * largest / 16256 * 0.501;
    }
  }
  const double num_terms = rounds_activations ? static_cast<double>(K) / 16 + 8 : static_cast<double>(K) + 2;
  sum.tolerance += magnitudes * num_terms * 0x1p-23;
  return sum;
}

// Of transposed MXFP4, which scale activations, those of the row's columns.
std::vector<float> column_scales(const CanonicalWeight& weight, int64_t e, int64_t n) {
  if (weight.format != FormatId::mxfp4_transposed) return {};
  const int64_t first = e * scale_bytes(weight.format, weight.N, weight.K) + n / group_rows(weight.format) * weight.K;
  std::vector<float> scales;
  for (int64_t k = 0; k < weight.K; k++)
    scales.push_back(Mxfp4::decode_scale(&weight.scales[static_cast<size_t>(first + k)]));
  return scales;
}

void expect_product(const CpuKernels& kernels, const CanonicalWeight& weight, int64_t M) {
  const PackedMatrix packed(weight);
  const auto x = random_activations(M * weight.K, 8);
  const Prepared prepared(kernels, x, M, weight.K);
  const bool rounds_activations = group_size(weight.format) > 1 || weight.format == FormatId::mxfp4_transposed;
  std::vector<float> row(static_cast<size_t>(weight.K));
  for (int64_t e = 0; e < weight.E; e++) {
    const auto out = run(kernels, packed, e, prepared.activations);
    for (int64_t n = 0; n < weight.N; n++) {
      decode_row(weight, e, n, row.data());
      const std::vector<float> scales = column_scales(weight, e, n);
      for (int64_t m = 0; m < M; m++) {
        const auto [value, tolerance] = expected(row, x.data() + m * weight.K, rounds_activations, scales);
        const float got = out[static_cast<size_t>(m * (weight.N + 1) + n)];
        ASSERT_NEAR(got, value, tolerance) << kernels.name << " " << format_name(weight.format) << " E " << e << " N "
                                           << weight.N << " K " << weight.K << " row " << n << " token " << m;
      }
    }
    for (int64_t m = 0; m < M; m++) ASSERT_EQ(out[static_cast<size_t>(m * (weight.N + 1) + weight.N)], kGuard);
  }
}

TEST(CpuLinear, MultipliesEveryFormatAndShape) {
  for (const CpuKernels* kernels : kernels_under_test()) {
    uint32_t seed = 1;  // the same weights for all
    for (FormatId format : kKernelFormats) {
      for (int64_t N : kRows)
        for (int64_t K : kColumns) expect_product(*kernels, random_weight(format, 1, N, K, 1, seed++), 9);
      expect_product(*kernels, random_weight(format, 1, 17, 2880, 1, seed++), 5);
      expect_product(*kernels, random_weight(format, 3, 35, 160, 1, seed++), 3);  // experts
      expect_product(*kernels, random_weight(format, 2, 45, 96, 3, seed++), 2);   // fused parts
    }
  }
}

// Activations of 8 bits: the nearest of 255 steps of the group's largest, and then nothing but float32 sums.
TEST(CpuLinear, RoundsToEightBitsIfItIsTold) {
  const int64_t N = 19, K = 264, M = 3;
  const auto x = random_activations(M * K, 9);
  std::vector<float> rounded(x.size());
  for (int64_t m = 0; m < M; m++) {
    for (int64_t first = 0; first < K; first += kGroup) {
      const auto begin = x.begin() + m * K + first, end = begin + std::min<int64_t>(kGroup, K - first);
      float largest = 0;
      for (auto value = begin; value != end; value++) largest = std::max(largest, std::fabs(*value));
      std::transform(begin, end, rounded.begin() + m * K + first, [&](float value) {
        return static_cast<float>(std::nearbyint(value * (127 / largest)) * double{largest} / 127);
      });
    }
  }
  for (const CpuKernels* kernels : kernels_under_test()) {
    for (FormatId format : kKernelFormats) {
      if (group_size(format) == 1) continue;
      const CanonicalWeight weight = random_weight(format, 1, N, K, 1, 3);
      const PackedMatrix packed(weight);
      const Prepared prepared(*kernels, x, M, K, 8);
      const auto out = run(*kernels, packed, 0, prepared.activations);
      std::vector<float> row(static_cast<size_t>(K));
      for (int64_t n = 0; n < N; n++) {
        decode_row(weight, 0, n, row.data());
        for (int64_t m = 0; m < M; m++) {
          const auto [value, tolerance] = expected(row, rounded.data() + m * K, false);
          ASSERT_NEAR(out[static_cast<size_t>(m * (N + 1) + n)], value, tolerance)
              << kernels->name << " " << format_name(format) << " row " << n << " token " << m;
        }
      }
    }
  }
}

// Bit by bit: where each bit of a row goes.
TEST(CpuKernels, InterleaveRowsAsThePackedLayoutHasThem) {
  constexpr int64_t kPieces = 3, kRowBytes = 16 * kPieces;
  std::vector<uint8_t> bytes(static_cast<size_t>(kBlockRows * kRowBytes));
  for (size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<uint8_t>(i * 167 + i / 256 * 41);
  const uint8_t* rows[kBlockRows];
  for (int r = 0; r < kBlockRows; r++) rows[r] = bytes.data() + r * kRowBytes;
  for (const RowUnit unit :
       {RowUnit::nibbles, RowUnit::signed_bytes, RowUnit::bytes, RowUnit::halves, RowUnit::floats}) {
    std::vector<uint8_t> wanted(bytes.size());
    for (int64_t r = 0; r < kBlockRows; r++) {
      for (int64_t i = 0; i < kRowBytes; i++) {
        const uint8_t byte = rows[r][i];
        if (unit == RowUnit::nibbles) {  // byte j of a lane: k = j, and k = 4 + j in its high half
          for (int64_t k : {2 * i, 2 * i + 1}) {
            const int64_t to = k / 8 * kLineBytes + 4 * r + k % 4;
            wanted[static_cast<size_t>(to)] |= static_cast<uint8_t>((byte >> k % 2 * 4 & 15) << (k / 4 % 2 * 4));
          }
        } else if (unit == RowUnit::signed_bytes) {
          wanted[static_cast<size_t>(i / 4 * kLineBytes + 4 * r + i % 4)] = byte ^ 128;
        } else {
          const int64_t size = unit == RowUnit::bytes ? 1 : unit == RowUnit::halves ? 2 : 4;
          wanted[static_cast<size_t>((i / size * kBlockRows + r) * size + i % size)] = byte;
        }
      }
    }
    for (const CpuKernels* kernels : kernels_under_test()) {
      std::vector<uint8_t> lines(bytes.size());
      kernels->interleave_rows(rows, kPieces, unit, lines.data());
      EXPECT_EQ(lines, wanted) << kernels->name << ", unit " << static_cast<int>(unit);
    }
  }
}

// What a token gives depends neither on M nor on its place, nor on how rows and tokens are split.
// Among them some that are not finite, or zeros, and a last group that is not full.
TEST(CpuKernels, RoundGroupsTogetherAsOneByOne) {
  const int64_t K = 11 * kGroup + 5, M = 3;
  auto x = random_activations(M * K, 4);
  x[40] = kNan;
  x[static_cast<size_t>(K) + 100] = -kInfinity;
  std::fill_n(x.begin() + 5 * kGroup, kGroup, 0.0f);
  std::fill_n(x.begin() + 6 * kGroup, kGroup, 1e-35f);
  for (const CpuKernels* kernels : kernels_under_test()) {
    for (int bits : {8, kActivationBits}) {
      const Prepared all(*kernels, x, M, K, bits), single(*kernels, x, M, K, bits);
      const int64_t count = M * activation_groups(K);
      std::fill_n(single.storage.data(), single.storage.size(), uint8_t{0xFF});
      for (int64_t i = 0; i < count; i++) kernels->prepare(single.activations, i, i + 1);
      for (int64_t i = 0; i < count; i++) {
        const ActivationGroup &a = all.activations.groups[i], &b = single.activations.groups[i];
        EXPECT_EQ(std::bit_cast<uint32_t>(a.scale), std::bit_cast<uint32_t>(b.scale))
            << kernels->name << " group " << i;
        EXPECT_EQ(std::memcmp(a.high, b.high, kGroup), 0) << kernels->name << " group " << i;
        EXPECT_EQ(std::memcmp(a.low, b.low, kGroup), 0) << kernels->name << " group " << i;
        int32_t sums[2] = {};
        for (int k = 0; k < kGroup; k++) sums[k / 16] += 128 * a.high[k] + a.low[k];
        EXPECT_EQ(a.half_offset[0], -kOffset * sums[0]) << kernels->name << " group " << i;
        EXPECT_EQ(a.half_offset[1], -kOffset * sums[1]) << kernels->name << " group " << i;
        EXPECT_EQ(a.offset, -kOffset * (sums[0] + sums[1])) << kernels->name << " group " << i;
      }
    }
  }
}

// From 16 tokens on these multiply FP4 as bfloat16: other bits than those of fewer tokens, which are AVX-512's.
constexpr int64_t kFewestTileTokens = 16;
bool tiles_are_floats(const CpuKernels& kernels, FormatId format) {
  return kernels.name.starts_with("amx_bf16") && (format == FormatId::mxfp4 || format == FormatId::nvfp4);
}

TEST(CpuLinear, GivesTheSameBitsHoweverItIsSplit) {
  const int64_t N = 49, K = 288, largest_M = kMostTokens;
  std::vector<std::pair<FormatId, int>> formats_and_bits = {
      {FormatId::mxfp4, 8}, {FormatId::nvfp4, 8}, {FormatId::q8_0, 8}};
  for (FormatId format : kKernelFormats) formats_and_bits.emplace_back(format, kActivationBits);
  for (const CpuKernels* kernels : kernels_under_test()) {
    for (auto [format, bits] : formats_and_bits) {
      const CanonicalWeight weight = random_weight(format, 1, N, K, 2, 7);
      const PackedMatrix packed(weight);
      const auto x = random_activations(largest_M * K, 8);
      const Prepared all(*kernels, x, largest_M, K, bits);
      const auto of_many = run(*kernels, packed, 0, all.activations);
      const auto of_few =
          tiles_are_floats(*kernels, format) ? run(*find_kernels("avx512"), packed, 0, all.activations) : of_many;
      for (int64_t M : kTokens) {
        const auto& whole = M < kFewestTileTokens ? of_few : of_many;
        for (int64_t first : {int64_t{0}, std::min<int64_t>(5, largest_M - M), largest_M - M}) {
          const std::vector<float> part(x.begin() + first * K, x.begin() + (first + M) * K);
          const Prepared prepared(*kernels, part, M, K, bits);
          const std::vector<float> wanted(whole.begin() + first * (N + 1), whole.begin() + (first + M) * (N + 1));
          ASSERT_EQ(run(*kernels, packed, 0, prepared.activations), wanted)
              << kernels->name << " " << format_name(format) << " M " << M << " from token " << first;

          std::vector<float> split(static_cast<size_t>(M * (N + 1)), kGuard);
          for (auto [first_row, last_row] : {std::pair<int64_t, int64_t>{32, N}, {0, 16}, {16, 32}})
            kernels->linear({.w = &packed,
                             .first_row = first_row,
                             .last_row = last_row,
                             .x = &all.activations,
                             .first_token = first,
                             .num_tokens = M,
                             .out = split.data(),
                             .out_stride = N + 1,
                             .next = {&packed, (first_row + 32) % 48 / 16}});
          ASSERT_EQ(split, wanted) << kernels->name << " " << format_name(format) << " M " << M << " from token "
                                   << first;
        }
      }
    }
  }
}

// Tiles, and halves of vectors, give what AVX-512 gives: panels that are not full, tokens that do not fill a tile, experts.
TEST(CpuLinear, AmxAndHalvesGiveTheBitsOfAvx512) {
  const CpuKernels* avx512 = find_kernels("avx512");
  if (avx512 == nullptr) GTEST_SKIP() << "this machine has no AVX-512";
  const int64_t E = 2, N = 35;
  for (const CpuKernels* kernels : kernels_under_test()) {
    if (!kernels->name.starts_with("amx") && !kernels->name.starts_with("avx512 of")) continue;
    for (FormatId format : kKernelFormats) {
      for (int64_t K : {32, 96, 2080, 4320}) {
        const PackedMatrix packed(random_weight(format, E, N, K, 1, 7));
        for (int64_t M : {1, 4, 5, 15, 16, 17, 70}) {
          if (M >= kFewestTileTokens && tiles_are_floats(*kernels, format)) continue;
          const auto x = random_activations(M * K, 8);
          for (int bits : {8, kActivationBits}) {
            const Prepared prepared(*kernels, x, M, K, bits);
            for (int64_t e = 0; e < E; e++)
              ASSERT_EQ(run(*kernels, packed, e, prepared.activations), run(*avx512, packed, e, prepared.activations))
                  << kernels->name << " " << format_name(format) << " K " << K << " M " << M << " bits " << bits;
          }
        }
      }
    }
  }
}

// An activation is rounded within 2^-16 of itself, with 8 bits within 2^-8; weights are exact. Sums of float32, as ever.
TEST(CpuLinear, TilesMultiplyFp4AsFloats) {
  const int64_t E = 2;
  for (const CpuKernels* kernels : kernels_under_test()) {
    for (FormatId format : {FormatId::mxfp4, FormatId::nvfp4}) {
      if (!tiles_are_floats(*kernels, format)) continue;
      for (auto [N, K] : {std::pair<int64_t, int64_t>{1, 32}, {35, 96}, {64, 40}, {17, 2080}}) {
        const CanonicalWeight weight = random_weight(format, E, N, K, 2, 7);
        const PackedMatrix packed(weight);
        std::vector<float> row(static_cast<size_t>(K));
        for (int64_t M : {16, 17, 32, 61, 64, 65, 131, 259}) {
          const auto x = random_activations(M * K, 8);
          for (int bits : {8, kActivationBits}) {
            const Prepared prepared(*kernels, x, M, K, bits);
            const auto out = run(*kernels, packed, E - 1, prepared.activations);
            for (int64_t n = 0; n < N; n++) {
              decode_row(weight, E - 1, n, row.data());
              for (int64_t m = 0; m < M; m++) {
                double value = 0, magnitudes = 0;
                for (int64_t k = 0; k < K; k++) {
                  const double product = double{row[static_cast<size_t>(k)]} * x[static_cast<size_t>(m * K + k)];
                  value += product;
                  magnitudes += std::fabs(product);
                }
                const double rounding = bits == 8 ? 0x1p-8 : 0x1p-16 + (static_cast<double>(K) + 2) * 0x1p-24;
                ASSERT_NEAR(out[static_cast<size_t>(m * (N + 1) + n)], value, magnitudes * rounding)
                    << kernels->name << " " << format_name(format) << " N " << N << " K " << K << " M " << M << " bits "
                    << bits << " row " << n << " token " << m;
              }
              ASSERT_EQ(out[static_cast<size_t>(N)], kGuard);
            }
          }
        }
      }
    }
  }
}

// Tokens that see one column each get it exactly, whatever its scale: but denormals count as zeros.
TEST(CpuLinear, TilesReadEveryScaleAndCode) {
  for (const CpuKernels* kernels : kernels_under_test()) {
    for (FormatId format : {FormatId::mxfp4, FormatId::nvfp4}) {
      if (!tiles_are_floats(*kernels, format)) continue;
      const int64_t N = format == FormatId::mxfp4 ? 255 : 127, K = 32;
      CanonicalWeight weight = random_weight(format, 1, N, K, 1, 3);
      std::vector<uint8_t> scales(weight.scales.size()), codes(weight.codes.size());
      for (size_t i = 0; i < scales.size(); i++)
        scales[i] = static_cast<uint8_t>(i * static_cast<size_t>(N) / scales.size());
      for (size_t i = 0; i < codes.size(); i++)
        codes[i] = static_cast<uint8_t>(i % 8 * 0x22 + 0x10);  // two codes of 16
      weight.scales = scales;
      weight.codes = codes;
      const PackedMatrix packed(weight);
      std::vector<float> x(static_cast<size_t>(K * K)), row(static_cast<size_t>(K));
      for (int64_t k = 0; k < K; k++) x[static_cast<size_t>(k * K + k)] = 1;
      const Prepared prepared(*kernels, x, K, K);
      const auto out = run(*kernels, packed, 0, prepared.activations);
      for (int64_t n = 0; n < N; n++) {
        decode_row(weight, 0, n, row.data());
        if (!std::ranges::all_of(row, [](float w) { return std::isfinite(w); })) continue;  // 6 * 2^126 is no float32
        for (int64_t k = 0; k < K; k++) {
          const float wanted = row[static_cast<size_t>(k)], got = out[static_cast<size_t>(k * (N + 1) + n)];
          ASSERT_EQ(got, std::fpclassify(wanted) == FP_SUBNORMAL ? 0 : wanted)
              << kernels->name << " " << format_name(format) << " row " << n << " column " << k;
        }
      }
    }
  }
}

TEST(CpuLinear, AddsBiasThenAccumulates) {
  const int64_t N = 19, K = 64, M = 3;
  const CanonicalWeight weight = random_weight(FormatId::mxfp4, 1, N, K, 1, 3);
  const PackedMatrix packed(weight);
  const auto x = random_activations(M * K, 4), bias = random_activations(N, 5);
  for (const CpuKernels* kernels : kernels_under_test()) {
    const Prepared prepared(*kernels, x, M, K);
    const auto plain = run(*kernels, packed, 0, prepared.activations);
    std::vector<float> out(plain.size(), 1.0f);
    kernels->linear({.w = &packed,
                     .first_row = 0,
                     .last_row = N,
                     .x = &prepared.activations,
                     .num_tokens = M,
                     .out = out.data(),
                     .out_stride = N + 1,
                     .bias = bias.data(),
                     .accumulate = true});
    for (int64_t m = 0; m < M; m++) {
      for (int64_t n = 0; n < N; n++) {
        const auto i = static_cast<size_t>(m * (N + 1) + n);
        const float wanted = 1 + (plain[i] + bias[static_cast<size_t>(n)]);
        EXPECT_NEAR(out[i], wanted, 1e-6 * (std::fabs(wanted) + std::fabs(plain[i]) + 1)) << kernels->name;
      }
      EXPECT_EQ(out[static_cast<size_t>(m * (N + 1) + N)], 1.0f);
    }
  }
}

// Every scale that a format has, one a row, with every code in the row.
TEST(CpuLinear, ReadsEveryScaleAndCode) {
  for (FormatId format : {FormatId::mxfp4, FormatId::nvfp4, FormatId::fp4_half_32, FormatId::q8_0, FormatId::q4_0}) {
    const int bytes = format == FormatId::mxfp4 || format == FormatId::nvfp4 ? 1 : 2;
    std::vector<uint32_t> valid;
    for (uint32_t bits = 0; bits < (1u << (8 * bytes)); bits += bytes == 1 ? 1 : 37) {
      uint8_t scale[2];
      std::memcpy(scale, &bits, 2);
      if (visit_format(format, [&](auto tag) { return decltype(tag)::is_valid_scale(scale); })) valid.push_back(bits);
    }
    const auto N = static_cast<int64_t>(valid.size());
    const int64_t K = group_size(format) == 16 ? 16 : 32;
    CanonicalWeight weight = random_weight(format, 1, N, K, 1, 1);
    auto storage = std::make_shared<std::vector<uint8_t>>();
    for (int64_t n = 0; n < N; n++)
      for (int64_t i = 0; i < code_bytes(format, K); i++)
        storage->push_back(
            static_cast<uint8_t>(format == FormatId::q8_0 ? 8 * i + n % 8 : ((2 * i + 1) % 16) << 4 | (2 * i % 16)));
    const size_t num_codes = storage->size();
    for (uint32_t bits : valid)
      for (int i = 0; i < bytes; i++) storage->push_back(static_cast<uint8_t>(bits >> (8 * i)));
    weight.codes = {storage->data(), num_codes};
    weight.scales = {storage->data() + num_codes, storage->size() - num_codes};
    weight.storage = storage;
    weight.parts[0].tensor_scale = {1.0f};
    const PackedMatrix packed(weight);
    std::vector<float> wanted(static_cast<size_t>(K)), got(static_cast<size_t>(K));
    for (int64_t n = 0; n < N; n++) {
      decode_row(weight, 0, n, wanted.data());
      unpack_row(packed, 0, n, got.data());
      ASSERT_EQ(got, wanted) << format_name(format) << " scale " << valid[static_cast<size_t>(n)];
    }
    auto x = random_activations(K, 2);
    for (float& value : x) value *= 1e-3f;  // 2^127 times 6 times 32 of them stays finite
    for (const CpuKernels* kernels : kernels_under_test()) {
      const Prepared prepared(*kernels, x, 1, K);
      const auto out = run(*kernels, packed, 0, prepared.activations);
      for (int64_t n = 0; n < N; n++) {
        decode_row(weight, 0, n, wanted.data());
        const auto [value, tolerance] = expected(wanted, x.data(), true);
        if (!std::isfinite(value)) continue;  // 6 * 2^126 is no float32
        ASSERT_NEAR(out[static_cast<size_t>(n)], value, tolerance)
            << kernels->name << " " << format_name(format) << " scale " << valid[static_cast<size_t>(n)];
      }
    }
  }
}

// A token that sees one column only gets the column, exactly: every scale, and rows that do not fill a group.
TEST(CpuLinear, ReadsEveryScaleOfTransposedColumns) {
  for (FormatId format : {FormatId::mxfp4_transposed, FormatId::nvfp4_transposed}) {
    const int64_t N = 40, K = format == FormatId::mxfp4_transposed ? 255 : 127;
    CanonicalWeight weight = random_weight(format, 2, N, K, 1, 3);
    std::vector<uint8_t> scales(weight.scales.size()), codes(weight.codes.begin(), weight.codes.end());
    for (size_t i = 0; i < scales.size(); i++)
      scales[i] = static_cast<uint8_t>((i + i / static_cast<size_t>(K)) % static_cast<size_t>(K));
    for (int64_t n = 0; n < N; n++)
      codes[static_cast<size_t>(n * code_bytes(format, K))] = 0x80;  // zeros of both signs
    weight.codes = codes;
    weight.scales = scales;
    weight.parts[0].tensor_scale = {1.0f, 2.0f};
    const PackedMatrix packed(weight);
    const float unit = 0.125f;
    std::vector<float> x(static_cast<size_t>(K * K)), row(static_cast<size_t>(K));
    for (int64_t k = 0; k < K; k++) x[static_cast<size_t>(k * K + k)] = unit;
    for (const CpuKernels* kernels : kernels_under_test()) {
      const Prepared prepared(*kernels, x, K, K);
      for (int64_t e = 0; e < 2; e++) {
        const auto out = run(*kernels, packed, e, prepared.activations);
        for (int64_t n = 0; n < N; n++) {
          decode_row(weight, e, n, row.data());
          for (int64_t k = 0; k < K; k++) {
            const float wanted = row[static_cast<size_t>(k)];
            if (std::isfinite(wanted)) {
              ASSERT_EQ(out[static_cast<size_t>(k * (N + 1) + n)], wanted * unit)
                  << kernels->name << " " << format_name(format) << " e " << e << " row " << n << " column " << k;
            }
          }
        }
      }
    }
  }
}

// The largest codes and activations there are must not saturate 16-bit sums.
TEST(CpuLinear, LargestCodesAndActivationsStayExact) {
  const int64_t N = 16, K = 64;
  for (FormatId format : kKernelFormats) {
    if (group_size(format) == 1) continue;
    for (uint8_t code : {0x00, 0x77, 0xFF, 0x80, 0x7F, 0xF7}) {
      CanonicalWeight weight = random_weight(format, 1, N, K, 1, 1);
      auto storage = std::make_shared<std::vector<uint8_t>>(weight.codes.size(), code);
      weight.codes = *storage;
      const PackedMatrix packed(weight);
      // q = 16192 is the plane pair (126, 64 - 128 …): both planes at their ends, and both signs.
      for (float sign : {1.0f, -1.0f}) {
        for (float second : {1.0f, 16192.0f / 16256.0f, 16191.0f / 16256.0f, -1.0f}) {
          std::vector<float> x(static_cast<size_t>(K), sign * second);
          for (size_t k = 0; k < x.size(); k += 16) x[k] = sign;
          std::vector<float> row(static_cast<size_t>(K));
          for (const CpuKernels* kernels : kernels_under_test()) {
            const Prepared prepared(*kernels, x, 1, K);
            const auto out = run(*kernels, packed, 0, prepared.activations);
            for (int64_t n = 0; n < N; n++) {
              decode_row(weight, 0, n, row.data());
              const auto [value, tolerance] = expected(row, x.data(), true);
              ASSERT_NEAR(out[static_cast<size_t>(n)], value, tolerance) << kernels->name << " " << format_name(format);
            }
          }
        }
      }
    }
  }
}

TEST(CpuLinear, ActivationsThatAreNotFiniteGiveNaN) {
  const int64_t N = 16, K = 96;
  for (float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                    std::numeric_limits<float>::quiet_NaN()}) {
    for (FormatId format : kKernelFormats) {
      const PackedMatrix packed(random_weight(format, 1, N, K, 1, 1));
      auto x = random_activations(K, 2);
      x[40] = bad;
      for (const CpuKernels* kernels : kernels_under_test()) {
        const Prepared prepared(*kernels, x, 1, K);
        const auto out = run(*kernels, packed, 0, prepared.activations);
        for (int64_t n = 0; n < N; n++) EXPECT_FALSE(std::isfinite(out[static_cast<size_t>(n)])) << kernels->name;
      }
    }
  }
}

TEST(CpuLinear, AcceptsTheLargestAndSmallestActivations) {
  const int64_t N = 16, K = 64;
  const PackedMatrix packed(random_weight(FormatId::mxfp4, 1, N, K, 1, 1));
  using Limits = std::numeric_limits<float>;
  for (float size : {0.0f, Limits::denorm_min(), Limits::min(), Limits::max()}) {
    const std::vector<float> x(static_cast<size_t>(K), size);
    for (const CpuKernels* kernels : kernels_under_test()) {
      const Prepared prepared(*kernels, x, 1, K);
      const auto out = run(*kernels, packed, 0, prepared.activations);
      if (size >= 1) continue;
      for (int64_t n = 0; n < N; n++) EXPECT_NEAR(out[static_cast<size_t>(n)], 0, 1e-25) << kernels->name;
    }
  }
}

TEST(PackedMatrix, UnpacksExactly) {
  for (FormatId format : kKernelFormats) {
    for (int64_t K : {1, 7, 32, 48, 130, 264, 1060}) {
      const CanonicalWeight weight = random_weight(format, 2, 19, K, 2, 11);
      const PackedMatrix packed(weight);
      std::vector<float> wanted(static_cast<size_t>(K)), got(static_cast<size_t>(K));
      for (int64_t e = 0; e < 2; e++) {
        for (int64_t n = 0; n < 19; n++) {
          decode_row(weight, e, n, wanted.data());
          unpack_row(packed, e, n, got.data());
          ASSERT_EQ(got, wanted) << format_name(format) << " K " << K;
        }
      }
    }
  }
}

TEST(PackedMatrix, GroupsOfZerosHaveNoSubnormalScale) {
  constexpr int64_t N = 17, K = 33 * kGroup;  // a whole block, and one row
  CanonicalWeight weight = random_weight(FormatId::mxfp4, 1, N, K, 1, 11);
  std::vector<uint8_t> codes(weight.codes.size(), 0x80), scales(weight.scales.size(), 0);  // zeros of both signs
  const auto is_zero = [](int64_t n, int64_t g) { return (n + g) % 3 != 0; };
  for (int64_t n = 0; n < N; n++)
    for (int64_t g = 0; g < K / kGroup; g++)
      if (!is_zero(n, g)) codes[static_cast<size_t>(n * K / 2 + (g + 1) * kGroup / 2 - 1)] = 0x10;
  weight.codes = codes;
  weight.scales = scales;
  const PackedMatrix packed(weight);
  for (int64_t n = 0; n < N; n++)
    for (int64_t g = 0; g < K / kGroup; g++)
      EXPECT_EQ(packed.scales[n / kBlockRows * packed.block_scale_bytes + g * kBlockRows + n % kBlockRows],
                is_zero(n, g) ? kE8m0Bias : 0)
          << n << " " << g;
}

TEST(PackedMatrix, TakesTheBytesThatThePlanSaysWhoeverPacks) {
  WorkerPool pool(3);
  for (FormatId format : kAllFormatIds) {
    for (auto [E, N, K] : {std::tuple<int64_t, int64_t, int64_t>{1, 1, 1}, {3, 17, 48}, {2, 64, 256}, {1, 0, 32}}) {
      const CanonicalWeight weight = random_weight(format, E, N, K, 1, 5);
      const PackedMatrix alone(weight), together(weight, &pool);
      EXPECT_EQ(alone.bytes, plan_pack(format, E, N, K).bytes);
      const auto size = static_cast<size_t>(alone.bytes);
      EXPECT_EQ(std::vector<uint8_t>(alone.codes, alone.codes + size),
                std::vector<uint8_t>(together.codes, together.codes + size));
    }
  }
}

}  // namespace
}  // namespace nibble
