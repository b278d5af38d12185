// Checkpoints in Hugging Face layout: plain weights, and the dialects of ModelOpt, compressed-tensors and MLX. All of
// them store E2M1 codes with the even k in the low nibble, row by row, which is canonical already: nothing is copied.
//
//   dialect             codes                             scales                             tensor scale
//   plain               x.weight F32, F16, BF16 [N, K]
//   ModelOpt            x.weight U8 [N, K/2]              x.weight_scale F8_E4M3 [N, K/16]   x.weight_scale_2,
//   multiplies compressed-tensors  x.weight_packed U8 [N, K/2]       x.weight_scale F8_E4M3 [N, K/16]
//   x.weight_global_scale, divides
//                       x.weight_packed U8 [N, K/2]       x.weight_scale U8 [N, K/32]
//   MLX                 x.weight U32 [N, K/8]             x.scales U8 [N, K/16 or K/32]
//   MLX affine          x.weight U32 [N, K*bits/32]       x.scales, x.biases [N, K/group_size]
#include "weights/importer_safetensors.h"

#include <algorithm>
#include <charconv>

namespace nibble {

bool SafetensorsImporter::has_module(const std::string& module) const {
  return checkpoint().find(module + ".weight") != nullptr || checkpoint().find(module + ".weight_packed") != nullptr;
}

bool SafetensorsImporter::has(const TensorName& matrix) const { return has_module(matrix.hf); }

StoredMatrix SafetensorsImporter::locate(const MatrixRequest& request) {
  return request.is_experts ? locate_experts(request) : locate_module(request);
}

StoredVector SafetensorsImporter::locate_vector(const TensorName& name) const {
  return name.hf.find('*') == std::string::npos ? StoredVector{.tensor = name.hf} : locate_expert_biases(name.hf);
}

StoredMatrix SafetensorsImporter::locate_module(const MatrixRequest& request) {
  const std::string& module = request.name.hf;
  if (checkpoint().find(module + ".weight_packed") != nullptr) return locate_compressed_tensors(request);
  if (checkpoint().find(module + ".scales") != nullptr) return locate_mlx(request);
  if (checkpoint().find(module + ".weight_scale") != nullptr) return locate_modelopt(request);
  return locate_plain(request);
}

CanonicalWeight SafetensorsImporter::load(const MatrixRequest& request, const StoredMatrix& stored) const {
  if (stored.biases != nullptr) return load_mlx_affine(request, stored);
  return stored.rows.count > 0 || stored.is_transposed ? load_selected(request, stored) : borrow(request, stored);
}

void SafetensorsImporter::expect_config(const Tensor& codes, const std::string& module, QuantizationTool tool,
                                        FormatId format) const {
  if (config_.tool != tool || std::ranges::find(config_.formats, format) == config_.formats.end())
    fail(codes, "has {} codes and scales, of which {} says nothing; the configuration belongs to other tensors",
         format_name(format), config_.where);
  if (config_.ignores(module))
    fail(codes, "has {} codes and scales, but {} says that this module is not quantized; one of the two is wrong",
         format_name(format), config_.where);
}

// One float32: a scalar in ModelOpt's files, one element in those of compressed-tensors.
const Tensor& SafetensorsImporter::take_tensor_scale(const std::string& name) {
  const Tensor& tensor = take(name);
  expect_dtype(tensor, {DType::f32});
  if (!tensor.shape.empty()) expect_shape(tensor, {1});
  return tensor;
}

StoredMatrix SafetensorsImporter::locate_plain(const MatrixRequest& request) {
  const Tensor& weight = take(request.name.hf + ".weight");
  if (weight.dtype == DType::u8 || weight.dtype == DType::u32)
    fail(weight, "type {} in the file, but no scales beside it: {}.weight_scale (ModelOpt) or {}.scales (MLX) expected",
         dtype_name(weight.dtype), request.name.hf, request.name.hf);
  expect_dtype(weight, {DType::f32, DType::f16, DType::bf16});
  expect_columns(weight, request, request.K);
  return {.format = *plain_format(weight.dtype), .codes = &weight, .source = std::string(dtype_name(weight.dtype))};
}

StoredMatrix SafetensorsImporter::locate_modelopt(const MatrixRequest& request) {
  const std::string& module = request.name.hf;
  const Tensor& codes = take(module + ".weight");
  const Tensor& scales = take(module + ".weight_scale");
  expect_dtype(codes, {DType::u8});
  expect_dtype(scales, {DType::f8_e4m3});
  expect_config(codes, module, QuantizationTool::modelopt, FormatId::nvfp4);
  expect_whole_groups(codes, request.K, Nvfp4::group_size);
  expect_columns(codes, request, request.K / 2);
  expect_columns(scales, request, request.K / Nvfp4::group_size);
  return {.format = FormatId::nvfp4,
          .codes = &codes,
          .scales = &scales,
          .tensor_scale = &take_tensor_scale(module + ".weight_scale_2"),
          .source = "U8 + F8_E4M3 scales (ModelOpt NVFP4)"};
}

StoredMatrix SafetensorsImporter::locate_compressed_tensors(const MatrixRequest& request) {
  const std::string& module = request.name.hf;
  const Tensor& codes = take(module + ".weight_packed");
  const Tensor& scales = take(module + ".weight_scale");
  expect_dtype(codes, {DType::u8});
  expect_dtype(scales, {DType::f8_e4m3, DType::u8, DType::f8_e8m0});
  StoredMatrix stored{
      .format = scales.dtype == DType::f8_e4m3 ? FormatId::nvfp4 : FormatId::mxfp4, .codes = &codes, .scales = &scales};
  const int group = group_size(stored.format);
  expect_config(codes, module, QuantizationTool::compressed_tensors, stored.format);
  expect_whole_groups(codes, request.K, group);
  expect_columns(codes, request, request.K / 2);
  expect_columns(scales, request, request.K / group);
  if (stored.format == FormatId::nvfp4) {
    stored.tensor_scale = &take_tensor_scale(module + ".weight_global_scale");
    stored.tensor_scale_divides = true;
  }
  stored.source =
      fmt::format("U8 + {} scales (compressed-tensors {})", dtype_name(scales.dtype), format_name(stored.format));
  return stored;
}

StoredMatrix SafetensorsImporter::locate_mlx(const MatrixRequest& request) {
  const std::string& module = request.name.hf;
  const Tensor& codes = take(module + ".weight");
  const Tensor& scales = take(module + ".scales");
  expect_dtype(codes, {DType::u32});
  const MlxModule said = config_.mlx_module(module);
  if (said.affine) {
    const auto [bits, group] = *said.affine;
    const Tensor& biases = take(module + ".biases");
    expect_whole_groups(codes, request.K, group);
    expect_columns(codes, request, request.K * bits / 32);
    for (const Tensor* tensor : {&scales, &biases}) {
      expect_dtype(*tensor, {DType::f32, DType::f16, DType::bf16});
      expect_columns(*tensor, request, request.K / group);
    }
    return {.format = FormatId::f32,
            .codes = &codes,
            .scales = &scales,
            .biases = &biases,
            .source = fmt::format("U32 + {} scales and biases (MLX affine, {} bits)", dtype_name(scales.dtype), bits)};
  }
  if (!said.format)
    fail(codes, "has scales beside it, but {} says that this module is not quantized; one of the two is wrong",
         config_.where);
  const int group = group_size(*said.format);
  expect_dtype(scales, {DType::u8});
  expect_whole_groups(codes, request.K, group);
  expect_columns(codes, request, request.K / 8);
  expect_columns(scales, request, request.K / group);
  return {.format = *said.format,
          .codes = &codes,
          .scales = &scales,
          .source = fmt::format("U32 + U8 scales (MLX {})", format_name(*said.format))};
}

// As float32, which holds each product of a code and a scale exactly; MLX keeps only small matrices in this form here.
CanonicalWeight SafetensorsImporter::load_mlx_affine(const MatrixRequest& request, const StoredMatrix& stored) const {
  const auto [bits, group] = *config_.mlx_module(request.name.hf).affine;
  OwnedWeight owned = own(request, stored);
  visit_format(*plain_format(stored.scales->dtype), [&](auto scale_format) {
    visit_format(*plain_format(stored.biases->dtype), [&](auto bias_format) {
      for (int64_t i = 0; i < request.E * request.N * request.K; i++) {  // a row is whole groups and whole bytes
        const uint32_t byte = stored.codes->bytes[static_cast<size_t>(i * bits / 8)];
        const uint32_t code = bits == 8 ? byte : (byte >> (i % 2 * 4)) & 15u;
        const float value =
            static_cast<float>(code) * scale_format.decode(stored.scales->bytes.data(), nullptr, i / group) +
            bias_format.decode(stored.biases->bytes.data(), nullptr, i / group);
        std::memcpy(owned.codes + 4 * i, &value, sizeof value);
      }
    });
  });
  return std::move(owned.weight);
}

// Activation scales (ours are not 4 bits wide), tables that the rotation is computed without, layers that predict more
// than the next token, and an output matrix beside the embedding that it is tied to.
bool SafetensorsImporter::is_unused(const Tensor& tensor) const {
  const std::string_view name = tensor.name;
  for (std::string_view ending :
       {".input_scale", ".input_global_scale", ".k_scale", ".v_scale", ".rotary_emb.inv_freq"})
    if (name.ends_with(ending)) return true;
  const auto& config = checkpoint().config;
  if (!config.is_object()) return false;
  const auto tied = config.find("tie_word_embeddings");
  if (name.starts_with("lm_head.") && tied != config.end() && *tied == true) return true;

  constexpr std::string_view kLayers = "model.layers.";
  const auto num_layers = config.find("num_hidden_layers");
  int64_t layer = -1;
  if (name.starts_with(kLayers)) std::from_chars(name.data() + kLayers.size(), name.data() + name.size(), layer);
  return num_layers != config.end() && num_layers->is_number_integer() && layer >= num_layers->get<int64_t>();
}

std::unique_ptr<WeightSource> make_safetensors_importer(std::shared_ptr<const Checkpoint> checkpoint) {
  return std::make_unique<SafetensorsImporter>(std::move(checkpoint));
}

}  // namespace nibble
