// A weight as the CPU kernels read it: one layout (packed_layout.h) for all instruction sets.
//
// N is padded to whole blocks of 16 rows, K of the integer formats to whole groups of 32. Padded codes and scales are
// there to be multiplied by zero activations; padded rows are never stored.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/memory.h"
#include "base/worker_pool.h"
#include "ops/packed_weight.h"
#include "weights/weight.h"

namespace nibble {

// Planes of an expert lie block after block: block b of expert e is at index e * num_blocks + b of each plane, but for
// scales that two blocks share.
class PackedMatrix final : public PackedWeight {
 public:
  // Packs `weight`, whose bytes are not needed afterwards, with all workers of `pool` (null: on the calling thread), each
  // what its team will read, so that the pages are first touched on that team's node. A weight in a format without a
  // kernel is converted (convert.h): InputError if one of its values is not finite. With an arena it lies in its pages, if all
  // workers are of one team.
  explicit PackedMatrix(const CanonicalWeight& weight, WorkerPool* pool = nullptr, HugePageArena* arena = nullptr);

  // The same again from its packed_bytes (Backend::adopt). `canonical_format` is what was packed.
  PackedMatrix(FormatId canonical_format, int64_t E, int64_t N, int64_t K, std::shared_ptr<const uint8_t> bytes);

  std::span<const uint8_t> packed_bytes() const override { return {codes, static_cast<size_t>(bytes)}; }

  int64_t num_blocks = 0;        // of 16 rows, per expert
  int64_t num_scale_blocks = 0;  // the same, or half of it where two blocks share their scales
  int64_t block_code_bytes = 0;  // a multiple of 32
  int64_t block_scale_bytes = 0;
  const uint8_t* codes = nullptr;      // [E, num_blocks, block_code_bytes], at a line's start
  const uint8_t* scales = nullptr;     // [E, num_scale_blocks, block_scale_bytes], at a line's start
  const float* row_factors = nullptr;  // [E, num_blocks * 16]: what a row is multiplied by, its part's tensor scale

 private:
  std::shared_ptr<const uint8_t> planes_;  // all of them
};

// Blocks that a worker packs, unless others of its team are done before, by their places in the planes: its part of what its team has of every expert, the rows that
// the team reads.
std::vector<Range> blocks_to_pack(int64_t E, int64_t num_blocks, std::span<const WorkerTeam> teams, int worker);

// What PackedMatrix makes of a matrix: the same bytes, without loading anything.
PackPlan plan_pack(FormatId format, int64_t E, int64_t N, int64_t K);

// out[k] = weight[e, n, k] for all k: exactly as decode_row gives it, if the weight was not converted.
void unpack_row(const PackedMatrix& matrix, int64_t e, int64_t n, float* out);

}  // namespace nibble
