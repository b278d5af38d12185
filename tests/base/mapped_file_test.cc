#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <numeric>
#include <vector>

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
  file.drop(file.bytes());
  EXPECT_EQ(std::string(file.bytes().begin(), file.bytes().end()), text);
}

// How many of the file's pages are in this process's memory.
size_t resident_pages(const MappedFile& file) {
  constexpr uint64_t kPage = 4096, kPresent = uint64_t{1} << 63;
  std::vector<uint64_t> entries((file.bytes().size() + kPage - 1) / kPage);
  const int pages = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  const auto first = static_cast<off_t>(reinterpret_cast<uintptr_t>(file.bytes().data()) / kPage * 8);
  EXPECT_EQ(pread(pages, entries.data(), entries.size() * 8, first), static_cast<ssize_t>(entries.size() * 8));
  close(pages);
  return static_cast<size_t>(std::ranges::count_if(entries, [](uint64_t entry) { return (entry & kPresent) != 0; }));
}

TEST(MappedFile, DroppingAllPartsLeavesNothingBehind) {
  if (sysconf(_SC_PAGESIZE) != 4096) GTEST_SKIP() << "pages of another size than this test counts";
  const std::string text(3'000'001, 'x');
  const MappedFile file(write_file("mapped_parts", text));
  constexpr size_t kPart = 100'003;  // ends inside a page
  const auto part = [&](size_t at) { return file.bytes().subspan(at, std::min(kPart, file.bytes().size() - at)); };
  const auto sum = [](std::span<const uint8_t> bytes) {
    return std::accumulate(bytes.begin(), bytes.end(), size_t{0});
  };
  // Every second part first, as the gate matrices of experts lie between those of up and down.
  for (const size_t begin : {size_t{0}, kPart}) {
    for (size_t at = begin; at < text.size(); at += 2 * kPart) EXPECT_EQ(sum(part(at)), part(at).size() * 'x');
    EXPECT_GT(resident_pages(file), text.size() / 4096 / 2 - 1);
    for (size_t at = begin; at < text.size(); at += 2 * kPart) file.drop(part(at));
    EXPECT_EQ(resident_pages(file), 0u);
  }
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
