// AMX with 8-bit integers (Sapphire Rapids and later) for many tokens, AVX-512 for few.
#include "backends/cpu/amx_linear.h"

namespace nibble {
namespace {

struct AmxTiles {
  // Tiles 0 to 3: the sums of set 0, then of set 1, a plane each. 4: codes. 5 and 6: activations, a plane each.
  struct alignas(64) Config {
    uint8_t palette = 1, start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  };
  static_assert(sizeof(Config) == 64);

  static void configure(int num_tokens) {
    Config config;
    for (int tile = 0; tile < 4; tile++) {
      config.rows[tile] = static_cast<uint8_t>(num_tokens);
      config.row_bytes[tile] = kLineBytes;
    }
    config.rows[4] = kGroup / 4;
    config.row_bytes[4] = kLineBytes;
    for (int tile = 5; tile < 7; tile++) {
      config.rows[tile] = static_cast<uint8_t>(num_tokens);
      config.row_bytes[tile] = kGroup;
    }
    is_read(&config);
    _tile_loadconfig(&config);
  }
  static void release() { _tile_release(); }

  template <int set, int num_planes>
  static void multiply(const ActivationGroup* x, const int8_t* codes) {
    is_read(codes);
    _tile_loadd(4, codes, kLineBytes);
    _tile_loadd(5, x->high, sizeof(ActivationGroup));
    sum<2 * set>();
    if constexpr (num_planes == 2) {
      _tile_loadd(6, x->low, sizeof(ActivationGroup));
      sum<2 * set + 1>();
    }
  }

  template <int set, int num_planes>
  static void store(TileSums& sums) {
    store_tile<2 * set>(sums[0][0]);
    if constexpr (num_planes == 2) store_tile<2 * set + 1>(sums[1][0]);
  }

 private:
  // GCC 12's intrinsics do not say that they read memory, and what was stored there might be left out.
  static void is_read([[maybe_unused]] const void* memory) {
#if !defined(__clang__)
    __asm__ volatile("" ::"r"(memory) : "memory");
#endif
  }

  // They also take no other tiles than literals.
  template <int tile>
  static void sum() {
    if constexpr (tile == 0) {
      _tile_zero(0);
      _tile_dpbssd(0, 5, 4);
    }
    if constexpr (tile == 1) {
      _tile_zero(1);
      _tile_dpbssd(1, 6, 4);
    }
    if constexpr (tile == 2) {
      _tile_zero(2);
      _tile_dpbssd(2, 5, 4);
    }
    if constexpr (tile == 3) {
      _tile_zero(3);
      _tile_dpbssd(3, 6, 4);
    }
  }
  template <int tile>
  static void store_tile(int32_t* to) {
    if constexpr (tile == 0) _tile_stored(0, to, kLineBytes);
    if constexpr (tile == 1) _tile_stored(1, to, kLineBytes);
    if constexpr (tile == 2) _tile_stored(2, to, kLineBytes);
    if constexpr (tile == 3) _tile_stored(3, to, kLineBytes);
  }
};

}  // namespace

extern const CpuKernels kAmxKernels;
constinit const CpuKernels kAmxKernels = {.name = "amx",
                                          .prepare = prepare<Avx512>,
                                          .linear = tiles_linear<AmxTiles>,
                                          .gemm_fp4 = gemm_fp4_strip<Avx512>,
                                          .read = read};

}  // namespace nibble
