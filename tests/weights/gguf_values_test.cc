// The types that gguf-py does not write: all codes, scales and minima (tools/make_gguf_values.py), with its values.
#include <filesystem>

#include <gtest/gtest.h>

#include "memory_checkpoint.h"

namespace nibble {
namespace {

TEST(GgufValues, AreThoseOfGgufPy) {
  const auto path = std::filesystem::path(NIBBLE_TEST_DATA) / "gguf_values.gguf";
  const auto checkpoint = std::make_shared<const Checkpoint>(open_checkpoint(path));
  const auto source = make_importer(checkpoint);
  struct Case {
    const char* name;
    FormatId format;
    int64_t K;
  };
  for (const auto& [name, format, K] :
       {Case{"q5_0", FormatId::q5_0, 64}, Case{"q5_1", FormatId::q5_1, 64}, Case{"q4_k", FormatId::q4_k, 512},
        Case{"q5_k", FormatId::q5_k, 512}, Case{"q6_k", FormatId::q6_k, 512}, Case{"iq4_nl", FormatId::iq4_nl, 64}}) {
    SCOPED_TRACE(name);
    const CanonicalWeight weight = source->read({.name = {"", name}, .N = 32, .K = K});
    EXPECT_EQ(weight.format, format);
    const std::vector<float> values = decoded(weight);
    const Tensor* expected = checkpoint->find(std::string(name) + ".values");
    ASSERT_NE(expected, nullptr);
    ASSERT_EQ(expected->bytes.size(), values.size() * sizeof(float));
    for (size_t i = 0; i < values.size(); i++)
      ASSERT_EQ(values[i], load_unaligned<float>(expected->bytes.data() + 4 * i)) << i;
  }
}

}  // namespace
}  // namespace nibble
