// Reading what only some architectures have: experts and latent attention. The configurations of one family share their
// keys; what a family leaves out of its configuration stands here.
#pragma once

#include "models/config.h"

namespace nibble {

// Experts weighed by a softmax, in all layers but those that the configuration calls dense: Mixtral, Qwen3-MoE, gpt-oss.
// `normalise_default` is what a configuration without norm_topk_prob means.
MoeConfig read_softmax_experts(const Checkpoint& checkpoint, const DecoderConfig& c, bool normalise_default);

// Experts weighed by sigmoids, with a correction bias, groups, and an expert that all tokens share, after some dense
// layers: DeepSeek-V3 and the GLM-4 family. Throws InputError for another router function (scoring_func, topk_method,
// expert_gating_func).
MoeConfig read_sigmoid_experts(const Checkpoint& checkpoint, const DecoderConfig& c);

// Latent attention: DeepSeek-V3, GLM-4.7-Flash.
MlaConfig read_mla_config(const Checkpoint& checkpoint, const DecoderConfig& c);

}  // namespace nibble
