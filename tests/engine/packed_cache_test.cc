// The packed cache: the same bits with it and without, and nothing is used that is not what it should be.
#include "engine/packed_cache.h"

#include <fcntl.h>
#include <sys/file.h>

#include "base/log.h"
#include "checkpoint/test_files.h"
#include "goldens.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

const std::vector<int32_t> kTokens = {1, 5, 3, 42, 5, 6, 7};

class PackedCacheTest : public testing::Test {
 protected:
  PackedCacheTest() {
    set_log_sink([this](LogLevel level, std::string_view message) {
      log_ += fmt::format("{}{}\n", level == LogLevel::warning ? "warning: " : "", message);
    });
  }
  ~PackedCacheTest() override { set_log_sink({}); }

  // The logits with the cache; what was said of it must have `expected` in it.
  std::vector<float> logits(const fs::path& model, std::initializer_list<std::string_view> expected) {
    log_.clear();
    Engine engine(model, {.backend = {.name = "cpu", .num_threads = 2}, .max_len = 64, .packed_cache = cache_});
    expect_parts(log_, expected);
    return forward(engine, kTokens, 3);
  }
  static std::vector<float> logits_without(const fs::path& model) {
    Engine engine = open_engine(model, "cpu", 2);
    return forward(engine, kTokens, 3);
  }
  fs::path file() const {
    for (const auto& entry : fs::directory_iterator(cache_))
      if (entry.path().extension() == ".packed") return entry.path();
    return {};
  }
  size_t num_files() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(cache_), fs::directory_iterator()));
  }

  static void change_byte(const fs::path& path, int64_t at) {  // from the end if negative
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at, at < 0 ? std::ios::end : std::ios::beg);
    const int byte = file.get();
    file.seekp(at, at < 0 ? std::ios::end : std::ios::beg);
    file.put(static_cast<char>(byte ^ 1));
  }

  const TemporaryFolder folder_;
  const fs::path cache_ = folder_.path() / "made" / "cache";
  std::string log_;
};

TEST_F(PackedCacheTest, GivesTheSameBits) {
  for (const char* name :
       {"llama-ct-nvfp4", "gpt_oss-mxfp4", "llama-gguf-q4_k", "llama-gguf-split", "deepseek_v3-groups"}) {
    const fs::path model = model_in(kModels / name);
    const std::vector<float> expected = logits_without(model);
    EXPECT_EQ(logits(model, {"packed, and kept in", "made/cache"}), expected) << name;
    EXPECT_EQ(logits(model, {"packed weights", "from", ".packed"}), expected) << name;
    EXPECT_EQ(log_.find("warning"), std::string::npos) << log_;
  }
}

TEST_F(PackedCacheTest, GoesByTheCheckpointsBytes) {
  const fs::path model = folder_.path() / "model", other = folder_.path() / "other";
  fs::copy(kTalking, model);
  const std::vector<float> first = logits(model, {"kept in"});
  // Another folder with the same bytes: compared, as is any file that was changed in the last two seconds.
  fs::copy(model, other);
  EXPECT_EQ(logits(other, {"packed weights", "comparing"}), first);
  // The same file with another byte, a low one of the last weight: same header, same size.
  change_byte(other / "model.safetensors", -2);
  const std::vector<float> changed = logits(other, {"warning", "other weights", "packed anew", "kept in"});
  EXPECT_EQ(changed, logits_without(other));
  EXPECT_NE(changed, first);
  EXPECT_EQ(logits(other, {"packed weights", "comparing"}), changed);
  EXPECT_EQ(logits(model, {"warning", "other weights", "kept in"}), first);
  EXPECT_EQ(num_files(), 1u);
}

TEST_F(PackedCacheTest, KnowsACheckpointThatItHasSeen) {
  logits(kTalking, {"kept in"});
  EXPECT_EQ(num_files(), 2u) << "unless the checkout is two seconds old";
  logits(kTalking, {"packed weights"});
  EXPECT_EQ(log_.find("comparing"), std::string::npos) << log_;
  fs::path seen = file();
  seen.replace_extension(".seen");
  change_byte(seen, 3);
  logits(kTalking, {"packed weights", "comparing"});
  logits(kTalking, {"packed weights"});
  EXPECT_EQ(log_.find("comparing"), std::string::npos) << log_;
}

