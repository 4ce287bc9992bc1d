#include "checkpoint/checkpoint_folder.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "common/file.h"
#include "common/sha256.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"
#include "tests/common/temp_dir.h"

namespace autosp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class CheckpointFolderTest : public testing::Test {
 protected:
  // A checkpoint without tensors, whose only file holds `text`.
  void Commit(const CheckpointFolder& folder, const std::string& job_id, int64_t generation,
              int64_t step, const std::string& text = "x") {
    ASSERT_THAT(folder.BeginPartial(step), IsOk());
    ASSERT_THAT(WriteFileAtomically(JoinPath(folder.PartialPath(step), ShardName(0)), text),
                IsOk());
    ASSERT_THAT(folder.Commit({.job_id = job_id,
                               .generation = generation,
                               .step = step,
                               .files = {{ShardName(0), std::ssize(text), Sha256Hex(text)}}}),
                IsOk());
  }

  std::vector<std::string> Names() {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
      names.push_back(entry.path().filename());
    }
    std::ranges::sort(names);
    return names;
  }

  TempDir dir_;
};

TEST_F(CheckpointFolderTest, AnythingButACommittedCheckpointIsNotListed) {
  const CheckpointFolder folder(dir_.path(), "j", 1);
  EXPECT_THAT(ListCheckpoints(dir_.Join("none")), IsOkAndHolds(IsEmpty()));
  ASSERT_THAT(folder.BeginPartial(30), IsOk());
  for (const char* name : {"step-", "step-12x", "step-7", "step--0000001", "other"}) {
    ASSERT_THAT(MakeDirectories(dir_.Join(name)), IsOk());
  }
  Commit(folder, "j", 1, 9);
  Commit(folder, "j", 1, 20);
  Commit(folder, "j", 1, 123456789);
  EXPECT_THAT(ListCheckpoints(dir_.path()),
              IsOkAndHolds(ElementsAre(dir_.Join("step-123456789"), dir_.Join("step-00000020"),
                                       dir_.Join("step-00000009"))));
  EXPECT_THAT(ListCheckpoints(folder.Path(9)), IsOkAndHolds(ElementsAre(folder.Path(9))));
}

TEST_F(CheckpointFolderTest, ACommitReplacesADamagedOneOfItsName) {
  Commit(CheckpointFolder(dir_.path(), "j", 1), "j", 1, 10, "old");
  const CheckpointFolder folder(dir_.path(), "j", 2);
  Commit(folder, "j", 2, 10, "new");
  EXPECT_THAT(ReadFile(JoinPath(folder.Path(10), ShardName(0)), 100), IsOkAndHolds("new"));
  EXPECT_THAT(Names(), ElementsAre("step-00000010"));
  ASSERT_OK_AND_ASSIGN(const CheckpointManifest manifest, ReadManifest(folder.Path(10)));
  EXPECT_EQ(manifest.generation, 2);
}

TEST_F(CheckpointFolderTest, AWholeOneOfAnotherJobIsNotReplaced) {
  const CheckpointFolder other(dir_.path(), "other", 1);
  Commit(other, "other", 1, 10, "theirs");
  Commit(other, "other", 1, 25, "theirs");
  const CheckpointFolder folder(dir_.path(), "j", 1);
  const auto is_refused = IsError(absl::StatusCode::kFailedPrecondition,
                                  HasSubstr("step-00000010 is a checkpoint of job other"));
  EXPECT_THAT(folder.CheckMayWriteAll([](int64_t step) { return step % 10 == 0; }), is_refused);
  EXPECT_THAT(folder.CheckMayWriteAll([](int64_t step) { return step > 25; }), IsOk());
  ASSERT_THAT(folder.BeginPartial(10), IsOk());
  EXPECT_THAT(folder.Commit({.job_id = "j", .generation = 1, .step = 10}), is_refused);
  EXPECT_THAT(ReadFile(JoinPath(folder.Path(10), ShardName(0)), 100), IsOkAndHolds("theirs"));
  // A damaged one is of no use to anybody.
  ASSERT_THAT(WriteFileAtomically(JoinPath(folder.Path(10), ShardName(0)), "thei"), IsOk());
  EXPECT_THAT(folder.CheckMayWriteAll([](int64_t step) { return step % 10 == 0; }), IsOk());
  ASSERT_THAT(WriteFileAtomically(JoinPath(folder.Path(10), ShardName(0)), "thairs"), IsOk());
  Commit(folder, "j", 1, 10, "ours");
  EXPECT_THAT(ReadFile(JoinPath(folder.Path(10), ShardName(0)), 100), IsOkAndHolds("ours"));
}

