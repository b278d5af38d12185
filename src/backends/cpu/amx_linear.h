// Many tokens times a packed matrix by AMX tiles: up to 16 tokens by 16 rows by 32 k in one instruction and plane, and the
// same sums as the AVX-512 kernels', to the bit.
//
// Cost    a block's codes are decoded once for 64 tokens, some k at a time, into a panel that stays in the first-level
//         cache. The integer sums of a tile leave it after every group, since each group has scales of its own, and take 5
//         vector instructions for 16 products of 32 k.
// Order   two sets of tiles: one is multiplied while the other is stored, and what was stored before that is scaled.
//
// Included after the rules of linear_kernel.h.
#pragma once

#include "backends/cpu/amx_float_linear.h"

namespace nibble {

extern const CpuKernels kAvx512Kernels;  // which do all that tiles are not for

namespace {

constexpr int kTileTokens = kTileRows;
constexpr int kPanelGroups = 64;       // of 32 k: 32 kB of codes
constexpr int kFewestTileTokens = 16;  // for fewer, AVX-512 alone is faster

typedef int32_t TileSums[2][kTileTokens][kBlockRows];

// Tiles 0 to 3: the sums of set 0, then of set 1, a plane each. 4: codes. 5 and 6: activations, a plane each.
template <class Instructions>
struct IntegerTiles {
  static void configure(int num_tokens) {
    TileConfig config;
    for (int tile = 0; tile < 4; tile++) config.set(tile, num_tokens, kLineBytes);
    config.set(4, kGroup / 4, kLineBytes);
    for (int tile = 5; tile < 7; tile++) config.set(tile, num_tokens, kGroup);
    Instructions::configure(config);
  }
  static void release() { Instructions::release(); }

  // The planes' sums of the groups x[0 … num_tokens), with 8 lines of codes, to the set's tiles.
  template <int set, int num_planes>
  static void multiply(const ActivationGroup* x, const int8_t* codes) {
    Instructions::template load<4>(codes, kLineBytes);
    Instructions::template load<5>(x->high, sizeof(ActivationGroup));
    Instructions::template zero<2 * set>();
    Instructions::template dot_int8<2 * set, 5, 4>();
    if constexpr (num_planes == 2) {
      Instructions::template load<6>(x->low, sizeof(ActivationGroup));
      Instructions::template zero<2 * set + 1>();
      Instructions::template dot_int8<2 * set + 1, 6, 4>();
    }
  }

  // A set's tiles to sums[plane][token][row].
  template <int set, int num_planes>
  static void store(TileSums& sums) {
    Instructions::template store<2 * set>(sums[0], kLineBytes);
    if constexpr (num_planes == 2) Instructions::template store<2 * set + 1>(sums[1], kLineBytes);
  }
};

// Some groups of a block, ready to multiply.
template <class Layout>
struct Panel {
  static_assert(Layout::dot_k == kGroup);
  alignas(64) int8_t codes[kPanelGroups][kGroup / 4][kLineBytes];
  alignas(64) float scales[kPanelGroups][1 + (Layout::scale == ScaleKind::half_and_minimum)][kBlockRows];

  void fill(const PackedMatrix& w, int64_t block, int64_t groups_per_scale, int64_t first, int64_t count) {
    constexpr int64_t group_bytes = kGroup / Layout::line_k * kLineBytes;
    constexpr int64_t scale_bytes = Layout::scale_line_bytes;
    const uint8_t* from = w.codes + block * w.block_code_bytes + first * group_bytes;
    const uint8_t* scales_from = w.scales + block * w.block_scale_bytes;
    const bool is_far = asks_far(true);
    for (int64_t g = 0; g < count; g++, from += group_bytes) {
      prefetch_codes(from, group_bytes, is_far);
      const Avx512::Group group = Avx512::decode<Layout>(Lines{from, kLineBytes});
      for (int i = 0; i < kGroup / 4; i++)
        _mm512_store_si512(codes[g][i],
                           _mm512_sub_epi8(group.codes[i], _mm512_set1_epi8(static_cast<char>(Layout::code_offset))));
      const auto loaded = GroupScales<Avx512, Layout>::load(scales_from + (first + g) / groups_per_scale * scale_bytes);
      Avx512::store(scales[g][0], loaded.scale[0]);
      if constexpr (Layout::scale == ScaleKind::half_and_minimum) Avx512::store(scales[g][1], loaded.minimum);
    }
  }
};

// y[t] += integer sums, scaled.
template <int num_planes>
void add_tiles(const TileSums& sums, const ActivationGroup* x, int num_tokens, const float* scales, __m512* y) {
  const __m512 scale = _mm512_load_ps(scales);
  for (int t = 0; t < num_tokens; t++) {
    __m512i sum = _mm512_slli_epi32(_mm512_load_si512(sums[0][t]), 7);
    if constexpr (num_planes == 2) sum = _mm512_add_epi32(sum, _mm512_load_si512(sums[1][t]));
    y[t] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(x[t].scale)), scale, y[t]);
  }
}

