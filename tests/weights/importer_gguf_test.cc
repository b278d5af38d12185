#include <limits>

#include <gtest/gtest.h>

#include "memory_checkpoint.h"
#include "weights/importer_core.h"

namespace nibble {
namespace {

MatrixRequest gguf_matrix(const std::string& name, int64_t N, int64_t K) {
  return {.name = {"", name}, .N = N, .K = K};
}

struct BlockCase {
  DType dtype;
  FormatId format;
  int64_t K, block_bytes;
  Bytes scales[2];              // at the start of each of two blocks
  std::vector<float> expected;  // the first 64 values
};

// Two blocks of some_bytes behind their scales; the values are those of gguf-py's dequantizers (numpy).
const std::vector<BlockCase> kBlockCases = {
    {DType::mxfp4,
     FormatId::mxfp4,
     32,
     17,
     {{125}, {128}},
     {0,      0.75f, -0.25f,  -1.5f,  0.5f,   -0.125f, -1,      0.375f, 0,   -0.75f, 0.25f,  1.5f,  -0.5f,
      0.125f, 1,     -0.375f, 0.375f, 0.75f,  1.5f,    -0.125f, -0.5f,  -1,  0,      0.375f, 0.75f, 1.5f,
      -0.25f, -0.5f, -1,      0.125f, 0.375f, 0.75f,   6,       -2,     -12, 4,      -1,     -8,    3,
      0,      -6,    2,       12,     -4,     1,       8,       -3,     0,   -2,     -4,     -8,    1,
      3,      6,     0,       -2,     -4,     -12,     1,       3,      8,   0,      -2,     -6}},
    {DType::q8_0,
     FormatId::q8_0,
     32,
     34,
     {{0x00, 0x38}, {0x00, 0xAC}},
     {42.5f,   61,      -48.5f,   -30,      -11.5f,  7,        25.5f,   44,       62.5f,    -47,     -28.5f,
      -10,     8.5f,    27,       45.5f,    -64,     -45.5f,   -27,     -8.5f,    10,       28.5f,   47,
      -62.5f,  -44,     -25.5f,   -7,       11.5f,   30,       48.5f,   -61,      -42.5f,   -24,     -3.9375f,
      -6.25f,  7.4375f, 5.125f,   2.8125f,  0.5f,    -1.8125f, -4.125f, -6.4375f, 7.25f,    4.9375f, 2.625f,
      0.3125f, -2,      -4.3125f, -6.625f,  7.0625f, 4.75f,    2.4375f, 0.125f,   -2.1875f, -4.5f,   -6.8125f,
      6.875f,  4.5625f, 2.25f,    -0.0625f, -2.375f, -4.6875f, -7,      6.6875f,  4.375f}},
    {DType::q4_0,
     FormatId::q4_0,
     32,
     18,
     {{0x00, 0x38}, {0x00, 0xAC}},
     {-1.5f,    1,        3.5f,    -2,      0.5f,    3,        -2.5f,    0,        2.5f,   -3,      -0.5f,
      2,        -3.5f,    -1,      1.5f,    -4,      -1.5f,    -0.5f,    0.5f,     2,      3,       -4,
      -2.5f,    -1.5f,    -0.5f,   1,       2,       3,        -3.5f,    -2.5f,    -1.5f,  0,       -0.4375f,
      0.25f,    -0.0625f, -0.375f, 0.3125f, -0,      -0.3125f, 0.375f,   0.0625f,  -0.25f, 0.4375f, 0.125f,
      -0.1875f, 0.5f,     0.1875f, -0.125f, -0.375f, 0.4375f,  0.3125f,  0.1875f,  -0,     -0.125f, -0.25f,
      -0.4375f, 0.4375f,  0.3125f, 0.125f,  -0,      -0.125f,  -0.3125f, -0.4375f, 0.4375f}},
    {DType::q4_1,
     FormatId::q4_1,
     32,
     20,
     {{0x00, 0x38, 0x00, 0x3D}, {0x00, 0xAC, 0x00, 0x3D}},
     {8.75f,   3.25f,   5.75f,  8.25f,   2.75f,  5.25f,   7.75f,   2.25f,   4.75f,   7.25f,  1.75f,   4.25f, 6.75f,
      1.25f,   3.75f,   6.25f,  5.75f,   7.25f,  8.25f,   1.25f,   2.75f,   3.75f,   4.75f,  6.25f,   7.25f, 8.25f,
      1.75f,   2.75f,   3.75f,  5.25f,   6.25f,  7.25f,   1.0625f, 0.75f,   0.4375f, 1.125f, 0.8125f, 0.5f,  1.1875f,
      0.875f,  0.5625f, 1.25f,  0.9375f, 0.625f, 0.3125f, 1,       0.6875f, 0.375f,  0.75f,  0.625f,  0.5f,  0.3125f,
      1.1875f, 1.0625f, 0.875f, 0.75f,   0.625f, 0.4375f, 0.3125f, 1.1875f, 1.0625f, 0.875f, 0.75f,   0.625f}},
    {DType::nvfp4,
     FormatId::nvfp4,
     64,
     36,
     {{0x38, 0x01, 0x7E, 0x45}, {0x39, 0x01, 0x7E, 0x45}},
     {-6,
      2,
      -0.5f,
      -4,
      1.5f,
      0,
      -3,
      1,
      -0.5f,
      -2,
      -4,
      0,
      1.5f,
      3,
      6,
      -1,
      0.01171875f,
      -0.00390625f,
      0.0009765625f,
      0.0078125f,
      -0.0029296875f,
      0,
      0.005859375f,
      -0.001953125f,
      -0.00390625f,
      -0.0078125f,
      0.0009765625f,
      0.0029296875f,
      0.005859375f,
      0,
      -0.001953125f,
      -0.00390625f,
      -2688,
      896,
      -224,
      -1792,
      672,
      0,
      -1344,
      448,
      -1792,
      224,
      672,
      1344,
      0,
      -448,
      -896,
      -2688,
      19.5f,
      -6.5f,
      1.625f,
      13,
      -4.875f,
      0,
      9.75f,
      -3.25f,
      1.625f,
      4.875f,
      13,
      0,
      -3.25f,
      -9.75f,
      -19.5f,
      1.625f}},
};

Bytes two_blocks(const BlockCase& c) {
  Bytes bytes = some_bytes(static_cast<size_t>(2 * c.block_bytes));
  for (int64_t block = 0; block < 2; block++)
    std::copy(c.scales[block].begin(), c.scales[block].end(), bytes.begin() + block * c.block_bytes);
  return bytes;
}

TEST(ImportGguf, BlocksBecomeRowsOfCodesAndScales) {
  for (const BlockCase& c : kBlockCases) {
    MemoryCheckpoint file(Container::gguf);
    file.add("x.weight", c.dtype, {2, c.K}, two_blocks(c));
    const auto source = file.open();
    const MatrixInfo info = source->describe(gguf_matrix("x", 2, c.K));
    EXPECT_EQ(info.format, c.format);
    EXPECT_EQ(info.source, format_name(c.format));
    EXPECT_EQ(info.bytes, 2 * c.block_bytes);
    EXPECT_TRUE(info.is_copied);
    std::vector<float> values = decoded(source->read(gguf_matrix("x", 2, c.K)));
    values.resize(64);
    EXPECT_EQ(values, c.expected) << format_name(c.format);

    // The same blocks in one row.
    MemoryCheckpoint wide(Container::gguf);
    wide.add("x.weight", c.dtype, {1, 2 * c.K}, two_blocks(c));
    values = decoded(wide.open()->read(gguf_matrix("x", 1, 2 * c.K)));
    values.resize(64);
    EXPECT_EQ(values, c.expected) << format_name(c.format);
  }
}

TEST(ImportGguf, Nvfp4HasATensorScaleForEachExpert) {
  const BlockCase& c = kBlockCases.back();
  MemoryCheckpoint file(Container::gguf);
  file.add("x.weight", DType::nvfp4, {2, 1, 64}, two_blocks(c))
      .add("x.scale", DType::f32, {2}, bytes_of({0.5f, 4.0f}))
      .add("x.input_scale", DType::f32, {2}, bytes_of({99.0f, 99.0f}));
  const MatrixRequest request{.name = {"", "x"}, .E = 2, .N = 1, .K = 64};
  const auto source = file.open();
  const std::vector<float> values = decoded(source->read(request));
  for (size_t k = 0; k < 64; k++) EXPECT_EQ(values[k], c.expected[k] * 0.5f) << k;
  EXPECT_EQ(values[64], 1.6875f * 4.0f);
  EXPECT_EQ(values[79], -3.375f * 4.0f);
  EXPECT_TRUE(source->unknown_tensors().empty());
  EXPECT_EQ(source->unused_tensors(), (std::vector<UnusedTensor>{{"x.input_scale", kActivationScale}}));

  file.add("x.scale", DType::f32, {3}, bytes_of({1.0f, 1.0f, 1.0f}));
  EXPECT_NE(error_of(file, request).find("x.scale: shape [3] in the file, [2] expected"), std::string::npos);
}

// One scale for all experts, or one for each; a weight's values are those of the block times its expert's.
TEST(ImportGguf, ExpertsAreStacked) {
  const BlockCase& c = kBlockCases.back();
  const std::string name = "blk.3.ffn_gate_exps";
  const MatrixRequest request{.name = {"", name}, .E = 2, .N = 1, .K = 64, .is_experts = true};
  MemoryCheckpoint file(Container::gguf);
  file.add(name + ".weight", DType::nvfp4, {2, 1, 64}, two_blocks(c));
  const std::vector<float> plain = decoded(file.open()->read(request));
  EXPECT_TRUE(std::equal(c.expected.begin(), c.expected.end(), plain.begin()));
  for (const auto& scales : {std::vector<float>{0.5f, 4.0f}, {3.0f}}) {
    const auto* first = reinterpret_cast<const uint8_t*>(scales.data());
    file.add(name + ".scale", DType::f32, {static_cast<int64_t>(scales.size())}, {first, first + 4 * scales.size()});
    const CanonicalWeight weight = file.open()->read(request);
    EXPECT_EQ(weight.E, 2);
    const std::vector<float> values = decoded(weight);
    for (size_t k = 0; k < 128; k++) EXPECT_EQ(values[k], plain[k] * (k < 64 ? scales.front() : scales.back())) << k;
  }

  file.add(name + ".weight", DType::nvfp4, {2, 64}, two_blocks(c));
  EXPECT_NE(error_of(file, request).find("shape [2, 64] in the file, [2, 1, 64] expected"), std::string::npos);
  file.add(name + ".scale", DType::f32, {2}, bytes_of({1.0f, std::numeric_limits<float>::quiet_NaN()}))
      .add(name + ".weight", DType::nvfp4, {2, 1, 64}, two_blocks(c));
  EXPECT_NE(error_of(file, request).find(name + ".scale: tensor scale 1 is nan"), std::string::npos);
}

// llama.cpp drops the dimension of 1, gguf-py keeps it.
TEST(ImportGguf, ASingleExpertHasEitherShape) {
  const MatrixRequest request{.name = {"", "e"}, .E = 1, .N = 2, .K = 32, .is_experts = true};
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{1, 2, 32}, {2, 32}}) {
    MemoryCheckpoint file(Container::gguf);
    file.add("e.weight", DType::q4_0, shape, two_blocks(kBlockCases[2]))
        .add("e.bias", DType::f32, {shape.begin(), shape.end() - 1}, bytes_of({1.0f, 2.0f}));
    const auto source = file.open();
    EXPECT_EQ(decoded(source->read(request)), kBlockCases[2].expected);
    EXPECT_EQ(source->read_vector({.name = {"", "e.bias"}, .size = 2, .E = 1, .is_experts = true}),
              (std::vector<float>{1, 2}));
  }
}

