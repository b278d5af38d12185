// What a Hugging Face configuration says about quantization, whichever tool wrote it. The tensors decide how each
// module is read; this says what may be there, so that two opinions about one module are found.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "formats/format.h"
#include "weights/module_pattern.h"

namespace nibble {

enum class QuantizationTool : uint8_t { none, modelopt, compressed_tensors, mlx };

// MLX's own integers: weight = code * scale + bias, codes of `bits`, a scale and a bias for each `group_size`.
struct AffineCodes {
  int bits, group_size;
};

// How MLX quantized a module: a format of ours, or affine. Neither: not at all.
struct MlxModule {
  std::optional<FormatId> format;
  std::optional<AffineCodes> affine;
};

struct QuantizationConfig {
  QuantizationTool tool = QuantizationTool::none;
  std::string where = "config.json";   // file and key, for messages
  std::vector<FormatId> formats;       // ModelOpt, compressed-tensors: what quantized modules may have
  std::vector<ModulePattern> ignored;  // ModelOpt, compressed-tensors: modules left as they were
  MlxModule mlx_default;               // MLX: modules that mlx_modules does not name
  std::map<std::string, MlxModule> mlx_modules;

  bool ignores(const std::string& module) const;
  MlxModule mlx_module(const std::string& module) const;
};

// Throws InputError, naming it and listing what is read, for a method, a format or a mode that is not.
QuantizationConfig read_quantization_config(const Checkpoint& checkpoint);

}  // namespace nibble
