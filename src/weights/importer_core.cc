#include "weights/importer_core.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/memory.h"

namespace nibble {

std::unique_ptr<WeightSource> make_importer(std::shared_ptr<const Checkpoint> checkpoint) {
  return checkpoint->container == Container::gguf ? make_gguf_importer(std::move(checkpoint))
                                                  : make_safetensors_importer(std::move(checkpoint));
}

std::optional<FormatId> plain_format(DType dtype) {
  switch (dtype) {
    case DType::f32: return FormatId::f32;
    case DType::f16: return FormatId::f16;
    case DType::bf16: return FormatId::bf16;
    default: return {};
  }
}

float element(const Tensor& tensor, int64_t i) {
  if (tensor.dtype == DType::f8_e8m0) return e8m0_to_float(tensor.bytes[static_cast<size_t>(i)]);
  return visit_format(*plain_format(tensor.dtype),
                      [&](auto format) { return format.decode(tensor.bytes.data(), nullptr, i); });
}

bool is_of_layers(std::string_view tensor, std::string_view prefix, int64_t first, int64_t count) {
  int64_t layer = -1;
  if (tensor.starts_with(prefix)) std::from_chars(tensor.data() + prefix.size(), tensor.data() + tensor.size(), layer);
  return first >= 0 && layer >= first && layer - first < count;
}

std::string Importer::where(const Tensor& tensor) const {
  return fmt::format("{}: tensor {}", checkpoint_->path.string(), tensor.name);
}

const Tensor* Importer::take_if_present(const std::string& name) {
  const Tensor* tensor = checkpoint_->find(name);
  if (tensor == nullptr) return nullptr;
  const std::lock_guard lock(mutex_);
  asked_for_.insert(name);
  if (recorded_) recorded_->push_back(name);
  return tensor;
}

const Tensor& Importer::take(const std::string& name) {
  const Tensor* tensor = take_if_present(name);
  if (tensor == nullptr)
    throw_input_error(
        "{}: there is no tensor {}; the checkpoint is incomplete, or of another model than its "
        "configuration says",
        checkpoint_->path.string(), name);
  return *tensor;
}

void Importer::expect_shape(const Tensor& tensor, std::initializer_list<int64_t> shape) const {
  if (!std::ranges::equal(tensor.shape, shape))
    fail(tensor, "shape {} in the file, {} expected; the tensors do not fit the configuration",
         shape_text(tensor.shape), shape_text({shape.begin(), shape.size()}));
}

std::string numbered(const std::string& name, int64_t e) {
  const size_t star = name.find('*');
  return star == std::string::npos ? name : fmt::format("{}{}{}", name.substr(0, star), e, name.substr(star + 1));
}

void Importer::expect_columns(const Tensor& tensor, const MatrixRequest& request, int64_t columns) const {
  if (request.E == 1 && (!request.is_experts || tensor.shape.size() == 2))
    expect_shape(tensor, {request.N, columns});
  else
    expect_shape(tensor, {request.E, request.N, columns});
}

void Importer::expect_dtype(const Tensor& tensor, std::initializer_list<DType> dtypes) const {
  if (std::ranges::find(dtypes, tensor.dtype) != dtypes.end()) return;
  std::string expected;
  for (DType dtype : dtypes) expected += (expected.empty() ? "" : " or ") + std::string(dtype_name(dtype));
  fail(tensor, "type {} in the file is not read here, {} expected", dtype_name(tensor.dtype), expected);
}

void Importer::expect_whole_groups(const Tensor& tensor, int64_t K, int64_t group) const {
  if (K % group != 0)
    fail(tensor, "rows of {} weights, a multiple of {} expected: a scale belongs to {} weights of one row", K, group,
         group);
}

void Importer::expect_pairs(const Tensor& tensor, int64_t num_rows, int num_heads) const {
  if (num_heads > 0 && num_rows % (2 * int64_t{num_heads}) != 0)
    fail(tensor, "{} rows for {} heads, an even number for each head expected; the configuration does not fit",
         num_rows, num_heads);
}

bool Importer::has_vector(const TensorName& vector) const {
  const StoredVector stored = locate_vector(vector);
  return checkpoint_->find(stored.is_one_by_one ? numbered(stored.tensor, 0) : stored.tensor) != nullptr;
}

std::vector<const Tensor*> Importer::take_vector(const VectorRequest& request, const StoredVector& stored) {
  std::vector<const Tensor*> tensors;
  if (stored.is_one_by_one)
    for (int64_t e = 0; e < request.E; e++) tensors.push_back(&take(numbered(stored.tensor, e)));
  else
    tensors.push_back(&take(stored.tensor));
  const int64_t size = stored.are_interleaved_pairs ? 2 * request.size : request.size;
  for (const Tensor* tensor : tensors) {
    expect_dtype(*tensor, {DType::f32, DType::f16, DType::bf16});
    if (stored.is_one_by_one || !request.is_experts || (request.E == 1 && tensor->shape.size() == 1))
      expect_shape(*tensor, {size});
    else
      expect_shape(*tensor, {request.E, size});
    expect_pairs(*tensor, request.size, request.gguf_permuted_heads);
  }
  return tensors;
}

void Importer::check_vector(const VectorRequest& request) { take_vector(request, locate_vector(request.name)); }

std::vector<float> Importer::read_vector(const VectorRequest& request) {
  const StoredVector stored = locate_vector(request.name);
  const int num_heads = checkpoint_->container == Container::gguf ? request.gguf_permuted_heads : 0;
  std::vector<float> values;
  for (const Tensor* tensor : take_vector(request, stored)) {
    const int64_t num_vectors = stored.is_one_by_one ? 1 : request.E;
    const int64_t step = stored.are_interleaved_pairs ? 2 : 1;
    visit_format(*plain_format(tensor->dtype), [&](auto format) {
      for (int64_t e = 0; e < num_vectors; e++) {
        for (int64_t k = 0; k < request.size; k++) {
          const int64_t i = (e * request.size + gguf_row(k, request.size, num_heads)) * step + stored.first;
          const float value = format.decode(tensor->bytes.data(), nullptr, i);
          if (!std::isfinite(value))
            fail(*tensor, "element {} is {}, a finite number expected; the file is damaged", i, value);
          values.push_back(value);
        }
      }
    });
  }
  return values;
}

bool Importer::is_slice(const MatrixRequest& request) const {
  return request.heads.head_rows > 0 && !has(request.heads.alone);
}

StoredMatrix Importer::locate_in_file(const MatrixRequest& request) {
  if (request.heads.head_rows == 0) return locate(request);
  if (is_slice(request)) return locate(sliced_matrix(request));
  MatrixRequest alone = request;
  alone.name = request.heads.alone;
  return locate(alone);
}

MatrixInfo Importer::describe(const MatrixRequest& request) {
  const StoredMatrix stored = locate_in_file(request);
  const bool is_transposed = is_slice(request) && request.heads.transposed;
  const FormatId format = is_transposed ? transposed_format(stored.format) : stored.format;
  const auto [E, N, K] = std::tuple(request.E, request.N, request.K);
  const int64_t bytes = E * (N * code_bytes(format, K) + scale_bytes(format, N, K));
  const StoredMatrix& first = stored.experts.empty() ? stored : stored.experts.front();
  return {.format = format,
          .E = E,
          .N = N,
          .K = K,
          .bytes = bytes,
          .is_copied = is_slice(request) || !is_borrowed(request, first),
          .source = stored.source};
}

CanonicalWeight Importer::read_without_floats_check(const MatrixRequest& request) {
  if (is_slice(request)) return slice_heads(read(sliced_matrix(request)), request);
  const StoredMatrix located = locate_in_file(request);
  StagedTensors staged(*checkpoint_, buffers_);
  const StoredMatrix stored = staged.add(located);
  // What is not read lies in the checkpoint, which goes last.
  const auto bytes = std::make_shared<const std::pair<std::shared_ptr<const Checkpoint>, std::shared_ptr<const void>>>(
      checkpoint_, staged.read());
  if (stored.experts.empty()) return read_located(request, stored, bytes);

  // One by one: each is checked under its own name, and stays where it is.
  CanonicalWeight all{.format = stored.format, .E = request.E, .N = request.N, .K = request.K, .parts = {{0, {}}}};
  const MatrixRequest one{.name = request.name, .N = request.N, .K = request.K};
  for (const StoredMatrix& expert : stored.experts) {
    all.experts.push_back(read_located(one, expert, bytes));
    all.parts[0].tensor_scale.push_back(all.experts.back().parts[0].tensor_scale[0]);
  }
  return all;
}

CanonicalWeight Importer::read_located(const MatrixRequest& request, const StoredMatrix& stored,
                                       const std::shared_ptr<const void>& bytes) const {
  CanonicalWeight weight = load(request, stored);
  if (weight.storage == nullptr) weight.storage = bytes;
  check_weight(weight, where(stored.scales != nullptr ? *stored.scales : *stored.codes), where(*stored.codes));
  if (is_float(weight.format)) weight.unchecked_floats = where(*stored.codes);
  return weight;
}

std::vector<std::string> Importer::end_recording() {
  std::vector<std::string> names = *std::exchange(recorded_, std::nullopt);
  std::ranges::sort(names);
  names.erase(std::ranges::unique(names).begin(), names.end());
  return names;
}

std::vector<std::string> Importer::tensors_of(const MatrixRequest& request) {
  recorded_.emplace();
  locate_in_file(request);
  return end_recording();
}

std::vector<std::string> Importer::tensors_of(const VectorRequest& request) {
  recorded_.emplace();
  take_vector(request, locate_vector(request.name));
  return end_recording();
}

std::vector<std::string> Importer::unknown_tensors() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : checkpoint_->tensors)
    if (!asked_for_.contains(name) && unused_reason(tensor).empty()) names.push_back(name);
  return names;
}

