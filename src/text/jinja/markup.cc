#include "text/jinja/markup.h"

#include "text/jinja/format.h"

namespace nibble::jinja {

std::string escape_markup(std::string_view source) {
  std::string text;
  for (const char c : source) {
    switch (c) {
      case '&': text += "&amp;"; break;
      case '<': text += "&lt;"; break;
      case '>': text += "&gt;"; break;
      case '"': text += "&#34;"; break;
      case '\'': text += "&#39;"; break;
      default: text += c;
    }
  }
  return text;
}

std::string escaped_text(const Value& value, Budget& budget) {
  if (value.is_markup()) return value.text();
  budget.charge_text(value.is_text() ? value.text().size() : 0);
  return escape_markup(to_text(value, budget));
}

}  // namespace nibble::jinja
