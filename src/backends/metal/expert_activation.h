// For shaders: what stands between up and down (ExpertActivation, ops/step.h).
#pragma once

#include <metal_stdlib>

#include "backends/metal/arguments.h"

namespace nibble {

using namespace metal;

constant bool clamped [[function_constant(kClamped)]];

static inline float activate(float gate, float up, constant GateUpArguments& a) {
  if (!clamped) return gate / (1.0f + exp(-gate)) * up;
  gate = min(gate, a.limit);
  up = clamp(up, -a.limit, a.limit);
  return gate / (1.0f + exp(-a.alpha * gate)) * (up + 1.0f);
}

}  // namespace nibble
