#include "common/mapped_file.h"

#include <cstring>
#include <string>

#include "common/file.h"
#include "tests/common/status_matchers.h"
#include "tests/common/temp_dir.h"

namespace autosp {
namespace {

std::string TextOf(const MappedFile& file) {
  return std::string(reinterpret_cast<const char*>(file.data()), file.size());
}

TEST(MappedFileTest, ShowsTheBytes) {
  const TempDir dir;
  ASSERT_THAT(WriteFileAtomically(dir.Join("x"), "hello"), IsOk());
  ASSERT_OK_AND_ASSIGN(const MappedFile file, MappedFile::Open(dir.Join("x")));
  EXPECT_EQ(TextOf(file), "hello");
  EXPECT_EQ(file.path(), dir.Join("x"));
}

TEST(MappedFileTest, OutlivesItsName) {
  const TempDir dir;
  ASSERT_THAT(WriteFileAtomically(dir.Join("x"), "old"), IsOk());
  ASSERT_OK_AND_ASSIGN(const MappedFile file, MappedFile::Open(dir.Join("x")));
  ASSERT_THAT(WriteFileAtomically(dir.Join("x"), "new, and longer"), IsOk());
  EXPECT_EQ(TextOf(file), "old");
}

TEST(MappedFileTest, MovesWithoutCopying) {
  const TempDir dir;
  ASSERT_THAT(WriteFileAtomically(dir.Join("x"), "hello"), IsOk());
  ASSERT_THAT(WriteFileAtomically(dir.Join("y"), "other"), IsOk());
  ASSERT_OK_AND_ASSIGN(MappedFile file, MappedFile::Open(dir.Join("x")));
  const std::byte* address = file.data();
  MappedFile moved = std::move(file);
  EXPECT_EQ(moved.data(), address);
  ASSERT_OK_AND_ASSIGN(file, MappedFile::Open(dir.Join("y")));
  file = std::move(moved);
  EXPECT_EQ(TextOf(file), "hello");
}

TEST(MappedFileTest, AnEmptyFileIsAnEmptySpan) {
  const TempDir dir;
  ASSERT_THAT(WriteFileAtomically(dir.Join("x"), ""), IsOk());
  ASSERT_OK_AND_ASSIGN(const MappedFile file, MappedFile::Open(dir.Join("x")));
  EXPECT_TRUE(file.bytes().empty());
}

TEST(MappedFileTest, RefusesWhatIsNoFile) {
  const TempDir dir;
  EXPECT_THAT(MappedFile::Open(dir.Join("none")),
              IsError(absl::StatusCode::kNotFound, testing::HasSubstr(dir.Join("none"))));
  EXPECT_THAT(MappedFile::Open(dir.path()),
              IsError(absl::StatusCode::kInvalidArgument, testing::HasSubstr("regular file")));
}

}  // namespace
}  // namespace autosp
