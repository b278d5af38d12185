#include "text/json_members.h"

#include "base/error.h"
#include "text/tokenizer_spec.h"

namespace nibble {

using nlohmann::json;

const json& member(const json& object, const char* key) {
  static const json null;
  if (!object.is_object()) return null;
  const auto it = object.find(key);
  return it == object.end() ? null : *it;
}

std::string text_member(const json& object, const char* key, std::string_view where) {
  const json& value = member(object, key);
  if (!value.is_string()) throw_input_error("{}: {} is {}, a string expected", where, key, value.type_name());
  return value.get<std::string>();
}

bool flag_member(const json& object, const char* key, std::string_view where, bool fallback) {
  const json& value = member(object, key);
  if (value.is_null()) return fallback;
  if (!value.is_boolean()) throw_input_error("{}: {} is {}, true or false expected", where, key, value.type_name());
  return value.get<bool>();
}

int32_t id_value(const json& value, std::string_view where) {
  if (!value.is_number_integer() || value < 0 || value >= TokenizerSpec::kMaxVocabulary) {
    throw_input_error("{}: id is {}, 0 to {} expected", where, shown(value), TokenizerSpec::kMaxVocabulary - 1);
  }
  return value.get<int32_t>();
}

}  // namespace nibble
