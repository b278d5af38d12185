#include "text/jinja/filters.h"

namespace nibble::jinja {

namespace {

const Filter* find_filter(const std::string& name) {
  for (const FilterTable* table : {&text_filters(), &number_filters(), &sequence_filters()})
    if (const auto known = table->find(name); known != table->end()) return &known->second;
  return nullptr;
}

}  // namespace

bool has_filter(const std::string& name) { return find_filter(name) != nullptr; }

Value apply_filter(Interpreter& interpreter, const std::string& name, const Value& input, const Arguments& arguments) {
  const Filter* filter = find_filter(name);
  if (filter == nullptr && name == "random")
    fail("the filter 'random' is refused: a prompt must not differ from run to run");
  if (filter == nullptr) fail("unknown filter '{}'", name);
  interpreter.budget().charge(1);
  if (input.is_text()) interpreter.budget().charge_text(input.text().size());  // most filters read it
  return (*filter)(interpreter, input, arguments);
}

}  // namespace nibble::jinja
