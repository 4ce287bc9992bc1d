#include "common/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <thread>
#include <vector>

#include "tests/common/status_matchers.h"
#include "tests/common/temp_dir.h"

namespace autosp {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr int64_t kLimit = 1 << 20;

std::vector<std::string> FilesIn(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

TEST(FileTest, WritesAndReadsBack) {
  const TempDir dir;
  const std::string data("a\0b\n", 4);
  ASSERT_THAT(WriteFileAtomically(dir.Join("x"), data), IsOk());
  EXPECT_THAT(ReadFile(dir.Join("x"), kLimit), IsOkAndHolds(data));
  EXPECT_THAT(FileSize(dir.Join("x")), IsOkAndHolds(4));
  EXPECT_THAT(FilesIn(dir.path()), testing::ElementsAre("x"));
}

TEST(FileTest, ReplacesAndKeepsReadersWhole) {
  const TempDir dir;
  const std::string path = dir.Join("x");
  ASSERT_THAT(WriteFileAtomically(path, std::string(100'000, 'a')), IsOk());
  bool is_done = false;
  std::thread writer([&] {
    for (int i = 0; i < 20; ++i) {
      EXPECT_THAT(WriteFileAtomically(path, std::string(100'000, i % 2 == 0 ? 'b' : 'a')), IsOk());
    }
    __atomic_store_n(&is_done, true, __ATOMIC_RELEASE);
  });
  while (!__atomic_load_n(&is_done, __ATOMIC_ACQUIRE)) {
    const auto data = ReadFile(path, kLimit);
    EXPECT_THAT(data, IsOk());
    if (!data.ok()) break;
    EXPECT_EQ(*data, std::string(100'000, (*data)[0]));
  }
  writer.join();
}

TEST(FileTest, ReadsFilesOfUnknownSize) {
  ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile("/proc/self/status", kLimit));
  EXPECT_THAT(text, HasSubstr("Pid:"));
}

TEST(FileTest, RefusesToReadPastTheLimit) {
  const TempDir dir;
  ASSERT_THAT(WriteFileAtomically(dir.Join("x"), "12345"), IsOk());
  EXPECT_THAT(ReadFile(dir.Join("x"), 5), IsOkAndHolds("12345"));
  EXPECT_THAT(ReadFile(dir.Join("x"), 4),
              IsError(absl::StatusCode::kResourceExhausted,
                      AllOf(HasSubstr("5 bytes"), HasSubstr("limit is 4"))));
  EXPECT_THAT(ReadFile("/proc/self/status", 10),
              IsError(absl::StatusCode::kResourceExhausted, HasSubstr("limit of 10")));
}

TEST(FileTest, RefusesFoldersAndDevices) {
  const TempDir dir;
  EXPECT_THAT(ReadFile(dir.path(), kLimit),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("not a regular file")));
  EXPECT_THAT(ReadFile("/dev/zero", kLimit),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("not a regular file")));
  EXPECT_THAT(FileSize(dir.path()), IsError(absl::StatusCode::kInvalidArgument, testing::_));
}

// Nobody will ever write to it.
TEST(FileTest, DoesNotWaitForTheWriterOfANamedPipe) {
  const TempDir dir;
  ASSERT_EQ(mkfifo(dir.Join("pipe").c_str(), 0600), 0);
  EXPECT_THAT(ReadFile(dir.Join("pipe"), kLimit),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("not a regular file")));
}

TEST(FileTest, NamesAMissingFile) {
  const TempDir dir;
  const std::string path = dir.Join("none");
  EXPECT_THAT(
      ReadFile(path, kLimit),
      IsError(absl::StatusCode::kNotFound, "cannot open " + path + ": No such file or directory"));
  EXPECT_THAT(FileSize(path), IsError(absl::StatusCode::kNotFound, HasSubstr(path)));
  EXPECT_FALSE(FileExists(path));
  EXPECT_THAT(RemoveFile(path), IsOk());
}

TEST(FileTest, AFailedWriteLeavesNothingBehind) {
  const TempDir dir;
  EXPECT_THAT(WriteFileAtomically(dir.Join("none/x"), "a"),
              IsError(absl::StatusCode::kNotFound, HasSubstr(dir.Join("none/x"))));
  ASSERT_THAT(MakeDirectories(dir.Join("folder/inside")), IsOk());
  EXPECT_THAT(WriteFileAtomically(dir.Join("folder"), "a"), testing::Not(IsOk()));
  EXPECT_THAT(FilesIn(dir.path()), testing::ElementsAre("folder"));
}

TEST(FileTest, ReportsAFullDisk) {
  // Every write to /dev/full fails as on a full disk.
  const UniqueFd fd(open("/dev/full", O_WRONLY | O_CLOEXEC));
  ASSERT_TRUE(fd.is_open());
  EXPECT_THAT(WriteAll(fd.get(), "abc", "/data/x"),
              IsError(absl::StatusCode::kResourceExhausted,
                      "cannot write /data/x: No space left on device"));
}

TEST(FileTest, TriesWhetherAFolderCanBeWrittenTo) {
  const TempDir dir;
  ASSERT_THAT(WriteFileAtomically(dir.Join("file"), "x"), IsOk());
  const struct {
    std::string folder;
    std::string error;  // empty: it can
  } cases[] = {
      {dir.path(), ""},
      {dir.Join("missing"), "No such file or directory"},
      {dir.Join("file"), "Not a directory"},
      {"/proc", "No such file or directory"},  // Nobody makes files there.
  };
  for (const auto& [folder, error] : cases) {
    const absl::Status status = CheckWritable(folder);
    EXPECT_EQ(status.ok(), error.empty()) << status;
    if (!error.empty()) {
      EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(folder), HasSubstr(error)));
    }
  }
  EXPECT_THAT(FilesIn(dir.path()), testing::ElementsAre("file"));
}

TEST(FileTest, MakesFoldersOnceAndAgain) {
  const TempDir dir;
  EXPECT_THAT(MakeDirectories(dir.Join("a/b/c")), IsOk());
  EXPECT_THAT(MakeDirectories(dir.Join("a/b/c")), IsOk());
  ASSERT_THAT(WriteFileAtomically(dir.Join("file"), ""), IsOk());
  EXPECT_THAT(MakeDirectories(dir.Join("file/x")),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("cannot create folder")));
}

TEST(FileTest, RemovesTrees) {
  const TempDir dir;
  ASSERT_THAT(MakeDirectories(dir.Join("a/b")), IsOk());
  ASSERT_THAT(WriteFileAtomically(dir.Join("a/b/file"), "x"), IsOk());
  EXPECT_THAT(RemoveTree(dir.Join("a")), IsOk());
  EXPECT_THAT(RemoveTree(dir.Join("a")), IsOk());
  EXPECT_TRUE(FilesIn(dir.path()).empty());
}

TEST(FileTest, RenamesOverWhatIsThere) {
  const TempDir dir;
  const auto make = [&](const std::string& folder) {
    ASSERT_THAT(MakeDirectories(dir.Join(folder)), IsOk());
    ASSERT_THAT(WriteFileAtomically(dir.Join(folder + "/" + folder), "x"), IsOk());
  };
  make("new");
  EXPECT_THAT(RenameOver(dir.Join("new"), dir.Join("name"), dir.Join("aside")), IsOk());
  EXPECT_THAT(FilesIn(dir.path()), testing::ElementsAre("name"));
  make("newer");
  EXPECT_THAT(RenamePath(dir.Join("newer"), dir.Join("name")),
              IsError(absl::StatusCode::kFailedPrecondition, HasSubstr("cannot rename")));
  EXPECT_THAT(RenameOver(dir.Join("newer"), dir.Join("name"), dir.Join("aside")), IsOk());
  EXPECT_THAT(FilesIn(dir.Join("name")), testing::ElementsAre("newer"));
  EXPECT_THAT(FilesIn(dir.Join("aside")), testing::ElementsAre("new"));
}

TEST(FileTest, MeasuresFreeSpace) {
  ASSERT_OK_AND_ASSIGN(const int64_t bytes, FreeDiskBytes("/"));
  EXPECT_GT(bytes, 0);
  EXPECT_THAT(FreeDiskBytes("/nonexistent/x"), IsError(absl::StatusCode::kNotFound, testing::_));
}

TEST(JoinPathTest, FollowsTheShell) {
  EXPECT_EQ(JoinPath("a/b", "c"), "a/b/c");
  EXPECT_EQ(JoinPath("a/", "c"), "a/c");
  EXPECT_EQ(JoinPath("a", "/c"), "/c");
}

TEST(UniqueFdTest, ClosesWhatItHolds) {
  int number;
  {
    ASSERT_OK_AND_ASSIGN(UniqueFd fd, OpenForReading("/dev/null"));
    number = fd.get();
    UniqueFd moved = std::move(fd);
    EXPECT_FALSE(fd.is_open());  // NOLINT: the moved-from state is what is tested.
    EXPECT_EQ(fcntl(number, F_GETFD), FD_CLOEXEC);
  }
  EXPECT_EQ(fcntl(number, F_GETFD), -1);
}

}  // namespace
}  // namespace autosp
