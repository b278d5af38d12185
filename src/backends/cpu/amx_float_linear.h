// FP4 times many tokens by AMX tiles of bfloat16.
//
// Parts   a code times its scale has at most 6 significant bits (E2M1: 2, E4M3: 4), so that as a bfloat16, which has 8, it is exact. An
//         activation is taken as the sum of two (bf16_parts.h), which keeps 16 of its 24 bits, or with 8 bits as one.
// Cost    16 tokens × 16 rows × 32 k are two instructions of 16 cycles, as with integers. But no scale is left to be applied to sums:
//         they stay in their tiles for all k of a panel. Blocks are decoded once for 128 tokens, while
//         tiles multiply those before.
// Sums    float32, pairs of k in their order, the high parts of 32 before their low ones. A token's depend neither on the others nor
//         on its place, but they are not those of integers, which fewer tokens have. Denormals count as zeros.
//
// Included after the rules of linear_kernel.h.
#pragma once

#include "backends/cpu/amx_tiles.h"
#include "backends/cpu/bf16_parts.h"
#include "backends/cpu/kernels_avx512.h"

namespace nibble {
namespace {

constexpr int64_t kFloatBlocks = 2;       // of 16 rows, multiplied by the same tiles of activations
constexpr int64_t kFloatPanelGroups = 8;  // of 32 k: 16 kB of weights
constexpr int64_t kFloatTokens = 128;     // for which a block is decoded once

// The parts of a group of activations: 32 high ones, then 32 low ones. They come after all groups, in the same order.
constexpr int64_t kPartsBytes = 2 * kTileRowBytes;
static_assert(kPartsBytes <= kGroupExtraBytes);

uint8_t* parts_of(const Activations& x, const ActivationGroup* group) {
  const auto end = reinterpret_cast<uintptr_t>(x.groups + x.M * activation_groups(x.K));
  const uintptr_t first = (end + kLineBytes - 1) / kLineBytes * kLineBytes;
  return reinterpret_cast<uint8_t*>(first) + (group - x.groups) * kPartsBytes;
}

// CpuKernels::prepare, of the parts.
void prepare_parts(const Activations& x, int64_t first, int64_t last) {
  const int64_t num_groups = activation_groups(x.K);
  for (int64_t i = first; i < last; i++) {
    const int64_t token = i / num_groups, g = i % num_groups, left = x.K - g * kGroup;
    const TokenGroups groups = token_groups(x, token);
    const float* from = x.x + token * x.x_stride + g * kGroup;
    const auto mask = static_cast<__mmask32>(left < kGroup ? (1u << left) - 1 : ~0u);
    const __m512 a = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), from);
    const __m512 b = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), from + 16);
    uint8_t* to = parts_of(x, groups.first + g * groups.group_stride);
    if (x.bits == kActivationBits) {
      const Parts parts = parts_of_floats(a, b);
      _mm512_store_si512(to, parts.high);
      _mm512_store_si512(to + kTileRowBytes, parts.low);
    } else {
      const auto rounded = [](__m512 v) { return _mm512_add_epi32(_mm512_castps_si512(v), _mm512_set1_epi32(0x8000)); };
      _mm512_store_si512(to, high_words(rounded(a), rounded(b)));
    }
  }
}

// Some groups of one or two blocks of rows, as tiles have them: pairs of k, the even one in the low half, by rows.
struct FloatPanel {
  alignas(64) uint32_t pairs[kFloatPanelGroups][kFloatBlocks][kTileRows][kBlockRows];
};

// Decodes `left` groups of some blocks into a panel, one at a time.
template <class Layout>
struct PanelFill {
  static constexpr int64_t kScaleBytes = kGroup / Layout::dot_k * Layout::scale_line_bytes;

  PanelFill(const PackedMatrix& matrix, int64_t block, int64_t num_blocks, int64_t first, int64_t count,
            FloatPanel& panel)
      : left(count),
        w(matrix),
        blocks(num_blocks),
        codes(w.codes + block * w.block_code_bytes + first * kGroupBytes<Layout>),
        scales(w.scales + block * w.block_scale_bytes + first * kScaleBytes),
        to(panel.pairs),
        is_far(asks_far(true)) {}

  void step() {
    for (int64_t b = 0; b < blocks; b++)
      fill(codes + b * w.block_code_bytes, scales + b * w.block_scale_bytes, (*to)[b]);
    codes += kGroupBytes<Layout>;
    scales += kScaleBytes;
    to++;
    left--;
  }

  int64_t left, every = 1;

