#include "weights/weight_table.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "base/error.h"

namespace nibble {

const std::string& WeightEntry::name() const {
  if (const auto* matrix = std::get_if<MatrixEntry>(&what)) return matrix->request.name.hf;
  return std::get<VectorRequest>(what).name.hf;
}

int64_t WeightEntry::bytes() const {
  if (const auto* matrix = std::get_if<MatrixEntry>(&what)) return matrix->info.bytes;
  const auto& vector = std::get<VectorRequest>(what);
  return vector.E * vector.size * static_cast<int64_t>(sizeof(float));
}

WeightId WeightTable::matrix(MatrixRequest request) {
  MatrixInfo info = source_->describe(request);
  entries_.push_back({MatrixEntry{std::move(request), std::move(info)}});
  return {static_cast<int>(entries_.size()) - 1};
}

WeightId WeightTable::vector(VectorRequest request) {
  source_->check_vector(request);
  entries_.push_back({std::move(request)});
  return {static_cast<int>(entries_.size()) - 1};
}

WeightId WeightTable::vector_if_present(VectorRequest request) {
  return source_->has_vector(request.name) ? vector(std::move(request)) : WeightId{};
}

void check_no_unknown_tensors(const WeightTable& table) {
  const std::vector<std::string> unknown = table.source().unknown_tensors();
  if (unknown.empty()) return;
  const std::span<const std::string> shown(unknown.data(), std::min<size_t>(unknown.size(), 5));
  throw_input_error(
      "{} tensors of the checkpoint have no place in this architecture: {}{}; it is another model than its "
      "configuration says, or one that is not supported yet",
      unknown.size(), fmt::join(shown, ", "), unknown.size() > 5 ? ", …" : "");
}

}  // namespace nibble
