#include "base/mapped_file.h"

#include <sys/stat.h>

#include <fstream>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/read_file.h"

namespace nibble {
namespace {

std::filesystem::path write_file(const std::string& name, const std::string& text) {
  const auto path = std::filesystem::path(testing::TempDir()) / name;
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

TEST(MappedFile, ReadsEveryByteAlsoAfterDroppingThem) {
  const std::string text(10000, 'x');
  const MappedFile file(write_file("mapped", text));
  EXPECT_EQ(std::string(file.bytes().begin(), file.bytes().end()), text);
  MappedFile::drop(file.bytes());
  EXPECT_EQ(std::string(file.bytes().begin(), file.bytes().end()), text);
}

TEST(MappedFile, AnEmptyFileHasNoBytes) { EXPECT_TRUE(MappedFile(write_file("empty", "")).bytes().empty()); }

TEST(MappedFile, AMissingFileAndAFolderAreInputErrors) {
  EXPECT_THROW(MappedFile{"no/such/file"}, InputError);
  EXPECT_THROW(MappedFile{testing::TempDir()}, InputError);
}

TEST(MappedFile, DoesNotWaitForTheWriterOfAFifo) {
  const auto path = std::filesystem::path(testing::TempDir()) / "fifo";
  std::filesystem::remove(path);
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_THROW(MappedFile{path}, InputError);
}

TEST(IsThere, CannotTellOfALinkToItself) {
  const auto path = std::filesystem::path(testing::TempDir()) / "link";
  std::filesystem::remove(path);
  EXPECT_FALSE(is_there(path));
  std::filesystem::create_symlink(path, path);
  EXPECT_THROW(is_there(path), InputError);
}

}  // namespace
}  // namespace nibble
