#include "base/json.h"

template class std::map<std::string, nlohmann::json, std::less<>>;
template class nlohmann::ordered_map<std::string, nlohmann::ordered_json>;
NIBBLE_JSON_TEMPLATES(, nlohmann::json);
NIBBLE_JSON_TEMPLATES(, nlohmann::ordered_json);

namespace nibble {
namespace {

// nlohmann's own parse and sax_parse would be its parser once more for each kind of JSON, for a callback, and for binary formats.
template <class Handler>
void walk(std::string_view text, Handler& handler) {
  auto input = nlohmann::detail::input_adapter(text);
  nlohmann::detail::parser<nlohmann::json, decltype(input)>(std::move(input)).sax_parse(&handler);
}

template <class Json>
Json parse(std::string_view text) {
  Json value;
  nlohmann::detail::json_sax_dom_parser<Json> builder(value);
  walk(text, builder);
  return value;
}

}  // namespace

nlohmann::json parse_json(std::string_view text) { return parse<nlohmann::json>(text); }

nlohmann::ordered_json parse_ordered_json(std::string_view text) { return parse<nlohmann::ordered_json>(text); }

void walk_json(std::string_view text, nlohmann::json_sax<nlohmann::json>& handler) { walk(text, handler); }

}  // namespace nibble
