// Experts in Hugging Face folders. A model asks for "P.experts.*.gate_proj" (Mixtral: w1, w3 and w2 for gate, up and
// down); the file has one of
//
//   one by one    P.experts.7.gate_proj           a module of any dialect for each expert
//   MLX           P.switch_mlp.gate_proj          a module whose tensors begin with E
//   MLX gpt-oss   P.experts.gate_proj             the same
//   gpt-oss       P.experts.gate_up_proj_blocks   U8 [E, 2N, K/32, 16], gate in the even rows, up in the odd ones;
//                 P.experts.gate_up_proj_scales   U8 [E, 2N, K/32], E8M0; P.experts.down_proj_… without pairs
//   fused         P.experts.gate_up_proj          F32, F16, BF16 [E, 2N, K], gate first, up below;
//                 P.experts.down_proj             [E, N, K]
//
// gpt-oss's own plain weights are fused, transposed and interleaved: gate_up_proj [E, K, 2N], down_proj [E, K, N]. They
// are known by the biases beside them (gate_up_proj_bias [E, 2N], down_proj_bias [E, N]), which no other model has.
#include <cstring>

#include "base/naming.h"
#include "weights/importer_safetensors.h"

namespace nibble {
namespace {

enum class Projection : uint8_t { gate, up, down };

// "P.experts.*.w1.bias" in parts; the ending is ".bias" or empty.
struct ExpertName {
  std::string parent;
  Projection projection;
  std::string ending;

  std::string switch_mlp() const { return parent + ".switch_mlp." + projection_name(); }
  std::string stacked() const { return parent + ".experts." + projection_name(); }
  std::string fused() const {
    return parent + (projection == Projection::down ? ".experts.down_proj" : ".experts.gate_up_proj");
  }

  // Where the rows lie in the fused tensor.
  RowSelection interleaved(int64_t N) const {
    if (projection == Projection::down) return {};
    return {.first = projection == Projection::up ? 1 : 0, .step = 2, .count = 2 * N};
  }
  RowSelection halves(int64_t N) const {
    if (projection == Projection::down) return {};
    return {.first = projection == Projection::up ? N : 0, .step = 1, .count = 2 * N};
  }

