#include "worker/verify/batch_feeder.h"

#include <ATen/ops/from_blob.h>

#include <variant>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/weights/safetensors_reader.h"
#include "worker/executor/shard.h"
#include "worker/executor/torch_types.h"

namespace autosp {
namespace {

double PadOf(const FeedRequest& request) {
  if (const auto* integer = std::get_if<SymInt>(&request.pad)) {
    return static_cast<double>(integer->value);
  }
  if (const auto* boolean = std::get_if<bool>(&request.pad)) return *boolean ? 1 : 0;
  const auto* number = std::get_if<double>(&request.pad);
  return number == nullptr ? 0 : *number;
}

}  // namespace

absl::StatusOr<NamedTensors> ReadSafetensors(const std::string& path) {
  ASSIGN_OR_RETURN(const SafetensorsReader reader, SafetensorsReader::Open(path));
  NamedTensors tensors;
  for (const std::string& name : reader.Names()) {
    ASSIGN_OR_RETURN(const SafetensorsReader::Tensor tensor, reader.Find(name));
    if (!tensor.entry->dtype.has_value()) {
      return InvalidArgument(path, ": ", name, " is ", tensor.entry->dtype_name,
                             ", which programs do not have; save it as I64 or F32");
    }
    RETURN_IF_ERROR(CatchTorch([&] {
      tensors[name] = at::from_blob(const_cast<std::byte*>(tensor.bytes.data()),
                                    tensor.entry->shape, ToScalarType(*tensor.entry->dtype))
                          .clone();
      return absl::OkStatus();
    }));
  }
  return tensors;
}

absl::StatusOr<at::Tensor> BatchFeeder::Feed(const FeedRequest& request) {
  const std::string name(request.name);
  const auto found = batch_->find(name);
  if (found == batch_->end()) {
    return NotFound("input ", name, ": the batch has no tensor of that name");
  }
  ASSIGN_OR_RETURN(const at::Tensor shard,
                   TakeShard(request.program, request.value, {request.place, request.micro_step},
                             found->second, PadOf(request)),
                   "input ", name);
  at::Tensor result;
  RETURN_IF_ERROR(CatchTorch([&] {
    // A copy in any case: the program owns and frees what it is fed.
    result = shard.to(ToScalarType(request.value.dtype), /*non_blocking=*/false, /*copy=*/true)
                 .contiguous();
    return absl::OkStatus();
  }));
  return result;
}

}  // namespace autosp
