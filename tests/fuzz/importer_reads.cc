#include "fuzz/importer_reads.h"

#include "base/error.h"
#include "fuzz/targets.h"
#include "weights/importer.h"

namespace nibble {

namespace {

constexpr int64_t kLargest = 1 << 24;  // as configurations are bounded (models/config.cc)

// In features of a matrix whose rows have `columns` elements of that type.
int64_t in_features(DType dtype, int64_t columns) {
  switch (dtype) {
    case DType::u8: return 2 * columns;
    case DType::u32: return 8 * columns;
    default: return columns;
  }
}

void read_matrix(WeightSource& source, const MatrixRequest& request, std::string_view name) {
  for (const int64_t size : {request.E, request.N, request.K})
    if (size < 1 || size > kLargest) return;
  input_error_of(name, [&] {
    const MatrixInfo info = source.describe(request);
    const CanonicalWeight weight = source.read(request);
    expect(info.bytes == static_cast<int64_t>(weight.codes.size() + weight.scales.size()), "bytes as described");
    std::vector<float> row(static_cast<size_t>(weight.K));
    decode_row(weight, weight.E - 1, weight.N - 1, row.data());
    decode_row(weight, 0, 0, row.data());
  });
}

}  // namespace

void read_everything(const std::shared_ptr<const Checkpoint>& checkpoint) {
  const std::string name = checkpoint->path.string();
  std::unique_ptr<WeightSource> source;
  input_error_of(name, [&] { source = make_importer(checkpoint); });
  if (!source) return;
  for (const auto& [tensor_name, tensor] : checkpoint->tensors) {
    const auto& shape = tensor.shape;
    if (tensor_name.find('*') != std::string::npos)
      continue;  // in what models ask for it stands for an expert's number
    const auto module = tensor_name.substr(0, tensor_name.rfind('.'));
    const int heads = tensor_name.size() % 2 == 0 ? 2 : 0;
    if (shape.size() == 1 && shape[0] >= 0 && shape[0] <= kLargest)
      input_error_of(name, [&] {
        source->read_vector({.name = {tensor_name, tensor_name}, .size = shape[0], .gguf_permuted_heads = heads});
      });
    if ((shape.size() != 2 && shape.size() != 3) || shape.back() > kLargest) continue;
    read_matrix(*source,
                {.name = {module, module},
                 .E = shape.size() == 3 ? shape[0] : 1,
                 .N = shape[shape.size() - 2],
                 .K = in_features(tensor.dtype, shape.back()),
                 .is_experts = shape.size() == 3,
                 .gguf_permuted_heads = shape.size() == 2 ? heads : 0},
                name);
  }
  source->unknown_tensors();
  source->unused_tensors();
}

}  // namespace nibble
