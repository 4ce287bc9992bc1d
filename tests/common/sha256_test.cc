#include "common/sha256.h"

#include <sys/stat.h>

#include "common/file.h"
#include "tests/common/status_matchers.h"
#include "tests/common/temp_dir.h"

namespace autosp {
namespace {

// From FIPS 180-2.
constexpr char kDigestOfNothing[] =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr char kDigestOfAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

TEST(Sha256Test, GivesKnownDigests) {
  EXPECT_EQ(Sha256Hex(""), kDigestOfNothing);
  EXPECT_EQ(Sha256Hex("abc"), kDigestOfAbc);
}

TEST(Sha256Test, PiecesMakeTheWhole) {
  Sha256 sha256;
  sha256.Update("a");
  sha256.Update("");
  sha256.Update("bc");
  EXPECT_EQ(sha256.Finish(), kDigestOfAbc);
}

TEST(Sha256Test, ReadsFilesLongerThanAChunk) {
  const TempDir dir;
  const std::string data(3'000'001, 'x');
  ASSERT_THAT(WriteFileAtomically(dir.Join("big"), data), IsOk());
  EXPECT_THAT(Sha256HexOfFile(dir.Join("big")), IsOkAndHolds(Sha256Hex(data)));
}

TEST(Sha256Test, NamesAFileThatCannotBeRead) {
  const TempDir dir;
  EXPECT_THAT(Sha256HexOfFile(dir.Join("none")),
              IsError(absl::StatusCode::kNotFound, testing::HasSubstr(dir.Join("none"))));
  EXPECT_THAT(Sha256HexOfFile(dir.path()), testing::Not(IsOk()));
}

TEST(Sha256Test, TakesNoNamedPipeForAnEmptyFile) {
  const TempDir dir;
  ASSERT_EQ(mkfifo(dir.Join("pipe").c_str(), 0600), 0);
  EXPECT_THAT(Sha256HexOfFile(dir.Join("pipe")), IsError(absl::StatusCode::kInvalidArgument,
                                                         testing::HasSubstr("not a regular file")));
}

TEST(IsSha256HexTest, TakesOnlyDigests) {
  EXPECT_TRUE(IsSha256Hex(kDigestOfAbc));
  EXPECT_FALSE(IsSha256Hex(""));
  EXPECT_FALSE(IsSha256Hex(std::string(63, 'a')));
  EXPECT_FALSE(IsSha256Hex(std::string(64, 'A')));
  EXPECT_FALSE(IsSha256Hex(std::string(61, 'a') + "../"));
}

}  // namespace
}  // namespace autosp
