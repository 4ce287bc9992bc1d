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
  return WriteTensorFile(path, tensors,
                         [&](const SafetensorsEntry& entry, SafetensorsWriter& writer) {
                           ASSIGN_OR_RETURN(const at::Tensor tensor, value(entry.name));
                           return AppendTensor(entry, tensor, writer);
                         });
}

}  // namespace autosp
