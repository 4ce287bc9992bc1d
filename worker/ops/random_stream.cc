#include "worker/ops/random_stream.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {

absl::StatusOr<RandomStream> MakeRandomStream(int64_t seed, int64_t node) {
  if (node < 0 || node > int64_t{UINT32_MAX}) {
    return InvalidArgument("node (", node, ") must be 0 to ", UINT32_MAX);
  }
  const auto seed_bits = static_cast<uint64_t>(seed);
  RandomStream stream;
  stream.key = {static_cast<uint32_t>(seed_bits), static_cast<uint32_t>(node)};
  stream.seed_high = static_cast<uint32_t>(seed_bits >> 32);
  return stream;
}

absl::StatusOr<RandomStream> StreamOf(const Instruction& instruction) {
  ASSIGN_OR_RETURN(const int64_t seed, IntAttribute(instruction, "seed"));
  ASSIGN_OR_RETURN(const int64_t node, IntAttribute(instruction, "node"));
  return MakeRandomStream(seed, node);
}

uint32_t StepOf(const at::Tensor& step) {
  return static_cast<uint32_t>(std::llround(step.item<float>()));
}

at::Tensor IndexTensor(const std::vector<int64_t>& indices, c10::Device device) {
  const at::Tensor tensor = at::empty({static_cast<int64_t>(indices.size())}, at::kLong);
  std::ranges::copy(indices, tensor.mutable_data_ptr<int64_t>());
  return tensor.to(device);
}

}  // namespace autosp
