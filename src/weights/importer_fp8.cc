// FP8 modules: x.weight F8_E4M3 [N, K], and one scale tensor, a multiplier whatever its name:
//
//   for           shape                       names
//   all weights   [] or [1]                   x.weight_scale (ModelOpt, compressed-tensors), x.weight_scale_inv
//   each row      [N] or [N, 1]               x.weight_scale
//   128 x 128     [ceil(N/128), ceil(K/128)]  x.weight_scale_inv (DeepSeek), x.weight_scale, x.scale
//
// Scales are F32, BF16, F16 or F8_E8M0. Stacked experts have E in front of both.
#include <algorithm>
#include <cstring>

#include "weights/importer_safetensors.h"

namespace nibble {
namespace {

using ScaleFor = Scheme::ScaleFor;

bool fits(const Tensor& scales, ScaleFor scale_for, const MatrixRequest& request) {
  std::span<const int64_t> shape = scales.shape;
  if (request.is_experts) {
    if (shape.empty() || shape[0] != request.E) return false;
    shape = shape.subspan(1);
  }
  const auto is = [&](std::initializer_list<int64_t> expected) { return std::ranges::equal(shape, expected); };
  switch (scale_for) {
    case ScaleFor::tensor: return is({}) || is({1}) || is({1, 1});
    case ScaleFor::row: return is({request.N}) || is({request.N, 1});
    case ScaleFor::block: return is({(request.N + 127) / 128, (request.K + 127) / 128});
  }
  return false;
}

}  // namespace

StoredMatrix SafetensorsImporter::locate_fp8(const MatrixRequest& request) {
  const std::string& module = request.name.hf;
  const Tensor& codes = take(module + ".weight");
  const Tensor* scales = nullptr;
  for (const char* ending : {".weight_scale", ".weight_scale_inv", ".scale"})
    if (scales == nullptr) scales = take_if_present(module + ending);
  if (scales == nullptr)
    fail(codes, "type F8_E4M3 in the file, but no scale beside it: {0}.weight_scale or {0}.weight_scale_inv expected",
         module);
  expect_dtype(*scales, {DType::f32, DType::bf16, DType::f16, DType::f8_e8m0});
  expect_columns(codes, request, request.K);

  // Small shapes may fit more than one kind: then what the configuration says is right.
  Scheme found{.codes = Scheme::Codes::fp8, .scale_for = config_.scheme_of(module).scale_for};
  for (ScaleFor kind : {ScaleFor::tensor, ScaleFor::row, ScaleFor::block})
    if (!fits(*scales, found.scale_for, request)) found.scale_for = kind;
  if (!fits(*scales, found.scale_for, request))
    fail(*scales,
         "shape {} in the file, one scale, {} (one for each row) or [{}, {}] (one for each 128 x 128) expected",
         shape_text(scales->shape), request.N, (request.N + 127) / 128, (request.K + 127) / 128);
  expect_scheme(codes, module,
                {QuantizationTool::fp8, QuantizationTool::modelopt, QuantizationTool::compressed_tensors}, found);

  StoredMatrix stored{.format = FormatId::fp8_128, .codes = &codes, .scales = scales};
  stored.source = fmt::format("F8_E4M3 + {} scale{}", dtype_name(scales->dtype),
                              found.scale_for == ScaleFor::tensor ? ""
                              : found.scale_for == ScaleFor::row  ? "s of rows"
                                                                  : "s of 128 x 128");
  if (found.scale_for == ScaleFor::tensor) {
    stored.format = FormatId::fp8;
    stored.tensor_scale = std::exchange(stored.scales, nullptr);
    return stored;
  }
  const bool is_block = found.scale_for == ScaleFor::block;
  stored.scale_rows = is_block ? 128 : 1;
  stored.scale_columns = is_block ? 128 : request.K;
  return stored;
}

CanonicalWeight SafetensorsImporter::load_fp8(const MatrixRequest& request, const StoredMatrix& stored) const {
  OwnedWeight owned = own(request, stored);
  if (!stored.codes->bytes.empty()) std::memcpy(owned.codes, stored.codes->bytes.data(), stored.codes->bytes.size());
  const int64_t num_groups = (request.K + Fp8Scaled::group_size - 1) / Fp8Scaled::group_size;
  const int64_t file_rows = (request.N + stored.scale_rows - 1) / stored.scale_rows;
  const int64_t file_columns = stored.scale_columns == Fp8Scaled::group_size ? num_groups : 1;
  for (int64_t row = 0; row < request.E * request.N; row++) {
    const int64_t e = row / request.N, n = row % request.N;
    for (int64_t g = 0; g < num_groups; g++) {
      const int64_t i = (e * file_rows + n / stored.scale_rows) * file_columns + (file_columns == 1 ? 0 : g);
      const float scale = element(*stored.scales, i);
      if (!(scale >= 0.0f) || !std::isfinite(scale))
        fail(*stored.scales, "scale {} is {}, a finite number that is not negative expected; the file is damaged", i,
             scale);
      std::memcpy(owned.scales + (row * num_groups + g) * 4, &scale, sizeof scale);
    }
  }
  return std::move(owned.weight);
}

}  // namespace nibble
