// Models in several GGUF files: what they are together, and every way in which the parts do not fit.
#include "checkpoint/gguf_split.h"

#include "checkpoint/gguf_writer.h"
#include "checkpoint/test_files.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

struct Part {
  std::vector<GgufEntry> metadata;
  std::vector<std::string> tensors;  // one byte each, the first of their names
};

std::vector<GgufEntry> split(uint16_t number, uint16_t count, int32_t num_tensors) {
  return {{"split.no", number}, {"split.count", count}, {"split.tensors.count", num_tensors}};
}

std::vector<GgufEntry> with(std::vector<GgufEntry> entries, std::vector<GgufEntry> more) {
  entries.insert(entries.end(), more.begin(), more.end());
  return entries;
}

fs::path write(const TemporaryFolder& folder, const std::string& name, const Part& part) {
  std::vector<TensorSpec> specs;
  for (const auto& tensor : part.tensors) specs.push_back({tensor, DType::i8, {1}});
  GgufWriter writer(folder.path() / name, part.metadata, specs);
  for (const auto& tensor : part.tensors) writer.append(tensor, as_bytes(tensor.substr(0, 1)));
  writer.finish();
  return folder.path() / name;
}

const std::string kNames[] = {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"};
const std::vector<GgufEntry> kModel = {{"general.architecture", std::string("llama")}, {"llama.block_count", 2u}};

struct Parts {
  Part parts[3] = {{with(kModel, split(0, 3, 4)), {"a"}}, {split(1, 3, 4), {"b", "d"}}, {split(2, 3, 4), {"c"}}};
  TemporaryFolder folder;

  fs::path write_all() {
    for (size_t i = 0; i < 3; i++) write(folder, kNames[i], parts[i]);
    return folder.path() / kNames[0];
  }
  std::string fault_of(const std::string& name) {  // the error, which begins with the file `name`
    const auto path = write_all();
    auto message = error_of([&] { open_checkpoint(path); });
    EXPECT_TRUE(message.starts_with((folder.path() / name).string() + ": ")) << message;
    return message;
  }
};

TEST(GgufSplit, AllPartsAreOneCheckpoint) {
  Parts p;
  const auto checkpoint = open_checkpoint(p.write_all());
  EXPECT_EQ(checkpoint.path, p.folder.path() / kNames[0]);
  EXPECT_EQ(checkpoint.config["llama.block_count"], 2);
  ASSERT_EQ(checkpoint.files.size(), 3u);
  EXPECT_EQ(checkpoint.tensors.size(), 4u);
  const size_t file_of[] = {0, 1, 2, 1};
  for (const std::string name : {"a", "b", "c", "d"}) {
    const Tensor* tensor = checkpoint.find(name);
    ASSERT_NE(tensor, nullptr) << name;
    EXPECT_EQ(as_text(tensor->bytes), name);
    const auto bytes = checkpoint.files[file_of[name[0] - 'a']]->bytes();
    EXPECT_TRUE(tensor->bytes.data() >= bytes.data() && tensor->bytes.data() < bytes.data() + bytes.size()) << name;
  }
}

TEST(GgufSplit, LaterPartsMayRepeatTheMetadataAndHoldNoTensors) {
  Parts p;
  p.parts[1] = {with(kModel, split(1, 3, 4)), {"b", "c", "d"}};
  p.parts[2] = {split(2, 3, 4), {}};
  EXPECT_EQ(open_checkpoint(p.write_all()).tensors.size(), 4u);
}

TEST(GgufSplit, OneOfOneNeedsNoName) {
  const TemporaryFolder folder;
  for (uint16_t count : {0, 1}) {  // 0: as llama.cpp merges them
    const auto checkpoint = open_checkpoint(write(folder, "m.gguf", {with(kModel, split(0, count, 1)), {"a"}}));
    EXPECT_EQ(checkpoint.files.size(), 1u);
    EXPECT_EQ(checkpoint.tensors.size(), 1u);
  }
}

TEST(GgufSplit, APartThatIsNotTheFirstNamesTheFirst) {
  Parts p;
  p.write_all();
  const auto second = p.folder.path() / kNames[1];
  expect_parts(error_of([&] { open_checkpoint(second); }),
               {second.string() + ": is part 2 of a model in 3 files; name the first, ",
                (p.folder.path() / kNames[0]).string()});
  const auto renamed = p.folder.path() / "x.gguf";
  fs::rename(second, renamed);
  expect_parts(error_of([&] { open_checkpoint(renamed); }),
               {renamed.string() + ": is part 2 of a model in 3 files, whose name ends with -00002-of-00003.gguf"});
}

TEST(GgufSplit, MissingAndMisplacedParts) {
  Parts p;
  const auto first = p.write_all();
  fs::remove(p.folder.path() / kNames[2]);
  expect_parts(error_of([&] { open_checkpoint(first); }), {(p.folder.path() / kNames[2]).string() + ": is not there",
                                                           first.string() + " is the first of 3 parts"});
  fs::rename(first, p.folder.path() / "m.gguf");
  expect_parts(error_of([&] { open_checkpoint(p.folder.path() / "m.gguf"); }),
               {"m.gguf: is part 1 of a model in 3 files, whose name ends with -00001-of-00003.gguf"});

  Parts swapped;
  std::swap(swapped.parts[1], swapped.parts[2]);
  expect_parts(swapped.fault_of(kNames[1]), {"is part 3 of 3 by its metadata, part 2 of 3 by its name"});
  Parts whole;
  whole.parts[1] = {{}, {"b", "d"}};
  expect_parts(whole.fault_of(kNames[1]), {"is part 1 of 1 by its metadata, part 2 of 3 by its name"});
  Parts other_count;
  other_count.parts[2] = {split(2, 4, 4), {"c"}};
  expect_parts(other_count.fault_of(kNames[2]), {"is part 3 of 4 by its metadata, part 3 of 3 by its name"});
}

TEST(GgufSplit, PartsOfTwoModels) {
  Parts sizes;
  sizes.parts[1].metadata = split(1, 3, 5);
  expect_parts(sizes.fault_of(kNames[1]), {"a model of 5 tensors", "m-00001-of-00003.gguf to one of 4"});
  Parts metadata;
  metadata.parts[2].metadata.push_back({"general.architecture", std::string("qwen3")});
  expect_parts(metadata.fault_of(kNames[2]), {"metadata general.architecture: \"qwen3\", but \"llama\" in "});
  Parts more;
  more.parts[2].metadata.push_back({"llama.rope.freq_base", 1.0f});
  expect_parts(more.fault_of(kNames[2]), {"metadata llama.rope.freq_base: 1.0, but nothing in "});
  Parts twice;
  twice.parts[2].tensors = {"a"};
  expect_parts(twice.fault_of(kNames[2]), {"tensor a: is also in another part"});
}

TEST(GgufSplit, CountsThatDoNotAddUp) {
  Parts fewer;
  fewer.parts[1].tensors = {"b"};
  expect_parts(fewer.fault_of(kNames[0]), {"the 3 parts have 3 tensors together", "split.tensors.count says 4"});
  Parts many;
  for (size_t i = 0; i < 3; i++) many.parts[i].metadata = split(static_cast<uint16_t>(i), 3, 1);
  expect_parts(many.fault_of(kNames[1]), {"metadata split.tensors.count: 1, a number from 2 to "});

  const auto first = [](std::vector<GgufEntry> entries, const char* message) {
    Parts p;
    p.parts[0].metadata = std::move(entries);
    expect_parts(p.fault_of(kNames[0]), {message});
  };
  first(split(3, 3, 4), "metadata split.no: 3, a number from 0 to 2 expected");
  first({{"split.count", uint16_t{3}}}, "has metadata split.count, but no split.no");
  first({{"split.count", uint16_t{3}}, {"split.no", uint16_t{0}}}, "but no split.tensors.count");
  first({{"split.count", std::string("3")}}, "metadata split.count: \"3\", a number from 0 to 99999");
  first({{"split.count", ~uint64_t{0}}}, "metadata split.count: 18446744073709551615, a number from 0 to 99999");
  first({{"split.count", uint16_t{3}}, {"split.no", -1}}, "metadata split.no: -1, a number from 0 to 2");
}

TEST(GgufSplit, ADamagedPartIsNamed) {
  Parts p;
  const auto first = p.write_all();
  fs::resize_file(p.folder.path() / kNames[1], 100);
  EXPECT_TRUE(error_of([&] { open_checkpoint(first); }).starts_with((p.folder.path() / kNames[1]).string() + ": "));
}

}  // namespace
}  // namespace nibble
