// What a Hugging Face configuration says about quantization, whichever tool wrote it. The tensors decide how each
// module is read; this says what may be there, so that two opinions about one module are found.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "weights/module_names.h"

namespace nibble {

enum class QuantizationTool : uint8_t { none, modelopt, compressed_tensors, fp8, mlx, gpt_oss };

// How the weights of a module are stored.
struct Scheme {
  enum class Codes : uint8_t { plain, nvfp4, mxfp4, fp8, affine };
  enum class ScaleFor : uint8_t { tensor, row, block };  // FP8: all weights, an output feature, 128 x 128 weights

  Codes codes = Codes::plain;
  ScaleFor scale_for = ScaleFor::tensor;  // FP8 only
  int bits = 0, group_size = 0;           // affine only: integers, with a scale and a bias for each group

  bool operator==(const Scheme&) const = default;
};

// "NVFP4", "FP8 with a scale for each row", "4-bit affine in groups of 64", "not quantized"
std::string scheme_text(const Scheme& scheme);

// Modules that a tool quantized in one way.
struct SchemeGroup {
  ModuleNames modules;
  bool all_linears = false;  // and all modules that no group names
  Scheme scheme;
};

struct QuantizationConfig {
  QuantizationTool tool = QuantizationTool::none;
  std::string where = "config.json";      // file and key, for messages
  std::map<std::string, Scheme> modules;  // by full name; goes before everything else
  ModuleNames ignored;                    // left as they were
  std::vector<SchemeGroup> groups;
  bool has_fp4_experts = false;     // DeepSeek-V4: MXFP4 among FP8
  std::vector<std::string> unused;  // settings without effect here, "kv_cache_quant_algo FP8"

  // Whether the configuration calls the module by its full name.
  bool names(const std::string& module) const;
  // Plain for what is ignored or in no group.
  Scheme scheme_of(const std::string& module) const;
};

// Throws InputError, naming it and listing what is read, for a method, a format or a mode that is not.
QuantizationConfig read_quantization_config(const Checkpoint& checkpoint);

}  // namespace nibble
