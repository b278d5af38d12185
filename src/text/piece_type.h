// The kinds of a SentencePiece model's pieces (sentencepiece_model.proto), by whose numbers a GGUF file's
// tokenizer.ggml.token_type names the kinds of its tokens too.
#pragma once

#include <cstdint>

namespace nibble {

enum PieceType : uint64_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

}  // namespace nibble
