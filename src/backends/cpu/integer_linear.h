// Matrices of integer codes times rounded activations.
//
// Cost    a block of 16 rows reads and decodes its codes and scales once for up to 64 tokens; activations stay in cache.
//         M = 1 is bound by memory: the bar is the measured read bandwidth (bench_gemm_fp4 --packed).
// Sums    exact integers within a group of 32 (NVFP4: 16), float32 fused multiply-adds across groups in the order of
//         k, so nothing but the row and the token decides the result.
//
// Included after the rules of linear_kernel.h.
#pragma once

#include <type_traits>
#include <utility>

#include "backends/cpu/linear_task.h"
#include "backends/cpu/prefetch.h"
#include "backends/cpu/quantize_activations.h"

namespace nibble {
namespace {

// Where the sums of several tokens fit into registers, fewer tokens than this go through a block in turns of as many as fit, and
// each turn decodes the block anew, from cache: for eight tokens that takes 15 % less time than one turn with sums in memory on
// Sapphire Rapids, and as much on Zen 4. This many are multiplied by two blocks at once, two tokens at a time.
constexpr int64_t kFewestPairTokens = 32;

// The lines of a block's codes from a group's first on.
struct Lines {
  static constexpr bool kInHalves = false;  // whether eight of their rows are multiplied, then the others
  const uint8_t* first;
  int64_t stride;

  const uint8_t* line(int64_t i) const { return first + i * stride; }
};

// The same where whoever reads a line asks for others, so that asking is spread over the time that the products take.
template <bool is_far, bool in_halves>
struct AskingLines {
  static constexpr bool kInHalves = in_halves;
  const uint8_t *first, *near, *far;

  const uint8_t* line(int64_t i) const {
    asm volatile("" ::: "memory");  // or the compiler gathers what is asked for
    prefetch_lines(near + i * kLineBytes, far + i * kLineBytes, kLineBytes, is_far);
    return first + i * kLineBytes;
  }
};

// What the 16 rows of a group are scaled by, ready to multiply. Of transposed FP4 it is in the activations already.
template <class Isa, class Layout>
struct GroupScales {
  static constexpr int count = kGroup / Layout::dot_k;
  typename Isa::Floats scale[count];
  typename Isa::Floats minimum;  // of Q4_1

