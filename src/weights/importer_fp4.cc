// FP4 modules of ModelOpt, compressed-tensors and DeepSeek. All of them store E2M1 codes with the even k in the low
// nibble, row by row, which is canonical already: nothing is copied.
//
//   tool                codes                        scales                             tensor scale
//   ModelOpt            x.weight U8 [N, K/2]         x.weight_scale F8_E4M3 [N, K/16]   x.weight_scale_2, multiplies
//   compressed-tensors  x.weight_packed U8 [N, K/2]  x.weight_scale F8_E4M3 [N, K/16]   x.weight_global_scale, divides
//                       x.weight_packed U8 [N, K/2]  x.weight_scale U8 [N, K/32], E8M0
//   DeepSeek-V4         x.weight I8 [N, K/2]         x.scale F8_E8M0 [N, K/32]
#include "weights/importer_safetensors.h"

namespace nibble {

StoredMatrix SafetensorsImporter::locate_modelopt(const MatrixRequest& request) {
  const std::string& module = request.name.hf;
  const Tensor& codes = take(module + ".weight");
  const Tensor& scales = take(module + ".weight_scale");
  expect_dtype(codes, {DType::u8});
  expect_dtype(scales, {DType::f8_e4m3});
  expect_scheme(codes, module, {QuantizationTool::modelopt}, {.codes = Scheme::Codes::nvfp4});
  expect_whole_groups(codes, request.K, Nvfp4::group_size);
  expect_columns(codes, request, request.K / 2);
  expect_columns(scales, request, request.K / Nvfp4::group_size);
  return {.format = FormatId::nvfp4,
          .codes = &codes,
          .scales = &scales,
          .tensor_scale = &take_tensor_scale(module + ".weight_scale_2", request),
          .source = "U8 + F8_E4M3 scales (ModelOpt NVFP4)"};
}

StoredMatrix SafetensorsImporter::locate_compressed_tensors(const MatrixRequest& request) {
  const std::string& module = request.name.hf;
  const Tensor& codes = take(module + ".weight_packed");
  const Tensor& scales = take(module + ".weight_scale");
  expect_dtype(codes, {DType::u8});
  expect_dtype(scales, {DType::f8_e4m3, DType::u8, DType::f8_e8m0});
  const bool is_nvfp4 = scales.dtype == DType::f8_e4m3;
  StoredMatrix stored{.format = is_nvfp4 ? FormatId::nvfp4 : FormatId::mxfp4, .codes = &codes, .scales = &scales};
  const int group = group_size(stored.format);
  expect_scheme(codes, module, {QuantizationTool::compressed_tensors},
                {.codes = is_nvfp4 ? Scheme::Codes::nvfp4 : Scheme::Codes::mxfp4});
  expect_whole_groups(codes, request.K, group);
  expect_columns(codes, request, request.K / 2);
  expect_columns(scales, request, request.K / group);
  if (is_nvfp4) {
    stored.tensor_scale = &take_tensor_scale(module + ".weight_global_scale", request);
    stored.tensor_scale_divides = true;
  }
  stored.source =
      fmt::format("U8 + {} scales (compressed-tensors {})", dtype_name(scales.dtype), format_name(stored.format));
  return stored;
}

StoredMatrix SafetensorsImporter::locate_deepseek_fp4(const MatrixRequest& request) {
  const std::string& module = request.name.hf;
  const Tensor& codes = take(module + ".weight");
  const Tensor& scales = take(module + ".scale");
  expect_dtype(codes, {DType::i8});
  expect_dtype(scales, {DType::f8_e8m0});
  if (config_.tool != QuantizationTool::fp8 || !config_.has_fp4_experts || config_.ignored.has(module))
    fail(codes, "has MXFP4 codes and scales, of which {} says nothing (quant_method fp8 with expert_dtype fp4 does)",
         config_.where);
  expect_whole_groups(codes, request.K, Mxfp4::group_size);
  expect_columns(codes, request, request.K / 2);
  expect_columns(scales, request, request.K / Mxfp4::group_size);
  return {
      .format = FormatId::mxfp4, .codes = &codes, .scales = &scales, .source = "I8 + F8_E8M0 scales (DeepSeek MXFP4)"};
}

}  // namespace nibble
