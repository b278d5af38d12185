// Files made by hand: every kind of metadata, and every fault. Round trips are in the writer's tests.
#include "checkpoint/gguf.h"

#include "checkpoint/test_files.h"

namespace nibble {
namespace {

std::string text(std::string_view value) { return raw<uint64_t>(value.size()).append(value); }

std::string entry(std::string_view key, GgufType type, std::string_view value) {
  return text(key) + raw(type) + std::string(value);
}

std::string array(GgufType type, uint64_t count, std::string_view values) {
  return raw(type) + raw(count) + std::string(values);
}

// `shape` is innermost first, as in the file.
std::string tensor(std::string_view name, std::initializer_list<int64_t> shape, uint32_t type, uint64_t offset) {
  std::string out = text(name) + raw(static_cast<uint32_t>(shape.size()));
  for (const auto size : shape) out += raw(size);
  return out + raw(type) + raw(offset);
}

std::string header(uint64_t num_tensors, uint64_t num_entries, uint32_t version = 3) {
  return "GGUF" + raw(version) + raw(num_tensors) + raw(num_entries);
}

// Pads `start` to `alignment` and adds the data.
std::string gguf_of(std::string start, std::string_view data, size_t alignment = 32) {
  start.resize((start.size() + alignment - 1) / alignment * alignment);
  return start.append(data);
}

std::string gguf_fault(const std::string& file) {
  auto message = error_of([&] { parse_gguf(as_bytes(file), "m.gguf"); });
  EXPECT_TRUE(message.starts_with("m.gguf: ")) << message;
  return message;
}

TEST(Gguf, MetadataOfEveryType) {
  const auto strings = text("a") + text("\xe2\x96");  // half a character, as token lists have them
  const auto nested = array(GgufType::u8, 2, "\x01\x02") + array(GgufType::boolean, 1, std::string(1, '\0'));
  const std::vector<std::string> entries = {
      entry("u8", GgufType::u8, raw<uint8_t>(200)),
      entry("i8", GgufType::i8, raw<int8_t>(-100)),
      entry("u16", GgufType::u16, raw<uint16_t>(60000)),
      entry("i16", GgufType::i16, raw<int16_t>(-30000)),
      entry("u32", GgufType::u32, raw<uint32_t>(4000000000)),
      entry("i32", GgufType::i32, raw<int32_t>(-2000000000)),
      entry("f32", GgufType::f32, raw(1e-5f)),
      entry("bool", GgufType::boolean, "\x01"),
      entry("string", GgufType::string, text("llama")),
      entry("strings", GgufType::array, array(GgufType::string, 2, strings)),
      entry("nested", GgufType::array, array(GgufType::array, 2, nested)),
      entry("empty", GgufType::array, array(GgufType::f64, 0, "")),
      entry("u64", GgufType::u64, raw(~uint64_t{0})),
      entry("i64", GgufType::i64, raw(int64_t{-1} << 62)),
      entry("f64", GgufType::f64, raw(1e-300)),
  };
  auto file = header(0, entries.size());
  for (const auto& e : entries) file += e;
  const auto metadata = parse_gguf(as_bytes(file), "m").metadata;
  EXPECT_EQ(metadata.size(), entries.size());
  EXPECT_EQ(metadata["u8"], 200);
  EXPECT_EQ(metadata["i8"], -100);
  EXPECT_EQ(metadata["u16"], 60000);
  EXPECT_EQ(metadata["i16"], -30000);
  EXPECT_EQ(metadata["u32"], 4000000000);
  EXPECT_EQ(metadata["i32"], -2000000000);
  EXPECT_EQ(metadata["f32"].get<float>(), 1e-5f);
  EXPECT_EQ(metadata["bool"], true);
  EXPECT_EQ(metadata["string"], "llama");
  EXPECT_EQ(metadata["strings"][0], "a");
  EXPECT_EQ(metadata["strings"][1].get<std::string>(), "\xe2\x96");
  EXPECT_EQ(metadata["nested"], parse_json("[[1, 2], [false]]"));
  EXPECT_EQ(metadata["empty"], nlohmann::json::array());
  EXPECT_EQ(metadata["u64"], ~uint64_t{0});
  EXPECT_EQ(metadata["i64"], int64_t{-1} << 62);
  EXPECT_EQ(metadata["f64"].get<double>(), 1e-300);
}

TEST(Gguf, TensorsTurnedRoundAndAligned) {
  for (const uint32_t version : {2, 3}) {
    const auto start = header(3, 1, version) + entry("general.alignment", GgufType::u32, raw<uint32_t>(8)) +
                       tensor("b", {3, 2}, 24, 8) + tensor("a", {}, 0, 0) + tensor("none", {0, 5}, 1, 16);
    const auto file = gguf_of(start, "abcd....uvwxyz..", 8);
    const auto contents = parse_gguf(as_bytes(file), "m");
    EXPECT_EQ(contents.tensors.size(), 3u);
    const auto& b = contents.tensors.at("b");
    EXPECT_EQ(b.dtype, DType::i8);
    EXPECT_EQ(b.shape, (std::vector<int64_t>{2, 3}));
    EXPECT_EQ(as_text(b.bytes), "uvwxyz");
    EXPECT_TRUE(contents.tensors.at("a").shape.empty());
    EXPECT_EQ(as_text(contents.tensors.at("a").bytes), "abcd");
  }
}

TEST(Gguf, HeadersThatLie) {
  expect_parts(gguf_fault(""), {"magic: 4 bytes expected at byte 0", "ends after 0"});
  expect_parts(gguf_fault("GG"), {"magic: 4 bytes expected", "ends after 2"});
  expect_parts(gguf_fault("PK\x03\x04...."), {"50 4b 03 04", "47 47 55 46"});
  expect_parts(gguf_fault("GGUF\x03"), {"version", "byte 4", "after 1"});
  expect_parts(gguf_fault(header(0, 0, 1)), {"version 1,", "2 and 3"});
  expect_parts(gguf_fault(header(0, 0, 3u << 24)), {"version 50331648 (big-endian)"});
  expect_parts(gguf_fault(header(~uint64_t{0}, 0)), {"tensors: 18446744073709551615", "0 bytes left hold at most 0"});
  expect_parts(gguf_fault(header(0, uint64_t{1} << 60) + std::string(26, 'x')),
               {"metadata entries: 1152921504606846976", "26 bytes left hold at most 2"});
}

TEST(Gguf, MetadataThatLies) {
  const auto one = [](const std::string& e) { return gguf_fault(header(0, 1) + e); };
  expect_parts(one(entry("k", GgufType{13}, "xxxxxxxx")), {"metadata k: value type 13", "12"});
  expect_parts(one(entry("k", GgufType::boolean, "\x02")), {"metadata k: boolean 2"});
  expect_parts(one(entry("k", GgufType::u64, "xxx")), {"metadata k: 8 bytes expected at byte 37", "after 3"});
  expect_parts(one(entry("k", GgufType::string, raw<uint64_t>(100) + "xx")), {"metadata k: ", "100 bytes"});
  expect_parts(one(raw<uint64_t>(70000) + std::string(70000, 'k')), {"metadata key: a string of 70000 bytes", "65535"});
  expect_parts(one(entry("k", GgufType::array, array(GgufType::u16, uint64_t{1} << 62, "xxxx"))),
               {"metadata k: 4611686018427387904", "4 bytes left hold at most 2"});
  expect_parts(one(entry("k", GgufType::array, array(GgufType{77}, 1, "xxxx"))), {"metadata k: value type 77"});
  std::string deep;
  for (int i = 0; i < 1000; i++) deep += array(GgufType::array, 1, "");
  expect_parts(one(entry("k", GgufType::array, deep)), {"metadata k: arrays nested 5 deep", "4"});

  const auto twice = entry("k", GgufType::u8, "x");
  expect_parts(gguf_fault(header(0, 2) + twice + twice), {"metadata k: is there twice"});
  const auto many = array(GgufType::u8, (1u << 24) + 1, std::string((1u << 24) + 1, 'x'));
  expect_parts(one(entry("k", GgufType::array, many)), {"metadata k: more than 8388608"});
}

TEST(Gguf, Alignments) {
  const auto aligned = [](GgufType type, const std::string& value) {
    return header(1, 1) + entry("general.alignment", type, value) + tensor("a", {1}, 24, 0) + std::string(64, 'x');
  };
  for (const uint32_t alignment : {0u, 3u, 48u})
    expect_parts(gguf_fault(aligned(GgufType::u32, raw(alignment))),
                 {fmt::format("metadata general.alignment: {},", alignment), "power of two"});
  expect_parts(gguf_fault(aligned(GgufType::string, text("32"))), {"metadata general.alignment: \"32\""});
  expect_parts(gguf_fault(aligned(GgufType::u32, raw(uint32_t{1} << 31))),
               {"tensor a: 1 bytes of data", "only 0 bytes"});
}

TEST(Gguf, TensorsThatLie) {
  const auto one = [](const std::string& info) {
    return gguf_fault(gguf_of(header(1, 0) + info, std::string(64, 'x')));
  };
  expect_parts(one(tensor("a", {1, 1, 1, 1, 1}, 0, 0)), {"tensor a: 5 dimensions", "4"});
  expect_parts(one(tensor("a", {-1}, 0, 0)), {"tensor a: shape [-1]"});
  expect_parts(one(tensor("a", {int64_t{1} << 40, int64_t{1} << 40}, 0, 0)),
               {"tensor a: shape [1099511627776, 1099511627776]"});
  expect_parts(one(tensor("a", {16, 2}, 39, 0)), {"tensor a: shape [2, 16]", "MXFP4", "32"});
  expect_parts(one(tensor("a", {256}, 10, 0)), {"tensor a: type Q2_K ", "Q4_K"});
  expect_parts(one(tensor("a", {128, 3}, 14, 0)), {"tensor a: shape [3, 128]", "Q6_K", "blocks of 256"});
  expect_parts(one(tensor("a", {256}, 12, 0)), {"tensor a: 144 bytes of data", "only 64 bytes"});
  expect_parts(one(tensor("a", {256}, 99, 0)), {"tensor a: type number 99"});
  expect_parts(one(tensor("a", {4}, 24, 8)), {"tensor a: ", "byte 8", "multiple of 32"});
  expect_parts(one(tensor("a", {65}, 24, 0)), {"tensor a: 65 bytes of data from byte 0", "64 bytes"});
  expect_parts(one(tensor("a", {1}, 24, 96)), {"tensor a: 1 bytes of data from byte 96", "64 bytes"});
  expect_parts(one(tensor("a", {1}, 24, ~uint64_t{31})), {"tensor a: ", "18446744073709551584", "64 bytes"});
  expect_parts(gguf_fault(header(1, 0) + tensor("a", {1}, 24, 0)), {"tensor a: 1 bytes of data", "only 0 bytes"});

  const auto two = [](const std::string& infos) {
    return gguf_fault(gguf_of(header(2, 0) + infos, std::string(96, 'x')));
  };
  expect_parts(two(tensor("a", {33}, 24, 0) + tensor("b", {1}, 24, 32)),
               {"tensor b: ", "byte 32", "of a ends at byte 33"});
  expect_parts(two(tensor("a", {3}, 24, 0) + tensor("a", {1}, 24, 32)), {"tensor a: is there twice"});
}

TEST(Gguf, TypeNumbers) {
  EXPECT_EQ(ggml_type(DType::f32), 0u);
  EXPECT_EQ(ggml_type(DType::bf16), 30u);
  EXPECT_EQ(ggml_type(DType::q5_0), 6u);
  EXPECT_EQ(ggml_type(DType::q5_1), 7u);
  EXPECT_EQ(ggml_type(DType::q4_k), 12u);
  EXPECT_EQ(ggml_type(DType::q5_k), 13u);
  EXPECT_EQ(ggml_type(DType::q6_k), 14u);
  EXPECT_EQ(ggml_type(DType::iq4_nl), 20u);
  EXPECT_EQ(ggml_type(DType::mxfp4), 39u);
  EXPECT_EQ(ggml_type(DType::nvfp4), 40u);
  EXPECT_EQ(ggml_type(DType::u8), std::nullopt);
}

}  // namespace
}  // namespace nibble
