// Named memory that processes of one host share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace autosp {

// A mapping of the whole of it, for as long as the object lives.
class SharedMemory {
 public:
  // Zeroed, with its pages taken at once: a rank must not get SIGBUS in the middle of a step.
  // ALREADY_EXISTS when the name is taken.
  static absl::StatusOr<SharedMemory> Create(const std::string& name, int64_t bytes);
  // NOT_FOUND when there is none of that name, or its creator has not given it a size yet.
  static absl::StatusOr<SharedMemory> Attach(const std::string& name);

  SharedMemory(SharedMemory&& other) noexcept
      : memory_(std::exchange(other.memory_, nullptr)), bytes_(other.bytes_) {}
  SharedMemory& operator=(SharedMemory&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~SharedMemory();

  std::byte* memory() const { return memory_; }
  int64_t bytes() const { return bytes_; }

 private:
  SharedMemory(std::byte* memory, int64_t bytes) : memory_(memory), bytes_(bytes) {}
  static absl::StatusOr<SharedMemory> Map(int fd, int64_t bytes, const std::string& name);

  std::byte* memory_;
  int64_t bytes_;
};

// Removes a name; who has the memory mapped keeps it.
void UnlinkSharedMemoryName(const std::string& name);

// Removes the names of memory that was left by ranks which died before all had attached. For who
// starts the ranks, once all of an attempt have ended.
void UnlinkSharedMemory(absl::string_view name_prefix);

}  // namespace autosp
