// Checkpoints in Hugging Face layout: which dialect a module is in, plain weights (x.weight F32, F16, BF16 [N, K]),
// and what is of no use here.
#include "weights/importer_safetensors.h"

#include <algorithm>

namespace nibble {

bool SafetensorsImporter::has_module(const std::string& module) const {
  return checkpoint().find(module + ".weight") != nullptr || checkpoint().find(module + ".weight_packed") != nullptr;
}

bool SafetensorsImporter::has(const TensorName& matrix) const { return has_module(matrix.hf); }

StoredMatrix SafetensorsImporter::locate(const MatrixRequest& request) {
  return request.name.hf.find('*') == std::string::npos ? locate_module(request) : locate_experts(request);
}

StoredVector SafetensorsImporter::locate_vector(const TensorName& name) const {
  return name.hf.find('*') == std::string::npos ? StoredVector{.tensor = name.hf} : locate_expert_biases(name.hf);
}

StoredMatrix SafetensorsImporter::locate_module(const MatrixRequest& request) {
  const std::string& module = request.name.hf;
  const auto has = [&](const char* ending) { return checkpoint().find(module + ending) != nullptr; };
  if (has(".weight_packed")) return locate_compressed_tensors(request);
  if (has(".scales")) return locate_mlx(request);
  const Tensor* weight = checkpoint().find(module + ".weight");
  if (weight != nullptr && weight->dtype == DType::f8_e4m3) return locate_fp8(request);
  if (weight != nullptr && weight->dtype == DType::i8) return locate_deepseek_fp4(request);
  if (has(".weight_scale")) return locate_modelopt(request);
  return locate_plain(request);
}

CanonicalWeight SafetensorsImporter::load(const MatrixRequest& request, const StoredMatrix& stored) const {
  if (is_borrowed(request, stored)) return borrow(request, stored);
  if (stored.biases != nullptr) return load_affine(request, stored);
  return stored.scale_columns > 0 ? load_fp8(request, stored) : load_selected(request, stored);
}

bool SafetensorsImporter::is_borrowed(const MatrixRequest&, const StoredMatrix& stored) const {
  return stored.biases == nullptr && stored.scale_columns == 0 && stored.rows.count == 0 && !stored.is_transposed;
}

void SafetensorsImporter::expect_scheme(const Tensor& codes, const std::string& module,
                                        std::initializer_list<QuantizationTool> tools, const Scheme& found) const {
  if (std::ranges::find(tools, config_.tool) == tools.end())
    fail(codes, "is {}, of which {} says nothing; the configuration belongs to other tensors", scheme_text(found),
         config_.where);
  if (const Scheme said = config_.scheme_of(module); said != found)
    fail(codes, "is {}, but {} says that this module is {}; one of the two is wrong", scheme_text(found), config_.where,
         scheme_text(said));
}

const Tensor& SafetensorsImporter::take_tensor_scale(const std::string& name, const MatrixRequest& request) {
  const Tensor& tensor = take(name);
  expect_dtype(tensor, {DType::f32});
  if (request.is_experts)
    expect_shape(tensor, {request.E});
  else if (!tensor.shape.empty())
    expect_shape(tensor, {1});
  return tensor;
}

StoredMatrix SafetensorsImporter::locate_plain(const MatrixRequest& request) {
  const std::string& module = request.name.hf;
  const Tensor& weight = take(module + ".weight");
  if (weight.dtype == DType::u8 || weight.dtype == DType::u32)
    fail(weight, "type {} in the file, but no scales beside it: {}.weight_scale (ModelOpt) or {}.scales (MLX) expected",
         dtype_name(weight.dtype), module, module);
  expect_dtype(weight, {DType::f32, DType::f16, DType::bf16});
  expect_columns(weight, request, request.K);
  // A class of modules may stand for this one or not; its own name cannot be a mistake.
  if (const Scheme said = config_.scheme_of(module); said != Scheme{} && config_.names(module))
    fail(weight, "is not quantized, but {} says that this module is {}; one of the two is wrong", config_.where,
         scheme_text(said));
  return {.format = *plain_format(weight.dtype), .codes = &weight, .source = std::string(dtype_name(weight.dtype))};
}

// Activation scales (ours are not 4 bits wide), tables that the rotation is computed without, layers that predict more
// than the next token, and an output matrix beside the embedding that it is tied to.
std::string_view SafetensorsImporter::unused_reason(const Tensor& tensor) const {
  const std::string_view name = tensor.name;
  for (std::string_view ending : {".input_scale", ".input_global_scale"})
    if (name.ends_with(ending)) return kActivationScale;
  for (std::string_view ending : {".q_scale", ".k_scale", ".v_scale"})
    if (name.ends_with(ending)) return "scale of an 8-bit KV cache, which is not used here";
  if (name.ends_with(".rotary_emb.inv_freq")) return "table of the rotation, computed anew";
  const auto& config = checkpoint().config;
  if (!config.is_object()) return {};
  const auto tied = config.find("tie_word_embeddings");
  if (name.starts_with("lm_head.") && tied != config.end() && *tied == true)
    return "output matrix, tied to the embedding";

  const auto number = [&](const char* key) -> int64_t {
    const auto it = config.find(key);
    return it != config.end() && it->is_number_integer() ? it->get<int64_t>() : 0;
  };
  const bool predicts =
      is_of_layers(name, "model.layers.", number("num_hidden_layers"), number("num_nextn_predict_layers"));
  return predicts ? kPredictionLayer : std::string_view();
}

std::vector<std::string> SafetensorsImporter::unused_settings() const {
  std::vector<std::string> settings;
  for (const std::string& setting : config_.unused) settings.push_back(fmt::format("{}: {}", config_.where, setting));
  return settings;
}

std::unique_ptr<WeightSource> make_safetensors_importer(std::shared_ptr<const Checkpoint> checkpoint) {
  return std::make_unique<SafetensorsImporter>(std::move(checkpoint));
}

}  // namespace nibble
