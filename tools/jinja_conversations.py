"""Conversations for real chat templates: everything that templates of published models ask for."""

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "Weather in a city,\n<now> & \"soon\"", "parameters": {
        "type": "object", "properties": {
            "city": {"type": "string", "description": "The city's name"},
            "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
            "days": {"type": ["integer", "null"], "minimum": 1},
            "where": {"anyOf": [{"type": "string"}, {"type": "number"}]},
            "places": {"type": "array", "items": {"type": "object", "properties": {"lat": {"type": "number"}},
                                                  "required": ["lat"]}}},
        "required": ["city"]}, "return": {"type": "string"}}},
    {"type": "function", "function": {"name": "ping", "description": "", "parameters": {"type": "object", "properties": {}}}},
]

USER = {"role": "user", "content": "What's the weather in Zürich? 😀\n"}
SYSTEM = {"role": "system", "content": "You are brief.  "}
ANSWER = {"role": "assistant", "content": "It is sunny."}


def call(arguments, id="call_1abc2def", content="", **more):
    return {"role": "assistant", "content": content, **more, "tool_calls": [
        {"id": id, "type": "function", "function": {"name": "get_weather", "arguments": arguments}}]}


ARGUMENTS = {"city": "Zürich", "days": 2, "where": 1.5, "places": [{"lat": 47.4}], "unit": None, "deep": {"a": [True]}}
RESULT = {"role": "tool", "tool_call_id": "call_1abc2def", "name": "get_weather", "content": '{"temperature": 21.5}'}
TWO_CALLS = {"role": "assistant", "content": "Let me see.", "tool_calls": [
    {"id": "abcdefgh1", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Bern"}}},
    {"id": "abcdefgh2", "type": "function", "function": {"name": "ping", "arguments": {}}}]}
TWO_RESULTS = [{"role": "tool", "tool_call_id": "abcdefgh1", "name": "get_weather", "content": "rain"},
               {"role": "tool", "tool_call_id": "abcdefgh2", "name": "ping", "content": [{"type": "text", "text": "pong"}]}]
PARTS = {"role": "user", "content": [{"type": "text", "text": "Look: "}, {"type": "image", "image": "x.png"},
                                     {"type": "image_url", "image_url": {"url": "y.png"}}, {"type": "text", "text": "what?"}]}

CHATS = [
    [USER], [SYSTEM, USER], [SYSTEM, USER, ANSWER, USER], [USER, ANSWER, USER, ANSWER, {"role": "user", "content": "Bye"}], [],
    [USER, ANSWER], [USER, USER], [SYSTEM], [{"role": "developer", "content": "Be kind."}, USER],
    [PARTS], [SYSTEM, PARTS, ANSWER, PARTS], [{"role": "system", "content": [{"type": "text", "text": "In parts."}]}, USER],
    [USER, call(ARGUMENTS), RESULT], [USER, call('{"city": "Zürich"}'), RESULT, ANSWER, USER], [USER, call(ARGUMENTS, id="123456789"), {**RESULT, "tool_call_id": "123456789"}, ANSWER],
    [SYSTEM, USER, TWO_CALLS, *TWO_RESULTS], [USER, call(ARGUMENTS, content=None), RESULT, ANSWER, USER], [USER, call(ARGUMENTS)],
    [USER, {**ANSWER, "reasoning_content": "Sun.\nClear sky."}, USER], [USER, call(ARGUMENTS, reasoning_content="Ask."), RESULT, {**ANSWER, "thinking": "Done."}],
    [USER, {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nSun."}, USER], [USER, {"role": "assistant", "content": "[THINK]Hm.[/THINK]Sun."}, USER],
    [{"role": "user", "content": "/no_think Hi"}], [{"role": "system", "content": "/think  Be x."}, USER], [{"role": "user", "content": ""}],
    [{"role": "critic", "content": "odd role"}], [USER, {"role": "assistant"}], [{"role": "user", "content": None}], [{"role": "user"}],
    [USER, {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Sun."}]}, USER],
    [{"role": "system", "content": "x" * 300}, *([USER, ANSWER] * 6), USER],
]

VARIABLES = [
    {"bos_token": "<s>", "eos_token": "</s>"},
    {"bos_token": "<|begin|>", "eos_token": "<|end|>", "pad_token": "<pad>", "unk_token": "<unk>", "enable_thinking": False,
     "thinking": False, "reasoning_effort": "low", "date_string": "26 Jul 2024", "builtin_tools": ["browser"], "tools_in_user_message": False,
     "documents": [{"title": "A", "text": "B é", "contents": "C"}], "add_vision_id": True, "preserve_thinking": True},
    {"bos_token": "", "eos_token": "", "enable_thinking": True, "thinking": True, "reasoning_effort": "high", "add_default_system_prompt": True,
     "model_identity": "You are N.", "custom_tools": TOOLS, "keep_all_reasoning": True, "clear_thinking": False, "continue_final_message": True},
]


def cases():
    for messages in CHATS:
        for tools in (None, TOOLS):
            for number, variables in enumerate(VARIABLES):
                yield {"messages": messages, "tools": tools, "add_generation_prompt": number != 1, "variables": variables}
