#include "checkpoint/safetensors.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "base/error.h"
#include "checkpoint/json_file.h"
#include "formats/format.h"

namespace nibble {

namespace {

constexpr uint64_t kLengthBytes = 8;

using Json = nlohmann::json;

std::optional<DType> dtype_of_name(std::string_view name) {
  for (int i = 0; i <= static_cast<int>(DType::boolean); i++)  // block types, which follow, are not safetensors'
    if (dtype_name(static_cast<DType>(i)) == name) return static_cast<DType>(i);
  return std::nullopt;
}

const Json& field(const Json& entry, const char* key, std::string_view where) {
  const auto it = entry.find(key);
  if (it == entry.end()) throw_input_error("{}: has no \"{}\" in the header; the file is damaged", where, key);
  return *it;
}

DType parse_dtype(const Json& value, std::string_view where) {
  if (!value.is_string())
    throw_input_error("{}: \"dtype\" is a JSON {}, a string expected; the file is damaged", where, value.type_name());
  const auto& name = value.get_ref<const std::string&>();
  const auto dtype = dtype_of_name(name);
  if (!dtype)
    throw_input_error("{}: dtype {} is not read (read are floats F64 to F8 and whole integers); convert the checkpoint",
                      where, name);
  return *dtype;
}

// A list of numbers, none negative.
std::vector<int64_t> parse_sizes(const Json& value, const char* key, std::string_view where) {
  if (!value.is_array())
    throw_input_error("{}: \"{}\" is a JSON {}, an array expected; the file is damaged", where, key, value.type_name());
  std::vector<int64_t> sizes;
  sizes.reserve(value.size());
  for (const auto& element : value) {
    if (!element.is_number_unsigned() || element.get<uint64_t>() > std::numeric_limits<int64_t>::max())
      throw_input_error("{}: \"{}\" holds {}, a whole number from 0 to {} expected; the file is damaged", where, key,
                        element.dump(-1, ' ', false, Json::error_handler_t::replace),
                        std::numeric_limits<int64_t>::max());
    sizes.push_back(element.get<int64_t>());
  }
  return sizes;
}

// The header's text.
std::string_view header_text(std::span<const uint8_t> bytes, std::string_view file) {
  if (bytes.size() < kLengthBytes)
    throw_input_error("{}: has {} bytes, a safetensors file at least {}; it is truncated: fetch it again", file,
                      bytes.size(), kLengthBytes);
  const auto length = load_unaligned<uint64_t>(bytes.data());
  if (length > bytes.size() - kLengthBytes)
    throw_input_error(
        "{}: a header of {} bytes is announced, but only {} follow; the file is truncated, or no safetensors file: "
        "fetch it again",
        file, length, bytes.size() - kLengthBytes);
  return {reinterpret_cast<const char*>(bytes.data() + kLengthBytes), static_cast<size_t>(length)};
}

Tensor parse_tensor(const std::string& name, const Json& entry, std::span<const uint8_t> data, std::string_view where) {
  if (!entry.is_object())
    throw_input_error("{}: a JSON {} in the header, an object expected; the file is damaged", where, entry.type_name());
  Tensor tensor{.name = name,
                .dtype = parse_dtype(field(entry, "dtype", where), where),
                .shape = parse_sizes(field(entry, "shape", where), "shape", where),
                .bytes = {}};
  const auto range = parse_sizes(field(entry, "data_offsets", where), "data_offsets", where);
  if (range.size() != 2 || range[0] > range[1])
    throw_input_error("{}: \"data_offsets\" is {}, [begin, end] expected; the file is damaged", where,
                      shape_text(range));
  if (static_cast<uint64_t>(range[1]) > data.size())
    throw_input_error(
        "{}: its data ends at byte {}, but the file has only {} bytes of data; it is truncated: fetch it "
        "again",
        where, range[1], data.size());
  const int64_t expected = tensor_bytes(tensor.dtype, tensor.shape, where);
  if (range[1] - range[0] != expected)
    throw_input_error("{}: {} bytes of data, but {} {} has {}; the file is damaged", where, range[1] - range[0],
                      dtype_name(tensor.dtype), shape_text(tensor.shape), expected);
  tensor.bytes = data.subspan(static_cast<size_t>(range[0]), static_cast<size_t>(expected));
  return tensor;
}

// `tensors` are sorted by their data.
void check_ranges(const std::vector<Tensor>& tensors, std::span<const uint8_t> data, std::string_view file) {
  int64_t end = 0;
  std::string_view previous = "the start of the data";
  for (const auto& tensor : tensors) {
    const int64_t begin = tensor.bytes.data() - data.data();
    if (begin != end)
      throw_input_error("{}: tensor {}: its data begins at byte {}, but {} ends at byte {}: {}; the file is damaged",
                        file, tensor.name, begin, previous, end,
                        begin < end ? "they overlap" : "bytes between belong to no tensor");
    end = begin + static_cast<int64_t>(tensor.bytes.size());
    previous = tensor.name;
  }
  if (static_cast<uint64_t>(end) != data.size())
    throw_input_error("{}: the tensors have {} bytes of data, the file has {}; the file is damaged: fetch it again",
                      file, end, data.size());
}

}  // namespace

std::vector<Tensor> parse_safetensors(std::span<const uint8_t> bytes, std::string_view file) {
  const auto text = header_text(bytes, file);
  const auto data = bytes.subspan(kLengthBytes + text.size());
  const auto header = parse_json_object(text, fmt::format("{}: header", file), RepeatedKeys::rejected);

  std::vector<Tensor> tensors;
  for (const auto& [name, entry] : header.items())
    if (name != "__metadata__")
      tensors.push_back(parse_tensor(name, entry, data, fmt::format("{}: tensor {}", file, name)));
  std::ranges::sort(tensors, {}, [](const Tensor& t) { return std::pair(t.bytes.data(), t.bytes.size()); });
  check_ranges(tensors, data, file);
  return tensors;
}

}  // namespace nibble
