#include "client/temporary_folder.h"

#include <stdlib.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/file.h"

namespace autosp {

absl::StatusOr<TemporaryFolder> TemporaryFolder::Create(absl::string_view purpose) {
  const std::string name = absl::StrCat("autosp-", purpose, "-XXXXXX");
  std::string path = (std::filesystem::temp_directory_path() / name).string();
  if (mkdtemp(path.data()) == nullptr) return ErrnoError(errno, "cannot make " + path);
  return TemporaryFolder(path);
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

TemporaryFolder::TemporaryFolder(TemporaryFolder&& other) noexcept
    : path_(std::exchange(other.path_, "")) {}

TemporaryFolder& TemporaryFolder::operator=(TemporaryFolder&& other) noexcept {
  std::swap(path_, other.path_);
  return *this;
}

std::string TemporaryFolder::Join(absl::string_view name) const { return JoinPath(path_, name); }

}  // namespace autosp
