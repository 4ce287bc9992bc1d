// Writes a safetensors file, tensor by tensor, whole or not at all.
//
// The bytes go to a hidden file beside the target, which takes its name only when everything is on
// disk. Room for all of it is taken first, so that a full disk is found before hours of work are
// written half.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/file.h"
#include "common/sha256.h"
#include "compiler/ir/dtype.h"
#include "compiler/weights/safetensors_header.h"

namespace autosp {

struct TensorSpec {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape = {};
};

class SafetensorsWriter {
 public:
  static absl::StatusOr<SafetensorsWriter> Create(const std::string& path,
                                                  const std::vector<TensorSpec>& tensors,
                                                  std::map<std::string, std::string> metadata);
  SafetensorsWriter(SafetensorsWriter&&) = default;
  SafetensorsWriter& operator=(SafetensorsWriter&&) = default;
  // Removes what was written, unless it was committed.
  ~SafetensorsWriter();

  // The tensors in the order in which they must be written: wide types first, so that all are
  // aligned.
  const std::vector<SafetensorsEntry>& order() const { return header_.entries; }
  // The same of a file that somebody else writes.
  static absl::StatusOr<std::vector<SafetensorsEntry>> OrderOf(
      const std::vector<TensorSpec>& tensors);

  // The next bytes of the next tensor of order(): little endian, contiguous. A large tensor may
  // come in several pieces; one without elements is appended too.
  absl::Status Append(const std::string& name, absl::Span<const std::byte> bytes);

  // Makes the file durable and gives it its name. Requires: every tensor was appended.
  absl::Status Commit();

  int64_t file_bytes() const { return file_bytes_; }
  // Of the whole file, in hex. Requires: it was committed.
  const std::string& sha256() const { return sha256_; }

 private:
  SafetensorsWriter() = default;
  absl::Status Reserve();
  absl::Status Write(absl::string_view bytes);

  std::string path_;
  std::string partial_path_;
  UniqueFd fd_;
  SafetensorsHeader header_;
  int64_t file_bytes_ = 0;
  size_t num_appended_ = 0;     // tensors
  int64_t appended_bytes_ = 0;  // of the next one
  Sha256 digest_;
  std::string sha256_;
};

}  // namespace autosp
