// <metal_math>, <metal_integer>, <metal_common>, <metal_geometric> and <metal_relational>: scalar functions, applied to each
// element of vectors. Those of half are computed in float and rounded once.
#pragma once

#include <bit>
#include <cmath>

#include "simt/metal/vectors.h"

namespace metal {

template <class F, class A, class... Rest>
A map_elements(F f, A a, Rest... rest) {
  if constexpr (Vector<A>) {
    for (int i = 0; i < Shape<A>::size; ++i) a[i] = Element<A>(f(a[i], rest[i]...));
    return a;
  } else {
    return A(f(a, rest...));
  }
}

#define NIBBLE_MSL_UNARY(name, ...)                             \
  template <class T>                                            \
  T name(T a) {                                                 \
    return map_elements([](auto x) { return __VA_ARGS__; }, a); \
  }
NIBBLE_MSL_UNARY(exp, std::exp(float(x)))
NIBBLE_MSL_UNARY(exp2, std::exp2(float(x)))
NIBBLE_MSL_UNARY(log, std::log(float(x)))
NIBBLE_MSL_UNARY(log2, std::log2(float(x)))
NIBBLE_MSL_UNARY(sqrt, std::sqrt(float(x)))
NIBBLE_MSL_UNARY(rsqrt, 1 / std::sqrt(float(x)))
NIBBLE_MSL_UNARY(sin, std::sin(float(x)))
NIBBLE_MSL_UNARY(cos, std::cos(float(x)))
NIBBLE_MSL_UNARY(tanh, std::tanh(float(x)))
NIBBLE_MSL_UNARY(fabs, std::fabs(float(x)))
NIBBLE_MSL_UNARY(floor, std::floor(float(x)))
NIBBLE_MSL_UNARY(ceil, std::ceil(float(x)))
NIBBLE_MSL_UNARY(rint, std::rint(float(x)))
NIBBLE_MSL_UNARY(round, std::round(float(x)))
NIBBLE_MSL_UNARY(trunc, std::trunc(float(x)))
NIBBLE_MSL_UNARY(abs, x < 0 ? -x : x)
NIBBLE_MSL_UNARY(popcount, std::popcount(x))
NIBBLE_MSL_UNARY(clz, std::countl_zero(x))
NIBBLE_MSL_UNARY(ctz, std::countr_zero(x))
#undef NIBBLE_MSL_UNARY

namespace fast = ::metal;
namespace precise = ::metal;

template <class T>
bool isnan(T x) {
  return x != x;
}
template <class T>
bool isinf(T x) {
  return std::isinf(float(x));
}
template <class T>
bool isfinite(T x) {
  return std::isfinite(float(x));
}
template <class T>
bool signbit(T x) {
  return std::signbit(float(x));
}
template <class T>
T fma(T a, T b, T c) {
  return __builtin_elementwise_fma(a, b, c);
}
template <class T>
T pow(T a, T b) {
  return map_elements([](float x, float y) { return std::pow(x, y); }, a, b);
}
template <class T>
T powr(T a, T b) {
  return pow(a, b);
}
template <class T>
T copysign(T a, T b) {
  return map_elements([](float x, float y) { return std::copysign(x, y); }, a, b);
}
template <class T>
T ldexp(T a, int e) {
  return T(std::ldexp(float(a), e));
}

// Two of one type, or a vector and a scalar.
template <class A, class B>
using Common = std::conditional_t<Vector<A>, A, std::conditional_t<Vector<B>, B, decltype(A{} + B{})>>;
template <class A, class B>
auto min(A a, B b) {
  using T = Common<A, B>;
  return T(__builtin_elementwise_min(make<T>(a), make<T>(b)));
}
template <class A, class B>
auto max(A a, B b) {
  using T = Common<A, B>;
  return T(__builtin_elementwise_max(make<T>(a), make<T>(b)));
}
template <class A, class B>
auto fmin(A a, B b) {
  return metal::min(a, b);
}
template <class A, class B>
auto fmax(A a, B b) {
  return metal::max(a, b);
}
template <class T, class L, class H>
T clamp(T x, L low, H high) {
  return T(metal::min(metal::max(x, T(low)), T(high)));
}
template <class T>
T saturate(T x) {
  return clamp(x, T(0), T(1));
}

// b where the condition holds, else a; for vectors element by element (a comparison of vectors gives -1 or 0 here).
template <class T, class C>
T select(T a, T b, C condition) {
  if constexpr (Vector<T>) {
    for (int i = 0; i < Shape<T>::size; ++i) a[i] = condition[i] ? b[i] : a[i];
    return a;
  } else {
    return condition ? b : a;
  }
}
template <Vector V>
bool any(V v) {
  bool result = false;
  for (int i = 0; i < Shape<V>::size; ++i) result |= v[i] != 0;
  return result;
}
template <Vector V>
bool all(V v) {
  bool result = true;
  for (int i = 0; i < Shape<V>::size; ++i) result &= v[i] != 0;
  return result;
}
template <Vector V>
Element<V> dot(V a, V b) {
  Element<V> sum = 0;
  for (int i = 0; i < Shape<V>::size; ++i) sum += a[i] * b[i];
  return sum;
}

// `bits` bits of x from bit `offset` on.
inline uint extract_bits(uint x, uint offset, uint bits) {
  return bits == 0 ? 0 : x << (32 - bits - offset) >> (32 - bits);
}

}  // namespace metal
