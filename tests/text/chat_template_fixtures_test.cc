// Published chat templates against the renderer that their models were trained with.
#include <ctime>

#include <gtest/gtest.h>

#include "base/error.h"
#include "text/chat_template.h"
#include "text/files.h"

namespace nibble {
namespace {

const std::filesystem::path kTemplates = std::filesystem::path(NIBBLE_FIXTURES) / "chat_templates";

// Puts `date` in the place of the first thing that looks like a date: yyyy-mm-dd.
std::string with_date(std::string text, const std::string& date) {
  for (size_t i = 0; i + 10 <= text.size(); i++) {
    const auto looks_right = [&](size_t j) {
      return j == 4 || j == 7 ? text[i + j] == '-' : std::isdigit(text[i + j]) != 0;
    };
    size_t j = 0;
    while (j < 10 && looks_right(j)) j++;
    if (j == 10) return text.replace(i, 10, date);
  }
  return text;
}

TEST(ChatTemplateFixtures, EveryGolden) {
  if (!have_fixtures(kTemplates)) return;
  const auto goldens = parse_ordered_json(read_text_file(kTemplates / "golden.json"));
  EXPECT_EQ(goldens.size(), 66u);
  for (const auto& golden : goldens) {
    SCOPED_TRACE(golden["template"].get<std::string>() + " " + golden["case"].get<std::string>());
    const ChatTemplate chat_template(read_text_file(kTemplates / golden["template"].get<std::string>()));
    const ChatMessages chat{golden["messages"], golden["tools"], golden["variables"], golden["add_generation_prompt"]};
    if (golden.contains("error")) {
      auto message = golden["error"].get<std::string>();
      message = message.substr(message.find(": ") + 2);
      try {
        chat_template.render(chat);
        ADD_FAILURE() << "rendered, but should fail with: " << message;
      } catch (const InputError& error) {
        EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
      }
      continue;
    }
    auto rendered = chat_template.render(chat), expected = golden["rendered"].get<std::string>();
    if (golden.value("uses_clock", false)) {
      rendered = with_date(rendered, "DATE");
      expected = with_date(expected, "DATE");
    }
    EXPECT_EQ(rendered, expected);
  }
}

}  // namespace
}  // namespace nibble
