// For shaders: what becomes of the products of gate and up (ExpertActivation, ops/step.h).
#pragma once

#include <metal_stdlib>

#include "backends/metal/arguments.h"

namespace nibble {

using namespace metal;

constant bool clamped [[function_constant(kClamped)]];
constant bool only_gate [[function_constant(kOnlyGate)]];
constant bool only_up [[function_constant(kOnlyUp)]];

static inline float activate(float gate, float up, constant GateUpArguments& a) {
  if (!clamped) return gate / (1.0f + exp(-gate)) * up;
  gate = min(gate, a.limit);
  up = clamp(up, -a.limit, a.limit);
  return gate / (1.0f + exp(-a.alpha * gate)) * (up + 1.0f);
}

// One value of the result, whose biases are in place `at`. only_gate leaves the gate in `to`, where only_up finds it.
static inline void store_gate_up(device float& to, float gate, float up, device const float* gate_bias,
                                 device const float* up_bias, uint at, constant GateUpArguments& a) {
  if (only_up) gate = to;
  if (!only_up && a.has_gate_bias) gate += gate_bias[at];
  if (a.has_up_bias) up += up_bias[at];
  to = only_gate ? gate : activate(gate, up, a);
}

}  // namespace nibble
