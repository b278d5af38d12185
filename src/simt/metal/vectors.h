// Metal's scalar and vector types for clang. Its vectors are clang's ext_vector_type, so that operators, swizzles and element
// access come with the compiler. Constructors are what it lacks: translate.py writes float4(a, b) as make<float4>(a, b).
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

namespace metal {

using uint = uint32_t;
using ushort = uint16_t;
using uchar = uint8_t;
using ulong = uint64_t;
using half = _Float16;
using bfloat = __bf16;
using std::conditional_t, std::enable_if_t, std::is_same_v;
using std::int16_t, std::int32_t, std::int64_t, std::int8_t, std::size_t;
using std::uint16_t, std::uint32_t, std::uint64_t, std::uint8_t;

template <class T, int N>
struct VectorOf {
  typedef T type __attribute__((ext_vector_type(N)));
};
template <class T, int N>
using vec = typename VectorOf<T, N>::type;

#define NIBBLE_MSL_VECTORS(T)                         \
  typedef T T##2 __attribute__((ext_vector_type(2))); \
  typedef T T##3 __attribute__((ext_vector_type(3))); \
  typedef T T##4 __attribute__((ext_vector_type(4)));
NIBBLE_MSL_VECTORS(float)
NIBBLE_MSL_VECTORS(half)
NIBBLE_MSL_VECTORS(bfloat)
NIBBLE_MSL_VECTORS(int)
NIBBLE_MSL_VECTORS(uint)
NIBBLE_MSL_VECTORS(short)
NIBBLE_MSL_VECTORS(ushort)
NIBBLE_MSL_VECTORS(char)
NIBBLE_MSL_VECTORS(uchar)
NIBBLE_MSL_VECTORS(bool)
NIBBLE_MSL_VECTORS(long)
NIBBLE_MSL_VECTORS(ulong)
#undef NIBBLE_MSL_VECTORS

template <class V>
concept Vector = requires(V v) { __builtin_reduce_add(v); } || requires(V v) { __builtin_reduce_max(v); };

template <class V>
struct Shape {
  using Element = V;
  static constexpr int size = 1;
};
template <Vector V>
struct Shape<V> {
  using Element = std::remove_cvref_t<decltype(std::declval<V>()[0])>;
  static constexpr int size = __builtin_vectorelements(V);
};
template <class V>
using Element = typename Shape<std::remove_cvref_t<V>>::Element;

// T(a): a conversion; of a scalar to a vector, the same in each element.
template <class T, class A>
constexpr T make(A a) {
  if constexpr (!Vector<T>) {
    return T(a);
  } else if constexpr (Vector<A>) {
    return __builtin_convertvector(a, T);
  } else {
    const T splat = static_cast<Element<T>>(a);
    return splat;
  }
}

// T(a, b...): scalars and vectors, their elements one after another.
template <class T, class... Parts>
constexpr T make(Parts... parts) {
  if constexpr (!Vector<T>) {
    return T(parts...);
  } else {
    static_assert((Shape<Parts>::size + ...) == Shape<T>::size, "as many parts as elements");
    T v{};
    int i = 0;
    const auto append = [&](auto part) {
      using Part = decltype(part);
      if constexpr (Vector<Part>) {
        for (int j = 0; j < Shape<Part>::size; ++j) v[i++] = Element<T>(part[j]);
      } else {
        v[i++] = Element<T>(part);
      }
    };
    (append(parts), ...);
    return v;
  }
}

template <class To, class From>
constexpr To as_type(From x) {
  return __builtin_bit_cast(To, x);
}

template <class T>
struct numeric_limits : std::numeric_limits<T> {};
template <>
struct numeric_limits<half> {
  static constexpr half max() { return 65504; }
  static constexpr half lowest() { return -65504; }
  static constexpr half min() { return half(0x1p-14f); }
  static constexpr half epsilon() { return half(0x1p-10f); }
  static constexpr half infinity() { return half(__builtin_inff()); }
  static constexpr half quiet_NaN() { return half(__builtin_nanf("")); }
};

}  // namespace metal
