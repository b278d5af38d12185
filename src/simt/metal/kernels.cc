#include "simt/metal/kernels.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <string>

#include "base/error.h"

namespace nibble::simt {

namespace {

// Sorted by name.
std::map<std::string_view, MetalKernel>& kernels() {
  static std::map<std::string_view, MetalKernel> all;
  return all;
}

std::vector<FunctionConstant>& function_constants() {
  static std::vector<FunctionConstant> all;
  return all;
}

bool reads(const MetalKernel& kernel, const FunctionConstant& constant) {
  return constant.file == kernel.file && std::ranges::count(kernel.constants, constant.index) != 0;
}

const ConstantValue& value_of(const FunctionConstant& constant, std::span<const ConstantValue> values,
                              std::string_view kernel) {
  for (const ConstantValue& value : values) {
    if (value.index != constant.index) continue;
    if (value.bytes != constant.bytes)
      throw_input_error("kernel {}: function constant {} ({}) has {} bytes, {} given", kernel, constant.index,
                        constant.name, constant.bytes, value.bytes);
    return value;
  }
  throw_input_error("kernel {}: function constant {} ({}) has no value", kernel, constant.index, constant.name);
}

void check(const MetalKernel& kernel, const Arguments& arguments) {
  for (const KernelParameter& p : kernel.parameters) {
    if (p.kind == KernelParameter::threadgroup_memory && arguments.threadgroup_bytes[p.index] == 0)
      throw_input_error("kernel {}: threadgroup memory {} has no length", kernel.name, p.index);
    if (p.kind != KernelParameter::buffer) continue;
    const BoundBuffer& bound = arguments.buffers[p.index];
    if (bound.data == nullptr) throw_input_error("kernel {}: no buffer bound at index {}", kernel.name, p.index);
    if (bound.bytes < p.bytes)
      throw_input_error("kernel {}: the buffer at index {} has {} bytes, the kernel reads {}", kernel.name, p.index,
                        bound.bytes, p.bytes);
    if (reinterpret_cast<uintptr_t>(bound.data) % p.alignment != 0)
      throw_input_error("kernel {}: the buffer at index {} is not aligned to {} bytes", kernel.name, p.index,
                        p.alignment);
  }
}

}  // namespace

Pipeline make_pipeline(std::string_view name, std::span<const ConstantValue> constants) {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("x86-64-v3"))
    throw_input_error("the Metal emulation needs a processor with AVX2, F16C and FMA, which this one lacks");
#endif
  const auto found = kernels().find(name);
  if (found == kernels().end()) throw_input_error("no Metal kernel is named {}", name);
  Pipeline pipeline{&found->second, {}};
  for (const FunctionConstant& constant : function_constants())
    if (reads(*pipeline.kernel, constant)) pipeline.constants.push_back(value_of(constant, constants, name));
  return pipeline;
}

std::vector<std::string_view> kernel_names() {
  std::vector<std::string_view> names;
  for (const auto& [name, kernel] : kernels()) names.push_back(name);
  return names;
}

void dispatch(const Pipeline& pipeline, const Arguments& arguments, Launch how) {
  const MetalKernel& kernel = *pipeline.kernel;
  check(kernel, arguments);
  how.threadgroup_bytes = arguments.threadgroup_bytes;
  static std::mutex one_at_a_time;  // function constants are variables of the process
  const std::lock_guard lock(one_at_a_time);
  for (const FunctionConstant& constant : function_constants()) {
    if (!reads(kernel, constant)) continue;
    std::memcpy(constant.value, value_of(constant, pipeline.constants, kernel.name).value, constant.bytes);
  }
  try {
    launch(how, [&] { kernel.invoke(arguments); });
  } catch (const InputError& e) {
    throw InputError("kernel " + std::string(kernel.name) + ": " + e.what());
  }
}

bool add_kernel(const MetalKernel& kernel) {
  const bool is_new = kernels().emplace(kernel.name, kernel).second;
  if (!is_new) throw_input_error("two Metal kernels are named {}", kernel.name);
  return true;
}

bool add_function_constant(const FunctionConstant& constant) {
  function_constants().push_back(constant);
  return true;
}

}  // namespace nibble::simt
