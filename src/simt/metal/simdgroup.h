// <metal_compute> and <metal_simdgroup>: barriers, and exchanges within a simdgroup. Where lanes have diverged, an exchange
// sees those that are at the same place in the text.
#pragma once

#include <bit>

#include "simt/collectives.h"
#include "simt/metal/math.h"
#include "simt/metal/vectors.h"

namespace metal {

using nibble::simt::Site;

enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2 };
constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(int(a) | int(b)); }

inline void threadgroup_barrier(mem_flags, Site s = Site::here()) { nibble::simt::barrier(s); }
inline void simdgroup_barrier(mem_flags, Site s = Site::here()) {
  nibble::simt::ballot(true, nibble::simt::kAllLanes, s);
}

struct Add {
  template <class T>
  T operator()(T a, T b) const {
    return T(a + b);
  }
};
struct Multiply {
  template <class T>
  T operator()(T a, T b) const {
    return T(a * b);
  }
};
struct Least {
  template <class T>
  T operator()(T a, T b) const {
    return T(metal::min(a, b));
  }
};
struct Most {
  template <class T>
  T operator()(T a, T b) const {
    return T(metal::max(a, b));
  }
};
struct And {
  template <class T>
  T operator()(T a, T b) const {
    return T(a & b);
  }
};
struct Or {
  template <class T>
  T operator()(T a, T b) const {
    return T(a | b);
  }
};

#define NIBBLE_MSL_REDUCE(name, Op)                                    \
  template <class T>                                                   \
  T name(T x, Site s = Site::here()) {                                 \
    return nibble::simt::reduce<Op>(x, nibble::simt::kActiveLanes, s); \
  }
NIBBLE_MSL_REDUCE(simd_sum, Add)
NIBBLE_MSL_REDUCE(simd_product, Multiply)
NIBBLE_MSL_REDUCE(simd_min, Least)
NIBBLE_MSL_REDUCE(simd_max, Most)
NIBBLE_MSL_REDUCE(simd_and, And)
NIBBLE_MSL_REDUCE(simd_or, Or)
#undef NIBBLE_MSL_REDUCE

template <class T>
T simd_prefix_exclusive_sum(T x, Site s = Site::here()) {
  return nibble::simt::scan<Add, false>(x, T(0), nibble::simt::kActiveLanes, s);
}
template <class T>
T simd_prefix_inclusive_sum(T x, Site s = Site::here()) {
  return nibble::simt::scan<Add, true>(x, T(0), nibble::simt::kActiveLanes, s);
}

#define NIBBLE_MSL_SHUFFLE(name, source)                                    \
  template <class T>                                                        \
  T name(T x, ushort n, Site s = Site::here()) {                            \
    [[maybe_unused]] const uint lane = nibble::simt::current_lane->lane;    \
    return nibble::simt::shuffle(x, source, nibble::simt::kActiveLanes, s); \
  }
NIBBLE_MSL_SHUFFLE(simd_shuffle, n)
NIBBLE_MSL_SHUFFLE(simd_broadcast, n)
NIBBLE_MSL_SHUFFLE(simd_shuffle_xor, lane ^ n)
NIBBLE_MSL_SHUFFLE(simd_shuffle_down, lane + n)
NIBBLE_MSL_SHUFFLE(simd_shuffle_up, lane - n)
NIBBLE_MSL_SHUFFLE(quad_shuffle_xor, lane ^ n)
NIBBLE_MSL_SHUFFLE(quad_broadcast, (lane & ~3u) + n)
#undef NIBBLE_MSL_SHUFFLE

template <class T>
T quad_sum(T x, Site s = Site::here()) {
  x += quad_shuffle_xor(x, 1, s);
  return x + quad_shuffle_xor(x, 2, s);
}

inline bool simd_any(bool b, Site s = Site::here()) {
  return nibble::simt::ballot(b, nibble::simt::kActiveLanes, s) != 0;
}
inline bool simd_all(bool b, Site s = Site::here()) {
  return nibble::simt::ballot(!b, nibble::simt::kActiveLanes, s) == 0;
}
inline bool simd_is_first(Site s = Site::here()) {
  const uint lanes = nibble::simt::ballot(true, nibble::simt::kActiveLanes, s);
  return nibble::simt::current_lane->lane == uint(std::countr_zero(lanes));
}
template <class T>
T simd_broadcast_first(T x, Site s = Site::here()) {
  const uint lanes = nibble::simt::ballot(true, nibble::simt::kActiveLanes, s);
  return nibble::simt::shuffle(x, uint(std::countr_zero(lanes)), nibble::simt::kActiveLanes, s);
}

// The lanes for which something holds.
struct simd_vote {
  using vote_t = uint64_t;
  vote_t bits;
  explicit operator vote_t() const { return bits; }
  bool any() const { return bits != 0; }
};
inline simd_vote simd_ballot(bool b, Site s = Site::here()) {
  return {nibble::simt::ballot(b, nibble::simt::kActiveLanes, s)};
}
inline simd_vote simd_active_threads_mask(Site s = Site::here()) { return simd_ballot(true, s); }

}  // namespace metal
