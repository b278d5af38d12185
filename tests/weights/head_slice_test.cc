// Slices of a matrix by heads, in all formats that a file may have them in.
#include <gtest/gtest.h>

#include "memory_checkpoint.h"

namespace nibble {
namespace {

// Two heads of 3 rows: the first 2 are wanted transposed, the last as it is.
MatrixRequest first_two(int64_t K) {
  return {.name = {"kv_b", "kv_b"},
          .E = 2,
          .N = K,
          .K = 2,
          .is_experts = true,
          .heads = {.alone = {"embed_q", "k_b"}, .head_rows = 3, .first_row = 0, .transposed = true}};
}
MatrixRequest last_one(int64_t K) {
  return {.name = {"kv_b", "kv_b"},
          .E = 2,
          .N = 1,
          .K = K,
          .is_experts = true,
          .heads = {.alone = {"unembed_out", "v_b"}, .head_rows = 3, .first_row = 2}};
}

// Both slices, against the whole matrix's own values.
void expect_slices(MemoryCheckpoint& file, int64_t K, FormatId format, FormatId transposed) {
  const auto source = file.open();
  const std::vector<float> whole = decoded(source->read({.name = {"kv_b", "kv_b"}, .N = 6, .K = K}));
  const CanonicalWeight k = source->read(first_two(K)), v = source->read(last_one(K));
  EXPECT_EQ(k.format, transposed);
  EXPECT_EQ(v.format, format);
  EXPECT_EQ(source->describe(first_two(K)).format, transposed);
  EXPECT_EQ(source->describe(first_two(K)).bytes, static_cast<int64_t>(k.codes.size() + k.scales.size()));
  EXPECT_EQ(source->describe(last_one(K)).bytes, static_cast<int64_t>(v.codes.size() + v.scales.size()));
  check_weight(k, "k");
  check_weight(v, "v");
  const std::vector<float> k_values = decoded(k), v_values = decoded(v);
  for (int64_t h = 0; h < 2; h++) {
    for (int64_t i = 0; i < K; i++) {
      for (int64_t n = 0; n < 2; n++)
        EXPECT_EQ(k_values[static_cast<size_t>((h * K + i) * 2 + n)], whole[static_cast<size_t>((h * 3 + n) * K + i)]);
      EXPECT_EQ(v_values[static_cast<size_t>(h * K + i)], whole[static_cast<size_t>((h * 3 + 2) * K + i)]);
    }
  }
  EXPECT_TRUE(source->unknown_tensors().empty());
}

TEST(HeadSlice, OfFloats) {
  for (const auto& [dtype, format, size] : {std::tuple{DType::f32, FormatId::f32, size_t{4}},
                                            {DType::f16, FormatId::f16, 2},
                                            {DType::bf16, FormatId::bf16, 2}}) {
    for (const int64_t K : {5, 70}) {
      MemoryCheckpoint file(Container::safetensors);
      Bytes bytes = some_bytes(static_cast<size_t>(6 * K) * size);
      for (size_t i = 0; i < bytes.size(); i++)  // exponents that no NaN has
        if (i % size == size - 1) bytes[i] &= 0x3F;
      file.add("kv_b.weight", dtype, {6, K}, bytes);
      expect_slices(file, K, format, format);
    }
  }
}

TEST(HeadSlice, OfNvfp4KeepsTheTensorScaleApart) {
  MemoryCheckpoint file(Container::safetensors,
                        parse_json(R"({"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}})"));
  Bytes scales = some_bytes(6 * 2);
  for (uint8_t& byte : scales) byte %= 0x7F;
  file.add("kv_b.weight", DType::u8, {6, 16}, some_bytes(6 * 16));
  file.add("kv_b.weight_scale", DType::f8_e4m3, {6, 2}, scales);
  file.add("kv_b.weight_scale_2", DType::f32, {}, bytes_of({0.0123456f}));
  expect_slices(file, 32, FormatId::nvfp4, FormatId::nvfp4_transposed);
}

TEST(HeadSlice, OfMxfp4ToTheSmallestScale) {
  MemoryCheckpoint file(
      Container::safetensors,
      parse_json(
          R"({"quantization_config": {"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "format": "mxfp4-pack-quantized",
          "weights": {"num_bits": 4, "type": "float", "group_size": 32, "strategy": "group"}}}}})"));
  file.add("kv_b.weight_packed", DType::u8, {6, 16}, some_bytes(6 * 16));
  file.add("kv_b.weight_scale", DType::u8, {6, 1}, {0, 1, 2, 127, 200, 250});
  expect_slices(file, 32, FormatId::mxfp4, FormatId::mxfp4_transposed);
}

