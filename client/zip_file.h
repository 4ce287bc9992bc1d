// Zip archives, written in one go.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace autosp {

struct FileToZip {
  std::string name;
  std::string data;
};

// Writes `path` whole or not at all; a file that is there is replaced.
absl::Status WriteZip(const std::string& path, const std::vector<FileToZip>& entries);

}  // namespace autosp
