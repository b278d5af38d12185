// A matrix as a checkpoint stores it, and the way of its bytes from the disk into memory.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "base/memory.h"
#include "checkpoint/checkpoint.h"
#include "formats/formats.h"

namespace nibble {

// Which rows of a tensor belong to a weight or vector that a file holds together with another (gate with up): row n is
// first + step * n of each expert's `count`.
struct RowSelection {
  int64_t first = 0, step = 1;
  int64_t count = 0;  // 0: all rows, as they are
};

// A matrix as a checkpoint stores it: its tensors are found, and have the right types and shapes. No byte is read yet.
struct StoredMatrix {
  FormatId format;  // of the canonical weight
  const Tensor* codes = nullptr;
  const Tensor* scales = nullptr;        // null: there are none, or they lie between the codes (GGUF)
  const Tensor* biases = nullptr;        // MLX affine only
  int code_bits = 0;                     // MLX affine only
  int64_t scale_rows = 1;                // rows, and weights of a row, that share a scale in the file, where the
  int64_t scale_columns = 0;             // format has other groups: FP8 and MLX affine; else 0
  const Tensor* tensor_scale = nullptr;  // null: 1
  bool tensor_scale_divides = false;     // the file's value is 1 / tensor_scale
  float tensor_scale_unit = 1.0f;        // what the file's value is a multiple of
  RowSelection rows;
  bool is_transposed = false;         // [E, K, rows]; plain formats only
  std::string source;                 // for MatrixInfo
  std::vector<StoredMatrix> experts;  // not empty: experts that are stored one by one; the tensors above are null then
};

// The bytes of a matrix's tensors in memory. Those in the page cache stay in their file's mapping. Others are read into
// memory of their own: large reads, several at once, past the page cache. A mapping would bring in page by page what is
// needed only once (with 4 KB pages at a quarter of the disk's speed on a machine of 2 cores).
class StagedTensors {
 public:
  StagedTensors(const Checkpoint& checkpoint, BufferPool& buffers) : checkpoint_(checkpoint), buffers_(buffers) {}

  // The same matrix, its codes, scales and biases those that read will fill; they live as long as this object.
  StoredMatrix add(const StoredMatrix& stored);

  // Reads what was added, once. What it returns keeps the bytes alive, as long as the checkpoint lives. Throws RunError if a
  // file cannot be read or has become shorter.
  std::shared_ptr<const void> read();

 private:
  const Tensor* add(const Tensor* tensor);

  struct Staged {
    Tensor tensor;
    const MappedFile* file;
    size_t room_at;  // where its room begins
  };
  struct Mapped {
    const MappedFile* file;
    std::span<const uint8_t> bytes;
  };
  struct Kept {
    std::vector<Mapped> mapped;
    std::shared_ptr<const Buffer> buffer;
    ~Kept() {
      for (const Mapped& m : mapped) m.file->release(m.bytes);
    }
  };
  const Checkpoint& checkpoint_;
  BufferPool& buffers_;
  std::vector<Mapped> mapped_;
  std::deque<Staged> tensors_;  // do not move
  size_t room_ = 0;
};

}  // namespace nibble
