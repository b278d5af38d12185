#include "weights/random_source.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/memory.h"
#include "formats/encode.h"

namespace nibble {
namespace {

// SplitMix64: 8 bytes a step, the same on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t bits() {
    uint64_t x = state_ += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
  }
  // From [-1, 1), in steps of 2^-23.
  float signed_unit() { return static_cast<float>(static_cast<int64_t>(bits()) >> 40) * 0x1p-23f; }
  void fill(std::span<uint8_t> bytes) {
    for (size_t i = 0; i < bytes.size(); i += 8) {
      const uint64_t word = bits();
      std::memcpy(bytes.data() + i, &word, std::min<size_t>(8, bytes.size() - i));
    }
  }

 private:
  uint64_t state_;
};

// FNV-1a of the name, mixed with the seed.
Random random_for(uint64_t seed, std::string_view name) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3u;
  return Random(Random(seed ^ hash).bits());
}

void store_half(float value, uint8_t* bytes) {
  const uint16_t half = float_to_half(value);
  std::memcpy(bytes, &half, sizeof half);
}

// The standard deviation of a uniformly random code, of all those that the format has.
double code_deviation(FormatId format) {
  switch (format) {
    case FormatId::q8_0: return 73.9;
    case FormatId::q4_0:
    case FormatId::q4_1: return 4.61;
    default: return 2.93;  // E2M1
  }
}

// Scales of all groups, each within a factor of two of what gives the weights that deviation. Returns the tensor scale.
float fill_scales(FormatId format, Random& random, double deviation, std::span<uint8_t> scales) {
  const double scale = deviation / code_deviation(format);
  switch (format) {
    case FormatId::mxfp4:
    case FormatId::mxfp4_transposed: {
      const int code = kE8m0Bias + static_cast<int>(std::floor(std::log2(scale)));
      for (uint8_t& byte : scales)
        byte = static_cast<uint8_t>(std::clamp(code + static_cast<int>(random.bits() & 1), 0, 254));
      return 1.0f;
    }
    case FormatId::nvfp4:
    case FormatId::nvfp4_transposed:
      for (uint8_t& byte : scales) byte = static_cast<uint8_t>(0x30 + (random.bits() & 15));  // 0.5 to 1.875
      return static_cast<float>(scale / 1.1);
    case FormatId::q8_0:
    case FormatId::q4_0:
    case FormatId::q4_1:
    case FormatId::fp4_half_32:
    case FormatId::fp4_half_64:
    case FormatId::fp4_half_128: {
      const auto group_bytes = static_cast<size_t>(scale_bytes(format, 1));
      for (size_t i = 0; i < scales.size(); i += group_bytes) {
        const float value = static_cast<float>(scale) * (1.0f + 0.25f * random.signed_unit());
        store_half(value, scales.data() + i);
        if (format == FormatId::q4_1) store_half(-7.5f * value, scales.data() + i + 2);
      }
      return 1.0f;
    }
    default: throw_input_error("random weights in {} are not made", format_name(format));
  }
}

class RandomSource final : public WeightSource {
 public:
  explicit RandomSource(RandomWeights options) : options_(std::move(options)) {}

  bool has(const TensorName&) const override { return true; }
  bool has_vector(const TensorName& vector) const override {
    return options_.has_optional_vector && options_.has_optional_vector(vector);
  }
  void check_vector(const VectorRequest&) override {}

  MatrixInfo describe(const MatrixRequest& r) override {
    const FormatId format = options_.format(r);
    const int64_t bytes = r.E * (r.N * code_bytes(format, r.K) + scale_bytes(format, r.N, r.K));
    return {.format = format, .E = r.E, .N = r.N, .K = r.K, .bytes = bytes, .source = "random"};
  }

  CanonicalWeight read_without_floats_check(const MatrixRequest& request) override;
  std::vector<float> read_vector(const VectorRequest& request) override;
  std::vector<std::string> unknown_tensors() const override { return {}; }
  std::vector<std::string> tensors_of(const MatrixRequest&) override { return {}; }
  std::vector<std::string> tensors_of(const VectorRequest&) override { return {}; }
  std::vector<UnusedTensor> unused_tensors() const override { return {}; }

 private:
  RandomWeights options_;
};

CanonicalWeight RandomSource::read_without_floats_check(const MatrixRequest& r) {
  const FormatId format = options_.format(r);
  Random random = random_for(options_.seed, r.name.hf);
  const int64_t num_rows = r.E * r.N, row_codes = code_bytes(format, r.K);
  const auto all_codes = static_cast<size_t>(num_rows * row_codes);
  const auto all_scales = static_cast<size_t>(r.E * scale_bytes(format, r.N, r.K));
  const auto bytes = std::make_shared<const Buffer>(all_codes + all_scales);
  const std::span<uint8_t> codes(bytes->data(), all_codes), scales(bytes->data() + all_codes, all_scales);

  const double deviation = 1.0 / std::sqrt(static_cast<double>(r.K));
  float tensor_scale = 1.0f;
  if (all_scales > 0) {
    random.fill(codes);
    tensor_scale = fill_scales(format, random, deviation, scales);
  } else {
    const float reach = static_cast<float>(std::sqrt(3.0) * deviation);
    std::vector<float> row(static_cast<size_t>(r.K));
    for (int64_t n = 0; n < num_rows; n++) {
      for (float& value : row) value = reach * random.signed_unit();
      encode_row(format, row, 1.0f, ScaleSearch::plain, codes.data() + n * row_codes, nullptr);
    }
  }
  CanonicalWeight weight{.format = format,
                         .E = r.E,
                         .N = r.N,
                         .K = r.K,
                         .codes = codes,
                         .scales = scales,
                         .parts = {{0, std::vector<float>(static_cast<size_t>(r.E), tensor_scale)}},
                         .storage = bytes};
  check_weight(weight, r.name.hf);
  return weight;
}

std::vector<float> RandomSource::read_vector(const VectorRequest& request) {
  Random random = random_for(options_.seed, request.name.hf);
  const float middle = request.name.hf.ends_with("norm.weight") ? 1.0f : 0.0f;
  std::vector<float> values(static_cast<size_t>(request.E * request.size));
  for (float& value : values) value = middle + 0.125f * random.signed_unit();
  return values;
}

}  // namespace

std::unique_ptr<WeightSource> make_random_source(RandomWeights options) {
  return std::make_unique<RandomSource>(std::move(options));
}

}  // namespace nibble
