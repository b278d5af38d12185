// <metal_simdgroup_matrix>: 8×8 matrices spread over the lanes of a simdgroup, two elements beside each other in each. Every
// lane of the simdgroup must come to a multiplication; one that does not is a fault.
//
// Which lane has which elements is Apple's, as MLX relies on it; kernels of ours don't.
#pragma once

#include "simt/metal/address_spaces.h"
#include "simt/metal/simdgroup.h"

namespace metal {

template <class T, int rows, int columns>
struct simdgroup_matrix {
  static_assert(rows == 8 && columns == 8, "the only size there is");
  static_assert(is_same_v<T, float> || is_same_v<T, half> || is_same_v<T, bfloat>, "float, half or bfloat");

  simdgroup_matrix() = default;  // undefined, as on a GPU
  explicit simdgroup_matrix(T diagonal) {
    for (int i = 0; i < 2; ++i) elements[i] = row() == column() + i ? diagonal : T(0);
  }
  vec<T, 2>& thread_elements() { return elements; }

  // Of this lane's first element.
  static int row() { return row_of(int(nibble::simt::current_lane->lane)); }
  static int column() { return column_of(int(nibble::simt::current_lane->lane)); }
  static constexpr int row_of(int lane) { return (lane / 4 & 4) + lane / 2 % 4; }
  static constexpr int column_of(int lane) { return (lane / 4 & 2) * 2 + lane % 2 * 2; }

  vec<T, 2> elements;
};

using simdgroup_float8x8 = simdgroup_matrix<float, 8, 8>;
using simdgroup_half8x8 = simdgroup_matrix<half, 8, 8>;
using simdgroup_bfloat8x8 = simdgroup_matrix<bfloat, 8, 8>;

template <class T, int rows, int columns>
simdgroup_matrix<T, rows, columns> make_filled_simdgroup_matrix(T value) {
  simdgroup_matrix<T, rows, columns> m;
  m.elements = vec<T, 2>{value, value};
  return m;
}

// Element [r, c] is at source[(origin.y + r) * elements_per_row + origin.x + c]; transposed: at [c, r].
#define NIBBLE_MSL_MATRIX_MEMORY(space)                                                                \
  template <class T>                                                                                   \
  void simdgroup_load(simdgroup_matrix<T, 8, 8>& d, const space T* source, ulong elements_per_row = 8, \
                      ulong2 origin = ulong2{0, 0}, bool is_transposed = false) {                      \
    for (int i = 0; i < 2; ++i) {                                                                      \
      const ulong r = ulong(is_transposed ? d.column() + i : d.row());                                 \
      const ulong c = ulong(is_transposed ? d.row() : d.column() + i);                                 \
      d.elements[i] = source[(origin.y + r) * elements_per_row + origin.x + c];                        \
    }                                                                                                  \
  }                                                                                                    \
  template <class T>                                                                                   \
  void simdgroup_store(const simdgroup_matrix<T, 8, 8>& d, space T* to, ulong elements_per_row = 8,    \
                       ulong2 origin = ulong2{0, 0}, bool is_transposed = false) {                     \
    for (int i = 0; i < 2; ++i) {                                                                      \
      const ulong r = ulong(is_transposed ? d.column() + i : d.row());                                 \
      const ulong c = ulong(is_transposed ? d.row() : d.column() + i);                                 \
      to[(origin.y + r) * elements_per_row + origin.x + c] = d.elements[i];                            \
    }                                                                                                  \
  }
NIBBLE_MSL_FOR_EACH_SPACE(NIBBLE_MSL_MATRIX_MEMORY)
#undef NIBBLE_MSL_MATRIX_MEMORY

template <class D, class A, class B>
struct MatrixFrame {
  vec<D, 2> sum;
  vec<A, 2> a;
  vec<B, 2> b;
};

// sum += a * b, with sums of products in float.
template <class D, class A, class B>
void combine_multiply(MatrixFrame<D, A, B>* const* frames, uint lanes) {
  using M = simdgroup_matrix<float, 8, 8>;
  if (lanes != nibble::simt::kAllLanes) return;  // see below
  float a[8][8], b[8][8], d[8][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int r = M::row_of(lane), c = M::column_of(lane);
    for (int i = 0; i < 2; ++i) {
      a[r][c + i] = float(frames[lane]->a[i]);
      b[r][c + i] = float(frames[lane]->b[i]);
      d[r][c + i] = float(frames[lane]->sum[i]);
    }
  }
  for (int r = 0; r < 8; ++r)
    for (int k = 0; k < 8; ++k)
      for (int c = 0; c < 8; ++c) d[r][c] += a[r][k] * b[k][c];
  for (int lane = 0; lane < 32; ++lane) {
    const int r = M::row_of(lane), c = M::column_of(lane);
    for (int i = 0; i < 2; ++i) frames[lane]->sum[i] = D(d[r][c + i]);
  }
}

// d = a * b + c
template <class D, class A, class B>
void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>& d, const simdgroup_matrix<A, 8, 8>& a,
                                   const simdgroup_matrix<B, 8, 8>& b, const simdgroup_matrix<D, 8, 8>& c,
                                   Site s = Site::here()) {
  if (nibble::simt::current_lane->threadgroup->threads.count() % 32 != 0)
    nibble::simt::fail("a matrix multiplication in a threadgroup that is no multiple of 32 threads", s);
  using Frame = MatrixFrame<D, A, B>;
  Frame frame{c.elements, a.elements, b.elements};
  nibble::simt::collective<Frame, combine_multiply<D, A, B>>(frame, nibble::simt::kAllLanes, s);
  d.elements = frame.sum;
}

// d = a * b
template <class D, class A, class B>
void simdgroup_multiply(simdgroup_matrix<D, 8, 8>& d, const simdgroup_matrix<A, 8, 8>& a,
                        const simdgroup_matrix<B, 8, 8>& b, Site s = Site::here()) {
  simdgroup_multiply_accumulate(d, a, b, make_filled_simdgroup_matrix<D, 8, 8>(D(0)), s);
}

}  // namespace metal
