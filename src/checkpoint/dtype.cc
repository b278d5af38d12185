#include "checkpoint/dtype.h"

#include <algorithm>
#include <limits>

#include <fmt/ranges.h>

#include "base/error.h"

namespace nibble {

namespace {

struct DTypeFacts {
  DType dtype;
  std::string_view name;
  Block block;
};

// In the order of the enum.
constexpr DTypeFacts kFacts[] = {
    {DType::f64, "F64", {1, 8}},         {DType::f32, "F32", {1, 4}},         {DType::f16, "F16", {1, 2}},
    {DType::bf16, "BF16", {1, 2}},       {DType::f8_e4m3, "F8_E4M3", {1, 1}}, {DType::f8_e5m2, "F8_E5M2", {1, 1}},
    {DType::f8_e8m0, "F8_E8M0", {1, 1}}, {DType::i64, "I64", {1, 8}},         {DType::i32, "I32", {1, 4}},
    {DType::i16, "I16", {1, 2}},         {DType::i8, "I8", {1, 1}},           {DType::u64, "U64", {1, 8}},
    {DType::u32, "U32", {1, 4}},         {DType::u16, "U16", {1, 2}},         {DType::u8, "U8", {1, 1}},
    {DType::boolean, "BOOL", {1, 1}},    {DType::q8_0, "Q8_0", {32, 34}},     {DType::q4_0, "Q4_0", {32, 18}},
    {DType::q4_1, "Q4_1", {32, 20}},     {DType::q5_0, "Q5_0", {32, 22}},     {DType::q5_1, "Q5_1", {32, 24}},
    {DType::q4_k, "Q4_K", {256, 144}},   {DType::q5_k, "Q5_K", {256, 176}},   {DType::q6_k, "Q6_K", {256, 210}},
    {DType::iq4_nl, "IQ4_NL", {32, 18}}, {DType::mxfp4, "MXFP4", {32, 17}},   {DType::nvfp4, "NVFP4", {64, 36}},
};

constexpr bool facts_are_in_order() {
  int next = 0;
  return std::ranges::all_of(kFacts, [&](const DTypeFacts& f) { return static_cast<int>(f.dtype) == next++; });
}
static_assert(facts_are_in_order() && std::size(kFacts) == static_cast<size_t>(DType::nvfp4) + 1);

const DTypeFacts& facts(DType dtype) { return kFacts[static_cast<size_t>(dtype)]; }

}  // namespace

std::string_view dtype_name(DType dtype) { return facts(dtype).name; }

Block dtype_block(DType dtype) { return facts(dtype).block; }

int64_t dtype_bytes(DType dtype, int64_t count) {
  const int64_t counts[] = {count};
  return tensor_bytes(dtype, counts, dtype_name(dtype));
}

int64_t tensor_bytes(DType dtype, std::span<const int64_t> shape, std::string_view where) {
  const auto [block_elements, block_bytes] = dtype_block(dtype);
  const int64_t row = shape.empty() ? 1 : shape.back();
  if (row % block_elements != 0)
    throw_input_error(
        "{}: shape {} has rows of {} elements, but {} comes in blocks of {}; the shape or the type is wrong", where,
        shape_text(shape), row, dtype_name(dtype), block_elements);
  if (std::ranges::any_of(shape, [](int64_t size) { return size < 0; }))
    throw_input_error("{}: shape {} has a dimension below 0; the file is damaged", where, shape_text(shape));
  if (std::ranges::count(shape, 0) > 0) return 0;

  int64_t bytes = block_bytes;
  for (size_t i = 0; i < shape.size(); i++) {
    const int64_t size = i + 1 == shape.size() ? shape[i] / block_elements : shape[i];
    if (bytes > std::numeric_limits<int64_t>::max() / size)
      throw_input_error("{}: shape {} of {} has more than {} bytes; the file is damaged", where, shape_text(shape),
                        dtype_name(dtype), std::numeric_limits<int64_t>::max());
    bytes *= size;
  }
  return bytes;
}

std::string shape_text(std::span<const int64_t> shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

}  // namespace nibble
