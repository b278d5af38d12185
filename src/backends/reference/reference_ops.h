// Every op as plain loops with double sums: what the ops mean. Other backends are tested against these.
// Rows are tokens; strides are in floats.
#pragma once

#include <cstdint>

#include "ops/step.h"
#include "weights/weight.h"

namespace nibble::reference {

// The columns of a slice, for all rows.
struct Matrix {
  float* data;
  int64_t rows, width, stride;
  float* row(int64_t m) const { return data + m * stride; }
};

void embed(std::span<const int32_t> tokens, const CanonicalWeight& w, Matrix out);
void rms_norm(Matrix x, const float* weight, Matrix out, float eps, int64_t num_heads);
void linear(Matrix x, const CanonicalWeight& w, int64_t e, const float* bias, Matrix out, bool accumulate);
void rope(Matrix x, std::span<const int32_t> pos, const Rotation& rotation, const RopeOp& op);

// Keys and values of one token's sequence, positions 0 … len - 1, of which the last num_rows are there: position p in
// row p % num_rows.
struct KvRows {
  const float* k;
  const float* v;
  int64_t k_stride, v_stride, num_rows, len;

  const float* k_row(int64_t p) const { return k + p % num_rows * k_stride; }
  const float* v_row(int64_t p) const { return v + p % num_rows * v_stride; }
};
void attention(const float* q, const KvRows& kv, const AttentionOp& op, const float* sinks, float* out);

void head_linear(Matrix x, const CanonicalWeight& w, Matrix out);
void latent_attention(const float* q_latent, const float* q, const KvRows& kv, const LatentAttentionOp& op, float* out);

void swiglu(Matrix gate, Matrix up, Matrix out);

void route(Matrix logits, const float* correction_bias, const RouteOp& op, Matrix experts, Matrix expert_weights);
// Biases are [E, N], or null.
void moe_gate_up(Matrix x, const CanonicalWeight& gate, const CanonicalWeight& up, const float* gate_bias,
                 const float* up_bias, Matrix experts, const MoeGateUpOp& op, Matrix out);
void moe_down(Matrix x, const CanonicalWeight& down, const float* bias, Matrix experts, Matrix expert_weights,
              Matrix out);

}  // namespace nibble::reference
