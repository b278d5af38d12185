// Writes a model's weights in FP4, as a folder that other programs read too: ModelOpt NVFP4 or compressed-tensors
// MXFP4.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "formats/encode.h"

namespace nibble {

struct QuantizeOptions {
  FormatId format = FormatId::nvfp4;  // nvfp4 or mxfp4
  ScaleSearch search = ScaleSearch::best;
  bool all = false;               // the output matrix too; the embedding always stays
  std::vector<std::string> keep;  // regular expressions (PCRE2) searched in tensor names: what stays as it is
  int num_threads = 0;            // 0: one for each processor
  std::function<void(int64_t done_bytes, int64_t all_bytes)> progress;
};

struct QuantizedTensor {
  std::string name, from, to;
  int64_t bytes;          // as written
  double relative_error;  // sqrt(sum of squared errors / sum of squares)
};

// Reads the model at `from` (any checkpoint that runs) and writes the folder `to`: weights, config.json, tokenizer,
// chat template, generation_config.json. config.json comes last: a folder that has one is whole. Throws InputError if
// `to` already holds a model, or if something of `from` has no place in such a folder.
std::vector<QuantizedTensor> quantize(const std::filesystem::path& from, const std::filesystem::path& to,
                                      const QuantizeOptions& options);

}  // namespace nibble
