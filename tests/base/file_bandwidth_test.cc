#include "base/file_bandwidth.h"

#include <fstream>

#include <gtest/gtest.h>

#include "base/error.h"

namespace nibble {
namespace {

std::shared_ptr<const MappedFile> file_of(const std::string& name, size_t size) {
  const auto path = std::filesystem::path(testing::TempDir()) / name;
  std::ofstream{path};
  std::filesystem::resize_file(path, size);  // has holes: no test needs its bytes
  auto file = std::make_shared<const MappedFile>(path);
  std::filesystem::remove(path);
  return file;
}

TEST(FileBandwidth, AllOfSmallFiles) {
  const std::vector files = {file_of("whole_a", kStretchBytes + 5), file_of("whole_b", 0), file_of("whole_c", 7)};
  const std::vector<Stretch> stretches = stretches_of(files);
  ASSERT_EQ(stretches.size(), 3u);
  EXPECT_EQ(stretches[0].bytes.data(), files[0]->bytes().data());
  EXPECT_EQ(stretches[0].bytes.size(), kStretchBytes);
  EXPECT_EQ(stretches[1].bytes.data(), files[0]->bytes().data() + kStretchBytes);
  EXPECT_EQ(stretches[1].bytes.size(), 5u);
  EXPECT_EQ(stretches[2].file, files[2].get());
  EXPECT_EQ(stretches[2].bytes.size(), 7u);
  EXPECT_GT(measure_file_gbps(files), 0);
}

TEST(FileBandwidth, StretchesOfLargeOnesInOrderAndApart) {
  const std::vector files = {file_of("large_a", 50 * kStretchBytes), file_of("large_b", 46 * kStretchBytes + 1)};
  const std::vector<Stretch> stretches = stretches_of(files);
  ASSERT_EQ(stretches.size(), kMostStretches);
  std::vector<size_t> first;  // of 97 stretches
  for (const Stretch& stretch : stretches) {
    const size_t before = stretch.file == files[0].get() ? 0 : 50;
    const uint8_t* begin = stretch.file->bytes().data();
    first.push_back(before + static_cast<size_t>(stretch.bytes.data() - begin) / kStretchBytes);
  }
  for (size_t i = 0; i < first.size(); i++) EXPECT_EQ(first[i], i * 97 / 32);
}

TEST(FileBandwidth, OfNothingIsNone) {
  EXPECT_EQ(measure_file_gbps({}), 0);
  EXPECT_EQ(measure_file_gbps(std::vector{file_of("empty", 0)}), 0);
}

TEST(FileBandwidth, FileThatBecameShorter) {
  const auto path = std::filesystem::path(testing::TempDir()) / "shorter";
  std::ofstream(path) << std::string(10'000'000, 'x');
  const auto file = std::make_shared<const MappedFile>(path);
  std::filesystem::resize_file(path, 5000);
  EXPECT_THROW(measure_file_gbps(std::vector{file}), RunError);
}

}  // namespace
}  // namespace nibble
