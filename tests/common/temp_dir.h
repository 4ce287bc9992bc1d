// A folder that lasts as long as a test.

#pragma once

#include <stdlib.h>

#include <filesystem>
#include <string>

#include "absl/strings/string_view.h"
#include "common/check.h"
#include "common/file.h"

namespace autosp {

class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "autosp-test-XXXXXX").string();
    AUTOSP_CHECK(mkdtemp(name.data()) != nullptr, "cannot make ", name);
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string Join(absl::string_view name) const { return JoinPath(path_, name); }

 private:
  std::string path_;
};

}  // namespace autosp
