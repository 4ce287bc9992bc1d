// A whole file mapped read-only, for weights, token files and archives larger than memory should
// hold. Pages come in as they are touched.

#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace autosp {

// Movable; data() keeps its address across moves. Thread-compatible: reading from many threads is
// fine. The file must not be truncated while mapped (SIGBUS); ours are written once and renamed.
class MappedFile {
 public:
  // An empty file gives an empty span. A missing file, a folder or a device is an error.
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile() = default;
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  absl::Span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

 private:
  void Unmap();

  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  std::string path_;
};

}  // namespace autosp