 private:
  std::string projection_name() const {
    return projection == Projection::gate ? "gate_proj" : projection == Projection::up ? "up_proj" : "down_proj";
  }
};

ExpertName parse(const std::string& name) {
  constexpr std::string_view kExperts = ".experts.*.";
  const size_t at = name.find(kExperts);
  if (at != std::string::npos) {
    ExpertName parts{.parent = name.substr(0, at), .projection = {}, .ending = {}};
    std::string rest = name.substr(at + kExperts.size());
    if (rest.ends_with(".bias")) {
      parts.ending = ".bias";
      rest.resize(rest.size() - parts.ending.size());
    }
    for (const auto& [projection, plain, mixtral] : {std::tuple(Projection::gate, "gate_proj", "w1"),
                                                     {Projection::up, "up_proj", "w3"},
                                                     {Projection::down, "down_proj", "w2"}}) {
      if (rest != plain && rest != mixtral) continue;
      parts.projection = projection;
      return parts;
    }
  }
  throw_input_error("{}: experts are read by names like layers.0.mlp.experts.*.gate_proj (or up_proj, down_proj)",
                    name);
}

}  // namespace

StoredMatrix SafetensorsImporter::locate_experts(const MatrixRequest& request) {
  const ExpertName name = naming(checkpoint().path.string(), [&] { return parse(request.name.hf); });
  if (has_module(numbered(request.name.hf, 0))) return locate_one_by_one(request);
  for (const std::string& module : {name.switch_mlp(), name.stacked()}) {
    if (!has_module(module)) continue;
    MatrixRequest stacked = request;
    stacked.name.hf = module;
    return locate_module(stacked);
  }
  if (checkpoint().find(name.fused() + "_blocks") != nullptr)
    return locate_gpt_oss(request, name.fused(), name.interleaved(request.N));
  for (const char* ending : {"", ".weight", ".weight_packed", "_packed"})
    if (const Tensor* fused = checkpoint().find(name.fused() + ending);
        fused != nullptr && (fused->dtype == DType::u8 || fused->dtype == DType::f8_e4m3))
      fail(*fused, "is {}: experts that are both fused and quantized are read only as gpt-oss has them ({}_blocks)",
           dtype_name(fused->dtype), name.fused());
  if (checkpoint().find(name.fused()) != nullptr) {
    const bool is_gpt_oss = checkpoint().find(name.fused() + "_bias") != nullptr;
    return locate_fused(request, name.fused(), is_gpt_oss ? name.interleaved(request.N) : name.halves(request.N));
  }
  throw_input_error(
      "{}: there is no tensor {}.weight, and no stacked {}, {} or {}; the checkpoint is incomplete, or of another "
      "model than its configuration says",
      checkpoint().path.string(), numbered(request.name.hf, 0), name.switch_mlp(), name.stacked(), name.fused());
}

StoredMatrix SafetensorsImporter::locate_one_by_one(const MatrixRequest& request) {
  StoredMatrix all;
  for (int64_t e = 0; e < request.E; e++) {
    const MatrixRequest one{.name = {numbered(request.name.hf, e), {}}, .N = request.N, .K = request.K};
    StoredMatrix expert = locate_module(one);
    if (e == 0) {
      all.format = expert.format;
      all.source = expert.source;
    } else if (expert.format != all.format) {
      fail(*expert.codes, "is {}, but expert 0 is {}; experts of one layer are read in one format only",
           format_name(expert.format), format_name(all.format));
    }
    all.experts.push_back(std::move(expert));
  }
  // One more than there should be is another model.
  const std::string extra = request.name.hf.substr(0, request.name.hf.find('*')) + fmt::format("{}.", request.E);
  const auto it = checkpoint().tensors.lower_bound(extra);
  if (it != checkpoint().tensors.end() && it->first.starts_with(extra))
    fail(it->second, "is of an expert number {}, but the configuration has only {} experts", request.E, request.E);
  return all;
}

StoredMatrix SafetensorsImporter::locate_gpt_oss(const MatrixRequest& request, const std::string& tensor,
                                                 const RowSelection& rows) {
  const Tensor& codes = take(tensor + "_blocks");
  const Tensor& scales = take(tensor + "_scales");
  const int64_t num_rows = rows.count > 0 ? rows.count : request.N;
  expect_dtype(codes, {DType::u8});
  expect_dtype(scales, {DType::u8});
  expect_scheme(codes, tensor, {QuantizationTool::gpt_oss}, {.codes = Scheme::Codes::mxfp4});
  expect_whole_groups(codes, request.K, Mxfp4::group_size);
  expect_shape(codes, {request.E, num_rows, request.K / Mxfp4::group_size, Mxfp4::group_size / 2});
  expect_shape(scales, {request.E, num_rows, request.K / Mxfp4::group_size});
  return {.format = FormatId::mxfp4,
          .codes = &codes,
          .scales = &scales,
          .rows = rows,
          .source = "U8 blocks + U8 scales (gpt-oss MXFP4)"};
}

StoredMatrix SafetensorsImporter::locate_fused(const MatrixRequest& request, const std::string& tensor,
                                               const RowSelection& rows) {
  const Tensor& weight = take(tensor);
  const bool is_transposed = checkpoint().find(tensor + "_bias") != nullptr;
  const int64_t num_rows = rows.count > 0 ? rows.count : request.N;
  expect_dtype(weight, {DType::f32, DType::f16, DType::bf16});
  if (is_transposed)
    expect_shape(weight, {request.E, request.K, num_rows});
  else
    expect_shape(weight, {request.E, num_rows, request.K});
  return {.format = *plain_format(weight.dtype),
          .codes = &weight,
          .rows = rows,
          .is_transposed = is_transposed,
          .source = fmt::format("{} (experts fused{})", dtype_name(weight.dtype), is_transposed ? ", transposed" : "")};
}

StoredVector SafetensorsImporter::locate_expert_biases(const std::string& vector) const {
  const ExpertName name = naming(checkpoint().path.string(), [&] { return parse(vector); });
  for (const std::string& stacked : {name.switch_mlp() + name.ending, name.stacked() + name.ending})
    if (checkpoint().find(stacked) != nullptr) return {.tensor = stacked};
  if (const std::string fused = name.fused() + "_bias"; checkpoint().find(fused) != nullptr)
    return {.tensor = fused,
            .are_interleaved_pairs = name.projection != Projection::down,
            .first = name.projection == Projection::up ? 1 : 0};
  return {.tensor = vector, .is_one_by_one = true};
}

CanonicalWeight SafetensorsImporter::load_selected(const MatrixRequest& request, const StoredMatrix& stored) const {
  OwnedWeight owned = own(request, stored);
  const int64_t row_codes = code_bytes(stored.format, request.K), row_scales = scale_bytes(stored.format, request.K);
  const int64_t num_rows = stored.rows.count > 0 ? stored.rows.count : request.N;
  const auto copy_row = [](const Tensor* tensor, int64_t from, int64_t bytes, uint8_t* to) {
    if (bytes > 0) std::memcpy(to, tensor->bytes.data() + from * bytes, static_cast<size_t>(bytes));
  };
  const int64_t size = code_bytes(stored.format, 1);  // of an element, where a row is plain elements
  for (int64_t e = 0; e < request.E; e++) {
    for (int64_t n = 0; n < request.N; n++) {
      const int64_t row = e * request.N + n, file_row = stored.rows.first + stored.rows.step * n;
      if (!stored.is_transposed) {
        copy_row(stored.codes, e * num_rows + file_row, row_codes, owned.codes + row * row_codes);
        copy_row(stored.scales, e * num_rows + file_row, row_scales, owned.scales + row * row_scales);
        continue;
      }
      for (int64_t k = 0; k < request.K; k++)
        copy_row(stored.codes, (e * request.K + k) * num_rows + file_row, size,
                 owned.codes + (row * request.K + k) * size);
    }
  }
  return std::move(owned.weight);
}

}  // namespace nibble
