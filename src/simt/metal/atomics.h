// <metal_atomic>: atomic_int, atomic_uint and atomic_float in device and threadgroup memory, with relaxed order, the only one
// that Metal has for them.
#pragma once

#include "simt/metal/address_spaces.h"
#include "simt/metal/math.h"

namespace metal {

enum memory_order { memory_order_relaxed };

template <class T>
struct atomic {
  T value;
};
using atomic_int = atomic<int>;
using atomic_uint = atomic<uint>;
using atomic_float = atomic<float>;
using atomic_bool = atomic<bool>;

// What `update` makes of the old value takes its place; returns the old one.
template <class Pointer, class T, class Update>
T update_atomic(Pointer at, T, Update update) {
  T old = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(at, &old, update(old), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
  return old;
}

// Floats are moved as the bits that they are.
template <class T>
struct AtomicBits {
  using type = T;
};
template <>
struct AtomicBits<float> {
  using type = uint;
};

#ifdef NIBBLE_MSL_CHECK
#define NIBBLE_MSL_ATOMIC_BODY(...) \
  { return {}; }
#else
#define NIBBLE_MSL_ATOMIC_BODY(...) {__VA_ARGS__}
#endif

#define NIBBLE_MSL_FETCH(space, name, ...)                                                                     \
  template <class T>                                                                                           \
  T atomic_fetch_##name##_explicit(volatile space atomic<T>* object, std::type_identity_t<T> b, memory_order)  \
      NIBBLE_MSL_ATOMIC_BODY(using Bits = typename AtomicBits<T>::type;                                        \
                             const Bits old = update_atomic((Bits*)&object->value, Bits{},                     \
                                                            [b](Bits bits) {                                   \
                                                              const T a = __builtin_bit_cast(T, bits);         \
                                                              return __builtin_bit_cast(Bits, T(__VA_ARGS__)); \
                                                            });                                                \
                             return __builtin_bit_cast(T, old);)

#define NIBBLE_MSL_ATOMICS(space)                                                                                      \
  template <class T>                                                                                                   \
  T atomic_load_explicit(const volatile space atomic<T>* object, memory_order) NIBBLE_MSL_ATOMIC_BODY(                 \
      T value; __atomic_load((T*)&object -> value, &value, __ATOMIC_RELAXED); return value;) template <class T>        \
  T atomic_exchange_explicit(volatile space atomic<T>* object, std::type_identity_t<T> b, memory_order)                \
      NIBBLE_MSL_ATOMIC_BODY(T old; __atomic_exchange((T*)&object->value, &b, &old, __ATOMIC_RELAXED);                 \
                             return old;) template <class T>                                                           \
      void atomic_store_explicit(volatile space atomic<T>* object, std::type_identity_t<T> b, memory_order) {          \
    atomic_exchange_explicit(object, b, memory_order_relaxed);                                                         \
  }                                                                                                                    \
  template <class T>                                                                                                   \
  bool atomic_compare_exchange_weak_explicit(volatile space atomic<T>* object, T* expected, std::type_identity_t<T> b, \
                                             memory_order, memory_order)                                               \
      NIBBLE_MSL_ATOMIC_BODY(return __atomic_compare_exchange((T*)&object -> value, expected, &b, true,                \
                                                              __ATOMIC_RELAXED, __ATOMIC_RELAXED);)                    \
          NIBBLE_MSL_FETCH(space, add, a + b) NIBBLE_MSL_FETCH(space, sub, a - b)                                      \
              NIBBLE_MSL_FETCH(space, min, a < b ? a : b) NIBBLE_MSL_FETCH(space, max, a < b ? b : a)                  \
                  NIBBLE_MSL_FETCH(space, and, a& b) NIBBLE_MSL_FETCH(space, or, a | b)                                \
                      NIBBLE_MSL_FETCH(space, xor, a ^ b)
NIBBLE_MSL_FOR_EACH_SPACE(NIBBLE_MSL_ATOMICS)
#undef NIBBLE_MSL_ATOMICS
#undef NIBBLE_MSL_FETCH
#undef NIBBLE_MSL_ATOMIC_BODY

}  // namespace metal
