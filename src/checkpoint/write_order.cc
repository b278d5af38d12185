#include "checkpoint/write_order.h"

#include <set>
#include <utility>

#include "base/error.h"

namespace nibble {

WriteOrder::WriteOrder(std::vector<TensorSpec> tensors, std::string where) : where_(std::move(where)) {
  std::set<std::string, std::less<>> names;
  for (auto& spec : tensors) {
    if (!names.insert(spec.name).second)
      throw_input_error("{}: tensor {}: is to be written twice; give each tensor a name of its own", where_, spec.name);
    const auto size = tensor_bytes(spec.dtype, spec.shape, fmt::format("{}: tensor {}", where_, spec.name));
    entries_.push_back({std::move(spec), static_cast<uint64_t>(size)});
  }
}

WriteOrder::Position WriteOrder::take(std::string_view name, uint64_t size) {
  skip_finished();
  if (size == 0) return {index_, offset_};  // an empty tensor, whose turn needs no bytes
  const bool is_due = index_ < entries_.size() && entries_[index_].spec.name == name;
  if (!is_due || size > entries_[index_].size - offset_)
    throw_input_error(
        "{}: tensor {}: {} bytes given, {} expected; give the bytes in the order of the tensors", where_, name, size,
        index_ == entries_.size()
            ? "none"
            : fmt::format("{} of tensor {}", entries_[index_].size - offset_, entries_[index_].spec.name));
  const Position position{index_, offset_};
  offset_ += size;
  return position;
}

void WriteOrder::check_complete() {
  skip_finished();
  if (index_ < entries_.size())
    throw_input_error("{}: tensor {}: {} bytes given, {} expected; give all bytes before the end", where_,
                      entries_[index_].spec.name, offset_, entries_[index_].size);
}

void WriteOrder::skip_finished() {
  while (index_ < entries_.size() && offset_ == entries_[index_].size) {
    index_++;
    offset_ = 0;
  }
}

}  // namespace nibble
