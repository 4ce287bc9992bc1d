// Reads the tensors of a checkpoint by boxes, whichever of its files have them.
//
// Ranks that go on from a checkpoint take what they hold of each tensor, an export takes all of it
// row by row. The files are mapped, so that only the bytes that are asked for are read.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "checkpoint/manifest.h"
#include "compiler/program/split_dim.h"
#include "compiler/weights/safetensors_reader.h"

namespace autosp {

// Whether a file of the checkpoint is what its manifest says: DATA_LOSS names what is not.
absl::Status CheckFile(const std::string& checkpoint, const ManifestFile& file);
// The same; `on_piece` hears of the bytes as they are read, and ends the reading with an error.
absl::Status CheckFile(const std::string& checkpoint, const ManifestFile& file,
                       absl::FunctionRef<absl::Status(int64_t num_bytes)> on_piece);

// Immutable after Open: threads may share it.
class CheckpointReader {
 public:
  // Finds every slice of the manifest in its file: DATA_LOSS names one that is not there with the
  // type and shape that the manifest says. Whether the bytes are the right ones is CheckFile's.
  static absl::StatusOr<CheckpointReader> Open(const std::string& checkpoint,
                                               CheckpointManifest manifest);

  const CheckpointManifest& manifest() const { return manifest_; }
  // NOT_FOUND for a name that the manifest has not.
  absl::StatusOr<const ManifestTensor*> Find(const std::string& name) const;

  // What one file has of the box that was asked for. Boxes are of the whole tensor.
  struct Part {
    absl::Span<const std::byte> bytes;  // of the slice: little endian, contiguous
    TensorBox slice;
    TensorBox shared;  // of the slice and the box; it is not empty
  };
  // Calls `take` for each file that has some of the box. The parts do not overlap, and together are
  // the box. Requires: `tensor` is the manifest's, and the box lies inside of it.
  absl::Status ForEachPart(const ManifestTensor& tensor, const TensorBox& box,
                           absl::FunctionRef<absl::Status(const Part& part)> take) const;

  // Copies the box into `out`, contiguous. Requires: `out` has as many bytes as the box.
  absl::Status Read(const ManifestTensor& tensor, const TensorBox& box,
                    absl::Span<std::byte> out) const;

 private:
  CheckpointReader() = default;

  CheckpointManifest manifest_;
  std::vector<SafetensorsReader> files_;  // in the order of the manifest's
};

}  // namespace autosp
