#include <algorithm>

#include "base/memory.h"
#include "base/pieces.h"
#include "weights/stored_matrix.h"

namespace nibble {

namespace {

constexpr size_t kPieceBytes = size_t{4} << 20;  // of one read

}  // namespace

StoredMatrix StagedTensors::add(const StoredMatrix& stored) {
  StoredMatrix staged = stored;
  for (const Tensor** tensor : {&staged.codes, &staged.scales, &staged.biases}) *tensor = add(*tensor);
  for (StoredMatrix& expert : staged.experts) expert = add(expert);
  return staged;
}

const Tensor* StagedTensors::add(const Tensor* tensor) {
  if (tensor == nullptr || tensor->bytes.empty()) return tensor;
  for (const std::shared_ptr<const MappedFile>& file : checkpoint_.files) {
    const std::span<const uint8_t> all = file->bytes();
    if (tensor->bytes.data() < all.data() || tensor->bytes.data() >= all.data() + all.size()) continue;
    if (file->is_cached(tensor->bytes)) {
      mapped_.push_back({file.get(), tensor->bytes});
      return tensor;
    }
    tensors_.push_back({*tensor, file.get(), room_});
    room_ += MappedFile::read_room(tensor->bytes.size());
    return &tensors_.back().tensor;
  }
  return tensor;  // in memory already
}

std::shared_ptr<const void> StagedTensors::read() {
  const auto kept = std::make_shared<Kept>();
  kept->mapped = std::move(mapped_);
  if (tensors_.empty()) return kept;
  kept->buffer = buffers_.take(room_ + MappedFile::kReadUnit);
  const Buffer* const buffer = kept->buffer.get();
  const uintptr_t begin = reinterpret_cast<uintptr_t>(buffer->data());
  uint8_t* room = buffer->data() + (MappedFile::kReadUnit - begin % MappedFile::kReadUnit) % MappedFile::kReadUnit;

  struct Piece {
    const MappedFile* file;
    std::span<const uint8_t> part;
    uint8_t* to;
  };
  std::vector<Piece> pieces;
  for (Staged& staged : tensors_) {
    const std::span<const uint8_t> bytes = staged.tensor.bytes;
    uint8_t* const to = room + staged.room_at + staged.file->read_offset(bytes);
    // Pieces end at the file's units, so that no two of them write the same one.
    for (size_t at = 0; at < bytes.size();) {
      const size_t end = at == 0 ? kPieceBytes - staged.file->read_offset(bytes) : at + kPieceBytes;
      const size_t size = std::min(end, bytes.size()) - at;
      pieces.push_back({staged.file, bytes.subspan(at, size), to + at});
      at += size;
    }
    staged.tensor.bytes = {to, bytes.size()};
  }

  for_each_piece(pieces.size(), kReaders,
                 [&](size_t i, size_t) { pieces[i].file->read(pieces[i].part, pieces[i].to); });
  return kept;
}

}  // namespace nibble