 private:
  void fill(const uint8_t* lines, const uint8_t* scales_at, uint32_t (*pairs)[kBlockRows]) const {
    prefetch_codes(lines, kGroupBytes<Layout>, is_far);
    const auto group_scales = GroupScales<Avx512, Layout>::load(scales_at);
    for (int k = 0; k < kGroup; k += Layout::line_k, lines += kLineBytes) {
      const __m512 scale = _mm512_mul_ps(group_scales.scale[k / Layout::dot_k], _mm512_set1_ps(Layout::factor));
      const __m512i line = Avx512::nibbles(lines);
      // Of the nibbles of four bytes the low ones are k = 0 … 3, the high ones k = 4 … 7.
      const auto pair = [&]<int even, int odd>() {
        const __m512i a = _mm512_castps_si512(_mm512_mul_ps(Avx512::code_values<even, Layout>(line), scale));
        const __m512i b = _mm512_castps_si512(_mm512_mul_ps(Avx512::code_values<odd, Layout>(line), scale));
        _mm512_store_si512(*pairs++, _mm512_or_si512(_mm512_srli_epi32(a, 16), b));
      };
      pair.template operator()<0, 2>();
      pair.template operator()<4, 6>();
      pair.template operator()<1, 3>();
      pair.template operator()<5, 7>();
    }
  }

  const PackedMatrix& w;
  int64_t blocks;
  const uint8_t *codes, *scales;
  uint32_t (*to)[kFloatBlocks][kTileRows][kBlockRows];
  bool is_far;
};

// Tokens of one tile of activations: their parts' first group, the bytes to the next one, and where their sums wait, those of the
// second block kFloatTokens further.
struct TokenRun {
  int64_t count;
  const uint8_t* parts;
  int64_t group_bytes;
  float* y;

  TokenRun from(int64_t t) const { return {count - t, parts + t * kPartsBytes, group_bytes, y + t * kBlockRows}; }
};

// Tiles: 0 and 1 sums of the two blocks, 2 and 3 those of the last tokens if they are fewer than 16; 4 and 5 the activations of these
// and those; 6 and 7 weights. Those that are used no more are zeroed at once (AmxInstructions::zero).
template <class Instructions, int num_parts, int blocks>
class FloatTiles {
 public:
  // y (+)= the products of `count` groups of a panel and the run, whose parts begin with the same group. Meanwhile the next panel
  // is filled.
  template <class Fill>
  static void add_panel(const FloatPanel& panel, int64_t count, const TokenRun& run, bool is_first, Fill& fill) {
    int64_t t = 0;
    for (; t + kTileRows <= run.count; t += kTileRows) add<0, 4>(panel, count, run.from(t), is_first, fill);
    if (t < run.count) add<2, 5>(panel, count, run.from(t), is_first, fill);
  }

 private:
  template <int sums, int activations, class Fill>
  static void add(const FloatPanel& panel, int64_t count, const TokenRun& run, bool is_first, Fill& fill) {
    constexpr int second = sums + blocks - 1;
    float* const second_y = run.y + kFloatTokens * kBlockRows;
    if (is_first) {
      Instructions::template zero<sums>();
      if constexpr (blocks == 2) Instructions::template zero<second>();
    } else {
      Instructions::template load<sums>(run.y, kTileRowBytes);
      if constexpr (blocks == 2) Instructions::template load<second>(second_y, kTileRowBytes);
    }
    const uint8_t* parts = run.parts;
    for (int64_t g = 0; g < count; g++, parts += run.group_bytes) {
      Instructions::template load<6>(panel.pairs[g][0], kTileRowBytes);
      if constexpr (blocks == 2) Instructions::template load<7>(panel.pairs[g][1], kTileRowBytes);
      for (int part = 0; part < num_parts; part++) {
        Instructions::template load<activations>(parts + part * kTileRowBytes, kPartsBytes);
        Instructions::template dot_bf16<sums, activations, 6>();
        if constexpr (blocks == 2) Instructions::template dot_bf16<second, activations, 7>();
        Instructions::template zero<activations>();
      }
      Instructions::template zero<6>();
      if constexpr (blocks == 2) Instructions::template zero<7>();
      if (fill.left > 0 && g % fill.every == 0) fill.step();
    }
    Instructions::template store<sums>(run.y, kTileRowBytes);
    Instructions::template zero<sums>();
    if constexpr (blocks == 2) {
      Instructions::template store<second>(second_y, kTileRowBytes);
      Instructions::template zero<second>();
    }
  }
};

