// The float32 work between the matrices: norms, SwiGLU, attention. One table per instruction set, all compiled from the
// same text (float_kernels.inc) with other flags.
//
// What a row gives does not depend on the other rows of the call.
#pragma once

#include <cstdint>
#include <string_view>

#include "ops/backend.h"

namespace nibble {

// One query head against `len` cached positions of its key and value head: out = softmax(scale * q · k) · v. A sink is
// one more logit of the softmax that has no value.
struct AttendTask {
  const float* q;  // [head_dim]
  const void* k;   // position t at k + t * k_stride values of `type`
  const void* v;
  int64_t k_stride, v_stride;
  KvCacheType type;
  int64_t len, head_dim, v_dim;
  float scale;
  const float* sink = nullptr;
  float* scores;  // [len], scratch
  float* out;     // [v_dim]
};

struct FloatKernels {
  std::string_view name;  // as CpuKernels::name

  // out = x / sqrt(mean(x²) + eps) * weight, each [size]; out may be x.
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t size, float* out);

  // out = silu(gate) * up, each [size].
  void (*swiglu)(const float* gate, const float* up, int64_t size, float* out);

  // out = gate * sigmoid(alpha * gate) * (up + 1), gate at most `limit` and up within ±limit.
  void (*clamped_swiglu)(const float* gate, const float* up, float alpha, float limit, int64_t size, float* out);

  // Turns pair i of a head, (head[i], head[i + half]), by the angle of cosine[i] and sine[i].
  void (*rotate)(float* head, const float* cosine, const float* sine, int64_t half);
  // The same of pairs (head[2i], head[2i + 1]).
  void (*rotate_interleaved)(float* head, const float* cosine, const float* sine, int64_t half);

  // Puts float32 values into a cache.
  void (*store)(const float* values, int64_t size, KvCacheType type, void* to);

  void (*attend)(const AttendTask& task);
};

// The table that goes with cpu_kernels().
const FloatKernels& float_kernels();

}  // namespace nibble
