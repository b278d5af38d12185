// The files beside the weights of a folder that `quantize` writes.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/safetensors_writer.h"
#include "engine/engine.h"

namespace nibble {

// config.json of the quantised model: the source's own, or one made from GGUF metadata, with the quantization_config of
// ModelOpt (nvfp4) or compressed-tensors (mxfp4). `kept` are the modules that stay as they are.
nlohmann::ordered_json quantized_config(const ModelFiles& files, FormatId format, const std::vector<std::string>& kept);

// How a module's FP4 is stored: codes, scales, and NVFP4's tensor scale (a multiplier).
std::vector<TensorSpec> fp4_specs(const std::string& module, FormatId format, int64_t N, int64_t K);
void append_fp4(SafetensorsWriter& writer, const std::string& module, FormatId format, std::span<const uint8_t> codes,
                std::span<const uint8_t> scales, float tensor_scale);

// Tokenizer, chat template and generation_config.json: a folder's own, or made from a GGUF file's metadata.
struct TextFile {
  std::string name, contents;
};
std::vector<TextFile> text_files(const Checkpoint& checkpoint);

}  // namespace nibble
