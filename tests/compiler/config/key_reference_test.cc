// Holds the key tables of docs/job-file.md against the parser's own table. With
// AUTOSP_REWRITE_GOLDENS set (./run golden) the tables are written again instead.
#include "compiler/config/key_reference.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/file.h"
#include "compiler/config/config_keys.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

constexpr int64_t kMaxDocBytes = 1 << 20;

std::string DocPath() { return absl::StrCat(AUTOSP_SOURCE_DIR, "/docs/job-file.md"); }

// The part between the markers of `name`, which is replaced by `wanted` in rewrite mode.
void ExpectSection(const std::string& name, const std::string& wanted) {
  ASSERT_OK_AND_ASSIGN(std::string doc, ReadFile(DocPath(), kMaxDocBytes));
  const std::string begin = absl::StrCat("<!-- ", name, ": begin -->\n");
  const std::string end = absl::StrCat("<!-- ", name, ": end -->");
  const size_t from = doc.find(begin);
  ASSERT_NE(from, std::string::npos) << "docs/job-file.md lost its marker " << begin;
  const size_t to = doc.find(end, from);
  ASSERT_NE(to, std::string::npos) << "docs/job-file.md lost its marker " << end;
  const size_t text = from + begin.size();
  if (std::getenv("AUTOSP_REWRITE_GOLDENS") != nullptr) {
    doc.replace(text, to - text, wanted);
    ASSERT_THAT(WriteFileAtomically(DocPath(), doc), IsOk());
    return;
  }
  EXPECT_EQ(doc.substr(text, to - text), wanted) << "run ./run golden and read the diff";
}

TEST(JobFileReference, IsTheParsersTable) { ExpectSection("job keys", JobKeyReference()); }

TEST(JobFileReference, HasTheClusterFileToo) {
  ExpectSection("cluster keys", ClusterKeyReference());
}

template <typename Spec>
void ExpectEveryKeySays(const KeyTable<Spec>& keys) {
  for (const KeyInfo& info : keys.Describe()) {
    EXPECT_FALSE(info.type.empty()) << info.path;
    EXPECT_GT(info.doc.size(), 10u) << info.path;
    EXPECT_EQ(info.doc.back(), '.') << info.path;
  }
}

TEST(JobFileReference, HasNoKeyWithoutAWord) {
  ExpectEveryKeySays(JobKeys());
  ExpectEveryKeySays(ClusterKeys());
}

}  // namespace
}  // namespace autosp
