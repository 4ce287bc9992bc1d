// Dropout whose mask does not depend on the mesh.
//
// Which elements are kept is a function of seed, step, node and the index of the element in the
// whole tensor, so that any sharding drops the same ones, and the backward drops them again without
// a mask having been saved.
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
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
#include "worker/ops/own_op.h"
#include "worker/ops/shard_indices.h"

namespace autosp {
namespace {

constexpr int64_t kSegmentElements = 1 << 13;
constexpr int64_t kGrainElements = 1 << 15;

// Elements of the innermost part of a row that follow each other locally and in the whole tensor.
struct Segment {
  int64_t local = 0;
  int64_t global = 0;  // -1: padding
  int64_t length = 0;
};

// Where the local elements of a value are in the whole tensor: local element
// row * row_length + segment.local is global element row_bases[row] + segment.global.
struct ElementMap {
  int64_t row_length = 1;
  std::vector<int64_t> row_bases = {0};  // -1: padding
  std::vector<Segment> segments;
};

bool IsWhole(const std::vector<int64_t>& indices, int64_t size) {
  if (static_cast<int64_t>(indices.size()) != size) return false;
  for (int64_t i = 0; i < size; ++i) {
    if (indices[i] != i) return false;
  }
  return true;
}

// Segments of a dimension whose elements are `inner` numbers each.
std::vector<Segment> SegmentsOf(const std::vector<int64_t>& indices, int64_t inner) {
  const auto position = [](size_t i) { return static_cast<int64_t>(i); };
  std::vector<Segment> segments;
  for (size_t begin = 0, end = 0; begin < indices.size(); begin = end) {
    const bool is_padding = indices[begin] < 0;
    while (
        end < indices.size() &&
        (is_padding ? indices[end] < 0 : indices[end] == indices[begin] + position(end - begin))) {
      ++end;
    }
    const int64_t length = position(end - begin) * inner;
    for (int64_t part = 0; part < length; part += kSegmentElements) {
      segments.push_back({position(begin) * inner + part,
                          is_padding ? -1 : indices[begin] * inner + part,
                          std::min(kSegmentElements, length - part)});
    }
  }
  return segments;
}

ElementMap MapOf(const Program& program, const ProgramValue& value, const ShardPlace& place) {
  ElementMap map;
  int64_t inner = 1;
  size_t dim = value.dims.size();
  std::vector<int64_t> indices = {0};
  // Whole dimensions at the end are part of a segment, and the last other one is cut into them.
  while (dim > 0) {
    const ProgramDim& factors = value.dims[--dim];
    indices = GlobalIndices(program, factors, place);
    if (dim == 0 || !IsWhole(indices, GlobalSize(program, factors))) break;
    inner *= static_cast<int64_t>(indices.size());
    indices = {0};
  }
  map.segments = SegmentsOf(indices, inner);
  map.row_length = static_cast<int64_t>(indices.size()) * inner;
  // The dimensions before it.
  for (size_t outer = 0; outer < dim; ++outer) {
    const int64_t size = GlobalSize(program, value.dims[outer]);
    std::vector<int64_t> bases;
    for (const int64_t base : map.row_bases) {
      for (const int64_t index : GlobalIndices(program, value.dims[outer], place)) {
        bases.push_back(base < 0 || index < 0 ? -1 : base * size + index);
      }
    }
    map.row_bases = std::move(bases);
  }
  const int64_t last_size = value.dims.empty() ? 1 : GlobalSize(program, value.dims[dim]);
  for (int64_t& base : map.row_bases) base = base < 0 ? -1 : base * last_size * inner;
  return map;
}

// On the device of `x`.
at::Tensor IndexTensor(const std::vector<int64_t>& indices, const at::Tensor& x) {
  const at::Tensor tensor = at::empty({static_cast<int64_t>(indices.size())}, at::kLong);
  std::ranges::copy(indices, tensor.mutable_data_ptr<int64_t>());
  return tensor.to(x.device());
}

at::Tensor RunOnDevice(const at::Tensor& x, const ElementMap& map, const DropoutMask& mask) {
  std::vector<int64_t> columns;
  for (const Segment& segment : map.segments) {
    for (int64_t i = 0; i < segment.length; ++i) {
      columns.push_back(segment.global < 0 ? -1 : segment.global + i);
    }
  }
  const at::Tensor rows = x.reshape({static_cast<int64_t>(map.row_bases.size()), map.row_length});
  return DropoutOnDevice(rows, IndexTensor(map.row_bases, x), IndexTensor(columns, x), mask)
      .reshape(x.sizes());
}

template <typename T>
void Run(const at::Tensor& x, const at::Tensor& result, const ElementMap& map,
         const DropoutMask& mask) {
  const T* const from = x.const_data_ptr<T>();
  T* const to = result.mutable_data_ptr<T>();
  const auto num_segments = static_cast<int64_t>(map.segments.size());
  const auto num_tasks = static_cast<int64_t>(map.row_bases.size()) * num_segments;
  const int64_t task_elements = std::max<int64_t>(1, x.numel() / std::max<int64_t>(1, num_tasks));
  const int64_t grain = std::max<int64_t>(1, kGrainElements / task_elements);
  at::parallel_for(0, num_tasks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t row = task / num_segments;
      const Segment& segment = map.segments[task % num_segments];
      const int64_t local = row * map.row_length + segment.local;
      if (segment.global < 0 || map.row_bases[row] < 0) {
        std::fill_n(to + local, segment.length, T(0));
        continue;
      }
      Dropout(from + local, to + local, segment.length,
              static_cast<uint64_t>(map.row_bases[row] + segment.global), mask);
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
    with_step.step = static_cast<uint32_t>(std::llround(call.args[1][0].item<float>()));
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
  ASSIGN_OR_RETURN(const int64_t seed, IntAttribute(context.instruction, "seed"));
  ASSIGN_OR_RETURN(const int64_t node, IntAttribute(context.instruction, "node"));
  if (!(p >= 0 && p <= 1)) return InvalidArgument("p (", p, ") must be a probability, 0 to 1");
  if (node < 0 || node > int64_t{UINT32_MAX}) {
    return InvalidArgument("node (", node, ") must be 0 to ", UINT32_MAX);
  }
  DropoutMask mask;
  const auto seed_bits = static_cast<uint64_t>(seed);
  mask.key = {static_cast<uint32_t>(seed_bits), static_cast<uint32_t>(node)};
  mask.seed_high = static_cast<uint32_t>(seed_bits >> 32);
  mask.threshold = static_cast<uint32_t>(std::min(std::ldexp(p, 32), double{UINT32_MAX}));
  mask.scale = static_cast<float>(1 / (1 - p));
  return DropoutOp{context.program, context.program.value(context.instruction.results[0]),
                   context.place, p, mask};
}

}  // namespace autosp
