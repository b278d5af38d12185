// The fuzzing targets over their checked-in inputs: seeds, and whatever once did harm. Without libFuzzer, so that every
// build runs them.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "fuzz/targets.h"

namespace nibble {
namespace {

class FuzzCorpus : public testing::TestWithParam<FuzzTarget> {};

TEST_P(FuzzCorpus, DoesNoHarm) {
  int count = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(NIBBLE_FUZZ_CORPUS) / GetParam().name)) {
    std::printf("%s\n", entry.path().filename().c_str());  // the last one, if the program does not return
    std::fflush(stdout);
    std::ifstream file(entry.path(), std::ios::binary);
    const std::vector<uint8_t> bytes{std::istreambuf_iterator<char>(file), {}};  // of its size to the byte
    GetParam().run(bytes);
    count++;
  }
  EXPECT_GE(count, 2);
}

INSTANTIATE_TEST_SUITE_P(All, FuzzCorpus, testing::ValuesIn(fuzz_targets().begin(), fuzz_targets().end()),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(FuzzInputs, AreFilesAgain) {
  const Files files = {{"a", "1\n"}, {"b", ""}, {"c.json", "{}\n@ @"}};
  const std::string joined = join_files(files);
  EXPECT_EQ(split_files({reinterpret_cast<const uint8_t*>(joined.data()), joined.size()}), files);
}

TEST(FuzzInputs, TheSameStateDamagesAlike) {
  const Files files = {{"config.json", R"({"a": [1, 2, {"b": "c"}]})"}, {"model.gguf", "GGUF"}};
  std::set<std::string> damages;
  for (uint64_t seed = 0; seed < 200; seed++) {
    Files once = files, twice = files;
    Random first(seed), second(seed);
    const std::string what = damage_files(once, first);
    EXPECT_EQ(what, damage_files(twice, second));
    EXPECT_EQ(once, twice);
    damages.insert(what);
  }
  EXPECT_GT(damages.size(), 60u);
}

}  // namespace
}  // namespace nibble