TEST_F(CheckpointFolderTest, AnOldAttemptReplacesNothingOfANewer) {
  Commit(CheckpointFolder(dir_.path(), "j", 2), "j", 2, 10, "new");
  const CheckpointFolder old(dir_.path(), "j", 1);
  ASSERT_THAT(old.BeginPartial(10), IsOk());
  EXPECT_THAT(old.Commit({.job_id = "j", .generation = 1, .step = 10}),
              IsError(absl::StatusCode::kFailedPrecondition, HasSubstr("attempt 2 of the job")));
  EXPECT_THAT(ReadFile(JoinPath(old.Path(10), ShardName(0)), 100), IsOkAndHolds("new"));
}

TEST_F(CheckpointFolderTest, WhatCouldNotBeReadAgainIsNotCommitted) {
  const CheckpointFolder folder(dir_.path(), "j", 1);
  ASSERT_THAT(folder.BeginPartial(10), IsOk());
  const std::string large(kMaxManifestBytes, 'x');
  EXPECT_THAT(folder.Commit({.job_id = "j", .step = 10, .settings = {{"key", large}}}),
              IsError(absl::StatusCode::kResourceExhausted, HasSubstr("read up to 268435456")));
  EXPECT_THAT(Names(), ElementsAre(".step-00000010.j-1.partial"));
}

TEST_F(CheckpointFolderTest, AManifestThatWillBeTooLongIsKnownBeforehand) {
  CheckpointManifest manifest{.job_id = "j", .settings = {{"key", std::string(100, 'x')}}};
  EXPECT_THAT(CheckManifestLength(manifest, 1000), IsOk());
  // Without its files it would be short enough.
  manifest.settings["key"] = std::string(kMaxManifestBytes - 1000, 'x');
  EXPECT_THAT(CheckManifestLength(manifest, 100),
              IsError(absl::StatusCode::kResourceExhausted, HasSubstr("fewer ranks")));
}

TEST_F(CheckpointFolderTest, AFolderThatTakesNoFilesIsKnownBeforehand) {
  EXPECT_THAT(CheckFolderTakesFiles(dir_.Join("new/one")), IsOk());
  EXPECT_TRUE(FileExists(dir_.Join("new/one")));
  ASSERT_THAT(WriteFileAtomically(dir_.Join("file"), "x"), IsOk());
  EXPECT_THAT(CheckFolderTakesFiles(dir_.Join("file/one")),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("file")));
  // A disk that is full now may have room when the first checkpoint is due.
  EXPECT_THAT(CheckFolderTakesFiles("/dev/full"), testing::Not(IsOk()));
}

TEST_F(CheckpointFolderTest, WithoutItsFolderNothingIsCommitted) {
  const CheckpointFolder folder(dir_.path(), "j", 1);
  Commit(folder, "j", 1, 10);
  EXPECT_FALSE(folder.Commit({.job_id = "j", .generation = 1, .step = 20}).ok());
  EXPECT_THAT(Names(), ElementsAre("step-00000010"));
}

