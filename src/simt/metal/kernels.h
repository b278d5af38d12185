// The kernels of the .metal files in this program, by name, and how to run them on the executor: what a host needs that
// stands where Apple's Metal would. Plain C++.
//
//   const ConstantValue constants[] = {function_constant(0, true)};
//   const Pipeline pipeline = make_pipeline("row_gemv", constants);
//   Arguments arguments;
//   arguments.buffers[0] = {codes.data(), codes.size()};
//   arguments.buffers[4] = {&N, sizeof N};               // as setBytes does
//   dispatch(pipeline, arguments, {.threadgroups = {8}, .threads = {128}});
#pragma once

#include <array>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "simt/executor.h"

namespace nibble::simt {

inline constexpr int kMaxBuffers = 31;

struct BoundBuffer {
  void* data = nullptr;
  size_t bytes = 0;
};

struct Arguments {
  BoundBuffer buffers[kMaxBuffers] = {};  // by index: setBuffer and setBytes
  SharedBytes threadgroup_bytes = {};     // by index: setThreadgroupMemoryLength
};

// A value for [[function_constant(index)]].
struct ConstantValue {
  int index = 0;
  uint32_t bytes = 0;
  std::byte value[16] = {};
};
template <class T>
ConstantValue function_constant(int index, const T& value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof value <= sizeof ConstantValue::value);
  ConstantValue constant{.index = index, .bytes = sizeof value};
  std::memcpy(constant.value, &value, sizeof value);
  return constant;
}

struct MetalKernel;

// A kernel with values for its function constants. A plain value: copy it, keep it.
struct Pipeline {
  const MetalKernel* kernel = nullptr;
  std::vector<ConstantValue> constants;
};

// Throws InputError if no kernel has that name, or if a function constant that it reads, itself or in functions it calls, has
// no value or one of another size. Other values are ignored, as by Metal.
Pipeline make_pipeline(std::string_view name, std::span<const ConstantValue> constants = {});

// The names of all kernels, sorted.
std::vector<std::string_view> kernel_names();

// The geometry, the order and the OS threads of `how` count; its threadgroup_bytes are the arguments'. Waits for the end.
// Throws InputError, with the kernel's name, for the executor's faults, for a buffer that is not bound, for one too small or
// not aligned for the `constant T&` or the `T*` that reads it, and for threadgroup memory without a length. Any thread may
// call; one dispatch runs at a time.
void dispatch(const Pipeline&, const Arguments&, Launch how);

// What translated files register, each at start.

struct KernelParameter {
  enum Kind : uint8_t { buffer, threadgroup_memory, input } kind;
  int index;
  size_t bytes, alignment;  // at least; bytes is 0 for a pointer
};

struct MetalKernel {
  const char* name;
  const void* file;                // the same for all that a file registers
  std::span<const int> constants;  // the indices of those that it reads
  std::span<const KernelParameter> parameters;
  void (*invoke)(const Arguments&);  // as the current lane
};

struct FunctionConstant {
  const char* name;
  const void* file;
  int index;
  void* value;
  uint32_t bytes;
};

bool add_kernel(const MetalKernel&);
bool add_function_constant(const FunctionConstant&);

}  // namespace nibble::simt
