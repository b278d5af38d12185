#include "base/error.h"

#include <gtest/gtest.h>

#include "base/naming.h"

namespace nibble {
namespace {

template <class Work>
std::string message_of(Work work) {
  try {
    work();
  } catch (const InputError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(InputError, QuotesNamesFromFilesWithoutTheirControlCharacters) {
  const std::string name("a\0b\x1b[2Jc\x7f é\n\td", 15);
  EXPECT_EQ(message_of([&] { throw_input_error("file: {} is bad", name); }),
            "file: a\\x00b\\x1B[2Jc\\x7F é\n\td is bad");
}

TEST(RunError, QuotesNamesWithoutTheirControlCharacters) {
  try {
    throw_run_error("{}: cannot be written", "a\x1b[2J");
  } catch (const RunError& error) {
    EXPECT_STREQ(error.what(), "a\\x1B[2J: cannot be written");
  }
}

TEST(InputError, GetsTheNameThatOnlyTheCallerKnows) {
  EXPECT_EQ(message_of([] { naming("file", [] { throw_input_error("key is {}", 1); }); }), "file: key is 1");
  EXPECT_EQ(naming("file", [] { return 7; }), 7);
  EXPECT_THROW(naming("file", [] { throw_run_error("not the file's fault"); }), RunError);
}

}  // namespace
}  // namespace nibble
