#include "worker/checkpoint/state_dict_writer.h"

#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/executor/torch_types.h"

namespace autosp {
absl::Status AppendTensor(const SafetensorsEntry& entry, const at::Tensor& value,
                          SafetensorsWriter& writer) {
  if (value.sizes() != at::IntArrayRef(entry.shape)) {
    return absl::InternalError(absl::StrCat(entry.name, ": has [",
                                            absl::StrJoin(value.sizes(), ", "), "] instead of [",
                                            absl::StrJoin(entry.shape, ", "), "]"));
  }
  return CatchTorch([&] {
    const at::Tensor plain = value.detach().to(ToScalarType(*entry.dtype)).cpu().contiguous();
    return writer.Append(entry.name, {static_cast<const std::byte*>(plain.const_data_ptr()),
                                      static_cast<size_t>(plain.nbytes())});
  });
}

absl::StatusOr<WrittenFile> WriteStateDict(
    const std::string& path, const std::vector<TensorSpec>& tensors,
    const std::function<absl::StatusOr<at::Tensor>(const std::string& name)>& value) {
  // Libraries that read such files ask for the framework that the tensors are of.
  ASSIGN_OR_RETURN(SafetensorsWriter writer,
                   SafetensorsWriter::Create(path, tensors, {{"format", "pt"}}));
  for (const SafetensorsEntry& entry : writer.order()) {
    ASSIGN_OR_RETURN(const at::Tensor tensor, value(entry.name), "weights ", path);
    RETURN_IF_ERROR(WithContext(AppendTensor(entry, tensor, writer), "weights ", path));
  }
  RETURN_IF_ERROR(writer.Commit());
  return WrittenFile{.path = path, .sha256 = writer.sha256(), .size_bytes = writer.file_bytes()};
}

}  // namespace autosp
