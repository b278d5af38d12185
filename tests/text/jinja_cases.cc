// Renders cases for tools/jinja_differential.py. Each line of standard input is a JSON object: template, and as far as
// it has them messages, tools, documents, variables and add_generation_prompt. The answer is a line with rendered or error.
#include <iostream>
#include <string>

#include "base/error.h"
#include "text/chat_template.h"

int main() {
  using nlohmann::ordered_json;
  for (std::string line; std::getline(std::cin, line);) {
    const auto given = nibble::parse_ordered_json(line);
    const auto value = [&](const char* key, const ordered_json& fallback) {
      return given.contains(key) ? given.at(key) : fallback;
    };
    ordered_json answer;
    try {
      const nibble::ChatTemplate chat_template(given.at("template").get<std::string>());
      answer["rendered"] = chat_template.render({.messages = value("messages", ordered_json::array()),
                                                 .tools = value("tools", nullptr),
                                                 .variables = value("variables", nullptr),
                                                 .add_generation_prompt = value("add_generation_prompt", false),
                                                 .documents = value("documents", nullptr)});
    } catch (const nibble::InputError& error) {
      answer["error"] = error.what();
    }
    std::cout << answer.dump() << '\n';
  }
  return 0;
}