// y[t * 16] += the products of `count` groups of the panel and the tokens, of which x has the first group. num_tokens is
// 16, or 0: then it is some_tokens.
template <class Tiles, class Layout, int num_planes, int num_tokens>
void add_panel(const Panel<Layout>& panel, int64_t count, const TokenGroups& x, int some_tokens, float* out) {
  const int tokens = num_tokens > 0 ? num_tokens : some_tokens;
  __m512 y[kTileTokens];
  for (int t = 0; t < tokens; t++) y[t] = _mm512_load_ps(out + t * kBlockRows);
  alignas(64) TileSums sums[2];
  const auto group = [&](int64_t g) { return x.first + g * x.group_stride; };

  // Three things at once: group i is multiplied, the one before leaves its tiles, the one before that is added to y.
  // Loads of what a tile has just stored would wait until it is in the cache.
  const auto step = [&]<int set>(int64_t i) {
    if (i < count) Tiles::template multiply<set, num_planes>(group(i), panel.codes[i][0]);
    if (0 < i && i <= count) Tiles::template store<1 - set, num_planes>(sums[1 - set]);
    if (i < 2) return;
    const int64_t done = i - 2;
    add_tiles<num_planes>(sums[set], group(done), tokens, panel.scales[done][0], y);
    if constexpr (Layout::scale == ScaleKind::half_and_minimum) {
      const __m512 minimum = _mm512_load_ps(panel.scales[done][1]);
      for (int t = 0; t < tokens; t++) {
        const __m512 offset = _mm512_cvtepi32_ps(_mm512_set1_epi32(group(done)[t].offset));
        y[t] = _mm512_fmadd_ps(_mm512_mul_ps(offset, _mm512_set1_ps(group(done)[t].scale)), minimum, y[t]);
      }
    }
  };
  int64_t i = 0;
  for (; i + 1 < count + 2; i += 2) {
    step.template operator()<0>(i);
    step.template operator()<1>(i + 1);
  }
  if (i < count + 2) step.template operator()<0>(i);
  for (int t = 0; t < tokens; t++) _mm512_store_ps(out + t * kBlockRows, y[t]);
}

// Tokens i … i + count of the task, all of one tile of activations.
template <class Tiles, class Layout, int num_planes>
void tiles_linear_of(const LinearTask& task, int64_t groups_per_scale, int64_t i, int64_t count) {
  const PackedMatrix& w = *task.w;
  const int64_t num_groups = activation_groups(w.K);
  const TokenGroups x = token_groups(*task.x, task.first_token + i);
  const int last_tokens = static_cast<int>(count % kTileTokens);
  const int64_t whole_tokens = count - last_tokens;
  Panel<Layout> panel;
  for (int64_t row = task.first_row; row < task.last_row; row += kBlockRows) {
    const int64_t block = task.e * w.num_blocks + row / kBlockRows;
    alignas(64) float y[kTokenTile * kBlockRows];
    for (int64_t t = 0; t < count; t++) _mm512_store_ps(y + t * kBlockRows, _mm512_setzero_ps());
    for (int64_t g = 0; g < num_groups; g += kPanelGroups) {
      const int64_t panel_groups = num_groups - g < kPanelGroups ? num_groups - g : kPanelGroups;
      panel.fill(w, block, groups_per_scale, g, panel_groups);
      const auto from = [&](int64_t t) { return TokenGroups{x.first + g * x.group_stride + t, x.group_stride}; };
      if (whole_tokens > 0) {
        Tiles::configure(kTileTokens);
        for (int64_t t = 0; t < whole_tokens; t += kTileTokens)
          add_panel<Tiles, Layout, num_planes, kTileTokens>(panel, panel_groups, from(t), kTileTokens,
                                                            y + t * kBlockRows);
      }
      if (last_tokens > 0) {
        Tiles::configure(last_tokens);
        add_panel<Tiles, Layout, num_planes, 0>(panel, panel_groups, from(whole_tokens), last_tokens,
                                                y + whole_tokens * kBlockRows);
      }
    }
    for (int64_t t = 0; t < count; t++)
      finish_token<Avx512>(task, row, i + t,
                           Avx512::mul(Avx512::load(y + t * kBlockRows), Avx512::broadcast(&Layout::factor)));
  }
  Tiles::release();
}

