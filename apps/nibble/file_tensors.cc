#include "file_tensors.h"

#include <algorithm>
#include <map>

namespace nibble {

namespace {

std::string file_of(const Checkpoint& checkpoint, const Tensor& tensor) {
  for (const auto& file : checkpoint.files) {
    const uint8_t* first = file->bytes().data();
    const uint8_t* at = tensor.bytes.data();
    if (at >= first && at <= first + file->bytes().size()) return file->path().filename().string();
  }
  return {};
}

}  // namespace

std::vector<FileTensor> file_tensors(const Checkpoint& checkpoint) {
  std::vector<FileTensor> tensors;
  for (const auto& [name, tensor] : checkpoint.tensors)
    tensors.push_back({.tensor = &tensor, .file = file_of(checkpoint, tensor), .used_by = {}, .unused_because = {}});
  return tensors;
}

std::vector<FileTensor> file_tensors(const Checkpoint& checkpoint, const Model& model) {
  std::vector<FileTensor> tensors = file_tensors(checkpoint);
  const auto find = [&](std::string_view name) -> FileTensor& {  // they are sorted by name, as the map was
    return *std::ranges::lower_bound(tensors, name, {},
                                     [](const FileTensor& t) -> std::string_view { return t.tensor->name; });
  };
  WeightSource& source = model.weights.source();
  for (const WeightEntry& entry : model.weights.entries()) {
    const auto* matrix = std::get_if<MatrixEntry>(&entry.what);
    for (const std::string& name : matrix != nullptr ? source.tensors_of(matrix->request)
                                                     : source.tensors_of(std::get<VectorRequest>(entry.what)))
      find(name).used_by.push_back(entry.name());
  }
  for (const UnusedTensor& unused : source.unused_tensors()) find(unused.name).unused_because = unused.reason;
  return tensors;
}

nlohmann::ordered_json file_tensors_json(std::span<const FileTensor> tensors, bool is_planned) {
  auto list = nlohmann::ordered_json::array();
  for (const FileTensor& t : tensors) {
    nlohmann::ordered_json json = {{"name", t.tensor->name},
                                   {"dtype", dtype_name(t.tensor->dtype)},
                                   {"shape", t.tensor->shape},
                                   {"bytes", t.tensor->bytes.size()},
                                   {"file", t.file}};
    if (is_planned) {
      json["used_by"] = t.used_by;
      json["unused_because"] = text_or_null(t.unused_because);
    }
    list.push_back(std::move(json));
  }
  return list;
}

nlohmann::ordered_json text_or_null(const std::string& text) {
  return text.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(text);
}

std::string largest_shares(const std::vector<std::pair<std::string, int64_t>>& totals) {
  std::map<std::string, int64_t> sums;
  int64_t all = 0;
  for (const auto& [name, bytes] : totals) {
    sums[name] += bytes;
    all += bytes;
  }
  std::vector<std::pair<std::string, int64_t>> sorted(sums.begin(), sums.end());
  std::ranges::sort(sorted, std::greater(), [](const auto& entry) { return entry.second; });
  std::string text;
  for (const auto& [name, bytes] : sorted)
    if (bytes * 20 >= all) text += (text.empty() ? "" : " + ") + name;
  return text;
}

std::string stored_types(std::span<const FileTensor> tensors) {
  std::vector<std::pair<std::string, int64_t>> totals;
  for (const FileTensor& t : tensors)
    totals.emplace_back(dtype_name(t.tensor->dtype), static_cast<int64_t>(t.tensor->bytes.size()));
  return largest_shares(totals);
}

std::string without_layer(const std::string& name) {
  constexpr std::string_view kDigits = "0123456789";
  for (size_t at = name.find('.'); at != std::string::npos; at = name.find('.', at + 1)) {
    const size_t end = name.find_first_not_of(kDigits, at + 1);
    if (end != std::string::npos && end > at + 1 && name[end] == '.')
      return name.substr(0, at + 1) + "*" + name.substr(end);
  }
  return name;
}

}  // namespace nibble
