#include "checkpoint/gguf_writer.h"

#include "checkpoint/checkpoint.h"
#include "checkpoint/test_files.h"

namespace nibble {
namespace {

constexpr DType kTypes[] = {DType::f64, DType::f32,  DType::f16,  DType::bf16, DType::i64,   DType::i32,  DType::i16,
                            DType::i8,  DType::q8_0, DType::q4_0, DType::q4_1, DType::mxfp4, DType::nvfp4};

std::vector<TensorSpec> all_gguf_kinds() {
  std::vector<TensorSpec> specs = {{"scalar", DType::f32, {}}, {"nothing", DType::i64, {3, 0}}};
  for (const auto dtype : kTypes) specs.push_back({fmt::format("t.{}", dtype_name(dtype)), dtype, {3, 64}});
  specs.push_back({"odd", DType::i8, {2, 1, 2, 3}});  // last, so that the file's end needs padding
  return specs;
}

TEST(GgufWriter, WhatIsWrittenIsRead) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "m.gguf";
  const std::vector<GgufEntry> metadata = {
      {"general.architecture", std::string("llama")},
      {"u8", uint8_t{200}},
      {"i8", int8_t{-100}},
      {"u16", uint16_t{60000}},
      {"i16", int16_t{-30000}},
      {"u32", uint32_t{4000000000}},
      {"i32", int32_t{-2000000000}},
      {"f32", 0.1f},
      {"bool", true},
      {"u64", ~uint64_t{0}},
      {"i64", int64_t{-1} << 62},
      {"f64", 0.1},
      {"tokens", GgufArray{GgufType::string, {std::string("a"), std::string("\xff")}}},
      {"nested",
       GgufArray{GgufType::array, {GgufArray{GgufType::boolean, {true, false}}, GgufArray{GgufType::i8, {}}}}},
  };
  const auto specs = all_gguf_kinds();
  GgufWriter writer(path, metadata, specs);
  for (size_t i = 0; i < specs.size(); i++) {
    const auto bytes = pattern(static_cast<uint64_t>(tensor_bytes(specs[i].dtype, specs[i].shape, "")), i);
    writer.append(specs[i].name, std::span(bytes).first(bytes.size() / 2));
    writer.append(specs[i].name, std::span(bytes).subspan(bytes.size() / 2));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  writer.finish();
  EXPECT_EQ(folder.num_files(), 1u);
  EXPECT_EQ(std::filesystem::file_size(path) % 32, 0u);

  const auto checkpoint = open_checkpoint(path);
  EXPECT_EQ(checkpoint.container, Container::gguf);
  const auto& config = checkpoint.config;
  EXPECT_EQ(config.size(), metadata.size());
  EXPECT_EQ(config["general.architecture"], "llama");
  EXPECT_EQ(config["u8"], 200);
  EXPECT_EQ(config["i8"], -100);
  EXPECT_EQ(config["u16"], 60000);
  EXPECT_EQ(config["i16"], -30000);
  EXPECT_EQ(config["u32"], 4000000000);
  EXPECT_EQ(config["i32"], -2000000000);
  EXPECT_EQ(config["f32"].get<float>(), 0.1f);
  EXPECT_EQ(config["bool"], true);
  EXPECT_EQ(config["u64"], ~uint64_t{0});
  EXPECT_EQ(config["i64"], int64_t{-1} << 62);
  EXPECT_EQ(config["f64"].get<double>(), 0.1);
  EXPECT_EQ(config["tokens"][1].get<std::string>(), "\xff");
  EXPECT_EQ(config["nested"], parse_json("[[true, false], []]"));

  EXPECT_EQ(checkpoint.tensors.size(), specs.size());
  for (size_t i = 0; i < specs.size(); i++) {
    const Tensor* tensor = checkpoint.find(specs[i].name);
    ASSERT_NE(tensor, nullptr) << specs[i].name;
    EXPECT_EQ(tensor->dtype, specs[i].dtype);
    EXPECT_EQ(tensor->shape, specs[i].shape);
    EXPECT_EQ(as_text(tensor->bytes), as_text(pattern(tensor->bytes.size(), i)));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor->bytes.data()) % 32, 0u);
  }
}

TEST(GgufWriter, RefusesWhatWouldNotBeRead) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "m.gguf";
  const auto fault = [&](const std::vector<GgufEntry>& metadata, std::vector<TensorSpec> specs) {
    auto message = error_of([&] { GgufWriter(path, metadata, specs); });
    EXPECT_TRUE(message.starts_with(path.string() + ": ")) << message;
    return message;
  };
  expect_parts(fault({{"k", 1.0f}, {"k", 2.0f}}, {}), {"metadata k: ", "twice"});
  expect_parts(fault({{"general.alignment", uint32_t{8}}}, {}), {"metadata general.alignment: "});
  expect_parts(fault({{"k", GgufArray{GgufType::u8, {uint8_t{1}, 2.0f}}}}, {}), {"metadata k: ", "type 6", "type 0"});
  expect_parts(fault({}, {{"a", DType::u8, {3}}}), {"tensor a: type U8"});
  expect_parts(fault({}, {{"a", DType::q8_0, {3}}}), {"tensor a: shape [3]"});
  expect_parts(fault({}, {{"a", DType::f32, {1, 1, 1, 1, 1}}}), {"tensor a: ", "5 dimensions", "4"});
  expect_parts(fault({}, {{"a", DType::f32, {3}}, {"a", DType::f32, {3}}}), {"tensor a: ", "twice"});

  GgufWriter writer(path, {}, {{"a", DType::i8, {3}}});
  writer.append("a", as_bytes("xy"));
  expect_parts(error_of([&] { writer.finish(); }), {path.string(), "tensor a: 2 bytes given, 3 expected"});
}

TEST(GgufWriter, GivenUpItLeavesNothing) {
  const TemporaryFolder folder;
  { GgufWriter(folder.path() / "m.gguf", {}, {{"a", DType::i8, {3}}}).append("a", as_bytes("xyz")); }
  EXPECT_EQ(folder.num_files(), 0u);
}

}  // namespace
}  // namespace nibble