template <class Tiles, class Layout>
void tiles_linear(const LinearTask& task, int64_t groups_per_scale) {
  for_each_tile(task, [&](int64_t i, int64_t count) {
    if (count < kFewestTileTokens) {
      LinearTask few = task;
      few.first_token += i;
      few.num_tokens = count;
      few.out += i * task.out_stride;
      return kAvx512Kernels.linear(few);
    }
    (task.x->bits == 8 ? tiles_linear_of<Tiles, Layout, 1> : tiles_linear_of<Tiles, Layout, 2>)(task, groups_per_scale,
                                                                                                i, count);
  });
}

// Integers with scales of 32 k by tiles, the rest as AVX-512 has it: with the 16 k of NVFP4 a quarter of a tile would be
// full, which took 1.3 times as long as AVX-512 (64 tokens, 15 bits, Sapphire Rapids).
template <class Instructions>
void tiles_linear(const LinearTask& task) {
  using Tiles = IntegerTiles<Instructions>;
  switch (task.w->format) {
    case FormatId::q8_0: return tiles_linear<Tiles, PackedLayout<Q8_0>>(task, 1);
    case FormatId::q4_0: return tiles_linear<Tiles, PackedLayout<Q4_0>>(task, 1);
    case FormatId::q4_1: return tiles_linear<Tiles, PackedLayout<Q4_1>>(task, 1);
    case FormatId::mxfp4: return tiles_linear<Tiles, PackedLayout<Mxfp4>>(task, 1);
    case FormatId::fp4_half_32: return tiles_linear<Tiles, PackedLayout<Fp4Half<32>>>(task, 1);
    case FormatId::fp4_half_64: return tiles_linear<Tiles, PackedLayout<Fp4Half<32>>>(task, 2);
    case FormatId::fp4_half_128: return tiles_linear<Tiles, PackedLayout<Fp4Half<32>>>(task, 4);
    default: return kAvx512Kernels.linear(task);
  }
}

// The table with these tiles.
template <class Instructions>
constexpr CpuKernels tiles_kernels(std::string_view name) {
  return {.name = name,
          .prepare = [](const Activations& x, int64_t first, int64_t last) { kAvx512Kernels.prepare(x, first, last); },
          .linear = tiles_linear<Instructions>,
          .interleave_rows = [](const uint8_t* const* rows, int64_t num_pieces, RowUnit unit,
                                uint8_t* lines) { kAvx512Kernels.interleave_rows(rows, num_pieces, unit, lines); },
          .gemm_fp4 = [](const GemmFp4Strip& strip) { kAvx512Kernels.gemm_fp4(strip); },
          .read = [](const uint8_t* bytes, int64_t size) { return kAvx512Kernels.read(bytes, size); }};
}

// The same with FP4 as floats (amx_float_linear.h), from 16 tokens on.
template <class Instructions>
constexpr CpuKernels float_tiles_kernels(std::string_view name) {
  CpuKernels kernels = tiles_kernels<Instructions>(name);
  kernels.prepare = [](const Activations& x, int64_t first, int64_t last) {
    kAvx512Kernels.prepare(x, first, last);
    if (x.M >= kFewestTileTokens) prepare_parts(x, first, last);
  };
  kernels.linear = [](const LinearTask& task) {
    if (task.num_tokens < kFewestTileTokens) return kAvx512Kernels.linear(task);
    switch (task.w->format) {
      case FormatId::mxfp4: return float_tiles_linear<Instructions, PackedLayout<Mxfp4>>(task);
      case FormatId::nvfp4: return float_tiles_linear<Instructions, PackedLayout<Nvfp4>>(task);
      default: return tiles_linear<Instructions>(task);
    }
  };
  return kernels;
}

}  // namespace
}  // namespace nibble
