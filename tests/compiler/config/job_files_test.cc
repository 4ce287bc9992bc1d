#include "compiler/config/job_files.h"

#include <filesystem>

#include "common/file.h"
#include "compiler/config/job_yaml.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"
#include "tests/common/temp_dir.h"

namespace autosp {
namespace {

using ::testing::ElementsAre;

class JobFilesTest : public testing::Test {
 protected:
  JobFilesTest() {
    spec_.model.archives = {"m.pt2"};
    spec_.data.files = {"text/*.txt"};
    spec_.training.seq_len = 8;
    spec_.output.dir = "out";
    Write("m.pt2", 100);
    Write("text/b.txt", 5);
    Write("text/a.txt", 3);
  }

  void Write(const std::string& name, size_t size) {
    const std::string path = dir_.Join(name);
    ASSERT_THAT(MakeDirectories(std::filesystem::path(path).parent_path().string()), IsOk());
    ASSERT_THAT(WriteFileAtomically(path, std::string(size, 'x')), IsOk());
  }

  absl::Status Resolve() { return ResolveJobFiles(dir_.path(), spec_).status(); }

  // The message with this run's folder as DIR.
  std::string Refusal() {
    std::string message(Resolve().message());
    for (size_t at; (at = message.find(dir_.path())) != std::string::npos;) {
      message.replace(at, dir_.path().size(), "DIR");
    }
    return message;
  }

  TempDir dir_;
  JobSpec spec_;
};

TEST_F(JobFilesTest, FindsAndMeasuresEveryFile) {
  Write("w/one.safetensors", 7);
  Write("w/two.safetensors", 9);
  Write("w/readme.md", 1);
  spec_.model.weights = "w";
  ASSERT_OK_AND_ASSIGN(const std::vector<JobFile> files, ResolveJobFiles(dir_.path(), spec_));
  std::vector<std::string> lines;
  for (const JobFile& file : files) {
    lines.push_back(std::to_string(static_cast<int>(file.role)) + " " +
                    file.path.substr(dir_.path().size()) + " " + std::to_string(file.size_bytes));
  }
  EXPECT_THAT(lines, ElementsAre("0 /m.pt2 100", "1 /w/one.safetensors 7", "1 /w/two.safetensors 9",
                                 "2 /text/a.txt 3", "2 /text/b.txt 5"));
}

TEST_F(JobFilesTest, MakesPathsAbsoluteOnce) {
  ASSERT_THAT(Resolve(), IsOk());
  EXPECT_EQ(spec_.model.archives[0], dir_.Join("m.pt2"));
  EXPECT_THAT(spec_.data.files, ElementsAre(dir_.Join("text/a.txt"), dir_.Join("text/b.txt")));
  EXPECT_EQ(spec_.output.dir, dir_.Join("out"));
  const JobSpec once = spec_;
  EXPECT_THAT(ResolveJobFiles("/elsewhere", spec_), IsOk());
  EXPECT_EQ(spec_, once);
}

TEST_F(JobFilesTest, FindsWhatTheJobGoesOnFrom) {
  Write("old/step-00000010/manifest.json", 5);
  Write("config.json", 5);
  spec_.checkpoint = {.every_steps = 5, .directory = "new", .resume = "old"};
  spec_.output.config = "config.json";
  ASSERT_THAT(Resolve(), IsOk());
  EXPECT_EQ(spec_.checkpoint.directory, dir_.Join("new"));
  EXPECT_EQ(spec_.checkpoint.resume, dir_.Join("old"));
  EXPECT_EQ(spec_.output.config, dir_.Join("config.json"));
  for (const char* word : {"auto", "never"}) {
    spec_.checkpoint.resume = word;
    ASSERT_THAT(Resolve(), IsOk());
    EXPECT_EQ(spec_.checkpoint.resume, word);
  }
  spec_.checkpoint.resume = "none";
  EXPECT_EQ(Refusal(),
            "checkpoint.resume: DIR/none does not exist; name a checkpoint or a folder of "
            "checkpoints, or write auto or never");
  spec_.checkpoint.resume = "auto";
  spec_.output.config = "none.json";
  EXPECT_EQ(Refusal(), "output.config: cannot open DIR/none.json: No such file or directory");
}

TEST_F(JobFilesTest, KeepsTheOrderOfTheList) {
  spec_.data.files = {"text/b.txt", "text/a.txt"};
  ASSERT_THAT(Resolve(), IsOk());
  EXPECT_THAT(spec_.data.files, ElementsAre(dir_.Join("text/b.txt"), dir_.Join("text/a.txt")));
}

TEST_F(JobFilesTest, RefusesMissingFiles) {
  spec_.model.archives = {"none.pt2"};
  EXPECT_EQ(Refusal(), "model.archive: cannot open DIR/none.pt2: No such file or directory");
  spec_.model.archives = {"m.pt2"};
  spec_.model.weights = "text";
  EXPECT_EQ(Refusal(),
            "model.weights: DIR/text has no *.safetensors file; name the folder that "
            "has them");
  spec_.model.weights = "";
  spec_.data.files = {"*.bin"};
  EXPECT_EQ(Refusal(),
            "data.files: no file matches DIR/*.bin; relative paths count from the "
            "folder of the job file");
}

TEST_F(JobFilesTest, ModelFilesAloneNeedNoData) {
  spec_.data.files = {"*.bin"};
  const auto files = ResolveModelFiles(dir_.path(), spec_);
  ASSERT_THAT(files, IsOk());
  ASSERT_EQ(files->size(), 1u);
  EXPECT_EQ((*files)[0].path, dir_.Join("m.pt2"));
  EXPECT_EQ(spec_.model.archives[0], dir_.Join("m.pt2"));
  EXPECT_THAT(spec_.data.files, ElementsAre("*.bin"));
  spec_.model.archives = {"none.pt2"};
  EXPECT_THAT(ResolveModelFiles(dir_.path(), spec_), testing::Not(IsOk()));
}

TEST_F(JobFilesTest, RefusesAFolderAsArchive) {
  spec_.model.archives = {"text"};
  EXPECT_THAT(Resolve(), testing::Not(IsOk()));
}

TEST_F(JobFilesTest, RefusesTooLittleData) {
  spec_.training.seq_len = 9;
  EXPECT_EQ(Refusal(),
            "data.files: 8 tokens are less than one sequence (training.seq_len 9); give "
            "more data or a smaller seq_len");
}

TEST_F(JobFilesTest, RefusesHalfATokenAtTheEnd) {
  spec_.data.format = DataFormat::kTokens;
  spec_.data.dtype = TokenDtype::kInt32;
  EXPECT_EQ(Refusal(),
            "data.files: DIR/text/a.txt has 3 bytes, which is no multiple of the 4 "
            "bytes of data.dtype int32; is the dtype right?");
}

}  // namespace
}  // namespace autosp
