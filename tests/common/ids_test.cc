#include "common/ids.h"

#include <set>
#include <type_traits>

#include "absl/container/flat_hash_set.h"
#include "common/errors.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using testing::HasSubstr;

TEST(IdsTest, ParsesSafeNames) {
  for (const char* text : {"job-4x7", "a", "7", "node0.rack_1.Example"}) {
    EXPECT_THAT(JobId::Parse(text), IsOkAndHolds(JobId(text)));
  }
  EXPECT_THAT(NodeId::Parse(std::string(kMaxIdLength, 'a')), IsOk());
}

TEST(IdsTest, RefusesWhatIsUnsafeInAPath) {
  for (const char* text : {"../etc", "a/b", ".hidden", "-rf", "a b", "a\nb", "\xc3\xa9"}) {
    EXPECT_THAT(JobId::Parse(text),
                IsError(absl::StatusCode::kInvalidArgument, HasSubstr("job id (")))
        << text;
  }
  EXPECT_THAT(JobId::Parse(absl::string_view("a\0b", 3)),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("a\\x00")));
}

TEST(IdsTest, RefusesEmptyAndLong) {
  EXPECT_THAT(NodeId::Parse(""), IsError(absl::StatusCode::kInvalidArgument, "node id is empty"));
  EXPECT_THAT(NodeId::Parse(std::string(kMaxIdLength + 1, 'a')),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("64 characters")));
}

TEST(IdsTest, KindsDoNotMix) {
  static_assert(!std::is_convertible_v<JobId, NodeId>);
  static_assert(!std::is_convertible_v<std::string, JobId>);
  static_assert(!std::is_convertible_v<int64_t, Rank>);
  static_assert(!std::is_convertible_v<Rank, Generation>);
}

TEST(IdsTest, CompareHashAndPrint) {
  EXPECT_LT(JobId("a"), JobId("b"));
  EXPECT_LT(Rank(1), Rank(2));
  EXPECT_EQ(Generation(3), Generation(3));
  const absl::flat_hash_set<JobId> set = {JobId("a"), JobId("b"), JobId("a")};
  EXPECT_EQ(set.size(), 2u);
  EXPECT_EQ(NotFound("job ", JobId("a"), " has no rank ", Rank(2)).message(),
            "job a has no rank 2");
}

TEST(RandomIdTest, GivesDifferentValidIds) {
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) {
    const std::string id = RandomId("job");
    EXPECT_THAT(JobId::Parse(id), IsOk());
    EXPECT_EQ(id.size(), 16u);
    ids.insert(id);
  }
  EXPECT_EQ(ids.size(), 1000u);
}

}  // namespace
}  // namespace autosp
