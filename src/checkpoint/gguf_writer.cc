#include "checkpoint/gguf_writer.h"

#include <set>
#include <type_traits>
#include <utility>

#include "base/error.h"

namespace nibble {

namespace {

uint64_t aligned(uint64_t offset) {
  return (offset + kGgufDefaultAlignment - 1) / kGgufDefaultAlignment * kGgufDefaultAlignment;
}

template <class T>
void put(std::string& out, T value) {
  static_assert(std::is_arithmetic_v<T>);
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_string(std::string& out, std::string_view text) {
  put<uint64_t>(out, text.size());
  out += text;
}

void put_value(std::string& out, const GgufValue& value, std::string_view where);

void put_array(std::string& out, const GgufArray& array, std::string_view where) {
  put(out, static_cast<uint32_t>(array.element_type));
  put<uint64_t>(out, array.values.size());
  for (const auto& value : array.values) {
    if (value.type() != array.element_type)
      throw_input_error("{}: a value of type {} in an array of type {}; give all values the array's type", where,
                        static_cast<uint32_t>(value.type()), static_cast<uint32_t>(array.element_type));
    put_value(out, value, where);
  }
}

void put_value(std::string& out, const GgufValue& value, std::string_view where) {
  const auto put_any = [&](const auto& plain) {
    using T = std::decay_t<decltype(plain)>;
    if constexpr (std::is_same_v<T, std::string>) {
      put_string(out, plain);
    } else if constexpr (std::is_same_v<T, GgufArray>) {
      put_array(out, plain, where);
    } else if constexpr (std::is_same_v<T, bool>) {
      put<uint8_t>(out, plain ? 1 : 0);
    } else {
      put(out, plain);
    }
  };
  std::visit(put_any, static_cast<const GgufValue::variant&>(value));
}

void put_metadata(std::string& out, std::span<const GgufEntry> metadata, std::string_view where) {
  std::set<std::string_view> keys;
  for (const auto& [key, value] : metadata) {
    if (key == kGgufAlignmentKey || !keys.insert(key).second)
      throw_input_error("{}: metadata {}: {}", where, key,
                        key == kGgufAlignmentKey ? "the writer sets it; leave it out" : "is given twice; give it once");
    put_string(out, key);
    put(out, static_cast<uint32_t>(value.type()));
    put_value(out, value, fmt::format("{}: metadata {}", where, key));
  }
}

// Offsets are counted from the start of the data.
void put_tensor_info(std::string& out, const TensorSpec& spec, uint64_t offset, std::string_view where) {
  const auto type = ggml_type(spec.dtype);
  if (!type)
    throw_input_error("{}: tensor {}: type {} cannot be in a GGUF file; write a safetensors folder", where, spec.name,
                      dtype_name(spec.dtype));
  if (spec.shape.size() > kGgufMaxDimensions)
    throw_input_error("{}: tensor {}: shape {} has {} dimensions, a GGUF file at most {}; join some", where, spec.name,
                      shape_text(spec.shape), spec.shape.size(), kGgufMaxDimensions);
  put_string(out, spec.name);
  put(out, static_cast<uint32_t>(spec.shape.size()));
  for (auto size = spec.shape.rbegin(); size != spec.shape.rend(); ++size) put(out, *size);
  put(out, *type);
  put(out, offset);
}

}  // namespace

GgufWriter::GgufWriter(const std::filesystem::path& path, std::span<const GgufEntry> metadata,
                       std::vector<TensorSpec> tensors)
    : order_(std::move(tensors), path.string()), file_(path) {
  std::string header = "GGUF";
  put(header, kGgufVersion);
  put<uint64_t>(header, order_.entries().size());
  put<uint64_t>(header, metadata.size());
  put_metadata(header, metadata, order_.where());
  uint64_t offset = 0;
  for (const auto& [spec, size] : order_.entries()) {
    put_tensor_info(header, spec, offset, order_.where());
    begins_.push_back(offset);
    offset = aligned(offset + size);
  }
  begins_.push_back(offset);
  header.resize(aligned(header.size()), '\0');
  for (auto& begin : begins_) begin += header.size();
  file_.write(0, {reinterpret_cast<const uint8_t*>(header.data()), header.size()});
}

void GgufWriter::append(std::string_view name, std::span<const uint8_t> bytes) {
  const auto [index, offset] = order_.take(name, bytes.size());
  if (!bytes.empty()) file_.write(begins_[index] + offset, bytes);
}

void GgufWriter::finish() {
  order_.check_complete();
  // The last tensor is padded as well: some readers take the whole data at once.
  if (!order_.entries().empty()) {
    const uint64_t end = begins_[begins_.size() - 2] + order_.entries().back().size;
    const std::vector<uint8_t> padding(begins_.back() - end);
    file_.write(end, padding);
  }
  file_.commit();
}

}  // namespace nibble