TEST_F(CheckpointFolderTest, PrunesTheJobsOwnByAgeOfTheirAttempts) {
  const CheckpointFolder first(dir_.path(), "j", 1);
  Commit(CheckpointFolder(dir_.path(), "other", 1), "other", 1, 5);
  for (const int64_t step : {10, 20, 30}) Commit(first, "j", 1, step);
  // 20 and 30 were found damaged, and the second attempt went on from 10.
  const CheckpointFolder second(dir_.path(), "j", 2);
  Commit(second, "j", 2, 15);
  second.Prune(2);
  EXPECT_THAT(Names(), ElementsAre("step-00000005", "step-00000015", "step-00000030"))
      << "the newest of the newest attempt stays, and what is of another job";
  second.Prune(1);
  EXPECT_THAT(Names(), ElementsAre("step-00000005", "step-00000015"));
  // What cannot be read is not known to be ours.
  ASSERT_THAT(WriteFileAtomically(JoinPath(second.Path(15), kManifestName), "{"), IsOk());
  Commit(second, "j", 2, 17);
  second.Prune(1);
  EXPECT_THAT(Names(), ElementsAre("step-00000005", "step-00000015", "step-00000017"));
}

TEST_F(CheckpointFolderTest, RemovesWhatEarlierAttemptsHaveLeft) {
  ASSERT_THAT(CheckpointFolder(dir_.path(), "j", 1).BeginPartial(10), IsOk());
  ASSERT_THAT(CheckpointFolder(dir_.path(), "j", 2).BeginPartial(10), IsOk());
  ASSERT_THAT(CheckpointFolder(dir_.path(), "other", 1).BeginPartial(10), IsOk());
  CheckpointFolder(dir_.path(), "j", 2).RemoveLeftovers();
  EXPECT_THAT(Names(), ElementsAre(".step-00000010.j-2.partial", ".step-00000010.other-1.partial"));
  CheckpointFolder(dir_.Join("none"), "j", 2).RemoveLeftovers();
}

// Reading the memory of this process from its address 0 is an I/O error, as of a disk.
TEST_F(CheckpointFolderTest, WhatCannotBeReadNowIsNotDamaged) {
  const CheckpointFolder folder(dir_.path(), "j", 1);
  Commit(folder, "j", 1, 10);
  const std::string manifest = JoinPath(folder.Path(10), kManifestName);
  ASSERT_THAT(RemoveFile(manifest), IsOk());
  EXPECT_TRUE(IsDamage(ReadManifest(folder.Path(10)).status())) << "it is missing";
  ASSERT_EQ(symlink("/proc/self/mem", manifest.c_str()), 0);
  const absl::Status unread = ReadManifest(folder.Path(10)).status();
  EXPECT_THAT(std::string(unread.message()), HasSubstr("Input/output error"));
  EXPECT_FALSE(IsDamage(unread));
  ASSERT_THAT(RemoveFile(manifest), IsOk());
  ASSERT_THAT(WriteFileAtomically(manifest, "{"), IsOk());
  EXPECT_TRUE(IsDamage(ReadManifest(folder.Path(10)).status()));
  ASSERT_EQ(truncate(manifest.c_str(), kMaxManifestBytes + 1), 0);
  EXPECT_TRUE(IsDamage(ReadManifest(folder.Path(10)).status())) << "it is no manifest";
  EXPECT_FALSE(IsDamage(absl::OkStatus()));
}

TEST_F(CheckpointFolderTest, AFolderThatCannotBeListedIsNotAnEmptyOne) {
  ASSERT_EQ(symlink("loop", dir_.Join("loop").c_str()), 0);
  EXPECT_THAT(std::string(ListCheckpoints(dir_.Join("loop")).status().message()),
              HasSubstr("loop: Too many levels of symbolic links"));
}

TEST_F(CheckpointFolderTest, ErrorsNameTheFile) {
  EXPECT_THAT(std::string(ReadManifest(dir_.Join("step-00000001")).status().message()),
              HasSubstr("step-00000001/manifest.json"));
  ASSERT_THAT(WriteFileAtomically(dir_.Join("file"), "x"), IsOk());
  const CheckpointFolder folder(dir_.Join("file"), "j", 1);
  EXPECT_THAT(std::string(folder.BeginPartial(1).message()), HasSubstr("file"));
}

}  // namespace
}  // namespace autosp