template <class Instructions>
void configure_float_tiles(int64_t last_tokens) {
  TileConfig config;
  for (int tile : {0, 1, 4, 6, 7}) config.set(tile, kTileRows, kTileRowBytes);
  if (last_tokens > 0)
    for (int tile : {2, 3, 5}) config.set(tile, static_cast<int>(last_tokens), kTileRowBytes);
  Instructions::configure(config);
}

// num_tokens tokens of the task from its i-th on.
template <class Instructions, class Layout, int num_parts>
void float_tiles_linear_of(const LinearTask& task, int64_t i, int64_t num_tokens) {
  const PackedMatrix& w = *task.w;
  alignas(64) float y[kFloatBlocks][kFloatTokens * kBlockRows];
  TokenRun runs[kFloatTokens / kTokenTile + 1];
  int num_runs = 0;
  for (int64_t t = 0; t < num_tokens; t += runs[num_runs++].count) {
    const int64_t token = task.first_token + i + t, left = num_tokens - t,
                  left_in_tile = kTokenTile - token % kTokenTile;
    const TokenGroups x = token_groups(*task.x, token);
    runs[num_runs] = {.count = left < left_in_tile ? left : left_in_tile,
                      .parts = parts_of(*task.x, x.first),
                      .group_bytes = x.group_stride * kPartsBytes,
                      .y = y[0] + t * kBlockRows};
  }
  const int64_t num_groups = activation_groups(w.K);
  const int64_t num_blocks = (task.last_row - task.first_row + kBlockRows - 1) / kBlockRows;
  const int64_t num_panels = (num_groups + kFloatPanelGroups - 1) / kFloatPanelGroups;
  const int64_t end = (num_blocks + kFloatBlocks - 1) / kFloatBlocks * num_panels;
  const auto first_block = [&](int64_t n) { return n / num_panels * kFloatBlocks; };
  const auto blocks_of = [&](int64_t n) {
    return num_blocks - first_block(n) < kFloatBlocks ? num_blocks - first_block(n) : kFloatBlocks;
  };
  const auto groups_of = [&](int64_t n) {
    const int64_t left = num_groups - n % num_panels * kFloatPanelGroups;
    return left < kFloatPanelGroups ? left : kFloatPanelGroups;
  };
  FloatPanel panels[2];
  const auto fill_of = [&](int64_t n) {
    const int64_t block = task.e * w.num_blocks + task.first_row / kBlockRows + first_block(n);
    return PanelFill<Layout>(w, block, blocks_of(n), n % num_panels * kFloatPanelGroups, n < end ? groups_of(n) : 0,
                             panels[n % 2]);
  };
  int64_t configured = -1;
  for (auto fill = fill_of(0); fill.left > 0;) fill.step();
  for (int64_t n = 0; n < end; n++) {
    auto next_fill = fill_of(n + 1);
    next_fill.every = num_tokens > kTileRows ? 2 : 1;
    const int64_t first = n % num_panels * kFloatPanelGroups;
    for (int r = 0; r < num_runs; r++) {
      TokenRun run = runs[r];
      run.parts += first * run.group_bytes;
      if (run.count % kTileRows != configured) configure_float_tiles<Instructions>(configured = run.count % kTileRows);
      const auto add = blocks_of(n) == 2
                           ? FloatTiles<Instructions, num_parts, 2>::template add_panel<PanelFill<Layout>>
                           : FloatTiles<Instructions, num_parts, 1>::template add_panel<PanelFill<Layout>>;
      add(panels[n % 2], groups_of(n), run, first == 0, next_fill);
    }
    while (next_fill.left > 0) next_fill.step();
    if ((n + 1) % num_panels != 0) continue;
    for (int64_t b = 0; b < blocks_of(n); b++)
      for (int64_t t = 0; t < num_tokens; t++)
        finish_token<Avx512>(task, task.first_row + (first_block(n) + b) * kBlockRows, i + t,
                             Avx512::load(y[b] + t * kBlockRows));
  }
  Instructions::release();
}

template <class Instructions, class Layout>
void float_tiles_linear(const LinearTask& task) {
  const auto linear_of = task.x->bits == 8 ? float_tiles_linear_of<Instructions, Layout, 1>
                                           : float_tiles_linear_of<Instructions, Layout, 2>;
  for (int64_t i = 0; i < task.num_tokens; i += kFloatTokens) {
    const int64_t left = task.num_tokens - i;
    linear_of(task, i, left < kFloatTokens ? left : kFloatTokens);
  }
}

}  // namespace
}  // namespace nibble
