// Reads a SentencePiece model file (tokenizer.model): one protobuf message with the pieces, their scores and types, how
// the model was trained, and how text is normalized.
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "text/piece_type.h"
#include "text/tokenizer_spec.h"
#include "text/utf8.h"

namespace nibble {

namespace {

// One field of a protobuf message.
struct Field {
  uint32_t number;
  uint64_t value;          // of a number
  std::string_view bytes;  // of a string or a message
};

// Reads the fields of one message in order.
class MessageReader {
 public:
  MessageReader(std::string_view bytes, const char* where) : bytes_(bytes), where_(where) {}

  bool next(Field& field) {
    if (at_ == bytes_.size()) return false;
    const uint64_t key = read_varint();
    field = {static_cast<uint32_t>(key >> 3), 0, {}};
    switch (key & 7) {
      case 0: field.value = read_varint(); break;
      case 1: field.value = read_fixed(8); break;
      case 2: {
        const uint64_t size = read_varint();
        if (size > bytes_.size() - at_) fail("a field is longer than the message");
        field.bytes = bytes_.substr(at_, size);
        at_ += size;
        break;
      }
      case 5: field.value = read_fixed(4); break;
      default: fail("unknown kind of field");
    }
    return true;
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    throw_input_error("SentencePiece model: {}: byte {} of {}: {}; the file is damaged or no such model", where_, at_,
                      bytes_.size(), what);
  }

  uint64_t read_varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (at_ == bytes_.size()) fail("ends inside a number");
      const auto byte = static_cast<uint8_t>(bytes_[at_++]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail("a number of more than 64 bits");
  }

  uint64_t read_fixed(size_t num_bytes) {
    if (bytes_.size() - at_ < num_bytes) fail("ends inside a number");
    uint64_t value = 0;
    for (size_t i = 0; i < num_bytes; i++)
      value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes_[at_ + i])) << (8 * i);
    at_ += num_bytes;
    return value;
  }

  std::string_view bytes_;
  const char* where_;
  size_t at_ = 0;
};

enum ModelType : uint64_t { kUnigram = 1, kBpe = 2 };

struct Piece {
  std::string text;
  float score = 0;
  uint64_t type = kNormal;
};

struct Model {
  std::vector<Piece> pieces;
  uint64_t type = kUnigram;
  bool byte_fallback = false;
  std::string bos = "<s>", eos = "</s>";
  std::string charsmap;
  SpaceRules spaces;
};

Piece read_piece(std::string_view bytes, size_t id) {
  Piece piece;
  Field field;
  for (MessageReader reader(bytes, "piece"); reader.next(field);) {
    if (field.number == 1) piece.text = field.bytes;
    if (field.number == 3) piece.type = field.value;
    if (field.number == 2) {
      const auto bits = static_cast<uint32_t>(field.value);
      std::memcpy(&piece.score, &bits, sizeof bits);
    }
  }
  if (!is_utf8(piece.text) || piece.text.empty())
    throw_input_error("SentencePiece model: piece {}: its text is empty or no UTF-8", id);
  if (!std::isfinite(piece.score))
    throw_input_error("SentencePiece model: piece {} ('{}'): score {}, a number expected", id, piece.text, piece.score);
  if (piece.type < kNormal || piece.type > kByte)
    throw_input_error("SentencePiece model: piece {} ('{}'): type {}, 1 to 6 expected", id, piece.text, piece.type);
  return piece;
}

void read_trainer(std::string_view bytes, Model& model) {
  Field field;
  for (MessageReader reader(bytes, "trainer_spec"); reader.next(field);) {
    switch (field.number) {
      case 3: model.type = field.value; break;
      case 24: model.spaces.as_suffix = field.value != 0; break;
      case 35: model.byte_fallback = field.value != 0; break;
      case 46: model.bos = field.bytes; break;
      case 47: model.eos = field.bytes; break;
      default: break;
    }
  }
}

