#include "checkpoint/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "base/error.h"
#include "formats/format.h"

namespace nibble {

namespace {

using Json = nlohmann::json;

constexpr std::string_view kMagic = "GGUF";
constexpr uint64_t kMaxKeyBytes = 65535;            // the format's own; kept for tensors' names too
constexpr int kMaxArrayDepth = 4;                   // known files nest none
constexpr uint64_t kMaxValues = uint64_t{1} << 24;  // of metadata, 16 bytes each; a vocabulary of 262144 has about 1e6

// Fewest bytes that a thing of each kind takes: a count that would need more than the file has is a lie, and is found
// before anything is allocated for it.
constexpr uint64_t kMinEntryBytes = 8 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 4 + 4 + 8;

// All that ggml has had; `dtype` is empty for those that are not read.
struct GgmlType {
  uint32_t number;
  std::string_view name;
  std::optional<DType> dtype;
};
constexpr GgmlType kGgmlTypes[] = {
    {0, "F32", DType::f32},
    {1, "F16", DType::f16},
    {2, "Q4_0", DType::q4_0},
    {3, "Q4_1", DType::q4_1},
    {4, "Q4_2", {}},
    {5, "Q4_3", {}},
    {6, "Q5_0", DType::q5_0},
    {7, "Q5_1", DType::q5_1},
    {8, "Q8_0", DType::q8_0},
    {9, "Q8_1", {}},
    {10, "Q2_K", {}},
    {11, "Q3_K", {}},
    {12, "Q4_K", DType::q4_k},
    {13, "Q5_K", DType::q5_k},
    {14, "Q6_K", DType::q6_k},
    {15, "Q8_K", {}},
    {16, "IQ2_XXS", {}},
    {17, "IQ2_XS", {}},
    {18, "IQ3_XXS", {}},
    {19, "IQ1_S", {}},
    {20, "IQ4_NL", DType::iq4_nl},
    {21, "IQ3_S", {}},
    {22, "IQ2_S", {}},
    {23, "IQ4_XS", {}},
    {24, "I8", DType::i8},
    {25, "I16", DType::i16},
    {26, "I32", DType::i32},
    {27, "I64", DType::i64},
    {28, "F64", DType::f64},
    {29, "IQ1_M", {}},
    {30, "BF16", DType::bf16},
    {31, "Q4_0_4_4", {}},
    {32, "Q4_0_4_8", {}},
    {33, "Q4_0_8_8", {}},
    {34, "TQ1_0", {}},
    {35, "TQ2_0", {}},
    {36, "IQ4_NL_4_4", {}},
    {37, "IQ4_NL_4_8", {}},
    {38, "IQ4_NL_8_8", {}},
    {39, "MXFP4", DType::mxfp4},
    {40, "NVFP4", DType::nvfp4},
    {41, "Q1_0", {}},
};

uint64_t min_value_bytes(GgufType type) {
  constexpr std::array<uint64_t, 13> kBytes = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};
  return kBytes[static_cast<size_t>(type)];
}

// Reads the header from front to back; every read is checked against the end of the file.
class Reader {
 public:
  Reader(std::span<const uint8_t> bytes, std::string_view file) : bytes_(bytes), file_(file) {}

  std::string_view file() const { return file_; }
  uint64_t offset() const { return offset_; }
  uint64_t left() const { return bytes_.size() - offset_; }

  template <class T>
  T read(std::string_view what) {
    return load_unaligned<T>(take(sizeof(T), what));
  }

  // A length and as many bytes.
  std::string read_string(std::string_view what, uint64_t max_bytes) {
    const auto length = read<uint64_t>(what);
    if (length > max_bytes)
      throw_input_error("{}: {}: a string of {} bytes at byte {}, at most {} expected; the file is damaged", file_,
                        what, length, offset_, max_bytes);
    return {reinterpret_cast<const char*>(take(length, what)), static_cast<size_t>(length)};
  }

  // A number of things, each of at least `min_bytes`.
  uint64_t read_count(std::string_view what, uint64_t min_bytes) {
    const auto count = read<uint64_t>(what);
    check_count(count, what, min_bytes);
    return count;
  }
  void check_count(uint64_t count, std::string_view what, uint64_t min_bytes) const {
    if (count > left() / min_bytes)
      throw_input_error(
          "{}: {}: {} of them are announced, but the {} bytes left hold at most {}; the file is truncated: "
          "fetch it again",
          file_, what, count, left(), left() / min_bytes);
  }

 private:
  const uint8_t* take(uint64_t size, std::string_view what) {
    if (size > left())
      throw_input_error(
          "{}: {}: {} bytes expected at byte {}, but the file ends after {} more; it is truncated: fetch it "
          "again",
          file_, what, size, offset_, left());
    const auto* start = bytes_.data() + offset_;
    offset_ += size;
    return start;
  }

