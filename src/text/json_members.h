// Members of JSON objects that nobody vouches for: what is missing is null, what has the wrong type is an InputError
// that begins with `where`.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/json.h"

namespace nibble {

// Null if `object` is no object or has no such member.
const nlohmann::json& member(const nlohmann::json& object, const char* key);

std::string text_member(const nlohmann::json& object, const char* key, std::string_view where);
bool flag_member(const nlohmann::json& object, const char* key, std::string_view where, bool fallback = false);

// A token id: a whole number from 0 to TokenizerSpec::kMaxVocabulary - 1.
int32_t id_value(const nlohmann::json& value, std::string_view where);

}  // namespace nibble
