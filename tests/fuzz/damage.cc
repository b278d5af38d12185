#include "fuzz/damage.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/json.h"
#include "fuzz/gguf_fields.h"

namespace nibble {

namespace {

using Json = nlohmann::ordered_json;

// Where arithmetic goes wrong.
constexpr uint64_t kEdges[] = {0,
                               1,
                               2,
                               3,
                               31,
                               33,
                               0x7F,
                               0x80,
                               0xFF,
                               0xFFFF,
                               1u << 20,
                               1u << 24,
                               0x7FFFFFFF,
                               0x80000000,
                               0xFFFFFFFF,
                               uint64_t{1} << 32,
                               uint64_t{1} << 40,
                               uint64_t{1} << 61,
                               uint64_t{1} << 62,
                               std::numeric_limits<int64_t>::max(),
                               uint64_t{1} << 63,
                               std::numeric_limits<uint64_t>::max() - 7,
                               std::numeric_limits<uint64_t>::max()};

uint64_t edge(Random& random) { return kEdges[random.below(std::size(kEdges))]; }

// Little-endian, as all files here.
void overwrite(std::string& bytes, size_t offset, size_t size, uint64_t value) {
  for (size_t i = 0; i < size && offset + i < bytes.size(); i++)
    bytes[offset + i] = static_cast<char>(value >> (8 * std::min<size_t>(i, 7)));
}

std::string flip_bit(std::string& bytes, size_t begin, size_t end, Random& random) {
  if (begin >= end) return "nothing to flip";
  const size_t at = begin + random.below(end - begin);
  bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.below(8)));
  return fmt::format("a bit of byte {} flipped", at);
}

std::string cut(std::string& bytes, size_t size) {
  bytes.resize(std::min(size, bytes.size()));
  return fmt::format("cut after {} bytes", bytes.size());
}

// A few bytes that hold no number: all ones are NaN in every float format.
std::string fill(std::string& bytes, size_t begin, size_t end, Random& random) {
  if (begin >= end) return "nothing to fill";
  constexpr char kFills[] = {'\xFF', '\x7F', '\x80', '\0'};
  const size_t at = begin + random.below(end - begin), count = std::min<size_t>(end - at, 1 + random.below(16));
  const char value = kFills[random.below(std::size(kFills))];
  std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), count, value);
  return fmt::format("{} bytes from {} on set to 0x{:02X}", count, at, static_cast<uint8_t>(value));
}

Json edge_value(Random& random) {
  switch (random.below(14)) {
    case 0: return nullptr;
    case 1: return true;
    case 2: return false;
    case 3: return -1;
    case 4: return "";
    case 5: return "x";
    case 6: return Json::array();
    case 7: return Json::object();
    case 8: return std::string(1000, 'a');
    case 9: return 1e300;
    case 10: return 0.5;
    case 11: return -1e-300;
    case 12: return static_cast<int64_t>(edge(random));
    default: return edge(random);
  }
}

// Every value in `json` below the root, with its parent.
struct Place {
  Json* parent;
  std::string key;   // of an object
  size_t index = 0;  // of an array
  Json& value() const { return parent->is_object() ? (*parent)[key] : (*parent)[index]; }
  std::string name() const { return parent->is_object() ? key : fmt::format("[{}]", index); }
};

void add_places(Json& json, std::vector<Place>& places) {
  if (json.is_object())
    for (const auto& [key, value] : json.items()) places.push_back({&json, key}), add_places(value, places);
  if (json.is_array())
    for (size_t i = 0; i < json.size(); i++) places.push_back({&json, {}, i}), add_places(json[i], places);
}

void scale_number(Json& value, Random& random) {
  if (!value.is_number_integer()) {
    value = value.is_number() ? Json(value.get<double>() * -2) : edge_value(random);
    return;
  }
  const auto number = value.get<uint64_t>();
  const uint64_t changed[] = {number + 1, number - 1, number * 2, number / 2, number * 32, 0 - number};
  const uint64_t now = changed[random.below(std::size(changed))];
  value = now >> 63 != 0 ? Json(static_cast<int64_t>(now)) : Json(now);
}

// The damage, or none if the text is no JSON, or has nothing in it.
std::string damage_values(std::string& text, Random& random) {
  Json json = Json::parse(text, nullptr, false);
  std::vector<Place> places;
  add_places(json, places);
  if (places.empty()) return {};
  const Place place = places[random.below(places.size())];
  const std::string name = place.name();
  std::string what;
  switch (random.below(7)) {
    case 0:
    case 1:
      place.value() = edge_value(random);
      what = fmt::format("{} set to {}", name, place.value().dump().substr(0, 60));
      break;
    case 2:
    case 3:
      scale_number(place.value(), random);
      what = fmt::format("{} set to {}", name, place.value().dump().substr(0, 60));
      break;
    case 4:
      if (place.parent->is_object())
        place.parent->erase(place.key);
      else
        place.parent->erase(place.index);
      what = fmt::format("{} removed", name);
      break;
    case 5: {
      const Place& other = places[random.below(places.size())];
      what = fmt::format("{} set to the value of {}", name, other.name());
      place.value() = Json(other.value());  // a copy: the place may hold the other one
      break;
    }
    default: {  // a copy under the same or a longer name; repeated keys exist only in text
      if (!place.parent->is_object()) {
        place.parent->push_back(Json(place.value()));
        what = fmt::format("{} appended again", name);
        break;
      }
      const bool same_key = random.one_in(2);
      const std::string mark = place.key + "\x01";
      Json copy = place.value();
      (*place.parent)[mark] = std::move(copy);
      text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
      for (size_t at; (at = text.find("\\u0001\"")) != std::string::npos;) text.replace(at, 7, same_key ? "\"" : "x\"");
      return fmt::format("{} there twice{}", name, same_key ? "" : ", once as another key");
    }
  }
  text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  return what;
}

}  // namespace