TEST(ImportGguf, BiasesOfExpertsAreRows) {
  MemoryCheckpoint file(Container::gguf);
  file.add("blk.0.ffn_up_exps.bias", DType::f32, {3, 2}, bytes_of({1.0f, 2.0f, 3.0f, 4.0f, 5.0f, 6.0f}));
  VectorRequest request{.name = {"", "blk.0.ffn_up_exps.bias"}, .size = 2, .E = 3, .is_experts = true};
  EXPECT_EQ(file.open()->read_vector(request), (std::vector<float>{1, 2, 3, 4, 5, 6}));
  request.E = 2;
  EXPECT_NE(input_error([&] {
              file.open()->check_vector(request);
            }).find("blk.0.ffn_up_exps.bias: shape [3, 2] in the file, [2, 2] expected"),
            std::string::npos);
}

// A scale or minimum that is no number, wherever a block has it.
TEST(ImportGguf, ScalesThatAreNotFiniteAreRefused) {
  struct Case {
    DType dtype;
    int64_t K;
    std::vector<size_t> halves;  // where they are in a block
  };
  for (const Case& c : {Case{DType::q5_0, 32, {0}}, Case{DType::q5_1, 32, {0, 2}}, Case{DType::q4_k, 256, {0, 2}},
                        Case{DType::q5_k, 256, {0, 2}}, Case{DType::q6_k, 256, {208}}, Case{DType::iq4_nl, 32, {0}}}) {
    const auto block_bytes = static_cast<size_t>(dtype_block(c.dtype).bytes);
    for (size_t at : c.halves) {
      for (uint8_t high : {0x7C, 0xFC, 0x7E}) {
        MemoryCheckpoint file(Container::gguf);
        Bytes bytes(2 * block_bytes);
        bytes[block_bytes + at + 1] = high;
        file.add("x.weight", c.dtype, {1, 2 * c.K}, bytes);
        const std::string message = error_of(file, gguf_matrix("x", 1, 2 * c.K));
        EXPECT_TRUE(message.starts_with("model: tensor x.weight: scale 1 is 0x")) << message;
        EXPECT_NE(message.find(dtype_name(c.dtype)), std::string::npos) << message;
      }
    }
    MemoryCheckpoint file(Container::gguf);
    file.add("x.weight", c.dtype, {1, 48}, Bytes(2 * block_bytes));
    EXPECT_NE(error_of(file, gguf_matrix("x", 1, 48)).find(fmt::format("rows of 48 weights, a multiple of {}", c.K)),
              std::string::npos);
  }
}

