// AMX (Sapphire Rapids and later): eight tiles of 16 rows of 64 bytes, and what can be done with them, for kernels that
// are written over an Instructions struct. tests/backends has one in plain C++.
//
// As assembly rather than intrinsics: GCC's take no constants but literals. The compiler uses no tiles of its own.
// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18, and volume 2.
#pragma once

#include <cstdint>

namespace nibble {
namespace {

constexpr int kNumTiles = 8, kTileRows = 16, kTileRowBytes = 64;

// The memory operand of LDTILECFG.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  void set(int tile, int num_rows, int bytes_of_row) {
    rows[tile] = static_cast<uint8_t>(num_rows);
    row_bytes[tile] = static_cast<uint16_t>(bytes_of_row);
  }
  static TileConfig of_whole_tiles() {
    TileConfig config;
    for (int tile = 0; tile < kNumTiles; tile++) config.set(tile, kTileRows, kTileRowBytes);
    return config;
  }
};
static_assert(sizeof(TileConfig) == 64);

struct AmxInstructions {
  // Of this thread, until release(): all tiles become zero. Nothing else may be called outside.
  static void configure(const TileConfig& config) { asm volatile("ldtilecfg %0" ::"m"(config)); }
  static void release() { asm volatile("tilerelease"); }

  // A tile of zeros takes none of the registers that tiles are renamed to. Measured on Sapphire Rapids, at times when the core's
  // other hyperthread seems to have half of them: a load and a product take 80 cycles when all eight tiles hold something, 43
  // with six, 30 with four; at other times 16. So a tile is zeroed as soon as it has been used: a product that is stored at
  // once takes 40 cycles with that, and 63 without.
  template <int tile>
  static void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(tile));
  }
  // Rows that lie `stride` bytes apart.
  template <int tile>
  static void load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(tile), "r"(from), "r"(stride) : "memory");
  }
  template <int tile>
  static void store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(tile), "r"(to), "r"(stride) : "memory");
  }
  // sums[m][n] += the sum over k of a[m][k] * b[k / 4][4 n + k % 4], int8 into int32.
  template <int sums, int a, int b>
  static void dot_int8() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(a), "i"(b));
  }
  // The same of uint8 in a and int8 in b.
  template <int sums, int a, int b>
  static void dot_uint8_int8() {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(a), "i"(b));
  }
  // sums[m][n] += the sum over k of a[m][k] * b[k / 2][2 n + k % 2], bfloat16 into float32; denormals count as zeros.
  template <int sums, int a, int b>
  static void dot_bf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(a), "i"(b));
  }
};

}  // namespace
}  // namespace nibble
