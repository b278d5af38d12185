// A checkpoint on disk as its container tells it: named tensors with their bytes, and the configuration beside them.
// Nothing is decoded here; what the bytes mean is the importers' business (weights/importer.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/mapped_file.h"
#include "checkpoint/dtype.h"

namespace nibble {

struct Tensor {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;      // outermost first (GGUF's order is turned round); empty for a scalar
  std::span<const uint8_t> bytes;  // inside one of Checkpoint::files
};

using TensorMap = std::map<std::string, Tensor, std::less<>>;  // by name

enum class Container : uint8_t { safetensors, gguf };

struct Checkpoint {
  Container container;
  std::filesystem::path path;        // what the user named
  nlohmann::json config;             // safetensors: config.json; gguf: the metadata, one flat key each
  nlohmann::json hf_quant_config;    // safetensors: hf_quant_config.json, else null
  nlohmann::json generation_config;  // safetensors: generation_config.json, else null
  TensorMap tensors;
  std::vector<std::shared_ptr<const MappedFile>> files;

  // Null if there is no tensor of that name.
  const Tensor* find(std::string_view name) const {
    const auto it = tensors.find(name);
    return it == tensors.end() ? nullptr : &it->second;
  }
};

// Opens a folder in Hugging Face layout (config.json, *.safetensors, an index if there are shards) or a .gguf file, the
// first one if the model is in several (gguf_split.h).
// Reads headers only. Throws InputError with the file, the fact and what was expected for anything that does not hold:
// a truncated file, a lying length, overlapping or missing ranges, an unknown type, a tensor that is there twice.
Checkpoint open_checkpoint(const std::filesystem::path& path);

}  // namespace nibble
