// One maker for each architecture, each in the file of its name; models/registry.cc lists them.
#pragma once

#include <memory>

#include "models/model.h"

namespace nibble {

std::unique_ptr<Model> make_deepseek_v3(const Checkpoint& checkpoint, WeightSource& source);
std::unique_ptr<Model> make_glm4_moe(const Checkpoint& checkpoint, WeightSource& source);
std::unique_ptr<Model> make_glm4_moe_lite(const Checkpoint& checkpoint, WeightSource& source);
std::unique_ptr<Model> make_gpt_oss(const Checkpoint& checkpoint, WeightSource& source);
std::unique_ptr<Model> make_llama(const Checkpoint& checkpoint, WeightSource& source);
std::unique_ptr<Model> make_mixtral(const Checkpoint& checkpoint, WeightSource& source);
std::unique_ptr<Model> make_qwen3(const Checkpoint& checkpoint, WeightSource& source);
std::unique_ptr<Model> make_qwen3_moe(const Checkpoint& checkpoint, WeightSource& source);

// Throws InputError, as make_model does, if the checkpoint's architecture is not implemented.
void check_architecture(const Checkpoint& checkpoint);

}  // namespace nibble
