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

// What the route of dispatch_gemm_fp4 depends on besides M: how many rows of the device's batched GEMV take as long as one of its
// tiles of 64 rows, full or not.
struct GemmFp4Device {
  int64_t rows_worth_a_tile;
};

// Either route decodes B once for each 16 rows (kMaxStripTokens), and a row takes as long in either.
inline constexpr GemmFp4Device kCpuGemmFp4 = {.rows_worth_a_tile = 64};

// The one choice for all devices: a single token takes the GEMV; several take tiles where those are no slower than the batched
// GEMV, and it where they are.
GemmRoute choose_gemm_fp4(int64_t M, int64_t N, const GemmFp4Device& device) noexcept;

}  // namespace nibble
