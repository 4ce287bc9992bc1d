// One rank's part of a checkpoint: copied from the executor's tensors, written to a file, and read
// back.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/manifest.h"
#include "checkpoint/safetensors_writer.h"

namespace autosp {

// What a rank holds of a tensor, in the memory that its program works on.
struct HeldTensor {
  at::Tensor tensor;
  // Where it lies in the whole, and the shape of that; both empty: it is the whole.
  std::vector<int64_t> offset = {};
  std::vector<int64_t> whole_shape = {};
};

// By the name of the persistent value.
using FindTensor = std::function<absl::StatusOr<HeldTensor>(const std::string& name)>;

// Bytes in host memory that belong to no account of the rank, so that training goes on while they
// are written. Used by one thread at a time.
class ShardSnapshot {
 public:
  // Copies the slices of `tensors` that are in file `file`. Requires: the rank holds them.
  static absl::StatusOr<ShardSnapshot> Take(const std::vector<ManifestTensor>& tensors,
                                            int64_t file, const FindTensor& find);

  // Durable, whole or not at all.
  absl::StatusOr<ManifestFile> Write(const std::string& folder, const std::string& name) const;

  int64_t num_bytes() const;

 private:
  struct Part {
    TensorSpec spec;
    std::vector<std::byte> bytes;
  };
  std::vector<Part> parts_;
};

// Copies a whole checkpoint into the tensors: of each, what the rank holds. Requires: its files
// were checked (CheckFile).
absl::Status LoadCheckpoint(const CheckpointReader& checkpoint, const FindTensor& find);

}  // namespace autosp