  static GroupScales load(const uint8_t* from) {
    GroupScales scales;
    for (int i = 0; i < count; i++) {
      if constexpr (Layout::scale == ScaleKind::e8m0) {
        scales.scale[i] = Isa::load_e8m0(from + i * Layout::scale_line_bytes);
      } else if constexpr (Layout::scale == ScaleKind::e4m3) {
        scales.scale[i] = Isa::load_e4m3(from + i * Layout::scale_line_bytes);
      } else {
        scales.scale[i] = Isa::load_half(from + i * Layout::scale_line_bytes);
      }
    }
    if constexpr (Layout::scale == ScaleKind::half_and_minimum) {
      // Each k adds the minimum once, so the group adds it times the sum of q, which the offset is a multiple of.
      constexpr float per_offset = -1.0f / kOffset;
      scales.minimum = Isa::mul(Isa::load_half(from + 32), Isa::broadcast(&per_offset));
    }
    return scales;
  }
};

// y + the integer sums of a group and a token, scaled.
template <class Isa>
typename Isa::Floats add_scaled(typename Isa::Ints sums, const ActivationGroup& x, typename Isa::Floats scale,
                                typename Isa::Floats y) {
  return Isa::fma(Isa::mul(Isa::to_float(sums), Isa::broadcast(&x.scale)), scale, y);
}

// y + the sums of a group's two halves and a token, scaled: the activation's scale is that of both.
template <class Isa>
typename Isa::Floats add_scaled_halves(typename Isa::Ints first, typename Isa::Ints second, const ActivationGroup& x,
                                       const typename Isa::Floats (&scale)[2], typename Isa::Floats y) {
  const auto of_first = Isa::mul(Isa::to_float(first), scale[0]);
  return Isa::fma(Isa::fma(Isa::to_float(second), scale[1], of_first), Isa::broadcast(&x.scale), y);
}

// The integer sums of 16 k or 32 of each block's rows and each token.
template <class Isa, class Layout, int first, int num_planes, class Group, int blocks, int tokens>
void dot_all(const Group (&groups)[blocks], const ActivationGroup* x, typename Isa::Ints (&sums)[blocks][tokens]) {
  if constexpr (blocks * tokens == 1) {
    sums[0][0] = Isa::template dot<Layout, first, num_planes>(groups[0], *x);
  } else {
    Isa::template dot_side_by_side<Layout, first, num_planes>(groups, x, sums);
  }
}

// y[b][t] + the products of a group of block b's rows and token t, for each of the blocks and tokens.
template <class Isa, class Layout, int num_planes, class Group, int blocks, int tokens>
void add_groups(const Group (&groups)[blocks], const GroupScales<Isa, Layout> (&scales)[blocks],
                const ActivationGroup* x, typename Isa::Floats (&y)[blocks][tokens]) {
  typename Isa::Ints sums[blocks][tokens], second[blocks][tokens];
  dot_all<Isa, Layout, 0, num_planes>(groups, x, sums);
  if constexpr (Layout::dot_k < kGroup) dot_all<Isa, Layout, 16, num_planes>(groups, x, second);
  for (int b = 0; b < blocks; b++)
    for (int t = 0; t < tokens; t++) {
      if constexpr (Layout::is_transposed) {
        y[b][t] = Isa::fma(Isa::to_float(sums[b][t]), Isa::broadcast(&x[t].scale), y[b][t]);
      } else if constexpr (Layout::dot_k < kGroup) {
        y[b][t] = add_scaled_halves<Isa>(sums[b][t], second[b][t], x[t], scales[b].scale, y[b][t]);
      } else {
        y[b][t] = add_scaled<Isa>(sums[b][t], x[t], scales[b].scale[0], y[b][t]);
      }
      if constexpr (Layout::scale == ScaleKind::half_and_minimum)
        y[b][t] = add_scaled<Isa>(Isa::broadcast_int(&x[t].offset), x[t], scales[b].minimum, y[b][t]);
    }
}

// The same for `count` tokens, `tokens` at a time: block b and token t to y[b * block_stride + t * 16].
template <class Isa, class Layout, int num_planes, int tokens, class Group, int blocks>
void add_groups_to_all(const Group (&groups)[blocks], const GroupScales<Isa, Layout> (&scales)[blocks],
                       const ActivationGroup* x, int64_t count, float* y, int64_t block_stride) {
  int64_t i = 0;
  for (; i + tokens <= count; i += tokens) {
    float* to = y + i * kBlockRows;
    typename Isa::Floats sums[blocks][tokens];
    for (int b = 0; b < blocks; b++)
      for (int t = 0; t < tokens; t++) sums[b][t] = Isa::load(to + b * block_stride + t * kBlockRows);
    add_groups<Isa, Layout, num_planes>(groups, scales, x + i, sums);
    for (int b = 0; b < blocks; b++)
      for (int t = 0; t < tokens; t++) Isa::store(to + b * block_stride + t * kBlockRows, sums[b][t]);
  }
  if constexpr (tokens > 1)
    add_groups_to_all<Isa, Layout, num_planes, tokens / 2>(groups, scales, x + i, count - i, y + i * kBlockRows,
                                                           block_stride);
}

template <class Layout>
constexpr int64_t kGroupBytes = kGroup / Layout::line_k * kLineBytes;

// Calls each(g, codes, scales, stretch) for the groups of a block, with pointers to what it has of them, and where the codes lie
// that are to be asked for. If there are two blocks, the other's lie block_code_bytes and block_scale_bytes further.
template <class Layout, int blocks, class Each>
void for_each_group(const PackedMatrix& w, int64_t block, int64_t groups_per_scale, const LinesAhead& ahead,
                    const Each& each) {
  constexpr int64_t scale_bytes = kGroup / Layout::dot_k * Layout::scale_line_bytes;
  constexpr int64_t groups_per_scale_line = kLineBytes / scale_bytes;
  const uint8_t* codes = w.codes + block * w.block_code_bytes;
  const uint8_t* scales = w.scales + block * w.block_scale_bytes;
  const int64_t num_groups = activation_groups(w.K);
  int64_t left = groups_per_scale;
  for (int64_t g = 0; g < num_groups;) {
    const LinesAhead::Stretch stretch = ahead.stretch(codes);
    const int64_t until = g + stretch.bytes / kGroupBytes<Layout>, last = until < num_groups ? until : num_groups;
    for (; g < last; g++) {
      if (g % groups_per_scale_line == 0)
        for (int64_t b = 0; b < blocks; b++) ahead.ask_for_scales(scales + b * w.block_scale_bytes);
      each(g, codes, scales, stretch);
      codes += kGroupBytes<Layout>;
      if (--left == 0) {
        scales += scale_bytes;
        left = groups_per_scale;
      }
    }
  }
}

// y[t] = 16 rows times token t, before the row factors. The sums stay in registers. A single token takes its codes as LinesOfOne.
template <class Isa, class Layout, int num_planes, class LinesOfOne, int tokens>
void integer_block(const PackedMatrix& w, int64_t block, int64_t groups_per_scale, const LinesAhead& ahead,
                   TokenGroups x, typename Isa::Floats (&y)[tokens]) {
  typename Isa::Floats sums[1][tokens];
  for (int t = 0; t < tokens; t++) sums[0][t] = Isa::zero();
  const auto lines_or_group = [&](const uint8_t* codes, const LinesAhead::Stretch& stretch) {
    if constexpr (tokens == 1) {
      return LinesOfOne{codes, codes + stretch.near, codes + stretch.far};
    } else {
      prefetch_lines(codes + stretch.near, codes + stretch.far, kGroupBytes<Layout>, ahead.is_far());
      return Isa::template decode<Layout>(Lines{codes, kLineBytes});
    }
  };
  for_each_group<Layout, 1>(
      w, block, groups_per_scale, ahead,
      [&](int64_t, const uint8_t* codes, const uint8_t* scales_at, const LinesAhead::Stretch& stretch) {
        const auto group = lines_or_group(codes, stretch);
        const GroupScales<Isa, Layout> scales[1] = {GroupScales<Isa, Layout>::load(scales_at)};
        const std::remove_const_t<decltype(group)> groups[1] = {group};
        add_groups<Isa, Layout, num_planes>(groups, scales, x.first, sums);
        x.first += x.group_stride;
      });
  for (int t = 0; t < tokens; t++) y[t] = Isa::mul(sums[0][t], Isa::broadcast(&Layout::factor));
}

// The same of one block or two for `count` tokens of a tile: block b and token t to y[b][t * 16].
template <class Isa, class Layout, int num_planes, int blocks>
void integer_blocks(const PackedMatrix& w, int64_t block, int64_t groups_per_scale, const LinesAhead& ahead,
                    const TokenGroups& x, int64_t count, float (&y)[blocks][kTokenTile * kBlockRows]) {
  for (int b = 0; b < blocks; b++)
    for (int64_t t = 0; t < count; t++) Isa::store(y[b] + t * kBlockRows, Isa::zero());
  for_each_group<Layout, blocks>(
      w, block, groups_per_scale, ahead,
      [&](int64_t g, const uint8_t* codes, const uint8_t* scales_at, const LinesAhead::Stretch& stretch) {
        for (int b = 0; b < blocks; b++) {
          const uint8_t* lines = codes + b * w.block_code_bytes;
          prefetch_lines(lines + stretch.near, lines + stretch.far, kGroupBytes<Layout>, ahead.is_far());
        }
        decltype(Isa::template decode<Layout>(Lines{})) groups[blocks];
        GroupScales<Isa, Layout> scales[blocks];
        for (int b = 0; b < blocks; b++) {
          groups[b] = Isa::template decode<Layout>(Lines{codes + b * w.block_code_bytes, kLineBytes});
          scales[b] = GroupScales<Isa, Layout>::load(scales_at + b * w.block_scale_bytes);
        }
        add_groups_to_all<Isa, Layout, num_planes, Isa::side_tokens(blocks)>(
            groups, scales, x.first + g * x.group_stride, count, y[0], kTokenTile * kBlockRows);
      });
  for (int b = 0; b < blocks; b++)
    for (int64_t t = 0; t < count; t++) {
      float* to = y[b] + t * kBlockRows;
      Isa::store(to, Isa::mul(Isa::load(to), Isa::broadcast(&Layout::factor)));
    }
}

// Calls with the type of lines that suits a single token on this processor.
template <class Isa, class Layout>
void with_lines_of_one(bool is_far, const auto& call) {
  if constexpr (requires { Isa::in_halves(true); }) {
    // Transposed nibbles, for which rounding takes the time that memory needs, are faster whole.
    if (Isa::in_halves(Layout::is_nibble && !Layout::is_transposed)) {
      is_far ? call.template operator()<AskingLines<true, true>>()
             : call.template operator()<AskingLines<false, true>>();
      return;
    }
  }
  is_far ? call.template operator()<AskingLines<true, false>>() : call.template operator()<AskingLines<false, false>>();
}

// The 16 rows from first_row on, times tokens i … i + tokens of the task, all of one tile.
template <class Isa, class Layout, int num_planes, int tokens>
void linear_of_few(const LinearTask& task, int64_t groups_per_scale, const LinesAhead& ahead, int64_t first_row,
                   int64_t i) {
  const int64_t block = task.e * task.w->num_blocks + first_row / kBlockRows;
  typename Isa::Floats y[tokens];
  const auto multiply = [&]<class LinesOfOne>() {
    integer_block<Isa, Layout, num_planes, LinesOfOne>(*task.w, block, groups_per_scale, ahead,
                                                       token_groups(*task.x, task.first_token + i), y);
  };
  if constexpr (tokens == 1) {
    with_lines_of_one<Isa, Layout>(ahead.is_far(), multiply);
  } else {
    multiply.template operator()<void>();
  }
  for (int t = 0; t < tokens; t++) finish_token<Isa>(task, first_row, i + t, y[t]);
}

// The rows of `blocks` blocks from first_row on, times tokens i … i + count of the task, all of one tile.
template <class Isa, class Layout, int num_planes, int blocks>
void linear_of_blocks(const LinearTask& task, int64_t groups_per_scale, const LinesAhead& ahead, int64_t first_row,
                      int64_t i, int64_t count) {
  const int64_t block = task.e * task.w->num_blocks + first_row / kBlockRows;
  const TokenGroups x = token_groups(*task.x, task.first_token + i);
  alignas(64) float y[blocks][kTokenTile * kBlockRows];
  integer_blocks<Isa, Layout, num_planes, blocks>(*task.w, block, groups_per_scale, ahead, x, count, y);
  for (int b = 0; b < blocks; b++)
    for (int64_t t = 0; t < count; t++)
      finish_token<Isa>(task, first_row + b * kBlockRows, i + t, Isa::load(y[b] + t * kBlockRows));
}

// linear_of_few of as many tokens as `count` says.
template <class Isa, class Layout, int num_planes, int... others>
void linear_of_count(const LinearTask& task, int64_t groups_per_scale, const LinesAhead& ahead, int64_t first_row,
                     int64_t i, int64_t count, std::integer_sequence<int, others...>) {
  ((count == others + 1
        ? linear_of_few<Isa, Layout, num_planes, others + 1>(task, groups_per_scale, ahead, first_row, i)
        : void()),
   ...);
}

template <class Isa, class Layout, int num_planes>
void integer_linear_of(const LinearTask& task, int64_t groups_per_scale) {
  const LinesAhead ahead(task, Layout::is_nibble || task.num_tokens > 1);
  for_each_tile(task, [&](int64_t i, int64_t count) {
    const bool is_few = count < (Isa::register_tokens > 1 ? kFewestPairTokens : 2);
    for (int64_t row = task.first_row; row < task.last_row;) {
      if (is_few) {
        for (int64_t t = 0; t < count; t += Isa::register_tokens)
          linear_of_count<Isa, Layout, num_planes>(task, groups_per_scale, ahead, row, i + t,
                                                   count - t < Isa::register_tokens ? count - t : Isa::register_tokens,
                                                   std::make_integer_sequence<int, Isa::register_tokens>());
        row += kBlockRows;
      } else if (Isa::blocks == 2 && row + kBlockRows < task.last_row) {
        linear_of_blocks<Isa, Layout, num_planes, Isa::blocks>(task, groups_per_scale, ahead, row, i, count);
        row += Isa::blocks * kBlockRows;
      } else {
        linear_of_blocks<Isa, Layout, num_planes, 1>(task, groups_per_scale, ahead, row, i, count);
        row += kBlockRows;
      }
    }
  });
}

template <class Isa, class Layout>
void integer_linear(const LinearTask& task, int64_t groups_per_scale) {
  (task.x->bits == 8 ? integer_linear_of<Isa, Layout, 1> : integer_linear_of<Isa, Layout, 2>)(task, groups_per_scale);
}

}  // namespace
}  // namespace nibble