TEST_F(PackedCacheTest, PacksAnewWhatIsDamaged) {
  const std::vector<float> expected = logits(kTalking, {"kept in"});
  const auto size = fs::file_size(file());
  const auto damage = [&](const std::function<void()>& change, std::string_view says) {
    change();
    EXPECT_EQ(logits(kTalking, {"warning", file().string(), says, "packed anew", "kept in"}), expected);
    EXPECT_EQ(fs::file_size(file()), size);
    EXPECT_EQ(logits(kTalking, {"packed weights"}), expected);
  };
  damage([&] { change_byte(file(), -100); }, "not those that were written");
  damage([&] { change_byte(file(), 2 << 20); }, "not those that were written");
  damage([&] { change_byte(file(), 0); }, "no file of packed weights");
  damage([&] { change_byte(file(), 8); }, "version");
  damage([&] { change_byte(file(), 16); }, "another model");
  damage([&] { change_byte(file(), 24); }, "header is damaged");
  damage([&] { change_byte(file(), 48); }, "header is damaged");
  damage([&] { fs::resize_file(file(), size - 1); }, "size in bytes");
  damage([&] { fs::resize_file(file(), size + 1); }, "size in bytes");
  damage([&] { fs::resize_file(file(), 0); }, "size in bytes");
}

TEST_F(PackedCacheTest, LetsOneProcessWrite) {
  fs::create_directories(cache_);
  const std::vector<float> expected = logits_without(kTalking);
  const int other = open(cache_.c_str(), O_RDONLY);
  ASSERT_EQ(flock(other, LOCK_EX), 0);
  EXPECT_EQ(logits(kTalking, {"warning", "another process"}), expected);
  EXPECT_EQ(num_files(), 0u);
  close(other);
  EXPECT_EQ(logits(kTalking, {"kept in"}), expected);
}

TEST_F(PackedCacheTest, LeavesNothingOfWhatFails) {
  const fs::path model = folder_.path() / "model";
  fs::copy(kTalking, model);
  std::fstream weights(model / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  weights.seekp(-2, std::ios::end);
  weights.write("\xff\xff", 2);  // NaN
  weights.close();
  expect_parts(error_of([&] { logits(model, {}); }), {"element", "damaged"});
  EXPECT_FALSE(fs::exists(cache_.parent_path()));
  fs::create_directory(cache_.parent_path());
  expect_parts(error_of([&] { logits(model, {}); }), {"element", "damaged"});
  EXPECT_FALSE(fs::exists(cache_));
  EXPECT_TRUE(fs::exists(cache_.parent_path())) << "which was there before";
  fs::create_directory(cache_);
  expect_parts(error_of([&] { logits(model, {}); }), {"element", "damaged"});
  EXPECT_EQ(num_files(), 0u);
}

TEST_F(PackedCacheTest, RefusesWhatItCannotUse) {
  const fs::path in_a_file = folder_.write("file", "") / "cache";
  expect_parts(error_of([&] { Engine(kTalking, {.backend = {.name = "cpu"}, .packed_cache = in_a_file}); }),
               {in_a_file.string(), "cannot be created"});
  const fs::path too_long = cache_ / std::string(300, 'x');
  expect_parts(error_of([&] { Engine(kTalking, {.backend = {.name = "cpu"}, .packed_cache = too_long}); }),
               {too_long.string(), "cannot be created"});
  expect_parts(error_of([&] { Engine(kTalking, {.backend = {.name = "reference"}, .packed_cache = cache_}); }),
               {"backend reference", "--packed-cache"});
  EXPECT_FALSE(fs::exists(cache_));
}

// Several pieces, the last not full: each is checked in its place.
TEST(PackedFile, HoldsManyPieces) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "file";
  const std::vector<int64_t> sizes = {5'000'000, 1, 0, 4'300'000, 63};
  const PackedPlaces places(sizes);
  {
    PackedFileWriter writer(path, 7, places);
    for (size_t i = 0; i < sizes.size(); i++) writer.append(pattern(static_cast<uint64_t>(sizes[i]), uint32_t(i)));
    EXPECT_EQ(fs::exists(path), false);
    writer.finish(9);
  }
  const PackedFile file(path, 7, places);
  EXPECT_EQ(file.source_hash(), 9u);
  std::vector<int64_t> heard;
  const PackedFile::Contents contents = file.read([&](int64_t done, int64_t) { heard.push_back(done); });
  EXPECT_EQ(heard.back(), static_cast<int64_t>(places.bytes));
  for (size_t i = 0; i < sizes.size(); i++) {
    const uint8_t* at = contents.bytes.get() + places.at[i];
    EXPECT_EQ(reinterpret_cast<uintptr_t>(at) % 64, 0u);
    EXPECT_EQ(std::vector(at, at + sizes[i]), pattern(static_cast<uint64_t>(sizes[i]), uint32_t(i)));
  }
  expect_parts(error_of([&] { PackedFile(path, 8, places); }), {path.string(), "another model"});
  expect_parts(error_of([&] { PackedFile(path, 7, PackedPlaces(std::vector<int64_t>{9'300'064 + 192})); }),
               {path.string()});
}

}  // namespace
}  // namespace nibble
