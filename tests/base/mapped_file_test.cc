#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <string_view>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/read_file.h"

namespace nibble {
namespace {

std::filesystem::path write_file(const std::string& name, const std::string& text) {
  const auto path = std::filesystem::path(testing::TempDir()) / name;
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

// Parts of all alignments, read as `part` asks into room that lies as it asks.
void expect_parts_of(const MappedFile& file, const std::string& text) {
  Buffer buffer(MappedFile::read_room(text.size()) + MappedFile::kReadUnit);
  const uintptr_t begin = reinterpret_cast<uintptr_t>(buffer.data());
  uint8_t* room = buffer.data() + (MappedFile::kReadUnit - begin % MappedFile::kReadUnit) % MappedFile::kReadUnit;
  for (const size_t at : {size_t{0}, size_t{1}, size_t{4095}, size_t{4096}, size_t{70'001}}) {
    for (const size_t size : {size_t{1}, size_t{4096}, size_t{100'003}, text.size() - at}) {
      const auto part = file.bytes().subspan(at, size);
      ASSERT_LE(file.read_offset(part) + size, MappedFile::read_room(size));
      uint8_t* to = room + file.read_offset(part);
      file.read(part, to);
      EXPECT_EQ(std::string_view(reinterpret_cast<char*>(to), size), std::string_view(text).substr(at, size)) << at;
    }
  }
}

TEST(MappedFile, ReadsPartsThroughThePageCacheAndPastIt) {
  std::string text(300'007, ' ');
  for (size_t i = 0; i < text.size(); i++) text[i] = static_cast<char>(i * 37 % 251);
  const auto path = write_file("mapped", text);
  {
    const MappedFile file(path);
    EXPECT_EQ(std::string(file.bytes().begin(), file.bytes().end()), text);
    expect_parts_of(file, text);
  }
  const MappedFile file(path);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  fsync(fd);
#if defined(__linux__)
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);  // out of the page cache, if the file system has one
#endif
  close(fd);
  expect_parts_of(file, text);
}

#if defined(__linux__)
TEST(MappedFile, TellsWhatIsInThePageCache) {
  const std::string text(1'000'007, 'x');
  const auto path = write_file("cached", text);
  const MappedFile file(path);
  const auto bytes = file.bytes();
  EXPECT_TRUE(file.is_cached(bytes));
  EXPECT_TRUE(file.is_cached(bytes.subspan(4095, 2)));
  EXPECT_TRUE(file.is_cached(bytes.subspan(bytes.size())));
  file.release(bytes.subspan(5, 500'000));
  EXPECT_EQ(std::string(bytes.begin(), bytes.end()), text);

  file.release(bytes);  // a mapped page stays in the page cache
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  fsync(fd);
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  close(fd);
  if (file.is_cached(bytes)) GTEST_SKIP() << "this file system has no other place for it";
  EXPECT_FALSE(file.is_cached(bytes.subspan(4095, 2)));
}
#endif

TEST(MappedFile, AFileThatBecomesShorterIsAnError) {
  Buffer buffer(MappedFile::read_room(200'000) + MappedFile::kReadUnit);
  const uintptr_t begin = reinterpret_cast<uintptr_t>(buffer.data());
  uint8_t* room = buffer.data() + (MappedFile::kReadUnit - begin % MappedFile::kReadUnit) % MappedFile::kReadUnit;
  for (const int length : {100'000, 5000, 4096, 0}) {  // of the later ones most is not in the page cache
    const auto path = write_file("shorter", std::string(200'000, 'x'));
    const MappedFile file(path);
    std::filesystem::resize_file(path, static_cast<uintmax_t>(length));
    try {
      file.read(file.bytes(), room);
      ADD_FAILURE() << "no error";
    } catch (const RunError& error) {
      const std::string message = error.what(), end = fmt::format("ends at byte {},", length);
      for (const std::string& part : {std::string("shorter"), end, std::string("200000 bytes when it was opened")})
        EXPECT_NE(message.find(part), std::string::npos) << message;
    }
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
