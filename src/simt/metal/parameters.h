// What a kernel's parameters are bound to: each of Metal's attributes as a type, with get<P>() for a parameter of type P.
#pragma once

#include <type_traits>

#include "simt/metal/kernels.h"
#include "simt/metal/vectors.h"

namespace nibble::simt::parameters {

template <int n>
struct buffer {
  static_assert(n >= 0 && n < kMaxBuffers, "31 buffers at most");
  template <class P>
  static constexpr KernelParameter describe() {
    using Read = std::remove_pointer_t<std::remove_reference_t<P>>;
    static_assert(std::is_pointer_v<P> || std::is_reference_v<P>, "a buffer is a pointer or a reference");
    return {KernelParameter::buffer, n, std::is_pointer_v<P> ? 0 : sizeof(Read), alignof(Read)};
  }
  template <class P>
  static P get(const Arguments& a) {
    if constexpr (std::is_pointer_v<P>) {
      return static_cast<P>(a.buffers[n].data);
    } else {
      return *static_cast<std::remove_reference_t<P>*>(a.buffers[n].data);
    }
  }
};

template <int n>
struct threadgroup_memory {
  static_assert(n >= 0 && n < kMaxSharedPieces, "8 pieces of threadgroup memory at most");
  template <class P>
  static constexpr KernelParameter describe() {
    return {KernelParameter::threadgroup_memory, n, 0, 1};
  }
  template <class P>
  static P get(const Arguments&) {
    return reinterpret_cast<P>(current_lane->threadgroup->memory[n]);
  }
};

inline metal::uint3 product(Size3 a, Size3 b) { return metal::uint3{a.x * b.x, a.y * b.y, a.z * b.z}; }
inline metal::uint3 vector(Size3 a) { return metal::uint3{a.x, a.y, a.z}; }

#define NIBBLE_MSL_INPUT(name, ...)                                  \
  struct name {                                                      \
    template <class P>                                               \
    static constexpr KernelParameter describe() {                    \
      return {KernelParameter::input, 0, 0, 1};                      \
    }                                                                \
    template <class P>                                               \
    static P get(const Arguments&) {                                 \
      [[maybe_unused]] const Lane& lane = *current_lane;             \
      [[maybe_unused]] const Threadgroup& group = *lane.threadgroup; \
      const metal::uint3 v = __VA_ARGS__;                            \
      if constexpr (!metal::Vector<P>) {                             \
        return P(v.x);                                               \
      } else if constexpr (metal::Shape<P>::size == 2) {             \
        return metal::make<P>(v.xy);                                 \
      } else {                                                       \
        return metal::make<P>(v);                                    \
      }                                                              \
    }                                                                \
  };
NIBBLE_MSL_INPUT(thread_position_in_grid, product(group.position, group.threads) + vector(lane.thread))
NIBBLE_MSL_INPUT(thread_position_in_threadgroup, vector(lane.thread))
NIBBLE_MSL_INPUT(threadgroup_position_in_grid, vector(group.position))
NIBBLE_MSL_INPUT(threads_per_threadgroup, vector(group.threads))
NIBBLE_MSL_INPUT(threadgroups_per_grid, vector(group.threadgroups))
NIBBLE_MSL_INPUT(threads_per_grid, product(group.threadgroups, group.threads))
NIBBLE_MSL_INPUT(thread_index_in_threadgroup, metal::uint3(lane.index))
NIBBLE_MSL_INPUT(thread_index_in_simdgroup, metal::uint3(lane.lane))
NIBBLE_MSL_INPUT(simdgroup_index_in_threadgroup, metal::uint3(lane.simdgroup))
NIBBLE_MSL_INPUT(threads_per_simdgroup, metal::uint3(kSimdgroupSize))
NIBBLE_MSL_INPUT(simdgroups_per_threadgroup,
                 metal::uint3((uint32_t(group.threads.count()) + kSimdgroupSize - 1) / kSimdgroupSize))
#undef NIBBLE_MSL_INPUT

template <class... Bindings, class... P>
void call(void (*kernel)(P...), const Arguments& a) {
  kernel(Bindings::template get<P>(a)...);
}

template <class... Bindings, class... P>
std::span<const KernelParameter> describe(void (*)(P...)) {
  static constexpr KernelParameter all[] = {Bindings::template describe<P>()...};
  return all;
}

// Registers a kernel of the file; Bindings are those of its parameters, in their order.
template <auto kernel, class... Bindings>
bool add(const char* name, const void* file, std::span<const int> constants) {
  return add_kernel(
      {name, file, constants, describe<Bindings...>(kernel), [](const Arguments& a) { call<Bindings...>(kernel, a); }});
}

}  // namespace nibble::simt::parameters