std::vector<UnusedTensor> Importer::unused_tensors() const {
  std::vector<UnusedTensor> unused;
  for (const auto& [name, tensor] : checkpoint_->tensors)
    if (const auto reason = unused_reason(tensor); !asked_for_.contains(name) && !reason.empty())
      unused.push_back({name, reason});
  return unused;
}

std::vector<float> Importer::tensor_scales(const MatrixRequest& request, const StoredMatrix& stored) const {
  std::vector<float> scales(static_cast<size_t>(request.E), 1.0f);
  if (stored.tensor_scale == nullptr) return scales;
  const Tensor& tensor = *stored.tensor_scale;
  for (size_t e = 0; e < scales.size(); e++) {
    const float value =
        element(tensor, dtype_bytes(tensor.dtype, 1) == std::ssize(tensor.bytes) ? 0 : static_cast<int64_t>(e));
    const bool is_good = std::isfinite(value) && (stored.tensor_scale_divides ? value > 0.0f : value >= 0.0f);
    if (!is_good)
      fail(tensor, "tensor scale {} is {}, a {} expected; the file is damaged", e, value,
           stored.tensor_scale_divides ? "positive finite number" : "finite number that is not negative");
    scales[e] = stored.tensor_scale_divides ? 1.0f / value : value * stored.tensor_scale_unit;
    if (!std::isfinite(scales[e]))
      fail(tensor, "tensor scale {} is {}, too small to divide by; the file is damaged", e, value);
  }
  return scales;
}

CanonicalWeight Importer::borrow(const MatrixRequest& request, const StoredMatrix& stored) const {
  return {.format = stored.format,
          .E = request.E,
          .N = request.N,
          .K = request.K,
          .codes = stored.codes->bytes,
          .scales = stored.scales != nullptr ? stored.scales->bytes : std::span<const uint8_t>{},
          .parts = {{0, tensor_scales(request, stored)}},
          .storage = nullptr};
}

Importer::OwnedWeight Importer::own(const MatrixRequest& request, const StoredMatrix& stored) const {
  const int64_t num_rows = request.E * request.N;
  const auto all_codes = static_cast<size_t>(num_rows * code_bytes(stored.format, request.K));
  const auto all_scales = static_cast<size_t>(num_rows * scale_bytes(stored.format, request.K));
  const auto bytes = buffers_.take(all_codes + all_scales);
  uint8_t* codes = bytes->data();
  uint8_t* scales = codes + all_codes;
  return {{.format = stored.format,
           .E = request.E,
           .N = request.N,
           .K = request.K,
           .codes = {codes, all_codes},
           .scales = {scales, all_scales},
           .parts = {{0, tensor_scales(request, stored)}},
           .storage = bytes},
          codes,
          scales};
}

}  // namespace nibble
