// The list of all weights that a model needs, in the order in which it asks for them, with what the source says of each
// before any byte is read. `nibble plan` prints it, the loader walks it, steps name weights by their place in it.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "weights/source.h"

namespace nibble {

// A weight by its place in the table.
struct WeightId {
  int index = -1;  // none
  explicit operator bool() const { return index >= 0; }
};

struct MatrixEntry {
  MatrixRequest request;
  MatrixInfo info;
};

struct WeightEntry {
  std::variant<MatrixEntry, VectorRequest> what;

  // By its Hugging Face name.
  const std::string& name() const;
  int64_t bytes() const;  // in the file; vectors count as float32
};

class WeightTable {
 public:
  // Keeps `source`, which outlives the table.
  explicit WeightTable(WeightSource& source) : source_(&source) {}

  // Asks for a weight. Throws InputError if the source does not have it in this shape.
  WeightId matrix(MatrixRequest request);
  WeightId vector(VectorRequest request);
  // The same, or none if the source has no such vector.
  WeightId vector_if_present(VectorRequest request);

  std::span<const WeightEntry> entries() const { return entries_; }
  WeightSource& source() const { return *source_; }

 private:
  WeightSource* source_;
  std::vector<WeightEntry> entries_;
};

// What receives the weights, one after the other; each is gone when the call returns, unless the sink keeps it.
struct WeightSink {
  std::function<void(WeightId, const CanonicalWeight&)> matrix;
  std::function<void(WeightId, std::span<const float>)> vector;
  bool checks_floats = false;  // of matrices, as check_floats does; else they come checked
};

// Bytes that are read ahead of the weight that is being packed, at most; or one weight.
inline constexpr int64_t kReadAheadBytes = int64_t{256} << 20;

// Reads all weights of the table, in its order, into the sink: the sink is called on this thread, while others read
// the next weights. `progress`, if given, hears the bytes done and the bytes in all after each weight. Throws what the
// source and the sink throw.
void load_weights(const WeightTable& table, const WeightSink& sink,
                  const std::function<void(int64_t done_bytes, int64_t all_bytes)>& progress);

// Bytes of weights that load_weights has in memory at a time, at most: the one that is being packed and those ahead of it, and
// what they are copied from.
int64_t largest_load(const WeightTable& table);

// Throws InputError, naming them, if the source has tensors that the table did not ask for and that are not known.
void check_no_unknown_tensors(const WeightTable& table);

}  // namespace nibble
