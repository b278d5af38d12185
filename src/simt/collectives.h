// Exchanges between the lanes of a simdgroup, on top of simt::collective. `mask`: as there.
#pragma once

#include "simt/executor.h"

namespace nibble::simt {

template <class T>
struct ShuffleFrame {
  T value, result;
  uint32_t source;
};

template <class T>
void combine_shuffle(ShuffleFrame<T>* const* frames, uint32_t lanes) {
  for (uint32_t i = 0; i < kSimdgroupSize; ++i) {
    if (!(lanes >> i & 1)) continue;
    const uint32_t source = frames[i]->source;
    const bool is_here = source < kSimdgroupSize && (lanes >> source & 1);
    frames[i]->result = frames[is_here ? source : i]->value;
  }
}

// The value of lane `source`; the lane's own where that one takes no part.
template <class T>
T shuffle(T value, uint32_t source, uint32_t mask, Site site) {
  ShuffleFrame<T> frame{value, value, source};
  collective<ShuffleFrame<T>, combine_shuffle<T>>(frame, mask, site);
  return frame.result;
}

// Halves of the simdgroup onto each other, as the usual loop of shuffles does it, so that float sums agree with it.
template <class T, class Op>
void combine_reduce(T* const* frames, uint32_t lanes) {
  T partial[kSimdgroupSize];
  uint32_t present = lanes;
  for (uint32_t i = 0; i < kSimdgroupSize; ++i)
    if (lanes >> i & 1) partial[i] = *frames[i];
  for (uint32_t step = kSimdgroupSize / 2; step; step /= 2) {
    for (uint32_t i = 0; i < step; ++i) {
      const bool low = present >> i & 1, high = present >> (i + step) & 1;
      if (low && high) partial[i] = Op{}(partial[i], partial[i + step]);
      if (!low && high) {
        partial[i] = partial[i + step];
        present |= 1u << i;
      }
    }
  }
  for (uint32_t i = 0; i < kSimdgroupSize; ++i)
    if (lanes >> i & 1) *frames[i] = partial[0];
}

// Op over the values of the lanes that take part; each gets the result.
template <class Op, class T>
T reduce(T value, uint32_t mask, Site site) {
  collective<T, combine_reduce<T, Op>>(value, mask, site);
  return value;
}

// Op over the values of the lanes before this one (`inclusive`: and its own), in the order of lanes; `start` before the first.
template <class T>
struct ScanFrame {
  T value, result, start;
};

template <class T, class Op, bool inclusive>
void combine_scan(ScanFrame<T>* const* frames, uint32_t lanes) {
  bool is_first = true;
  T sum{};
  for (uint32_t i = 0; i < kSimdgroupSize; ++i) {
    if (!(lanes >> i & 1)) continue;
    if (is_first) sum = frames[i]->start;
    is_first = false;
    const T next = Op{}(sum, frames[i]->value);
    frames[i]->result = inclusive ? next : sum;
    sum = next;
  }
}

template <class Op, bool inclusive, class T>
T scan(T value, T start, uint32_t mask, Site site) {
  ScanFrame<T> frame{value, value, start};
  collective<ScanFrame<T>, combine_scan<T, Op, inclusive>>(frame, mask, site);
  return frame.result;
}

inline void combine_ballot(uint32_t* const* frames, uint32_t lanes) {
  uint32_t bits = 0;
  for (uint32_t i = 0; i < kSimdgroupSize; ++i)
    if (lanes >> i & 1) bits |= *frames[i] << i;
  for (uint32_t i = 0; i < kSimdgroupSize; ++i)
    if (lanes >> i & 1) *frames[i] = bits;
}

// Bit i: the predicate of lane i, 0 where it takes no part.
inline uint32_t ballot(bool predicate, uint32_t mask, Site site) {
  uint32_t bits = predicate;
  collective<uint32_t, combine_ballot>(bits, mask, site);
  return bits;
}

}  // namespace nibble::simt
