// Which kernel a matrix multiplication takes: pure functions of the shape, printable and tested without the device.
#pragma once

#include <cstdint>
#include <string_view>

#include "nibble/dispatch_gemm_fp4.h"

namespace nibble {

// Tokens that one decoding of the weights serves, at the most.
inline constexpr int kBatchedTokens = 8;

// The linears of the engine, on packed weights.
enum class LinearKernel : uint8_t {
  gemv,     // M = 1: bound by memory
  batched,  // M = 2 … kBatchedTokens: weights are read and decoded once for all tokens
  tiles,    // more: tiles of 8 tokens over blocks of rows that stay in cache
};

LinearKernel choose_linear(int64_t M);
std::string_view linear_kernel_name(LinearKernel kernel);

}  // namespace nibble
