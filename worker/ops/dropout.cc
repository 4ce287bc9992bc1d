// Dropout whose mask does not depend on the mesh.
//
// Which elements are kept is a function of seed, step, node and the index of the element in the
// whole tensor, so that any sharding drops the same ones, and the backward drops them again without
// a mask having been saved.
#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/ops/dropout_device.h"
#include "worker/ops/dropout_kernel.h"
#include "worker/ops/element_map.h"
#include "worker/ops/own_op.h"
#include "worker/ops/random_stream.h"

namespace autosp {
namespace {

at::Tensor RunOnDevice(const at::Tensor& x, const ElementMap& map, const DropoutMask& mask) {
  const at::Tensor rows = x.reshape({static_cast<int64_t>(map.row_bases.size()), map.row_length});
  return DropoutOnDevice(rows, IndexTensor(map.row_bases, x.device()),
                         IndexTensor(ColumnsOf(map), x.device()), mask)
      .reshape(x.sizes());
}

template <typename T>
void Run(const at::Tensor& x, const at::Tensor& result, const ElementMap& map,
         const DropoutMask& mask) {
  const T* const from = x.const_data_ptr<T>();
  T* const to = result.mutable_data_ptr<T>();
  ForEachSpan(map, [&](int64_t local, int64_t global, int64_t length) {
    if (global < 0) {
      std::fill_n(to + local, length, T(0));
    } else {
      Dropout(from + local, to + local, length, static_cast<uint64_t>(global), mask);
    }
  });
}

struct DropoutOp {
  const Program& program;
  const ProgramValue& value;  // the result
  MeshCoordinate rank;
  double p = 0;
  DropoutMask mask;  // without the step

  absl::Status operator()(const OwnCall& call) const {
    const at::Tensor x = call.args[0][0].contiguous();
    const std::vector<int64_t> sizes = program.LocalSizes(value);
    if (x.sizes() != at::IntArrayRef(sizes)) {
      return InvalidArgument("x [", absl::StrJoin(x.sizes(), ", "), "] must be [",
                             absl::StrJoin(sizes, ", "), "], as the result");
    }
    if (p >= 1) {
      call.results = {at::zeros_like(x)};
      return absl::OkStatus();
    }
    DropoutMask with_step = mask;
    with_step.step = StepOf(call.args[1][0]);
    const ElementMap map = MapOf(program, value, {rank, call.micro_step, call.tile});
    if (x.is_cuda()) {
      call.results = {RunOnDevice(x, map, with_step)};
      return absl::OkStatus();
    }
    const at::Tensor result = at::empty(x.sizes(), x.options());
    AT_DISPATCH_SWITCH(
        x.scalar_type(), "dropout",
        AT_DISPATCH_CASE(at::kFloat, [&] { Run<scalar_t>(x, result, map, with_step); })
            AT_DISPATCH_CASE(at::kBFloat16, [&] { Run<scalar_t>(x, result, map, with_step); })
                AT_DISPATCH_CASE(at::kHalf, [&] { Run<scalar_t>(x, result, map, with_step); }));
    call.results = {result};
    return absl::OkStatus();
  }
};

}  // namespace

// (x, step f32 []) {node, p, seed} -> of the type of x: kept elements * 1 / (1 - p), the others 0.
// Its backward is the same op on the gradient. Padding becomes 0.
absl::StatusOr<OwnOp> MakeDropout(const OwnOpContext& context) {
  RETURN_IF_ERROR(CheckArity(context.instruction, 2, 1));
  ASSIGN_OR_RETURN(const double p, FloatAttribute(context.instruction, "p"));
  if (!(p >= 0 && p <= 1)) return InvalidArgument("p (", p, ") must be a probability, 0 to 1");
  ASSIGN_OR_RETURN(const RandomStream stream, StreamOf(context.instruction));
  DropoutMask mask{stream};
  mask.threshold = static_cast<uint32_t>(std::min(std::ldexp(p, 32), double{UINT32_MAX}));
  mask.scale = static_cast<float>(1 / (1 - p));
  return DropoutOp{context.program, context.program.value(context.instruction.results[0]),
                   context.place, p, mask};
}

}  // namespace autosp
