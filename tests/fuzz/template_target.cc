#include "checkpoint/json_file.h"
#include "fuzz/targets.h"
#include "text/chat_template.h"

namespace nibble {

namespace {

using Json = nlohmann::ordered_json;

const Json& usual_messages() {
  static const Json messages = parse_ordered_json(R"({
    "messages": [
      {"role": "system", "content": "Be brief."},
      {"role": "user", "content": [{"type": "text", "text": "What time is it?"}]},
      {"role": "assistant", "content": "", "reasoning_content": "A tool.",
       "tool_calls": [{"id": "1", "type": "function", "function": {"name": "clock", "arguments": {"zone": "UTC", "n": 1.5}}}]},
      {"role": "tool", "tool_call_id": "1", "name": "clock", "content": "12:00"}],
    "tools": [{"type": "function", "function": {"name": "clock", "description": "The time", "parameters":
      {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}}}],
    "variables": {"bos_token": "<s>", "eos_token": "</s>", "enable_thinking": true}})");
  return messages;
}

}  // namespace

void fuzz_template(Bytes bytes) {
  const Files files = split_files(bytes);
  input_error_of("", [&] {
    Json given = usual_messages();
    if (const auto text = file_or_empty(files, "messages.json"); !text.empty())
      given = parse_json_object(text, "messages.json", RepeatedKeys::last_wins);
    const auto value = [&](const char* key) { return given.contains(key) ? given.at(key) : Json(); };
    const auto named = file_or_empty(files, "template");
    const ChatTemplate parsed(files.contains("template") ? named : file_or_empty(files, ""));
    parsed.render({.messages = value("messages"),
                   .tools = value("tools"),
                   .variables = value("variables"),
                   .add_generation_prompt = value("add_generation_prompt") != false});
  });
}

}  // namespace nibble
