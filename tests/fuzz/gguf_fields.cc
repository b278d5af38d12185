#include "fuzz/gguf_fields.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "checkpoint/gguf.h"

namespace nibble {

namespace {

struct EndOfWalk {};

class Walk {
 public:
  explicit Walk(std::string_view bytes) : bytes_(bytes) {}

  GgufFields run() {
    try {
      take("magic", 4);
      take("version", 4);
      const uint64_t num_tensors = number("number of tensors", 8), num_entries = number("number of entries", 8);
      for (uint64_t i = 0; i < num_entries; i++) {
        text("length of a key", "key");
        const auto type = static_cast<GgufType>(number("type of a value", 4));
        value(type, true);
      }
      for (uint64_t i = 0; i < num_tensors; i++) {
        text("length of a tensor's name", "tensor's name");
        const uint64_t num_dimensions = number("number of dimensions", 4);
        for (uint64_t d = 0; d < num_dimensions; d++) take("dimension", 8);
        take("tensor type", 4);
        take("tensor offset", 8);
      }
    } catch (EndOfWalk) {  // NOLINT(bugprone-empty-catch): what was found until here is wanted
    }
    found_.data = at_;
    return std::move(found_);
  }

 private:
  static constexpr uint64_t kShown = 8;  // elements of an array that count as fields

  void take(std::string_view what, uint64_t size, bool shown = true) {
    if (size > bytes_.size() - at_) throw EndOfWalk();
    if (shown && size > 0) found_.fields.push_back({what, at_, static_cast<size_t>(size)});
    at_ += static_cast<size_t>(size);
  }

  uint64_t number(std::string_view what, size_t size, bool shown = true) {
    take(what, size, shown);
    uint64_t value = 0;
    std::memcpy(&value, bytes_.data() + at_ - size, size);
    return value;
  }

  void text(std::string_view length, std::string_view what, bool shown = true) {
    take(what, number(length, 8, shown), shown);
  }

  void value(GgufType type, bool shown) {
    switch (type) {
      case GgufType::u8:
      case GgufType::i8:
      case GgufType::boolean: return take("value", 1, shown);
      case GgufType::u16:
      case GgufType::i16: return take("value", 2, shown);
      case GgufType::u32:
      case GgufType::i32:
      case GgufType::f32: return take("value", 4, shown);
      case GgufType::u64:
      case GgufType::i64:
      case GgufType::f64: return take("value", 8, shown);
      case GgufType::string: return text("length of a text", "text", shown);
      case GgufType::array: {
        const auto inner = static_cast<GgufType>(number("type of an array", 4, shown));
        const uint64_t count = number("length of an array", 8, shown);
        if (inner == GgufType::array) throw EndOfWalk();  // no file of ours has arrays of arrays
        for (uint64_t i = 0; i < count; i++) value(inner, shown && i < kShown);
        return;
      }
    }
    throw EndOfWalk();
  }

  std::string_view bytes_;
  size_t at_ = 0;
  GgufFields found_;
};

}  // namespace

GgufFields find_gguf_fields(std::string_view bytes) { return Walk(bytes).run(); }

}  // namespace nibble
