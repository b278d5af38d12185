// Modules that MLX quantized. Codes are U32, from the low end on; in memory that is bytes with the even k in the low
// nibble.
//
//   mode           codes                      beside them
//   mxfp4, nvfp4   x.weight U32 [N, K/8]      x.scales U8 [N, K/32] (E8M0) or [N, K/16] (E4M3)
//   affine         x.weight U32 [N, K*b/32]   x.scales, x.biases F32, F16 or BF16 [N, K/group_size]
//
// nvfp4 may have x.global_scale, the tensor's largest magnitude: 2688 (the largest element times the largest scale)
// tensor scales. Affine codes of 2, 3, 5 and 6 bits become ones of 4 and 8 bits, with the same values; a group that is
// no format's becomes groups of 32 with the same scale.
#include <cstring>

#include "weights/importer_safetensors.h"

namespace nibble {
namespace {

FormatId affine_format(int bits, int64_t group) {
  if (bits <= 4)
    return group == 64 ? FormatId::affine4_64 : group == 128 ? FormatId::affine4_128 : FormatId::affine4_32;
  return group == 64 ? FormatId::affine8_64 : group == 128 ? FormatId::affine8_128 : FormatId::affine8_32;
}

// Code k of a row, `bits` each from the low end of the bytes on; the row goes on for `size` bytes.
uint32_t file_code(const uint8_t* row, int64_t size, int bits, int64_t k) {
  const int64_t bit = k * bits, byte = bit / 8;
  const uint32_t next = byte + 1 < size ? row[byte + 1] : 0;
  return ((row[byte] | next << 8) >> (bit % 8)) & ((1u << bits) - 1);
}

}  // namespace

StoredMatrix SafetensorsImporter::locate_mlx(const MatrixRequest& request) {
  const std::string& module = request.name.hf;
  const Tensor& codes = take(module + ".weight");
  const Tensor& scales = take(module + ".scales");
  expect_dtype(codes, {DType::u32});
  // The tensors alone do not tell a mode: the configuration must.
  const Scheme said = config_.scheme_of(module);
  if (config_.tool != QuantizationTool::mlx || said == Scheme{})
    fail(codes, "has scales beside it, but {} says {}; one of the two is wrong", config_.where,
         config_.tool == QuantizationTool::mlx ? "that this module is not quantized" : "nothing of MLX's quantization");
  if (said.codes == Scheme::Codes::affine) {
    const Tensor& biases = take(module + ".biases");
    expect_whole_groups(codes, request.K, said.group_size);
    expect_columns(codes, request, request.K * said.bits / 32);
    for (const Tensor* tensor : {&scales, &biases}) {
      expect_dtype(*tensor, {DType::f32, DType::f16, DType::bf16});
      expect_columns(*tensor, request, request.K / said.group_size);
    }
    return {
        .format = affine_format(said.bits, said.group_size),
        .codes = &codes,
        .scales = &scales,
        .biases = &biases,
        .code_bits = said.bits,
        .scale_columns = said.group_size,
        .source = fmt::format("U32 + {} scales and biases (MLX affine, {} bits)", dtype_name(scales.dtype), said.bits)};
  }
  const FormatId format = said.codes == Scheme::Codes::nvfp4 ? FormatId::nvfp4 : FormatId::mxfp4;
  const int group = group_size(format);
  expect_dtype(scales, {DType::u8});
  expect_whole_groups(codes, request.K, group);
  expect_columns(codes, request, request.K / 8);
  expect_columns(scales, request, request.K / group);
  const bool is_scaled = format == FormatId::nvfp4 && checkpoint().find(module + ".global_scale") != nullptr;
  return {.format = format,
          .codes = &codes,
          .scales = &scales,
          .tensor_scale = is_scaled ? &take_tensor_scale(module + ".global_scale", request) : nullptr,
          .tensor_scale_unit = is_scaled ? 1.0f / (kE2m1Largest * kE4m3Largest) : 1.0f,
          .source = fmt::format("U32 + U8 scales (MLX {})", format_name(format))};
}

CanonicalWeight SafetensorsImporter::load_affine(const MatrixRequest& request, const StoredMatrix& stored) const {
  OwnedWeight owned = own(request, stored);
  const int64_t num_rows = request.E * request.N;
  const int bits = stored.code_bits;
  const int64_t file_row = request.K * bits / 8, row_codes = code_bytes(stored.format, request.K);
  const int64_t group = group_size(stored.format), num_groups = request.K / group;
  const int64_t repeated = stored.scale_columns / group;  // a scale of the file, in groups of the format
  for (int64_t row = 0; row < num_rows; row++) {
    const uint8_t* from = stored.codes->bytes.data() + row * file_row;
    uint8_t* codes = owned.codes + row * row_codes;
    if (bits == 4 || bits == 8) {
      std::memcpy(codes, from, static_cast<size_t>(row_codes));
    } else if (bits < 4) {
      std::memset(codes, 0, static_cast<size_t>(row_codes));
      for (int64_t k = 0; k < request.K; k++) set_nibble(codes, k, file_code(from, file_row, bits, k));
    } else {
      for (int64_t k = 0; k < request.K; k++) codes[k] = static_cast<uint8_t>(file_code(from, file_row, bits, k));
    }
    for (int64_t g = 0; g < num_groups; g++) {
      const int64_t i = row * (num_groups / repeated) + g / repeated;
      const float pair[2] = {element(*stored.scales, i), element(*stored.biases, i)};
      std::memcpy(owned.scales + (row * num_groups + g) * 8, pair, sizeof pair);
    }
  }
  return std::move(owned.weight);
}

}  // namespace nibble