  std::span<const uint8_t> bytes_;
  std::string_view file_;
  uint64_t offset_ = 0;
};

struct Header {
  uint64_t num_tensors, num_entries;
};

Header read_header(std::span<const uint8_t> bytes, Reader& reader) {
  const auto begin = bytes.first(std::min(bytes.size(), kMagic.size()));
  if (!std::equal(begin.begin(), begin.end(), kMagic.begin()))
    throw_input_error(
        "{}: begins with the bytes {:02x}, a GGUF file with {:02x} (\"GGUF\"); this is another kind of file",
        reader.file(), fmt::join(begin, " "), fmt::join(kMagic, " "));
  reader.read<uint32_t>("magic");
  const auto version = reader.read<uint32_t>("version");
  if (version != kGgufVersion && version != 2)  // 2 differs from 3 only in that 3 may also be big-endian
    throw_input_error("{}: GGUF version {}{}, versions 2 and {} are read; convert the model again", reader.file(),
                      version, version == kGgufVersion << 24 ? " (big-endian)" : "", kGgufVersion);
  const auto num_tensors = reader.read<uint64_t>("number of tensors");
  const auto num_entries = reader.read<uint64_t>("number of metadata entries");
  reader.check_count(num_tensors, "tensors", kMinTensorBytes);
  reader.check_count(num_entries, "metadata entries", kMinEntryBytes);
  return {num_tensors, num_entries};
}

class MetadataReader {
 public:
  explicit MetadataReader(Reader& reader) : reader_(reader) {}

  Json read(uint64_t num_entries) {
    Json metadata = Json::object();
    for (uint64_t i = 0; i < num_entries; i++) {
      auto key = reader_.read_string("metadata key", kMaxKeyBytes);
      where_ = fmt::format("metadata {}", key);
      if (metadata.contains(key))
        throw_input_error("{}: {}: is there twice; which one is meant is unknown, so convert the model again",
                          reader_.file(), where_);
      metadata[std::move(key)] = read_value(read_type(), 0);
    }
    return metadata;
  }

 private:
  GgufType read_type() {
    const auto type = reader_.read<uint32_t>(where_);
    if (type > static_cast<uint32_t>(GgufType::f64))
      throw_input_error("{}: {}: value type {}, at most {} expected; the file is damaged", reader_.file(), where_, type,
                        static_cast<uint32_t>(GgufType::f64));
    return static_cast<GgufType>(type);
  }

  Json read_value(GgufType type, int depth) {
    if (++num_values_ > kMaxValues)
      throw_input_error("{}: {}: more than {} metadata values; the file is damaged", reader_.file(), where_,
                        kMaxValues);
    switch (type) {
      case GgufType::u8: return reader_.read<uint8_t>(where_);
      case GgufType::i8: return reader_.read<int8_t>(where_);
      case GgufType::u16: return reader_.read<uint16_t>(where_);
      case GgufType::i16: return reader_.read<int16_t>(where_);
      case GgufType::u32: return reader_.read<uint32_t>(where_);
      case GgufType::i32: return reader_.read<int32_t>(where_);
      case GgufType::f32: return reader_.read<float>(where_);
      case GgufType::boolean: return read_boolean();
      case GgufType::string: return reader_.read_string(where_, reader_.left());
      case GgufType::array: return read_array(depth + 1);
      case GgufType::u64: return reader_.read<uint64_t>(where_);
      case GgufType::i64: return reader_.read<int64_t>(where_);
      case GgufType::f64: return reader_.read<double>(where_);
    }
    return nullptr;
  }

  bool read_boolean() {
    const auto value = reader_.read<uint8_t>(where_);
    if (value > 1)
      throw_input_error("{}: {}: boolean {}, 0 or 1 expected; the file is damaged", reader_.file(), where_, value);
    return value == 1;
  }

  Json read_array(int depth) {
    if (depth > kMaxArrayDepth)
      throw_input_error("{}: {}: arrays nested {} deep, at most {} are read", reader_.file(), where_, depth,
                        kMaxArrayDepth);
    const auto type = read_type();
    const auto count = reader_.read_count(where_, min_value_bytes(type));
    Json::array_t array;
    array.reserve(std::min(count, kMaxValues));
    for (uint64_t i = 0; i < count; i++) array.push_back(read_value(type, depth));
    return array;
  }

