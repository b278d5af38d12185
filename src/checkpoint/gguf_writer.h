// Writes one GGUF file: metadata, then the tensors' bytes as they come.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "checkpoint/gguf.h"
#include "checkpoint/output_file.h"
#include "checkpoint/write_order.h"

namespace nibble {

struct GgufValue;

struct GgufArray {
  GgufType element_type;
  std::vector<GgufValue> values;  // all of element_type
};

// The alternatives stand in GgufType's order. Readers insist on types, so say uint32_t{2}, not 2.
struct GgufValue : std::variant<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, float, bool, std::string,
                                GgufArray, uint64_t, int64_t, double> {
  using variant::variant;
  GgufType type() const { return static_cast<GgufType>(index()); }
};

struct GgufEntry {
  std::string key;
  GgufValue value;
};

// The file has its name only after finish(): a writer that is given up leaves no file.
class GgufWriter {
 public:
  // Throws InputError for a key or name that occurs twice, a type that GGUF does not have, and arrays of mixed types.
  // The alignment is the default; "general.alignment" may not be among the keys.
  GgufWriter(const std::filesystem::path& path, std::span<const GgufEntry> metadata, std::vector<TensorSpec> tensors);

  // The next bytes of tensor `name`; all of a tensor's bytes come, in any number of calls, before the next tensor's.
  void append(std::string_view name, std::span<const uint8_t> bytes);

  // Throws InputError if bytes are missing.
  void finish();

 private:
  WriteOrder order_;
  OutputFile file_;
  std::vector<uint64_t> begins_;  // of each tensor's data in the file, and where the last one's ends
};

}  // namespace nibble
