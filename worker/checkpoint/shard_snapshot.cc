#include "worker/checkpoint/shard_snapshot.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/status_macros.h"
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

// Copies what one file has of the tensor into what the rank holds of it.
absl::Status CopyPart(const CheckpointReader::Part& part, const HeldTensor& held) {
  return CatchTorch([&] {
    // Nothing writes to it, which a mapping would not bear.
    auto* bytes = const_cast<std::byte*>(part.bytes.data());
    const at::Tensor saved =
        at::from_blob(bytes, part.slice.shape, at::TensorOptions(held.tensor.scalar_type()));
    const auto& [offset, shape] = part.shared;
    ViewOf(held.tensor, held.offset, offset, shape)
        .copy_(ViewOf(saved, part.slice.offset, offset, shape));
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
  return ManifestFile{.name = name, .size_bytes = writer.file_bytes(), .sha256 = writer.sha256()};
}

absl::Status LoadCheckpoint(const CheckpointReader& checkpoint, const FindTensor& find) {
  const at::NoGradGuard no_grad;
  for (const ManifestTensor& tensor : checkpoint.manifest().tensors) {
    ASSIGN_OR_RETURN(const HeldTensor held, Hold(tensor, find));
    RETURN_IF_ERROR(checkpoint.ForEachPart(
        tensor, {held.offset, held.tensor.sizes().vec()},
        [&](const CheckpointReader::Part& part) { return CopyPart(part, held); }));
  }
  return absl::OkStatus();
}

}  // namespace autosp