std::string damage_bytes(std::string& bytes, Random& random) {
  switch (random.below(4)) {
    case 0: return cut(bytes, bytes.empty() ? 0 : random.below(bytes.size()));
    case 1: return fill(bytes, 0, bytes.size(), random);
    case 2: {
      const size_t at = bytes.empty() ? 0 : random.below(bytes.size());
      const auto copied = bytes.substr(at, 1 + random.below(64));
      bytes.insert(at, copied);
      return fmt::format("{} bytes from {} on are there twice", copied.size(), at);
    }
    default: return flip_bit(bytes, 0, bytes.size(), random);
  }
}

std::string damage_json(std::string& text, Random& random) {
  if (!random.one_in(8))
    if (std::string what = damage_values(text, random); !what.empty()) return what;
  return damage_bytes(text, random);
}

std::string damage_safetensors(std::string& bytes, Random& random) {
  uint64_t length = 0;
  if (bytes.size() < sizeof length) return damage_bytes(bytes, random);
  std::memcpy(&length, bytes.data(), sizeof length);
  if (length > bytes.size() - sizeof length) return damage_bytes(bytes, random);
  const size_t data = sizeof length + length;
  switch (random.below(10)) {
    case 0: return "in the length: " + cut(bytes, random.below(sizeof length + 1));
    case 1: return "in the header: " + cut(bytes, sizeof length + random.below(length + 1));
    case 2: return "in the data: " + cut(bytes, data + random.below(bytes.size() - data + 1));
    case 3: {
      const uint64_t lie = random.one_in(2) ? edge(random) : length + random.below(17) - 8;
      overwrite(bytes, 0, sizeof length, lie);
      return fmt::format("a header of {} bytes announced instead of {}", lie, length);
    }
    case 4: return "in the data: " + flip_bit(bytes, data, bytes.size(), random);
    case 5: return "in the data: " + fill(bytes, data, bytes.size(), random);
    case 6: return "in the header: " + flip_bit(bytes, sizeof length, data, random);
    default: {
      std::string header = bytes.substr(sizeof length, length);
      std::string what = damage_json(header, random);
      bytes.replace(sizeof length, length, header);
      overwrite(bytes, 0, sizeof length, header.size());
      return "in the header: " + what;
    }
  }
}

std::string damage_gguf(std::string& bytes, Random& random) {
  const GgufFields fields = find_gguf_fields(bytes);
  if (fields.fields.empty()) return damage_bytes(bytes, random);
  const GgufField field = fields.fields[random.below(fields.fields.size())];
  const std::string where = fmt::format("{} at byte {}: ", field.what, field.offset);
  switch (random.below(8)) {
    case 0: return where + cut(bytes, field.offset + random.below(field.size + 1));
    case 1: return "in the data: " + cut(bytes, fields.data + random.below(bytes.size() - fields.data + 1));
    case 2: return "in the data: " + flip_bit(bytes, fields.data, bytes.size(), random);
    case 3: return "in the data: " + fill(bytes, fields.data, bytes.size(), random);
    case 4: return where + flip_bit(bytes, field.offset, field.offset + field.size, random);
    case 5: {  // a field of another place, of the same kind if there is one
      const GgufField other = fields.fields[random.below(fields.fields.size())];
      const auto copied = bytes.substr(other.offset, std::min(field.size, other.size));
      bytes.replace(field.offset, copied.size(), copied);
      return where + fmt::format("{} of byte {} written over it", other.what, other.offset);
    }
    default: {
      uint64_t now = 0;
      std::memcpy(&now, bytes.data() + field.offset, std::min(sizeof now, field.size));
      const uint64_t lie = random.one_in(3) ? now + random.below(5) - 2 : edge(random);
      overwrite(bytes, field.offset, std::min(sizeof now, field.size), lie);
      return where + fmt::format("{} instead of {}", lie, now);
    }
  }
}

std::string damage_files(Files& files, Random& random) {
  if (files.empty()) return "nothing to damage";
  const auto pick = [&] { return std::next(files.begin(), static_cast<std::ptrdiff_t>(random.below(files.size()))); };
  const auto file = pick();
  const std::string name = file->first;
  if (files.size() > 1 && random.one_in(16)) {
    const auto other = pick();
    switch (random.below(3)) {
      case 0: files.erase(file); return name + ": removed";
      case 1: file->second.clear(); return name + ": emptied";
      default: std::swap(file->second, other->second); return fmt::format("{}: swapped with {}", name, other->first);
    }
  }
  const auto has_ending = [&](std::string_view ending) { return std::string_view(name).ends_with(ending); };
  const auto damage_it = has_ending(".json")          ? damage_json
                         : has_ending(".safetensors") ? damage_safetensors
                         : has_ending(".gguf")        ? damage_gguf
                                                      : damage_bytes;
  return name + ": " + damage_it(file->second, random);
}

}  // namespace nibble
