// The element types of all containers, and how many bytes a shape of them takes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace nibble {

// Element types as the containers name them. Block types are GGUF's: the bytes are whole blocks in ggml's layout.
enum class DType : uint8_t {
  f64,
  f32,
  f16,
  bf16,
  f8_e4m3,
  f8_e5m2,
  f8_e8m0,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  boolean,
  q8_0,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q4_k,
  q5_k,
  q6_k,
  iq4_nl,
  mxfp4,
  nvfp4,
};

// `elements` consecutive elements of the innermost dimension take `bytes` bytes; elements is 1 but for block types.
struct Block {
  int elements, bytes;
};

std::string_view dtype_name(DType dtype);
Block dtype_block(DType dtype);

// Bytes of `count` elements. Throws InputError if `count` is not a multiple of the type's block.
int64_t dtype_bytes(DType dtype, int64_t count);

// Bytes of a tensor. Throws InputError, whose message starts with `where` ("{file}: tensor {name}"), for a negative
// dimension, an innermost dimension that is not whole blocks, and more bytes than an int64 counts.
int64_t tensor_bytes(DType dtype, std::span<const int64_t> shape, std::string_view where);

// "[64, 48]", for messages.
std::string shape_text(std::span<const int64_t> shape);

}  // namespace nibble
