// Reads tensors from safetensors files: one file, or a folder of shards as Hugging Face writes it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/mapped_file.h"
#include "compiler/weights/safetensors_header.h"

namespace autosp {

// Mapped, so that only the bytes that are used are read. Immutable after Open.
class SafetensorsReader {
 public:
  // `path` is a file, or a folder whose *.safetensors files together hold the tensors.
  static absl::StatusOr<SafetensorsReader> Open(const std::string& path);

  // As long as this reader lives.
  struct Tensor {
    const SafetensorsEntry* entry = nullptr;
    const std::string* path = nullptr;  // the file that has it
    absl::Span<const std::byte> bytes;  // little endian, contiguous
  };
  std::optional<Tensor> Lookup(const std::string& name) const;
  // The same; the error of an unknown name says which are near.
  absl::StatusOr<Tensor> Find(const std::string& name) const;
  std::vector<std::string> Names() const;  // sorted
  const std::string& path() const { return path_; }

 private:
  struct File {
    MappedFile mapped;
    SafetensorsHeader header;
    int64_t data_begin = 0;
  };
  struct Place {
    size_t file = 0;
    size_t entry = 0;
  };

  absl::Status AddFile(const std::string& path);

  std::string path_;
  std::vector<File> files_;
  std::map<std::string, Place> places_;
};

}  // namespace autosp