  Reader& reader_;
  std::string where_;        // "metadata {key}"
  uint64_t num_values_ = 0;  // so far, those in arrays included
};

uint64_t metadata_alignment(const Json& metadata, std::string_view file) {
  const auto it = metadata.find(kGgufAlignmentKey);
  if (it == metadata.end()) return kGgufDefaultAlignment;
  const uint64_t alignment = it->is_number_unsigned() ? it->get<uint64_t>() : 0;
  if (!std::has_single_bit(alignment) || alignment > uint64_t{1} << 31)
    throw_input_error("{}: metadata {}: {}, a power of two expected; the file is damaged", file, kGgufAlignmentKey,
                      it->dump(-1, ' ', false, Json::error_handler_t::replace));
  return alignment;
}

DType read_tensor_type(Reader& reader, std::string_view what) {
  const auto number = reader.read<uint32_t>(what);
  const auto* type = std::ranges::find(kGgmlTypes, number, &GgmlType::number);
  if (type == std::end(kGgmlTypes))
    throw_input_error("{}: {}: type number {} is unknown; the file is damaged, or newer than this program",
                      reader.file(), what, number);
  if (!type->dtype)
    throw_input_error("{}: {}: type {} is not read; use a file in MXFP4, NVFP4, Q4_K, Q5_K, Q6_K, Q8_0 or BF16",
                      reader.file(), what, type->name);
  return *type->dtype;
}

// A tensor as the header announces it. Offsets are counted from the start of the data.
struct Announced {
  Tensor tensor;
  uint64_t begin, size;
};

Announced read_tensor_info(Reader& reader) {
  Announced info{};
  Tensor& tensor = info.tensor;
  tensor.name = reader.read_string("tensor name", kMaxKeyBytes);
  const auto what = fmt::format("tensor {}", tensor.name);
  const auto num_dimensions = reader.read<uint32_t>(what);
  if (num_dimensions > kGgufMaxDimensions)
    throw_input_error("{}: {}: {} dimensions, at most {} expected; the file is damaged", reader.file(), what,
                      num_dimensions, kGgufMaxDimensions);
  for (uint32_t i = 0; i < num_dimensions; i++) tensor.shape.push_back(reader.read<int64_t>(what));
  std::ranges::reverse(tensor.shape);
  tensor.dtype = read_tensor_type(reader, what);
  info.begin = reader.read<uint64_t>(what);
  info.size =
      static_cast<uint64_t>(tensor_bytes(tensor.dtype, tensor.shape, fmt::format("{}: {}", reader.file(), what)));
  return info;
}

// Gives each tensor its bytes: aligned, inside the file, shared with no other tensor.
void place(std::vector<Announced>& infos, std::span<const uint8_t> data, uint64_t alignment, std::string_view file) {
  std::ranges::sort(infos, {}, [](const Announced& info) { return std::pair(info.begin, info.size); });
  uint64_t end = 0;
  std::string_view previous;
  for (auto& info : infos) {
    const auto& name = info.tensor.name;
    if (info.begin % alignment != 0)
      throw_input_error("{}: tensor {}: its data begins at byte {}, a multiple of {} expected; the file is damaged",
                        file, name, info.begin, alignment);
    if (info.begin > data.size() || info.size > data.size() - info.begin)
      throw_input_error(
          "{}: tensor {}: {} bytes of data from byte {} on, but the file has only {} bytes of data; it is "
          "truncated: fetch it again",
          file, name, info.size, info.begin, data.size());
    if (info.begin < end)
      throw_input_error(
          "{}: tensor {}: its data begins at byte {}, but that of {} ends at byte {}; the file is damaged", file, name,
          info.begin, previous, end);
    info.tensor.bytes = data.subspan(info.begin, info.size);
    end = info.begin + info.size;
    previous = name;
  }
}

}  // namespace

GgufContents parse_gguf(std::span<const uint8_t> bytes, std::string_view file) {
  Reader reader(bytes, file);
  const auto [num_tensors, num_entries] = read_header(bytes, reader);
  GgufContents contents{.metadata = MetadataReader(reader).read(num_entries), .tensors = {}};

  reader.check_count(num_tensors, "tensors", kMinTensorBytes);
  std::vector<Announced> infos;
  infos.reserve(num_tensors);
  for (uint64_t i = 0; i < num_tensors; i++) infos.push_back(read_tensor_info(reader));

  const uint64_t alignment = metadata_alignment(contents.metadata, file);
  const uint64_t data_begin = (reader.offset() + alignment - 1) / alignment * alignment;
  place(infos, bytes.subspan(std::min<uint64_t>(data_begin, bytes.size())), alignment, file);
  for (auto& info : infos) {
    const auto name = info.tensor.name;
    if (!contents.tensors.emplace(name, std::move(info.tensor)).second)
      throw_input_error("{}: tensor {}: is there twice; which one is meant is unknown, so convert the model again",
                        file, name);
  }
  return contents;
}

std::optional<uint32_t> ggml_type(DType dtype) {
  const auto* type = std::ranges::find(kGgmlTypes, std::optional(dtype), &GgmlType::dtype);
  return type == std::end(kGgmlTypes) ? std::nullopt : std::optional(type->number);
}

}  // namespace nibble