TEST(ImportGguf, Nvfp4ScaleWithoutAValueIsZero) {
  BlockCase c = kBlockCases.back();
  c.scales[0] = {0x7F, 0x38, 0x38, 0x38};
  MemoryCheckpoint file(Container::gguf);
  file.add("x.weight", DType::nvfp4, {2, 64}, two_blocks(c));
  const std::vector<float> values = decoded(file.open()->read(gguf_matrix("x", 2, 64)));
  for (size_t k = 0; k < 16; k++) EXPECT_EQ(values[k], 0.0f);
  EXPECT_NE(values[16], 0.0f);
}

TEST(ImportGguf, PlainRowsAreTheFilesBytes) {
  MemoryCheckpoint file(Container::gguf);
  file.add("x.weight", DType::f32, {1, 2}, bytes_of({1.5f, -2.0f}));
  const CanonicalWeight weight = file.open()->read(gguf_matrix("x", 1, 2));
  EXPECT_EQ(weight.codes.data(), file.storage.front().data());
  EXPECT_EQ(decoded(weight), (std::vector<float>{1.5f, -2.0f}));
}

// Rows 0 … 5 of a head lie in the file as 0 3 1 4 2 5: each pair of the rotation side by side.
TEST(ImportGguf, PermutedRowsOfQAndKGoBack) {
  MemoryCheckpoint file(Container::gguf);
  const auto rows = {0.0f, 3.0f, 1.0f, 4.0f, 2.0f, 5.0f, 6.0f, 9.0f, 7.0f, 10.0f, 8.0f, 11.0f};
  file.add("q.weight", DType::f32, {12, 1}, bytes_of(rows)).add("q.bias", DType::f32, {12}, bytes_of(rows));
  const std::vector<float> expected = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  MatrixRequest request = gguf_matrix("q", 12, 1);
  request.gguf_permuted_heads = 2;
  const auto source = file.open();
  EXPECT_EQ(decoded(source->read(request)), expected);
  EXPECT_EQ(source->read_vector({.name = {"", "q.bias"}, .size = 12, .gguf_permuted_heads = 2}), expected);
  request.gguf_permuted_heads = 4;
  EXPECT_EQ(
      error_of(file, request),
      "model: tensor q.weight: 12 rows for 4 heads, an even number for each head expected; the configuration does "
      "not fit");

  Bytes blocks;
  for (uint8_t exponent : {127, 130, 128, 131, 129, 132}) {
    blocks.push_back(exponent);
    blocks.insert(blocks.end(), 16, 0x22);  // ones
  }
  file.add("k.weight", DType::mxfp4, {6, 32}, blocks);
  request = gguf_matrix("k", 6, 32);
  request.gguf_permuted_heads = 1;
  const std::vector<float> values = decoded(file.open()->read(request));
  for (size_t n = 0; n < 6; n++) EXPECT_EQ(values[n * 32], static_cast<float>(1 << n)) << n;
}

