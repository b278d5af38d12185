// Faults of single safetensors files; folders are in open_test.cc, what is right in the writer's tests.
#include "checkpoint/safetensors.h"

#include "checkpoint/test_files.h"

namespace nibble {
namespace {

std::string file_of(std::string_view header, std::string_view data) {
  return raw<uint64_t>(header.size()).append(header).append(data);
}

std::string fault(const std::string& file) {
  auto message = error_of([&] { parse_safetensors(as_bytes(file), "m.safetensors"); });
  EXPECT_TRUE(message.starts_with("m.safetensors: ")) << message;
  return message;
}

std::string fault(std::string_view header, std::string_view data) { return fault(file_of(header, data)); }

TEST(Safetensors, ReadsValuesShapesAndScalars) {
  const auto file = file_of(
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"U8","shape":[2,2],"data_offsets":[0,4]},)"
      R"("a":{"dtype":"F8_E4M3","shape":[],"data_offsets":[4,5]},"none":{"dtype":"F32","shape":[3,0],"data_offsets":[5,5]}}   )",
      "wxyz!");
  const auto tensors = parse_safetensors(as_bytes(file), "m");
  ASSERT_EQ(tensors.size(), 3u);
  EXPECT_EQ(tensors[0].name, "b");
  EXPECT_EQ(tensors[0].dtype, DType::u8);
  EXPECT_EQ(tensors[0].shape, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(as_text(tensors[0].bytes), "wxyz");
  EXPECT_EQ(tensors[1].name, "a");
  EXPECT_EQ(tensors[1].dtype, DType::f8_e4m3);
  EXPECT_TRUE(tensors[1].shape.empty());
  EXPECT_EQ(as_text(tensors[1].bytes), "!");
  EXPECT_EQ(tensors[2].shape, (std::vector<int64_t>{3, 0}));
  EXPECT_TRUE(parse_safetensors(as_bytes(file_of("{}", "")), "m").empty());
}

TEST(Safetensors, HeadersThatLie) {
  expect_parts(fault("1234567"), {"7 bytes", "8"});
  expect_parts(fault(raw<uint64_t>(100) + "{}"), {"100 bytes", "2 follow"});
  expect_parts(fault(raw<uint64_t>(~uint64_t{0}) + "{}"), {"18446744073709551615", "2 follow"});
  expect_parts(fault("{\"a\":", ""), {"header: not valid JSON at byte 6"});
  expect_parts(fault("", ""), {"header: not valid JSON"});
  expect_parts(fault("[]", ""), {"header: a JSON array", "object expected"});
  expect_parts(fault("{\"a\":\"\xff\"}", ""), {"header: not valid JSON"});
  expect_parts(fault(R"({"a":1e999})", ""), {"header: not valid JSON"});
  expect_parts(fault(std::string(100000, '['), ""), {"header: JSON nested 65 deep", "64"});
  std::string many = "[0";
  for (int i = 0; i < 1 << 22; i++) many += ",0";
  expect_parts(fault(many, ""), {"header: more than 4194304 JSON values"});
}

TEST(Safetensors, EntriesThatLie) {
  expect_parts(fault(R"({"a":3})", ""), {"tensor a: ", "JSON number", "object expected"});
  expect_parts(fault(R"({"a":{"shape":[],"data_offsets":[0,1]}})", "x"), {"tensor a: ", "\"dtype\""});
  expect_parts(fault(R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", "x"), {"tensor a: ", "\"shape\""});
  expect_parts(fault(R"({"a":{"dtype":"U8","shape":[]}})", "x"), {"tensor a: ", "\"data_offsets\""});
  expect_parts(fault(R"({"a":{"dtype":8,"shape":[],"data_offsets":[0,1]}})", "x"),
               {"tensor a: ", "\"dtype\"", "number"});
  expect_parts(fault(R"({"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}})", "x"), {"tensor a: dtype F4 "});
  expect_parts(fault(R"({"a":{"dtype":"MXFP4","shape":[32],"data_offsets":[0,1]}})", "x"), {"tensor a: dtype MXFP4 "});
  expect_parts(fault(R"({"a":{"dtype":"U8","shape":1,"data_offsets":[0,1]}})", "x"), {"tensor a: \"shape\"", "array"});
  expect_parts(fault(R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", "x"),
               {"tensor a: \"shape\" holds -1"});
  expect_parts(fault(R"({"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}})", "x"), {"\"shape\" holds 1.5"});
  expect_parts(fault(R"({"a":{"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,1]}})", "x"),
               {"\"shape\" holds 9223372036854775808"});
  expect_parts(fault(R"({"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", "x"),
               {"tensor a: shape [4294967296, 4294967296]"});
  expect_parts(fault(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}})", "x"), {"tensor a: ", "[1, 0]"});
  expect_parts(fault(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", "x"), {"tensor a: ", "[0]"});
  expect_parts(fault(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", "xyz"),
               {"tensor a: ", "byte 4", "3 bytes"});
  expect_parts(fault(R"({"a":{"dtype":"F16","shape":[3],"data_offsets":[0,4]}})", "wxyz"),
               {"tensor a: 4 bytes", "F16 [3] has 6"});
}

TEST(Safetensors, RangesThatOverlapOrLeaveHoles) {
  const auto two = [](int begin, int end) {
    return fmt::format(R"({{"a":{{"dtype":"U8","shape":[2],"data_offsets":[0,2]}},)"
                       R"("b":{{"dtype":"U8","shape":[2],"data_offsets":[{},{}]}}}})",
                       begin, end);
  };
  expect_parts(fault(two(1, 3), "xyz"), {"tensor b: ", "byte 1", "a ends at byte 2", "overlap"});
  expect_parts(fault(two(0, 2), "xy"), {"tensor b: ", "byte 0", "a ends at byte 2"});
  expect_parts(fault(two(3, 5), "vwxyz"), {"tensor b: ", "byte 3", "a ends at byte 2", "between"});
  expect_parts(fault(two(2, 4), "vwxyz"), {"4 bytes of data", "has 5"});
  EXPECT_EQ(parse_safetensors(as_bytes(file_of(two(2, 4), "wxyz")), "m").size(), 2u);
}

TEST(Safetensors, ATensorThatIsThereTwice) {
  expect_parts(fault(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                     R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                     "xy"),
               {"header: ", "\"a\" is there twice"});
}

}  // namespace
}  // namespace nibble
