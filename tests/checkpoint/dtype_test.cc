#include "checkpoint/dtype.h"

#include <limits>

#include "checkpoint/test_files.h"

namespace nibble {
namespace {

TEST(DType, BytesOfPlainAndBlockTypes) {
  EXPECT_EQ(dtype_bytes(DType::f64, 3), 24);
  EXPECT_EQ(dtype_bytes(DType::bf16, 3), 6);
  EXPECT_EQ(dtype_bytes(DType::f8_e8m0, 3), 3);
  EXPECT_EQ(dtype_bytes(DType::boolean, 0), 0);
  EXPECT_EQ(dtype_bytes(DType::q8_0, 64), 68);
  EXPECT_EQ(dtype_bytes(DType::q4_0, 64), 36);
  EXPECT_EQ(dtype_bytes(DType::q4_1, 64), 40);
  EXPECT_EQ(dtype_bytes(DType::q5_0, 64), 44);
  EXPECT_EQ(dtype_bytes(DType::q5_1, 64), 48);
  EXPECT_EQ(dtype_bytes(DType::q4_k, 512), 288);
  EXPECT_EQ(dtype_bytes(DType::q5_k, 512), 352);
  EXPECT_EQ(dtype_bytes(DType::q6_k, 512), 420);
  EXPECT_EQ(dtype_bytes(DType::iq4_nl, 64), 36);
  EXPECT_EQ(dtype_bytes(DType::mxfp4, 64), 34);
  EXPECT_EQ(dtype_bytes(DType::nvfp4, 64), 36);
  expect_parts(error_of([] { dtype_bytes(DType::nvfp4, 96); }), {"NVFP4", "96", "64"});
}

TEST(DType, BytesOfShapes) {
  const auto bytes = [](DType dtype, std::vector<int64_t> shape) {
    return tensor_bytes(dtype, shape, "file: tensor x");
  };
  EXPECT_EQ(bytes(DType::f32, {}), 4);
  EXPECT_EQ(bytes(DType::f32, {2, 3}), 24);
  EXPECT_EQ(bytes(DType::mxfp4, {3, 64}), 102);
  const int64_t huge = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(bytes(DType::f32, {huge, huge, 0}), 0);
  EXPECT_EQ(bytes(DType::u8, {1, huge}), huge);
  expect_parts(error_of([&] { bytes(DType::mxfp4, {32, 48}); }), {"file: tensor x: ", "[32, 48]", "MXFP4", "32"});
  expect_parts(error_of([&] { bytes(DType::u16, {2, huge}); }),
               {"file: tensor x: ", "[2, 9223372036854775807]", "U16"});
  expect_parts(error_of([&] { bytes(DType::u8, {huge, huge}); }), {"file: tensor x: "});
  expect_parts(error_of([&] { bytes(DType::u8, {-1, 2}); }), {"file: tensor x: ", "[-1, 2]"});
}

TEST(DType, Texts) {
  EXPECT_EQ(shape_text({}), "[]");
  EXPECT_EQ(shape_text(std::vector<int64_t>{64, 48}), "[64, 48]");
  EXPECT_EQ(dtype_name(DType::f8_e4m3), "F8_E4M3");
  EXPECT_EQ(dtype_name(DType::boolean), "BOOL");
}

}  // namespace
}  // namespace nibble
