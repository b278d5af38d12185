// AMX's instructions in plain C++, so that the kernels for it are tested on machines that have none. What a processor would
// refuse, or leave to chance, is a trap.
#pragma once

#include <bit>
#include <cmath>
#include <cstring>

#include "backends/cpu/amx_tiles.h"

namespace nibble {
namespace {

struct EmulatedInstructions {
  static inline thread_local TileConfig config;  // palette 0: not configured
  static inline thread_local uint8_t tiles[kNumTiles][kTileRows][kTileRowBytes];

  static void configure(const TileConfig& to) {
    for (int tile = 0; tile < kNumTiles; tile++)
      if (to.rows[tile] > kTileRows || to.row_bytes[tile] > kTileRowBytes || to.row_bytes[tile] % 4 != 0)
        __builtin_trap();
    config = to;
    std::memset(tiles, 0, sizeof tiles);
  }
  static void release() { config.palette = 0; }

  template <int tile>
  static void zero() {
    check(tile);
    std::memset(tiles[tile], 0, sizeof tiles[tile]);
  }
  template <int tile>
  static void load(const void* from, int64_t stride) {
    zero<tile>();
    for (int row = 0; row < config.rows[tile]; row++)
      std::memcpy(tiles[tile][row], static_cast<const uint8_t*>(from) + row * stride, config.row_bytes[tile]);
  }
  template <int tile>
  static void store(void* to, int64_t stride) {
    check(tile);
    for (int row = 0; row < config.rows[tile]; row++)
      std::memcpy(static_cast<uint8_t*>(to) + row * stride, tiles[tile][row], config.row_bytes[tile]);
  }
  template <int sums, int a, int b>
  static void dot_int8() {
    dot<sums, a, b, int32_t, int8_t, int8_t>([](int8_t x) { return static_cast<int32_t>(x); });
  }
  template <int sums, int a, int b>
  static void dot_uint8_int8() {
    dot<sums, a, b, int32_t, uint8_t, int8_t>([](auto x) { return static_cast<int32_t>(x); });
  }
  template <int sums, int a, int b>
  static void dot_bf16() {
    dot<sums, a, b, float, uint16_t, uint16_t>([](uint16_t x) {
      const float value = std::bit_cast<float>(static_cast<uint32_t>(x) << 16);
      return std::fpclassify(value) == FP_SUBNORMAL ? 0.0f : value;
    });
  }

 private:
  static void check(int tile) {
    if (config.palette != 1 || config.rows[tile] == 0) __builtin_trap();
  }

  // sums[m][n] += the sum over k of a[m][k] * b[k / (4 / bytes of a factor)][…]
  template <int sums, int a, int b, class Sum, class A, class B>
  static void dot(const auto& value) {
    constexpr int kGroup = static_cast<int>(sizeof(Sum) / sizeof(A));
    for (int tile : {sums, a, b}) check(tile);
    if (config.rows[a] != config.rows[sums] || config.row_bytes[b] != config.row_bytes[sums] ||
        config.row_bytes[a] != 4 * config.rows[b])
      __builtin_trap();
    for (int m = 0; m < config.rows[a]; m++)
      for (int n = 0; n < config.row_bytes[b] / 4; n++) {
        Sum sum;
        std::memcpy(&sum, &tiles[sums][m][4 * n], 4);
        for (int k = 0; k < config.rows[b]; k++) {
          A x[kGroup];
          B y[kGroup];
          std::memcpy(x, &tiles[a][m][4 * k], 4);
          std::memcpy(y, &tiles[b][k][4 * n], 4);
          for (int i = 0; i < kGroup; i++) sum += value(x[i]) * value(y[i]);
        }
        std::memcpy(&tiles[sums][m][4 * n], &sum, 4);
      }
  }
};

}  // namespace
}  // namespace nibble
