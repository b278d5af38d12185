#include "base/json.h"

template class std::map<std::string, nlohmann::json, std::less<>>;
template class nlohmann::ordered_map<std::string, nlohmann::ordered_json>;
NIBBLE_JSON_TEMPLATES(, nlohmann::json);
NIBBLE_JSON_TEMPLATES(, nlohmann::ordered_json);

namespace nibble {

nlohmann::json parse_json(std::string_view text) { return nlohmann::json::parse(text); }

nlohmann::ordered_json parse_ordered_json(std::string_view text) { return nlohmann::ordered_json::parse(text); }

// Without json::sax_parse, which takes readers of four binary formats along.
void walk_json(std::string_view text, nlohmann::json_sax<nlohmann::json>& handler) {
  auto input = nlohmann::detail::input_adapter(text);
  nlohmann::detail::parser<nlohmann::json, decltype(input)>(std::move(input)).sax_parse(&handler);
}

}  // namespace nibble
