#include "checkpoint/checkpoint_reader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/errors.h"
#include "common/file.h"
#include "common/sha256.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

// What two boxes share; a size of 0 in some dimension: nothing.
TensorBox Intersection(const TensorBox& a, const TensorBox& b) {
  TensorBox shared;
  for (size_t dim = 0; dim < a.shape.size(); ++dim) {
    const int64_t begin = std::max(a.offset[dim], b.offset[dim]);
    const int64_t end = std::min(a.offset[dim] + a.shape[dim], b.offset[dim] + b.shape[dim]);
    shared.offset.push_back(begin);
    shared.shape.push_back(std::max<int64_t>(0, end - begin));
  }
  return shared;
}

// Copies a box from one contiguous box that has it into another.
class BoxCopier {
 public:
  BoxCopier(const TensorBox& box, const TensorBox& from, const TensorBox& to, int64_t element_bytes)
      : box_(box),
        from_(from),
        to_(to),
        from_strides_(StridesOf(from, element_bytes)),
        to_strides_(StridesOf(to, element_bytes)) {}

  void Copy(const std::byte* from, std::byte* to) const { CopyFrom(0, from, to); }

 private:
  // In bytes, with the element's as the last.
  static std::vector<int64_t> StridesOf(const TensorBox& box, int64_t element_bytes) {
    std::vector<int64_t> strides(box.shape.size() + 1, element_bytes);
    for (size_t dim = box.shape.size(); dim > 0; --dim) {
      strides[dim - 1] = strides[dim] * box.shape[dim - 1];
    }
    return strides;  // strides[d + 1] is the step of dimension d, strides[d] the bytes of all of it
  }

  // Whether both sides have all of the dimensions after `dim`, so that its indices lie in one run.
  bool IsRun(size_t dim) const {
    for (size_t inner = dim + 1; inner < box_.shape.size(); ++inner) {
      const int64_t size = box_.shape[inner];
      if (from_.shape[inner] != size || to_.shape[inner] != size) return false;
    }
    return true;
  }

  void CopyFrom(size_t dim, const std::byte* from, std::byte* to) const {
    if (dim == box_.shape.size()) {
      std::memcpy(to, from, from_strides_[dim]);
      return;
    }
    const int64_t from_step = from_strides_[dim + 1];
    const int64_t to_step = to_strides_[dim + 1];
    from += (box_.offset[dim] - from_.offset[dim]) * from_step;
    to += (box_.offset[dim] - to_.offset[dim]) * to_step;
    if (IsRun(dim)) {
      std::memcpy(to, from, box_.shape[dim] * from_step);
      return;
    }
    for (int64_t i = 0; i < box_.shape[dim]; ++i) {
      CopyFrom(dim + 1, from + i * from_step, to + i * to_step);
    }
  }

  const TensorBox& box_;
  const TensorBox& from_;
  const TensorBox& to_;
  const std::vector<int64_t> from_strides_;
  const std::vector<int64_t> to_strides_;
};

absl::Status CheckSlice(const ManifestTensor& tensor, const TensorSlice& slice,
                        const SafetensorsReader& file) {
  const std::optional<SafetensorsReader::Tensor> found = file.Lookup(tensor.name);
  if (!found) return DataLoss(file.path(), ": has no slice of ", tensor.name);
  if (found->entry->shape == slice.shape && found->entry->dtype == tensor.dtype) {
    return absl::OkStatus();
  }
  return DataLoss(file.path(), ": ", tensor.name, " is not the slice of the manifest");
}

}  // namespace

absl::Status CheckFile(const std::string& checkpoint, const ManifestFile& file) {
  return CheckFile(checkpoint, file, [](int64_t /*num_bytes*/) { return absl::OkStatus(); });
}

absl::Status CheckFile(const std::string& checkpoint, const ManifestFile& file,
                       absl::FunctionRef<absl::Status(int64_t num_bytes)> on_piece) {
  const std::string path = JoinPath(checkpoint, file.name);
  ASSIGN_OR_RETURN(const int64_t size_bytes, FileSize(path));
  if (size_bytes != file.size_bytes) {
    return DataLoss(path, " has ", size_bytes, " of ", file.size_bytes, " bytes");
  }
  ASSIGN_OR_RETURN(const std::string sha256, Sha256HexOfFile(path, on_piece));
  if (sha256 == file.sha256) return absl::OkStatus();
  return DataLoss(path, " is damaged: its sum is not that of the manifest");
}

absl::StatusOr<CheckpointReader> CheckpointReader::Open(const std::string& checkpoint,
                                                        CheckpointManifest manifest) {
  CheckpointReader reader;
  reader.manifest_ = std::move(manifest);
  for (const ManifestFile& file : reader.manifest_.files) {
    ASSIGN_OR_RETURN(SafetensorsReader opened,
                     SafetensorsReader::Open(JoinPath(checkpoint, file.name)));
    reader.files_.push_back(std::move(opened));
  }
  for (const ManifestTensor& tensor : reader.manifest_.tensors) {
    for (const TensorSlice& slice : tensor.slices) {
      RETURN_IF_ERROR(CheckSlice(tensor, slice, reader.files_[slice.file]));
    }
  }
  return reader;
}

absl::StatusOr<const ManifestTensor*> CheckpointReader::Find(const std::string& name) const {
  if (const ManifestTensor* found = manifest_.Find(name)) return found;
  return NotFound("the checkpoint has no tensor ", name);
}

absl::Status CheckpointReader::ForEachPart(
    const ManifestTensor& tensor, const TensorBox& box,
    absl::FunctionRef<absl::Status(const Part& part)> take) const {
  for (const TensorSlice& slice : tensor.slices) {
    Part part{.bytes = {}, .slice = {slice.offset, slice.shape}, .shared = {}};
    part.shared = Intersection(part.slice, box);
    if (std::ranges::count(part.shared.shape, 0) > 0) continue;
    part.bytes = files_[slice.file].Lookup(tensor.name)->bytes;
    RETURN_IF_ERROR(take(part));
  }
  return absl::OkStatus();
}

absl::Status CheckpointReader::Read(const ManifestTensor& tensor, const TensorBox& box,
                                    absl::Span<std::byte> out) const {
  return ForEachPart(tensor, box, [&](const Part& part) {
    BoxCopier(part.shared, part.slice, box, SizeOf(tensor.dtype))
        .Copy(part.bytes.data(), out.data());
    return absl::OkStatus();
  });
}

}  // namespace autosp
