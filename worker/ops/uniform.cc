// Random numbers that do not depend on the mesh: a function of seed, step, node and the index of
// the element in the whole tensor, as those of dropout.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "common/status_macros.h"
#include "worker/ops/dropout_device.h"
#include "worker/ops/dropout_kernel.h"
#include "worker/ops/element_map.h"
#include "worker/ops/own_op.h"
#include "worker/ops/random_stream.h"

namespace autosp {
namespace {

struct UniformOp {
  const Program& program;
  const ProgramValue& value;  // the result
  MeshCoordinate rank;
  c10::Device device;
  RandomStream stream;  // without the step

  absl::Status operator()(const OwnCall& call) const {
    RandomStream with_step = stream;
    with_step.step = StepOf(call.args[1][0]);
    const ElementMap map = MapOf(program, value, {rank, call.micro_step, call.tile});
    const at::Tensor result =
        at::empty(program.LocalSizes(value), at::TensorOptions().device(device).dtype(at::kFloat));
    call.results = {result};
    if (result.is_cuda()) {
      const auto num_rows = static_cast<int64_t>(map.row_bases.size());
      UniformOnDevice(result.view({num_rows, map.row_length}), IndexTensor(map.row_bases, device),
                      IndexTensor(ColumnsOf(map), device), with_step);
      return absl::OkStatus();
    }
    float* const to = result.mutable_data_ptr<float>();
    ForEachSpan(map, [&](int64_t local, int64_t global, int64_t length) {
      if (global < 0) {
        std::fill_n(to + local, length, 0.0F);
      } else {
        Uniform(to + local, length, static_cast<uint64_t>(global), with_step);
      }
    });
    return absl::OkStatus();
  }
};

}  // namespace

// (like, step f32 []) {node, seed} -> f32, sizes as `like`: numbers between 0 and 1, neither of
// them. Padding becomes 0.
absl::StatusOr<OwnOp> MakeUniform(const OwnOpContext& context) {
  RETURN_IF_ERROR(CheckArity(context.instruction, 2, 1));
  ASSIGN_OR_RETURN(const RandomStream stream, StreamOf(context.instruction));
  return UniformOp{context.program, context.program.value(context.instruction.results[0]),
                   context.place, context.device, stream};
}

}  // namespace autosp
