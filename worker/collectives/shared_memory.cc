#include "worker/collectives/shared_memory.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/file.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

constexpr char kSharedMemoryDirectory[] = "/dev/shm";

absl::Status Reserve(int fd, int64_t bytes, const std::string& name) {
  int error = EINTR;
  while (error == EINTR) error = posix_fallocate(fd, 0, bytes);
  if (error == 0) return absl::OkStatus();
  struct statvfs space = {};
  fstatvfs(fd, &space);
  return absl::ResourceExhaustedError(absl::StrCat(
      "shared memory ", name, ": needs ", bytes, " bytes, ",
      static_cast<int64_t>(space.f_bavail) * static_cast<int64_t>(space.f_frsize), " are free in ",
      kSharedMemoryDirectory, " (", std::strerror(error), "); enlarge it"));
}

}  // namespace

absl::StatusOr<SharedMemory> SharedMemory::Map(int fd, int64_t bytes, const std::string& name) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) {
    return absl::ErrnoToStatus(errno,
                               absl::StrCat("shared memory ", name, ": map of ", bytes, " bytes"));
  }
  return SharedMemory(static_cast<std::byte*>(memory), bytes);
}

absl::StatusOr<SharedMemory> SharedMemory::Create(const std::string& name, int64_t bytes) {
  const UniqueFd fd(shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600));
  if (!fd.is_open()) {
    return absl::ErrnoToStatus(
        errno,
        absl::StrCat("shared memory ", name, ": create; the prefix must be new for each attempt"));
  }
  const absl::Status reserved = Reserve(fd.get(), bytes, name);
  auto memory = reserved.ok() ? Map(fd.get(), bytes, name) : reserved;
  if (!memory.ok()) UnlinkSharedMemoryName(name);
  return memory;
}

absl::StatusOr<SharedMemory> SharedMemory::Attach(const std::string& name) {
  const UniqueFd fd(shm_open(name.c_str(), O_RDWR | O_CLOEXEC, 0600));
  if (!fd.is_open()) return absl::ErrnoToStatus(errno, absl::StrCat("shared memory ", name));
  struct stat status = {};
  if (fstat(fd.get(), &status) != 0 || status.st_size == 0) {
    return absl::NotFoundError(absl::StrCat("shared memory ", name, " is not sized yet"));
  }
  return Map(fd.get(), status.st_size, name);
}

SharedMemory::~SharedMemory() {
  if (memory_ != nullptr) munmap(memory_, bytes_);
}

void UnlinkSharedMemoryName(const std::string& name) { shm_unlink(name.c_str()); }

void UnlinkSharedMemory(absl::string_view name_prefix) {
  DIR* directory = opendir(kSharedMemoryDirectory);
  if (directory == nullptr) return;
  const std::string begin = absl::StrCat(absl::StripPrefix(name_prefix, "/"), "-");
  while (const dirent* entry = readdir(directory)) {
    if (absl::StartsWith(entry->d_name, begin)) {
      UnlinkSharedMemoryName(absl::StrCat("/", entry->d_name));
    }
  }
  closedir(directory);
}

}  // namespace autosp
