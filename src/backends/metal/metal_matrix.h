// A weight as the Metal kernels read it: rows as they are in a CanonicalWeight, padded to whole chunks of 32, in one buffer.
//
//   codes    [E, N, row], rows of 16-byte words; 4-bit codes: nibble i of a 32-bit word is k = 2i, nibble i + 4 is
//            k = 2i + 1, so that neighbours decode together
//   scales   [E, N, chunks]: MXFP4 1 byte, NVFP4 2 (one for 16), Q8_0, Q4_0 and FP4 with half scales a half, Q4_1 two
//   factors  [E, N] float32: the row's tensor scale, and what the decoders of formats.h leave out
#pragma once

#include <span>

#include "backends/metal/metal_device.h"
#include "base/worker_pool.h"
#include "ops/packed_weight.h"
#include "weights/weight.h"

namespace nibble {

PackPlan plan_metal_pack(FormatId format, int64_t E, int64_t N, int64_t K);

// "mxfp4": the end of the names of its kernels.
std::string_view metal_format_name(FormatId packed_format);

class MetalMatrix final : public PackedWeight {
 public:
  // Packs with all workers. A weight in a format without a kernel is converted (weights/convert.h): InputError if one of its
  // values is not finite.
  MetalMatrix(const CanonicalWeight& weight, MetalDevice& device, WorkerPool& pool);

  // One without bytes, for plans; `file_format` is what it will be packed from.
  MetalMatrix(FormatId file_format, int64_t E, int64_t N, int64_t K);

  PackedMatrixArguments arguments;
  std::unique_ptr<MetalBuffer> buffer;
};

// A norm or a bias: float32 values.
class MetalVector final : public PackedWeight {
 public:
  MetalVector(std::span<const float> values, MetalDevice& device);
  MetalVector() = default;  // one without values, for plans
  std::unique_ptr<MetalBuffer> buffer;
};

}  // namespace nibble
