// The kernels that are in use, each with its function constants, made once.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "backends/metal/metal_device.h"

namespace nibble {

class MetalKernels {
 public:
  explicit MetalKernels(MetalDevice& device) : device_(device) {}

  const MetalKernel& get(const std::string& name, const FunctionConstants& constants) {
    auto& kernel = kernels_[{name, constants}];
    if (!kernel) kernel = device_.make_kernel(name, constants);
    return *kernel;
  }

 private:
  MetalDevice& device_;
  std::map<std::pair<std::string, FunctionConstants>, std::unique_ptr<MetalKernel>> kernels_;
};

}  // namespace nibble
