#include "worker/checkpoint/shard_snapshot.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/sha256.h"
#include "common/status_macros.h"
#include "compiler/program/split_dim.h"
#include "compiler/weights/safetensors_reader.h"
#include "worker/executor/torch_types.h"

namespace autosp {
namespace {

// The part of `tensor` that lies between `offset` and `offset + shape` of the whole.
at::Tensor ViewOf(at::Tensor tensor, const std::vector<int64_t>& tensor_offset,
                  const std::vector<int64_t>& offset, const std::vector<int64_t>& shape) {
  for (size_t dim = 0; dim < shape.size(); ++dim) {
    tensor = tensor.narrow(static_cast<int64_t>(dim), offset[dim] - tensor_offset[dim], shape[dim]);
  }
  return tensor;
}

// A tensor whose place in the whole is stated.
absl::StatusOr<HeldTensor> Hold(const ManifestTensor& wanted, const FindTensor& find) {
  ASSIGN_OR_RETURN(HeldTensor held, find(wanted.name));
  if (held.whole_shape.empty()) held.whole_shape = held.tensor.sizes().vec();
  if (held.offset.empty()) held.offset.assign(held.whole_shape.size(), 0);
  const bool is_same =
      held.whole_shape == wanted.shape && held.tensor.scalar_type() == ToScalarType(wanted.dtype);
  if (is_same) return held;
  return FailedPrecondition(
      wanted.name, ": the program has ", at::toString(held.tensor.scalar_type()), " [",
      absl::StrJoin(held.whole_shape, ", "), "], the checkpoint ",
      std::string(DTypeName(wanted.dtype)), " [", absl::StrJoin(wanted.shape, ", "), "]");
}

// What two boxes share; an empty shape in some dimension: nothing.
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

absl::Status CopySlice(const ManifestTensor& tensor, const TensorSlice& slice,
                       const SafetensorsReader& reader, const HeldTensor& held) {
  ASSIGN_OR_RETURN(const SafetensorsReader::Tensor source, reader.Find(tensor.name));
  if (source.entry->shape != slice.shape || source.entry->dtype != tensor.dtype) {
    return DataLoss(*source.path, ": ", tensor.name, " is not the slice of the manifest");
  }
  const TensorBox shared =
      Intersection({slice.offset, slice.shape}, {held.offset, held.tensor.sizes().vec()});
  if (std::ranges::count(shared.shape, 0) > 0) return absl::OkStatus();
  return CatchTorch([&] {
    // Nothing writes to it, which a mapping would not bear.
    auto* bytes = const_cast<std::byte*>(source.bytes.data());
    const at::Tensor saved =
        at::from_blob(bytes, slice.shape, at::TensorOptions(ToScalarType(tensor.dtype)));
    ViewOf(held.tensor, held.offset, shared.offset, shared.shape)
        .copy_(ViewOf(saved, slice.offset, shared.offset, shared.shape));
    return absl::OkStatus();
  });
}

}  // namespace

absl::StatusOr<ShardSnapshot> ShardSnapshot::Take(const std::vector<ManifestTensor>& tensors,
                                                  int64_t file, const FindTensor& find) {
  ShardSnapshot snapshot;
  for (const ManifestTensor& tensor : tensors) {
    for (const TensorSlice& slice : tensor.slices) {
      if (slice.file != file) continue;
      ASSIGN_OR_RETURN(const HeldTensor held, Hold(tensor, find));
      Part part{.spec = {.name = tensor.name, .dtype = tensor.dtype, .shape = slice.shape},
                .bytes = {}};
      RETURN_IF_ERROR(CatchTorch([&] {
        const at::Tensor plain =
            ViewOf(held.tensor.detach(), held.offset, slice.offset, slice.shape).cpu().contiguous();
        part.bytes.resize(plain.nbytes());
        std::memcpy(part.bytes.data(), plain.const_data_ptr(), plain.nbytes());
        return absl::OkStatus();
      }));
      snapshot.parts_.push_back(std::move(part));
    }
  }
  return snapshot;
}

int64_t ShardSnapshot::num_bytes() const {
  int64_t bytes = 0;
  for (const Part& part : parts_) bytes += static_cast<int64_t>(part.bytes.size());
  return bytes;
}

absl::StatusOr<ManifestFile> ShardSnapshot::Write(const std::string& folder,
                                                  const std::string& name) const {
  const std::string path = JoinPath(folder, name);
  std::vector<TensorSpec> specs;
  for (const Part& part : parts_) specs.push_back(part.spec);
  ASSIGN_OR_RETURN(SafetensorsWriter writer, SafetensorsWriter::Create(path, specs, {}));
  for (const SafetensorsEntry& entry : writer.order()) {
    const auto part =
        std::ranges::find(parts_, entry.name, [](const Part& each) { return each.spec.name; });
    RETURN_IF_ERROR(writer.Append(entry.name, part->bytes));
  }
  RETURN_IF_ERROR(writer.Commit());
  ASSIGN_OR_RETURN(std::string sha256, Sha256HexOfFile(path));
  return ManifestFile{.name = name, .size_bytes = writer.file_bytes(), .sha256 = sha256};
}

absl::Status CheckFile(const std::string& checkpoint, const ManifestFile& file) {
  const std::string path = JoinPath(checkpoint, file.name);
  ASSIGN_OR_RETURN(const int64_t size_bytes, FileSize(path));
  if (size_bytes != file.size_bytes) {
    return DataLoss(path, " has ", size_bytes, " of ", file.size_bytes, " bytes");
  }
  ASSIGN_OR_RETURN(const std::string sha256, Sha256HexOfFile(path));
  if (sha256 == file.sha256) return absl::OkStatus();
  return DataLoss(path, " is damaged: its sum is not that of the manifest");
}

absl::Status LoadCheckpoint(const std::string& checkpoint, const CheckpointManifest& manifest,
                            const FindTensor& find) {
  const at::NoGradGuard no_grad;
  std::vector<SafetensorsReader> readers;
  for (const ManifestFile& file : manifest.files) {
    ASSIGN_OR_RETURN(SafetensorsReader reader,
                     SafetensorsReader::Open(JoinPath(checkpoint, file.name)));
    readers.push_back(std::move(reader));
  }
  for (const ManifestTensor& tensor : manifest.tensors) {
    ASSIGN_OR_RETURN(const HeldTensor held, Hold(tensor, find));
    for (const TensorSlice& slice : tensor.slices) {
      RETURN_IF_ERROR(CopySlice(tensor, slice, readers[slice.file], held));
    }
  }
  return absl::OkStatus();
}

}  // namespace autosp
