// The kernels of the packed linears, written once over an instruction set and a format: integer_linear.h, transposed_linear.h,
// float_linear.h.
//
// Included by one file per instruction set, each compiled with its own flags. Everything here and in those files lies
// in an anonymous namespace, and calls no inline function of another header: the linker must never take a copy compiled
// for AVX-512 where another file wants one. An instruction set is a struct Isa:
//
//   float_tokens                           of a matrix of floats that one pass over a block serves: 1, 2, 4 or 8
//   register_tokens                        of a matrix of integers whose sums one turn over a block keeps in registers: 1 to 4
//   blocks                                 of 16 rows that one pass over many tokens serves: 1 or 2
//   multiplies_pairs                       dot takes the offsets of pairs, and the words of q
//   in_halves(is_nibble)                   if there is one, dot can multiply eight rows of a single token, then the others: whether
//                                          it should on this processor, of such codes
//   offset_pairs(plane, offsets)           makes those offsets, where it does
//   groups_at_once, quantize_some          if there are, so many groups are rounded together, to the same bits as one by one
//   Floats, Ints                           16 lanes, one for each row of a block
//   zero, load(in), load(in, num_rows), store(out, floats), store(out, floats, num_rows), broadcast(float*), add, mul,
//   fma(a, b, c), to_float(ints), broadcast_int(int*)
//   nibbles(line), code_values<i, Layout>(nibbles): 8 k of 4-bit codes, and of the i-th nibble of each row what it stands for,
//                                          E2M1 doubled
//   largest(x, mask): of the bits of 32 floats, masked; sum(ints) of 16
//   load_half, load_bf16, load_e8m0, load_e4m3 (as halves: 2^8 too small), store_half
//   decode<Layout>(lines)                  the group of 32 k in these lines, for several tokens, in whatever form dot takes
//   dot<Layout, first, num_planes>(group, x): sums of q * code over k = first … first + dot_k - 1; with one plane, all of
//                                          low is zero
//   dot<Layout, first, num_planes>(lines, x): the same for a single token: reads each line once, where it is needed
//   dot_side_by_side<Layout, first, num_planes>(groups, x, sums): the same of several blocks or tokens, block b and token t to
//                                          sums[b][t]
//   side_tokens(blocks)                    whose sums wait in memory and that it takes at a time: 1 or 2
#pragma once

#include "backends/cpu/float_linear.h"
#include "backends/cpu/integer_linear.h"
#include "backends/cpu/pack_kernel.h"
#include "backends/cpu/transposed_linear.h"

namespace nibble {
namespace {

template <class Isa>
void linear(const LinearTask& task) {
  switch (task.w->format) {
    case FormatId::f32: return float_linear<Isa, PackedLayout<F32>>(task);
    case FormatId::f16: return float_linear<Isa, PackedLayout<F16>>(task);
    case FormatId::bf16: return float_linear<Isa, PackedLayout<Bf16>>(task);
    case FormatId::q8_0: return integer_linear<Isa, PackedLayout<Q8_0>>(task, 1);
    case FormatId::q4_0: return integer_linear<Isa, PackedLayout<Q4_0>>(task, 1);
    case FormatId::q4_1: return integer_linear<Isa, PackedLayout<Q4_1>>(task, 1);
    case FormatId::mxfp4: return integer_linear<Isa, PackedLayout<Mxfp4>>(task, 1);
    case FormatId::nvfp4: return integer_linear<Isa, PackedLayout<Nvfp4>>(task, 1);
    case FormatId::mxfp4_transposed: return transposed_linear<Isa, PackedLayout<Transposed<Mxfp4>>>(task);
    case FormatId::nvfp4_transposed: return float_linear<Isa, PackedLayout<Transposed<Nvfp4>>>(task);
    case FormatId::fp4_half_32: return integer_linear<Isa, PackedLayout<Fp4Half<32>>>(task, 1);
    case FormatId::fp4_half_64: return integer_linear<Isa, PackedLayout<Fp4Half<32>>>(task, 2);
    case FormatId::fp4_half_128: return integer_linear<Isa, PackedLayout<Fp4Half<32>>>(task, 4);
    default: break;  // not among CpuFormats: no matrix is packed in it
  }
}

}  // namespace
}  // namespace nibble
