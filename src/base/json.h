// nlohmann's JSON. What most of its users call is compiled once, in json.cc: in each file anew, it would be a quarter of all
// code of a build with sanitizers.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace nibble {

// The JSON value that is all of `text`. Throws nlohmann::json::parse_error.
nlohmann::json parse_json(std::string_view text);
nlohmann::ordered_json parse_ordered_json(std::string_view text);

// Tells `handler` each value, key and bracket of `text` in turn, until it returns false.
void walk_json(std::string_view text, nlohmann::json_sax<nlohmann::json>& handler);

}  // namespace nibble

// Explicit instantiations of what both kinds of JSON need most: declared here, defined in json.cc.
// clang-format off
#define NIBBLE_JSON_TEMPLATES(EXTERN, Json)                                                          \
  EXTERN template class std::vector<Json>;                                                           \
  EXTERN template class nlohmann::detail::serializer<Json>;                                          \
  EXTERN template class nlohmann::detail::iter_impl<const Json>;                                     \
  EXTERN template Json& nlohmann::detail::iter_impl<Json>::operator*() const;                        \
  EXTERN template Json* nlohmann::detail::iter_impl<Json>::operator->() const;                       \
  EXTERN template Json::basic_json(const Json&);                                                     \
  EXTERN template Json::basic_json(Json&&) noexcept;                                                 \
  EXTERN template Json::basic_json(Json::initializer_list_t, bool, nlohmann::detail::value_t);       \
  EXTERN template Json::~basic_json() noexcept;                                                      \
  EXTERN template Json::json_value::json_value(nlohmann::detail::value_t);                           \
  EXTERN template void Json::json_value::destroy(nlohmann::detail::value_t);                         \
  EXTERN template void Json::assert_invariant(bool) const noexcept;                                  \
  EXTERN template std::string Json::dump(int, char, bool, Json::error_handler_t) const;              \
  EXTERN template Json& Json::operator[]<const char>(const char*);                                   \
  EXTERN template const Json& Json::operator[]<const char>(const char*) const;                       \
  EXTERN template Json& Json::operator[](Json::size_type);                                           \
  EXTERN template const Json& Json::operator[](Json::size_type) const;                               \
  EXTERN template Json& Json::at(Json::size_type);                                                   \
  EXTERN template const Json& Json::at(Json::size_type) const;                                       \
  EXTERN template Json& Json::operator[](std::string);                                               \
  EXTERN template const Json& Json::operator[](const std::string&) const;                            \
  EXTERN template Json& Json::at(const std::string&);                                                \
  EXTERN template const Json& Json::at(const std::string&) const;                                    \
  EXTERN template void Json::push_back(Json&&);                                                      \
  EXTERN template void Json::push_back(const Json&)
// clang-format on

extern template class std::map<std::string, nlohmann::json, std::less<>>;
extern template class nlohmann::ordered_map<std::string, nlohmann::ordered_json>;
NIBBLE_JSON_TEMPLATES(extern, nlohmann::json);
NIBBLE_JSON_TEMPLATES(extern, nlohmann::ordered_json);