TEST(ImportGguf, FaultsNameFileTensorAndBothValues) {
  MemoryCheckpoint file(Container::gguf);
  file.add("x.weight", DType::mxfp4, {2, 32}, two_blocks(kBlockCases.front()))
      .add("i.weight", DType::i32, {1, 1}, {0, 0, 0, 0})
      .add("y.weight", DType::mxfp4, {1, 32}, Bytes(17, 255))
      .add("z.weight", DType::mxfp4, {1, 48}, Bytes(34, 0))
      .add("s.weight", DType::mxfp4, {2, 32}, two_blocks(kBlockCases.front()))
      .add("s.scale", DType::f32, {1}, bytes_of({2.0f}));
  EXPECT_EQ(error_of(file, gguf_matrix("x", 2, 64)),
            "model: tensor x.weight: shape [2, 32] in the file, [2, 64] expected; the tensors do not fit the "
            "configuration");
  EXPECT_NE(error_of(file, gguf_matrix("w", 2, 64)).find("there is no tensor w.weight"), std::string::npos);
  EXPECT_EQ(error_of(file, gguf_matrix("i", 1, 1)),
            "model: tensor i.weight: type I32 is not read; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, "
            "Q6_K, IQ4_NL, MXFP4 and NVFP4 are");
  EXPECT_NE(error_of(file, gguf_matrix("y", 1, 32)).find("model: tensor y.weight: scale 0 is 0xff"), std::string::npos);
  EXPECT_NE(error_of(file, gguf_matrix("z", 1, 48)).find("rows of 48 weights, a multiple of 32 expected"),
            std::string::npos);
  EXPECT_EQ(error_of(file, gguf_matrix("s", 2, 32)),
            "model: tensor s.scale: a tensor scale beside codes of MXFP4, which is read only beside NVFP4");
}

TEST(ImportGguf, TellsUnknownTensorsFromUnusedOnes) {
  MemoryCheckpoint file(
      Container::gguf,
      {{"general.architecture", "glm4moe"}, {"glm4moe.block_count", 3}, {"glm4moe.nextn_predict_layers", 1}});
  for (const char* name :
       {"blk.1.extra.weight", "blk.2.nextn.eh_proj.weight", "blk.3.x", "rope_freqs.weight", "blk.0.x.input_scale"})
    file.add(name, DType::f32, {0}, {});
  const auto source = file.open();
  EXPECT_EQ(source->unknown_tensors(), (std::vector<std::string>{"blk.1.extra.weight", "blk.3.x"}));
  EXPECT_EQ(source->unused_tensors(),
            (std::vector<UnusedTensor>{{"blk.0.x.input_scale", kActivationScale},
                                       {"blk.2.nextn.eh_proj.weight", kPredictionLayer},
                                       {"rope_freqs.weight", "table of the rotation, read with the configuration"}}));
}

}  // namespace
}  // namespace nibble
