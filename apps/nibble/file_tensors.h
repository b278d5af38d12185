// The tensors of a checkpoint's files as they are stored, and what becomes of each: for plans and lists.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/engine.h"

namespace nibble {

struct FileTensor {
  const Tensor* tensor;
  std::string file;                  // the name of the file that holds it
  std::vector<std::string> used_by;  // weights of the model, by their Hugging Face names
  std::string unused_because;        // empty if it is used, or if there is no model to say
};

// All of them, each once, by name. What becomes of them is left open.
std::vector<FileTensor> file_tensors(const Checkpoint& checkpoint);
// The same with what the model makes of them.
std::vector<FileTensor> file_tensors(const Checkpoint& checkpoint, const Model& model);

// A list of objects: name, dtype, shape, bytes, file; used_by and unused_because if `is_planned`.
nlohmann::ordered_json file_tensors_json(std::span<const FileTensor> tensors, bool is_planned);

// JSON's null for an empty text.
nlohmann::ordered_json text_or_null(const std::string& text);

// The types that most of the bytes have, largest first: "U8 + F8_E4M3".
std::string stored_types(std::span<const FileTensor> tensors);

// What `totals` lists, by its share of all: names with at least a twentieth, largest first, " + " between them.
std::string largest_shares(const std::vector<std::pair<std::string, int64_t>>& totals);

// "model.layers.3.mlp.up_proj" → "model.layers.*.mlp.up_proj": the first number that is a part of the name.
std::string without_layer(const std::string& name);

}  // namespace nibble
