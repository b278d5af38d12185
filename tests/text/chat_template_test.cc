#include "text/chat_template.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "text/files.h"

namespace nibble {
namespace {

using nlohmann::ordered_json;

std::string render(const std::string& source, const ordered_json& variables = nullptr) {
  return ChatTemplate(source).render({ordered_json::array(), nullptr, variables, false});
}

std::string error_of(const std::string& source, const ordered_json& variables = nullptr) {
  try {
    return "rendered: " + render(source, variables).substr(0, 200);
  } catch (const InputError& error) {
    return error.what();
  }
}

// Templates over all constructs, and random ones that combine them.
TEST(ChatTemplate, EveryGoldenRendersAsInJinja) {
  for (const char* file : {"jinja_golden.json", "jinja_random_golden.json"}) {
    const auto goldens = parse_ordered_json(read_text_file(std::filesystem::path(NIBBLE_TEST_DATA) / "text" / file));
    EXPECT_GT(goldens["cases"].size(), 80u);
    for (const auto& golden : goldens["cases"]) {
      const auto source = golden["template"].get<std::string>();
      SCOPED_TRACE(source);
      if (golden.contains("error")) {
        EXPECT_TRUE(error_of(source, goldens["variables"]).starts_with("chat template, line ")) << golden["error"];
      } else {
        EXPECT_EQ(render(source, goldens["variables"]), golden["rendered"].get<std::string>());
      }
    }
  }
}

TEST(ChatTemplate, SeesMessagesToolsAndVariables) {
  const ChatTemplate chat_template(
      "{{ bos }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{{ tools is none }}{{ documents is "
      "none }}"
      "{% if add_generation_prompt %}>{% endif %}");
  const ordered_json messages = {{{"role", "user"}, {"content", "hi"}}};
  EXPECT_EQ(chat_template.render({messages, nullptr, {{"bos", "<s>"}}, true}), "<s>[user]hiTrueTrue>");
  EXPECT_EQ(chat_template.render({messages, ordered_json::array({{{"name", "f"}}}), nullptr, false}),
            "[user]hiFalseTrue");
}

TEST(ChatTemplate, ReasoningHasBothOfItsNames) {
  const ChatTemplate chat_template("{{ messages[0].thinking }}/{{ messages[0].reasoning_content }}");
  for (const char* name : {"reasoning", "thinking", "reasoning_content"})
    EXPECT_EQ(chat_template.render({{{{"role", "assistant"}, {name, "why"}}}, nullptr, nullptr, false}), "why/why");
}

TEST(ChatTemplate, ErrorsNameTheLine) {
  EXPECT_EQ(error_of("a\nb\n{{ raise_exception('no ' ~ 1) }}"), "chat template, line 3: no 1");
  EXPECT_EQ(error_of("\n{{ x.y }}"), "chat template, line 2: 'x' is undefined");
  EXPECT_EQ(error_of("{{ d.x.y }}", {{"d", {{"k", 1}}}}), "chat template, line 1: 'dict object' has no attribute 'x'");
  EXPECT_EQ(error_of("\n\n{% if x %}"), "chat template, line 3: the template ends, {% endif %} expected");
  EXPECT_EQ(error_of("\n{{ 1 +\n }}"), "chat template, line 3: '}}', an expression expected");
  EXPECT_EQ(error_of("{{ 'a' | nope }}"), "chat template, line 1: unknown filter 'nope'");
  EXPECT_EQ(error_of("\n{{ 'a'"), "chat template, line 2: a tag is not closed; }} expected");
  EXPECT_EQ(error_of("{% include 'x' %}"),
            "chat template, line 1: 'include' is not supported: a chat template stands alone; write its text here");
}

TEST(ChatTemplate, WrongInputIsNamed) {
  const ChatTemplate chat_template("x");
  EXPECT_THROW(chat_template.render({nullptr, nullptr, nullptr, false}), InputError);
  EXPECT_THROW(chat_template.render({{1, 2}, nullptr, nullptr, false}), InputError);
  EXPECT_THROW(chat_template.render({ordered_json::array(), nullptr, {1}, false}), InputError);
  EXPECT_EQ(error_of("x", {{"n", UINT64_MAX}}),
            "chat template, line 1: the input has the number 18446744073709551615, which does not fit a signed 64-bit "
            "integer");
  ordered_json deep = 1;
  for (int i = 0; i < 1000; i++) deep = ordered_json::array({std::move(deep)});
  EXPECT_NE(error_of("x", {{"deep", deep}}).find("nested more than"), std::string::npos);
  EXPECT_EQ(render("{{ s }}\xFF", {{"s", "a\xFF"}}), "a\xEF\xBF\xBD\xEF\xBF\xBD");
}

// A template that would take all time, memory or stack ends with an error.
TEST(ChatTemplate, HostileTemplatesEnd) {
  const std::string loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
  const auto repeat = [](const std::string& text, int count) {
    std::string all;
    for (int i = 0; i < count; i++) all += text;
    return all;
  };
  const std::string hostile[] = {
      loops,
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
      "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
      "{% set ns = namespace(x=[1]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}",
      "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
      ("{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{% set m = "
       "namespace(x=[1]) %}{% for i in range(60) %}{% set m.x = [m.x, m.x] %}{% endfor %}{{ n.x == m.x }}"),
      "{{ 'a' * 99999999999 }}",
      "{{ [1] * 99999999999 }}",
      "{{ range(999999999) }}",
      "{{ 'a' | center(999999999) }}",
      "{{ ('a' * 60000000).replace('a', 'aaaaaaaaaa') }}",
      "{{ '%999999999d' % 1 }}",
      "{{ 9223372036854775807 + 1 }}",
      "{{ 10 ** 30 }}",
      "{{ '{:999999999}'.format(1) }}",
      "{{ '{:.999999999f}'.format(1.5) }}",
      "{{ '%*d' % (999999999, 1) }}",
      "{{ 'x' | indent(999999999) }}",
      "{{ [1] | batch(999999999, 0) | list }}",
      "{{ [1] | slice(999999999) | list }}",
      "{{ ('a\\t' * 999999).expandtabs(1000) }}",
      repeat("(", 100000),
      "{{ " + repeat("(", 100000) + repeat(")", 100000) + " }}",
      "{{ " + repeat("[", 1000) + repeat("]", 1000) + " }}",
      "{{ " + repeat("not ", 100000) + "x }}",
      "{{ " + repeat("-", 100000) + "1 }}",
      "{{ 1" + repeat(" + 1", 100000) + " }}",
      "{{ x" + repeat(".a", 100000) + " }}",
      "{{ x" + repeat("|e", 100000) + " }}",
      "{{ 1" + repeat(" if 1 else 1", 50000) + " }}",
      repeat("{% if 1 %}", 20000),
      "{% set " + repeat("(", 100000) + "x = 1 %}",
      repeat("{% for a in [1] %}", 200) + repeat("{% endfor %}", 200),
      "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
  };
  for (const std::string& source : hostile) {
    const std::string error = error_of(source);
    const bool is_text = source.starts_with("((");
    EXPECT_EQ(error.starts_with("chat template, line "), !is_text) << source.substr(0, 100) << "\n" << error;
  }
  // A namespace that holds itself neither leaks nor hangs.
  EXPECT_EQ(render("{% set ns = namespace() %}{% set ns.self = ns %}{{ ns.self.self.x is defined }}"), "False");
  EXPECT_NE(error_of("{% set ns = namespace() %}{% set ns.self = ns %}{{ ns }}").find("nested"), std::string::npos);
}

// Reading a long text counts by its length, wherever it happens, and so does looking through a dict's keys.
TEST(ChatTemplate, ScansAreSteps) {
  const std::string limit = "chat template, line 1: the template takes too many steps (limit 2000000)";
  // Leaves some 200 000 steps; s takes 3126 to read.
  const std::string text = "{% set used = 'a' * 1000 * 28000 %}{% set s = 'ab' * 1000 * 100 %}";
  const auto loop = [](int count, const std::string& body) {
    return "{% for i in range(" + std::to_string(count) + ") %}" + body + "{% endfor %}";
  };
  for (const std::string expression :
       {"s | length", "s.split('c')", "s.startswith('b')", "s.partition('c')", "s.zfill(1)", "s is lower",
        "s is filter", "s is test", "[s] | unique", "s[9999999]", "'%.1s' % s", "'{:.1}'.format(s)", "{'k': 1}[s]"}) {
    const std::string step = "{% set n = " + expression + " %}";
    EXPECT_EQ(error_of(text + step), "rendered: ") << expression;
    EXPECT_EQ(error_of(text + loop(100, step)), limit) << expression;
  }
  EXPECT_EQ(error_of(text + loop(100, "{% set n = s is string and s is defined %}")), "rendered: ");  // reads nothing
  EXPECT_EQ(error_of("{{ ('a' * 100000).strip('b' * 100000) }}"), limit);
  // A long text that is nearly found at each place.
  const std::string near = "{% set s = 'a' * 400000 %}{% set t = 'a' * 40000 + 'b' %}";
  for (const std::string expression :
       {"t in s", "s.find(t)", "s.rfind(t)", "s.count(t)", "s.split(t)", "s.partition(t)", "s.replace(t, '')"}) {
    EXPECT_EQ(error_of(near + "{% set n = " + expression + " %}"), limit) << expression;
  }
  EXPECT_EQ(error_of("{% set d = dict(range(10000) | batch(2)) %}"), limit);
  const std::string dict = "{% set d = dict(range(2000) | batch(2)) %}";
  for (const std::string expression : {"d[1]", "d.get(1)", "1 in d"}) {
    EXPECT_EQ(error_of(dict + loop(10, "{% set n = " + expression + " %}")), "rendered: ") << expression;
    EXPECT_EQ(error_of(dict + loop(3000, "{% set n = " + expression + " %}")), limit) << expression;
  }
}

// Whatever holds values, a chain of it that is freed by recursion must not be long.
TEST(ChatTemplate, ChainsOfValuesAreBounded) {
  for (const std::string link :
       {"[ns.x]", "{1: ns.x}", "joiner(ns.x)", "cycler(ns.x)", "cycler(ns.x).next", "[ns.x].count"}) {
    const std::string source =
        "{% set ns = namespace(x=1) %}{% for i in range(50000) %}{% set ns.x = " + link + " %}{% endfor %}";
    EXPECT_EQ(error_of(source), "chat template, line 1: values are nested more than 100 deep") << link;
  }
  EXPECT_EQ(error_of("{% set ns = namespace(x=1) %}{% for i in range(50000) %}{% for y in [ns.x] %}{% set ns.x = loop "
                     "%}{% endfor %}{% endfor %}"),
            "chat template, line 1: values are nested more than 100 deep");
  // The deepest dict has methods, and can be looped over.
  EXPECT_EQ(render("{% set ns = namespace(x=1) %}{% for i in range(100) %}{% set ns.x = {'k': ns.x} %}{% endfor %}{{ "
                   "ns.x.keys() | list }}{% for k in ns.x %}{{ k }}{% endfor %}"),
            "['k']k");
}

TEST(ChatTemplate, WhatALoopRemembersEndsWithIt) {
  EXPECT_EQ(render("{% for x in [1, 1, 2] %}{% set f = loop.changed %}{{ f(x) }} {% endfor %}"), "True False True ");
  // It may hold its function, or itself, and still goes away.
  EXPECT_EQ(render("{% for x in [1] %}{{ loop.changed(loop, loop.changed) }}{% endfor %}"), "True");
  const std::string ended = "chat template, line 1: loop.changed is called after the end of its loop";
  EXPECT_EQ(error_of("{% set ns = namespace() %}{% for x in [1] %}{% set ns.f = loop.changed %}{% endfor %}{{ ns.f(2) "
                     "}}"),
            ended);
  EXPECT_EQ(error_of("{% set ns = namespace() %}{% for x in [1] %}{% set ns.loop = loop %}{% endfor %}{{ "
                     "ns.loop.changed(2) }}"),
            ended);
}

TEST(ChatTemplate, AnyDamageToATemplateIsAnErrorOrRenders) {
  const std::string source =
      "{% macro m(a, b=[1, 2]) -%}{{ a | join(', ') }}{% endmacro %}{% for x in [1, 'q', {'k': 2}] if x is not none %}"
      "{{- loop.index ~ m([x]) if x else \"no\" }}{% set ns = namespace(v=-1) %}{% endfor %}{# end #}";
  uint32_t random = 7;
  const auto next = [&](uint32_t below) { return (random = random * 1664525 + 1013904223) / 65536 % below; };
  const std::string pieces[] = {"{%", "%}", "{{",  "}}", "(",  ")",  "[", "|",
                                "'",  "if", "for", "-",  "\\", "{#", ".", "is"};
  for (int trial = 0; trial < 3000; trial++) {
    std::string damaged = source;
    for (uint32_t i = next(4) + 1; i > 0; i--) {
      const size_t at = next(static_cast<uint32_t>(damaged.size()));
      if (next(2) == 0) {
        damaged.erase(at, next(6) + 1);
      } else {
        damaged.insert(at, pieces[next(std::size(pieces))]);
      }
      if (damaged.empty()) damaged = source;
    }
    error_of(damaged);  // must not crash
  }
}

}  // namespace
}  // namespace nibble
