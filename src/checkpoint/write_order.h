// Tensors that are announced first and whose bytes then come in the same order: what both writers have in common.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/dtype.h"

namespace nibble {

struct TensorSpec {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;  // outermost first; empty for a scalar
};

class WriteOrder {
 public:
  struct Entry {
    TensorSpec spec;
    uint64_t size;  // in bytes
  };
  struct Position {
    size_t index;     // of the tensor
    uint64_t offset;  // inside it
  };

  // Messages start with `where`, the path that is written. Throws InputError for a name that occurs twice.
  WriteOrder(std::vector<TensorSpec> tensors, std::string where);

  const std::vector<Entry>& entries() const { return entries_; }
  const std::string& where() const { return where_; }

  // Where the next `size` bytes go, which are of tensor `name`. Throws InputError if another tensor's bytes are due, or
  // fewer.
  Position take(std::string_view name, uint64_t size);

  // Throws InputError if bytes are still missing.
  void check_complete();

 private:
  void skip_finished();

  std::string where_;
  std::vector<Entry> entries_;
  size_t index_ = 0;
  uint64_t offset_ = 0;
};

}  // namespace nibble
