#include "checkpoint/output_file.h"

#include <sys/stat.h>

#include <cerrno>

#include "checkpoint/test_files.h"

namespace {

enum class Kind { file, folder };
std::vector<Kind> synced;
int folder_error = 0;

}  // namespace

// In the place of the system's: what is asked to be on the disk, in order.
extern "C" int fsync(int fd) {
  struct stat info{};
  if (fstat(fd, &info) != 0) return -1;
  const Kind kind = S_ISDIR(info.st_mode) ? Kind::folder : Kind::file;
  synced.push_back(kind);
  if (kind == Kind::file || folder_error == 0) return 0;
  errno = folder_error;
  return -1;
}

namespace nibble {
namespace {

TEST(OutputFile, IsOnTheDiskBeforeItsNameIs) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "a";
  synced.clear();
  OutputFile file(path);
  file.write(0, as_bytes("text"));
  file.close();
  EXPECT_EQ(synced, std::vector{Kind::file});
  EXPECT_FALSE(exists(path));
  file.commit();
  EXPECT_EQ(synced, (std::vector{Kind::file, Kind::folder}));
  EXPECT_EQ(folder.read("a"), "text");
  EXPECT_EQ(folder.num_files(), 1u);
}

TEST(OutputFile, SaysIfItsNameMayNotLast) {
  const TemporaryFolder folder;
  folder_error = EIO;
  const std::string message = error_of<RunError>([&] { write_file(folder.path() / "a", "text"); });
  folder_error = EINVAL;  // of a file system that syncs no folders
  write_file(folder.path() / "b", "text");
  folder_error = 0;
  expect_parts(message, {(folder.path() / "a").string(), "is written", "folder", "Input/output error"});
}

TEST(OutputFile, TakesThePlaceOfFilesAlone) {
  const TemporaryFolder folder;
  create_directory(folder.path() / "sub");
  expect_parts(error_of([&] { OutputFile file(folder.path() / "sub"); }), {"sub", "is a folder"});
  expect_parts(error_of([] { OutputFile file("/dev/null"); }), {"/dev/null", "is a device"});
  expect_parts(error_of([] { OutputFile file(""); }), {"the name of a file"});
  EXPECT_EQ(folder.num_files(), 1u);
}

TEST(OutputFile, WritesWhatALinkPointsTo) {
  const TemporaryFolder folder;
  folder.write("file", "before");
  create_symlink("file", folder.path() / "link");
  create_symlink("nowhere", folder.path() / "loose");
  create_symlink("/dev/null", folder.path() / "device");
  write_file(folder.path() / "link", "after");
  EXPECT_TRUE(is_symlink(folder.path() / "link"));
  EXPECT_EQ(folder.read("file"), "after");
  expect_parts(error_of([&] { write_file(folder.path() / "loose", ""); }), {"loose", "not there"});
  expect_parts(error_of([&] { write_file(folder.path() / "device", ""); }), {"/dev/null", "is a device"});
  EXPECT_EQ(folder.num_files(), 4u);
}

TEST(OutputFile, LeavesNothingWithoutCommit) {
  const TemporaryFolder folder;
  folder.write("a", "before");
  { OutputFile(folder.path() / "a").write(0, as_bytes("after")); }
  EXPECT_EQ(folder.num_files(), 1u);
  EXPECT_EQ(folder.read("a"), "before");
}

TEST(MadeFolder, RemovesWhatItMadeIfItIsEmpty) {
  const TemporaryFolder folder;
  const auto outer = folder.path() / "outer", inner = outer / "inner";
  {
    const MadeFolder made(inner);
    EXPECT_TRUE(is_directory(inner));
  }
  EXPECT_FALSE(exists(outer));
  create_directory(outer);
  { const MadeFolder made(inner / ""); }
  EXPECT_FALSE(exists(inner));
  EXPECT_TRUE(exists(outer));
  {
    const MadeFolder made(inner);
    write_file(inner / "file", "");
  }
  EXPECT_TRUE(exists(inner / "file"));
  create_symlink("nowhere", outer / "link");
  expect_parts(error_of([&] { MadeFolder(outer / "link"); }), {"outer/link", "cannot be created"});
  EXPECT_TRUE(is_symlink(outer / "link"));
  const auto too_long = outer / "new" / std::string(300, 'x');
  expect_parts(error_of([&] { MadeFolder{too_long}; }), {too_long.string(), "cannot be created"});
  EXPECT_FALSE(exists(outer / "new"));
}

TEST(WriteFile, ReplacesAFileAsAWhole) {
  const TemporaryFolder folder;
  folder.write("config.json", "a longer text that was there");
  write_file(folder.path() / "config.json", "{}");
  EXPECT_EQ(folder.read("config.json"), "{}");
  EXPECT_EQ(folder.num_files(), 1u);
  expect_parts(error_of([&] { write_file(folder.path() / "none" / "x", "{}"); }), {"none/x", "No such file"});
}

}  // namespace
}  // namespace nibble