void read_normalizer(std::string_view bytes, Model& model) {
  Field field;
  for (MessageReader reader(bytes, "normalizer_spec"); reader.next(field);) {
    switch (field.number) {
      case 2: model.charsmap = field.bytes; break;
      case 3: model.spaces.add_prefix = field.value != 0; break;
      case 4: model.spaces.remove_extra = field.value != 0; break;
      case 5: model.spaces.escape = field.value != 0; break;
      default: break;
    }
  }
}

Model read_message(std::string_view bytes) {
  Model model;
  Field field;
  for (MessageReader reader(bytes, "file"); reader.next(field);) {
    if (field.number == 1) model.pieces.push_back(read_piece(field.bytes, model.pieces.size()));
    if (field.number == 2) read_trainer(field.bytes, model);
    if (field.number == 3) read_normalizer(field.bytes, model);
  }
  if (model.pieces.empty() || model.pieces.size() > TokenizerSpec::kMaxVocabulary) {
    throw_input_error("SentencePiece model: {} pieces, 1 to {} expected", model.pieces.size(),
                      TokenizerSpec::kMaxVocabulary);
  }
  if (model.type != kUnigram && model.type != kBpe)
    throw_input_error("SentencePiece model: model_type {}; 1 (unigram) and 2 (bpe) are supported", model.type);
  return model;
}

}  // namespace

DecoderSpec sentencepiece_decoder(const SpaceRules& spaces) {
  DecoderSpec decoder;
  if (spaces.escape) decoder.replacements.emplace_back(kSpaceSymbol, " ");
  decoder.byte_fallback = true;
  if (spaces.add_prefix && !spaces.as_suffix) decoder.strip_start = 1;
  if (spaces.remove_extra) decoder.strip_start = DecoderSpec::kAllSpaces;
  return decoder;
}

TokenizerSpec read_sentencepiece(std::string_view bytes, const nlohmann::json& config) {
  Model model = read_message(bytes);
  TokenizerSpec spec;
  spec.model = model.type == kBpe ? TokenModel::scored_bpe : TokenModel::unigram;
  spec.byte_fallback = model.byte_fallback;
  spec.fuse_unknown = true;
  spec.single_precision = true;
  spec.normalizer_takes_bytes = true;
  NormalizerStep normalizer{.kind = NormalizerKind::sentencepiece, .text = model.charsmap, .spaces = model.spaces};

  float highest = -std::numeric_limits<float>::max();
  for (const Piece& piece : model.pieces)
    if (piece.type == kNormal) highest = std::max(highest, piece.score);
  for (size_t i = 0; i < model.pieces.size(); i++) {
    Piece& piece = model.pieces[i];
    const auto id = static_cast<int32_t>(i);
    if (piece.text == model.bos && piece.type == kControl) spec.bos = id;
    if (piece.text == model.eos && piece.type == kControl) spec.eos = id;
    if (piece.type == kUnknown) spec.unknown_token = piece.text;
    if (piece.type == kUserDefined) normalizer.kept.push_back(piece.text);
    const bool is_frozen = piece.type == kUserDefined && model.type == kBpe;
    if (piece.type == kControl || piece.type == kUnknown || is_frozen) {
      spec.added_tokens.push_back({.id = id,
                                   .content = piece.text,
                                   .is_special = !is_frozen,
                                   .is_normalized = is_frozen,
                                   .is_verbatim = is_frozen});
      continue;
    }
    double score = piece.score;
    if (piece.type == kUserDefined)  // above every other way to write the same
      score = static_cast<float>(static_cast<double>(static_cast<float>(piece.text.size()) * highest) - 0.1);
    if (piece.type == kUnused || piece.type == kByte) score = TokenizerSpec::kTakesNoPart;
    spec.vocabulary.emplace_back(piece.text, id);
    spec.scores.push_back(score);
  }
  spec.normalizer.push_back(std::move(normalizer));
  spec.decoder = sentencepiece_decoder(model.spaces);
  read_roles(config, spec);
  return spec;
}

}  // namespace nibble
