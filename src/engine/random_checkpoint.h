// A checkpoint of a published shape with random weights, as a folder that looks like the published ones: for trying, at
// full size and without a download, how files are read, packed and run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>

#include "engine/engine.h"

namespace nibble {

// The format of each matrix in such a folder: `fp4` inside the layers, bfloat16 for what publishers leave alone
// (embedding, output, routers), for latent attention's kv_b_proj, and where a row is no whole number of groups.
std::function<FormatId(const MatrixRequest&)> published_formats(FormatId fp4);

struct RandomCheckpointOptions {
  FormatId format = FormatId::mxfp4;  // mxfp4 as compressed-tensors has it, or nvfp4 as ModelOpt does
  uint64_t max_shard_bytes = 5'000'000'000;
  std::function<void(int64_t done_bytes, int64_t all_bytes)> progress;
};

// Writes the folder `to`: weights, each expert's by itself, and config.json, which comes last. The weights are those of
// random_model(shape, published_formats(format)), to the bit. Returns their bytes. Throws InputError if `to` holds a
// model or the disk has too little room.
int64_t write_random_checkpoint(const Checkpoint& shape, const std::filesystem::path& to,
                                const RandomCheckpointOptions& options);

}  // namespace nibble
