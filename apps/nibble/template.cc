// nibble template: what a chat template makes of a conversation.
#include <cstdio>

#include "base/error.h"
#include "base/naming.h"
#include "base/read_file.h"
#include "checkpoint/json_file.h"
#include "commands.h"
#include "text/chat_template.h"

namespace nibble {

namespace {

struct TemplateArguments {
  std::string source, messages;
};

void render(const TemplateArguments& a) {
  const nlohmann::ordered_json json = parse_written_json(read_file(a.messages), a.messages);
  if (!json.is_object() || !json.contains("messages") || !json.at("messages").is_array())
    throw_input_error("{}: a JSON object with an array \"messages\" expected", a.messages);
  for (const nlohmann::ordered_json& message : json.at("messages"))
    if (!message.is_object())
      throw_input_error("{}: messages: {} in the list, objects expected", a.messages, message.type_name());
  const auto value = [&](const char* key, const nlohmann::ordered_json& fallback) {
    return json.contains(key) && !json.at(key).is_null() ? json.at(key) : fallback;
  };
  const nlohmann::ordered_json generation = value("add_generation_prompt", false);
  if (!generation.is_boolean())
    throw_input_error("{}: add_generation_prompt is {}; true or false expected", a.messages, generation.dump());
  const nlohmann::ordered_json variables = value("variables", nlohmann::ordered_json::object());
  if (!variables.is_object())
    throw_input_error("{}: variables: {}, an object expected", a.messages, variables.type_name());
  const std::string source = read_file(a.source);
  const std::string prompt = naming(a.source, [&] {
    return ChatTemplate(source).render({.messages = json.at("messages"),
                                        .tools = value("tools", nullptr),
                                        .variables = variables,
                                        .add_generation_prompt = generation.get<bool>(),
                                        .documents = value("documents", nullptr)});
  });
  std::fwrite(prompt.data(), 1, prompt.size(), stdout);
}

}  // namespace

void add_template_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("template", "Render a chat template");
  command->footer(
      "The JSON file has `messages` and may have `tools`, `documents`, `add_generation_prompt` and `variables` "
      "(bos_token, …).\n\n"
      "  nibble template chat_template.jinja --messages conversation.json");
  auto a = std::make_shared<TemplateArguments>();
  command->add_option("FILE", a->source, "The template, Jinja")->required();
  command->add_option("--messages", a->messages, "The conversation, JSON")->required();
  command->callback([a] { render(*a); });
}

}  // namespace nibble
