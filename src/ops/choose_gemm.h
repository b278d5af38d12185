// Which kernel a matrix multiplication takes: pure functions of the shape, printable and tested without the device.
#pragma once

#include <cstdint>
#include <string_view>

#include "nibble/dispatch_gemm_fp4.h"

namespace nibble {

// The linears of the engine, on packed weights.
enum class LinearKernel : uint8_t {
  gemv,         // M = 1: bound by memory
  batched,      // more: weights are read and decoded once for all tokens of a tile (up to 64)
  tiles_of_64,  // 64 tokens whatever M is: the rows past M are computed and not stored
};

// What a step asks for.
enum class LinearRoute : uint8_t {
  by_tokens,     // the kernel that suits M
  always_tiles,  // tiles of 64×64 for every M, as kernels made for prompts have them: what benchmarks compare with
};

LinearKernel choose_linear(int64_t M, LinearRoute route = LinearRoute::by_tokens);
std::string_view linear_kernel_name(LinearKernel kernel);

}  // namespace nibble
