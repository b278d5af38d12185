#include "checkpoint/safetensors.h"
#include "fuzz/importer_reads.h"
#include "fuzz/targets.h"

namespace nibble {

namespace {

// What each dialect's config.json says, as short as it can be.
const nlohmann::json& dialect_configs() {
  static const auto configs = parse_json(R"([
    {},
    {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}},
    {"quantization_config": {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}},
    {"quantization_config": {"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized"}},
    {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
    {"quantization_config": {"quant_method": "fp8"}},
    {"quantization_config": {"quant_method": "mxfp4"}},
    {"quantization": {"mode": "mxfp4", "bits": 4, "group_size": 32}},
    {"quantization": {"mode": "nvfp4", "bits": 4, "group_size": 16}},
    {"quantization": {"mode": "affine", "bits": 4, "group_size": 32}},
    {"quantization": {"mode": "affine", "bits": 3, "group_size": 32}},
    {"quantization": {"mode": "affine", "bits": 8, "group_size": 64}}
  ])");
  return configs;
}

}  // namespace

void fuzz_safetensors(Bytes bytes) {
  Checkpoint checkpoint{.container = Container::safetensors, .path = "file"};
  input_error_of("file: ", [&] {
    for (auto& tensor : parse_safetensors(bytes, "file")) {
      expect(tensor.bytes.size() == static_cast<size_t>(tensor_bytes(tensor.dtype, tensor.shape, "")), "whole tensors");
      expect(tensor.bytes.empty() || (tensor.bytes.data() >= bytes.data() &&
                                      tensor.bytes.data() + tensor.bytes.size() <= bytes.data() + bytes.size()),
             "tensors inside the file");
      checkpoint.tensors.emplace(tensor.name, tensor);
    }
  });
  if (checkpoint.tensors.empty()) return;
  for (const auto& config : dialect_configs()) {
    checkpoint.config = config;
    read_everything(std::make_shared<const Checkpoint>(checkpoint));
  }
}

}  // namespace nibble
