#include "backends/metal/gemm_fp4.h"

#include <cstring>
#include <vector>

#include "base/error.h"

namespace nibble {

namespace {

void check_sizes(const MetalGemmFp4& g) {
  for (const auto& [name, value] : {std::pair{"M", g.M}, {"N", g.N}, {"K", g.K}})
    if (value < 0) throw_input_error("gemm_fp4: {} is {}, 0 or more expected", name, value);
  if (g.K % 8 != 0) throw_input_error("gemm_fp4: K is {}, a multiple of 8 expected", g.K);
  if (g.group_size != 32 && g.group_size != 64 && g.group_size != 128)
    throw_input_error("gemm_fp4: group_size is {}, 32, 64 or 128 expected", g.group_size);
}

void check_buffer(const char* name, const MetalBinding& binding, int64_t count, size_t element_bytes,
                  size_t alignment) {
  const size_t bytes = static_cast<size_t>(count) * element_bytes;
  if (bytes == 0) return;
  if (binding.buffer == nullptr) throw_input_error("gemm_fp4: {} has no buffer, {} bytes expected", name, bytes);
  if (binding.first_byte % alignment != 0)
    throw_input_error("gemm_fp4: {} begins at byte {}, a multiple of {} expected", name, binding.first_byte, alignment);
  const size_t size = binding.buffer->size();
  if (size < binding.first_byte || size - binding.first_byte < bytes)
    throw_input_error("gemm_fp4: {} begins at byte {} of {}, {} bytes from there on expected", name, binding.first_byte,
                      size, bytes);
}

}  // namespace

void gemm_fp4(MetalDevice& device, MetalKernels& kernels, const MetalGemmFp4& g) {
  gemm_fp4_on_route(device, kernels, g, choose_gemm_fp4(g.M, g.N, kMetalGemmFp4));
}

void gemm_fp4_on_route(MetalDevice& device, MetalKernels& kernels, const MetalGemmFp4& g, GemmRoute route) {
  check_sizes(g);
  run_gemm_fp4_plan(device, kernels, g, plan_gemm_fp4_metal(route, g.M, g.N, g.K, g.group_size, g.is_float));
}

void run_gemm_fp4_plan(MetalDevice& device, MetalKernels& kernels, const MetalGemmFp4& g, const MetalGemmPlan& plan) {
  if (plan.num_dispatches == 0) return;
  const size_t c_bytes = g.is_float ? 4 : 2;
  check_buffer("A", g.A, g.M * g.K, 2, 8);
  check_buffer("B", g.B, g.K / 8 * g.N, 4, 16);
  check_buffer("scales", g.scales, (g.K + g.group_size - 1) / g.group_size * g.N, 2, 8);
  check_buffer("C", g.C, g.M * g.N, c_bytes, c_bytes);

  const auto arguments = device.make_buffer(sizeof plan.arguments);
  std::memcpy(arguments->data(), &plan.arguments, sizeof plan.arguments);
  const auto partials = device.make_buffer(plan.partial_bytes);
  const MetalBinding sizes{arguments.get(), 0};
  // At K = 0 nothing is read of A, B and scales, which need not be there; but a device wants a buffer.
  const auto operand = [&](const MetalBinding& given) { return g.K > 0 ? given : sizes; };
  std::vector<MetalBinding> buffers[2];  // the device may read them until finish
  device.begin();
  for (int i = 0; i < plan.num_dispatches; i++) {
    const MetalGemmDispatch& d = plan.dispatches[i];
    const bool is_last = i + 1 == plan.num_dispatches;
    std::vector<MetalBinding>& bound = buffers[i];
    if (i > 0) {
      device.barrier();
      bound = {{partials.get(), 0}, g.C, sizes};
    } else {
      bound = {operand(g.A), operand(g.B), operand(g.scales), is_last ? g.C : MetalBinding{partials.get(), 0}, sizes};
    }
    if (d.kernel == MetalGemmKernel::decode_gemv_fp4_wide) {
      using Sizes = metal_arguments::GemmFp4Arguments;
      bound.pop_back();
      for (size_t at : {offsetof(Sizes, M), offsetof(Sizes, N), offsetof(Sizes, K), offsetof(Sizes, group_size)})
        bound.push_back({arguments.get(), at});
    }
    device.dispatch({.kernel = &kernels.get(metal_gemm_kernel_name(d.kernel), {}),
                     .arguments = {},
                     .buffers = bound,
                     .threadgroups = {d.threadgroups[0], d.threadgroups[1], d.threadgroups[2]},
                     .threads = d.threads});
  }
  device.finish();
}

}  // namespace nibble