TEST(HeadSlice, AWrongShapeIsNamed) {
  MemoryCheckpoint file(Container::safetensors);
  file.add("kv_b.weight", DType::f32, {5, 5}, Bytes(100));
  const auto source = file.open();
  const std::string error = input_error([&] { source->describe(first_two(5)); });
  EXPECT_NE(error.find("[5, 5]"), std::string::npos) << error;
  EXPECT_NE(error.find("[6, 5]"), std::string::npos) << error;
}

TEST(HeadSlice, OfOldGgufFiles) {
  MemoryCheckpoint file(Container::gguf);
  file.add("kv_b.weight", DType::q8_0, {6, 32}, [] {
    Bytes blocks = some_bytes(6 * 34);
    for (size_t i = 1; i < blocks.size(); i += 34) blocks[i] &= 0x3F;  // no scale is NaN
    return blocks;
  }());
  expect_slices(file, 32, FormatId::q8_0, FormatId::f32);
}

// What is in the file twice is taken as it is used.
TEST(HeadSlice, AMatrixOfItsOwnGoesFirst) {
  MemoryCheckpoint file(Container::gguf);
  file.add("blk.0.attn_kv_b.weight", DType::f32, {3, 1}, bytes_of({1.f, 2.f, 3.f}));
  file.add("blk.0.attn_k_b.weight", DType::f32, {1, 1, 2}, bytes_of({4.f, 5.f}));
  const auto source = file.open();
  MatrixRequest request = first_two(1);
  request.E = 1;
  request.name.gguf = "blk.0.attn_kv_b";
  request.heads.alone.gguf = "blk.0.attn_k_b";
  EXPECT_EQ(decoded(source->read(request)), (std::vector{4.f, 5.f}));
  EXPECT_EQ(source->tensors_of(request), std::vector<std::string>{"blk.0.attn_k_b.weight"});
  EXPECT_TRUE(source->unknown_tensors().empty());
  ASSERT_EQ(source->unused_tensors().size(), 1u);
  EXPECT_EQ(source->unused_tensors()[0].name, "blk.0.attn_kv_b.weight");
}

TEST(HeadSlice, MlxHoldsThemByThemselves) {
  MemoryCheckpoint file(Container::safetensors, parse_json(R"({"quantization": {"group_size": 32,
    "bits": 4, "mode": "mxfp4"}})"));
  file.add("unembed_out.weight", DType::u32, {2, 1, 4}, some_bytes(2 * 16));
  file.add("unembed_out.scales", DType::u8, {2, 1, 1}, {126, 128});
  const auto source = file.open();
  const CanonicalWeight v = source->read(last_one(32));
  EXPECT_EQ(v.format, FormatId::mxfp4);
  EXPECT_EQ(v.E, 2);
  EXPECT_EQ(decoded(v)[0], e2m1_to_float(11) / 2);    // the low nibble of byte 0, 11
  EXPECT_EQ(decoded(v)[32], 2 * e2m1_to_float(0xB));  // of byte 16, 91 = 0x5B
  EXPECT_TRUE(source->unknown_tensors().empty());
}

TEST(HeadSlice, GgufFilesHoldThemByThemselves) {
  MemoryCheckpoint file(Container::gguf);
  file.add("k_b.weight", DType::f32, {2, 5, 2}, bytes_of({0.f,  1.f,  2.f,  3.f,  4.f,  5.f,  6.f,  7.f,  8.f,  9.f,
                                                          10.f, 11.f, 12.f, 13.f, 14.f, 15.f, 16.f, 17.f, 18.f, 19.f}));
  const CanonicalWeight k = file.open()->read(first_two(5));
  EXPECT_EQ(k.E, 2);
  EXPECT_EQ(decoded(k)[13], 13.0f);
}

}  // namespace
}  // namespace nibble
