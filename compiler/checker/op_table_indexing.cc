// Ops that pick elements by index, put tensors together, or pad them.
#include <algorithm>

#include "compiler/checker/op_shape.h"

namespace autosp::checker {
namespace {

// x[i0, i1, ...]: indexed dimensions are whole, those of the (broadcast) indices are parallel.
// False: masks, or indices that are not side by side.
bool DescribeIndex(const OpCall& call, OpShape* shape) {
  if (call.operands.size() < 2 || call.instruction.args.size() < 2) return false;
  const auto* slots = std::get_if<ValueList>(&call.instruction.args[1]);
  if (slots == nullptr) return false;
  size_t first = slots->size();
  size_t last = 0;
  size_t rank = 0;
  for (size_t i = 0; i < slots->size(); ++i) {
    if (!(*slots)[i].valid()) continue;
    if (call.program.value((*slots)[i]).dtype == DType::kBool) return false;
    first = std::min(first, i);
    last = i;
    rank = std::max(rank, call.program.value((*slots)[i]).dims.size());
  }
  if (last + 1 - first != call.operands.size() - 1) return false;
  std::vector<int> index;
  for (size_t i = 0; i < rank; ++i) index.push_back(shape->NewLabel(Role::kParallel));
  std::vector<int> self;
  std::vector<int> result;
  for (size_t i = 0; i < call.operands[0].size(); ++i) {
    const bool indexed = i >= first && i <= last;
    self.push_back(shape->NewLabel(indexed ? Role::kWhole : Role::kParallel));
    if (i == first) result.insert(result.end(), index.begin(), index.end());
    if (!indexed) result.push_back(self.back());
  }
  shape->operands.push_back(self);
  for (size_t i = 1; i < call.operands.size(); ++i) {
    const PlacedDims& dims = call.operands[i];
    std::vector<int> labels;
    for (size_t j = 0; j < dims.size(); ++j) {
      labels.push_back(dims[j].empty() ? OpShape::kNone : index[rank - dims.size() + j]);
    }
    shape->operands.push_back(labels);
  }
  shape->results = {result};
  shape->linear = Linear::kFirst;
  return true;
}

// gather(self, dim, index): `self` is whole along dim, and where it is longer than the index.
void DescribeGather(const OpCall& call, OpShape* shape) {
  const int64_t rank = call.rank(0);
  const std::vector<int64_t> dim = call.Dims(1, rank);
  std::vector<int> self;
  std::vector<int> index;
  // Where each row of the result is of the same row of `self`, so is its padding.
  shape->keeps_positive = true;
  for (int64_t i = 0; i < rank; ++i) {
    const bool same = LogicalSize(call.operands[0][i]) == LogicalSize(call.operands[1][i]);
    const bool is_dim = std::ranges::count(dim, i) > 0;
    const bool parallel = same && !is_dim;
    const bool is_padded = !PadKeys({call.operands[1][i]}).empty();
    if (!parallel && (is_padded || !is_dim)) shape->keeps_positive = false;
    index.push_back(shape->NewLabel(parallel || is_dim ? Role::kParallel : Role::kWhole));
    self.push_back(parallel ? index.back() : shape->NewLabel(Role::kWhole));
  }
  shape->operands = {self, index};
  shape->results = {index};
  shape->linear = Linear::kFirst;
}

void DescribeIndexSelect(const OpCall& call, OpShape* shape) {
  const int64_t rank = call.rank(0);
  const std::vector<int64_t> dim = call.Dims(1, rank);
  const int index = shape->NewLabel(Role::kParallel);
  std::vector<int> self;
  std::vector<int> result;
  for (int64_t i = 0; i < rank; ++i) {
    const bool is_dim = std::ranges::count(dim, i) > 0;
    self.push_back(shape->NewLabel(is_dim ? Role::kWhole : Role::kParallel));
    result.push_back(is_dim ? index : self.back());
  }
  shape->operands = {self, {index}};
  shape->results = {result};
  shape->linear = Linear::kFirst;
}

// scatter(self, dim, index, src): every operand is whole along dim, and where their sizes differ.
void DescribeScatter(const OpCall& call, OpShape* shape) {
  const int64_t rank = call.rank(0);
  const std::vector<int64_t> dim = call.Dims(1, rank);
  shape->operands.resize(call.operands.size());
  for (int64_t i = 0; i < rank; ++i) {
    const bool is_same = std::ranges::all_of(call.operands, [&](const PlacedDims& dims) {
      return LogicalSize(dims[i]) == LogicalSize(call.operands[0][i]);
    });
    const bool parallel = is_same && std::ranges::count(dim, i) == 0;
    const int label = shape->NewLabel(parallel ? Role::kParallel : Role::kWhole);
    for (size_t j = 0; j < call.operands.size(); ++j) {
      shape->operands[j].push_back(parallel || j == 0 ? label : shape->NewLabel(Role::kWhole));
    }
  }
  shape->results = {shape->operands[0]};
}

// index_add(self, dim, index, source): whole along dim; the index has that dimension alone.
void DescribeIndexAdd(const OpCall& call, OpShape* shape) {
  const int64_t rank = call.rank(0);
  const std::vector<int64_t> dim = call.Dims(1, rank);
  std::vector<int> self;
  std::vector<int> source;
  for (int64_t i = 0; i < rank; ++i) {
    const bool is_dim = std::ranges::count(dim, i) > 0;
    self.push_back(shape->NewLabel(is_dim ? Role::kWhole : Role::kParallel));
    source.push_back(is_dim ? shape->NewLabel(Role::kWhole) : self.back());
  }
  shape->operands = {self, {shape->NewLabel(Role::kWhole)}, source};
  shape->results = {self};
}

// bucketize(values, boundaries), searchsorted(boundaries, values, ..., sorter): each value by
// itself. Boundaries are whole; those of all rows where they have one dimension.
void DescribeSearch(const OpCall& call, size_t values, OpShape* shape) {
  std::vector<int> labels;
  for (int64_t i = 0; i < call.rank(values); ++i) {
    labels.push_back(shape->NewLabel(Role::kParallel));
  }
  for (size_t i = 0; i < call.operands.size(); ++i) {
    std::vector<int> own = labels;
    if (i != values && call.rank(i) == 1) own = {shape->NewLabel(Role::kWhole)};
    if (i != values && call.rank(i) > 1) own.back() = shape->NewLabel(Role::kWhole);
    shape->operands.push_back(own);
  }
  shape->results = {labels};
}

// masked_scatter(self, mask, source): the mask is counted over all that it covers. It stretches.
void DescribeMaskedScatter(const OpCall& call, OpShape* shape) {
  const int64_t rank = std::max(call.rank(0), call.rank(1));
  std::vector<int> result;
  for (int64_t i = 0; i < rank; ++i) result.push_back(shape->NewLabel(Role::kWhole));
  for (const size_t operand : {0, 1}) {
    std::vector<int>& labels = shape->operands.emplace_back();
    for (int64_t i = 0; i < call.rank(operand); ++i) {
      const bool is_stretched = call.operands[operand][i].empty();
      labels.push_back(is_stretched ? OpShape::kNone : result[rank - call.rank(operand) + i]);
    }
  }
  std::vector<int>& source = shape->operands.emplace_back();
  for (int64_t i = 0; i < call.rank(2); ++i) source.push_back(shape->NewLabel(Role::kWhole));
  shape->results = {result};
}

// index_put(self, indices, values): anything may be written anywhere.
void DescribeIndexPut(const OpCall& call, OpShape* shape) {
  for (size_t operand = 0; operand < call.operands.size(); ++operand) {
    std::vector<int>& labels = shape->operands.emplace_back();
    for (int64_t i = 0; i < call.rank(operand); ++i) {
      labels.push_back(shape->NewLabel(Role::kWhole));
    }
  }
  shape->results = {shape->operands[0]};
}

// slice_scatter(self, src, dim, ...), select_scatter(self, src, dim, index): `self` and the part
// that is written are whole along dim. A selected part does not have that dimension.
void DescribePartWritten(const OpCall& call, bool is_select, OpShape* shape) {
  const int64_t rank = call.rank(0);
  const std::vector<int64_t> named = call.Dims(2, rank);
  const int64_t dim = call.Ints(2).empty() || named.empty() ? 0 : named[0];
  std::vector<int> self;
  std::vector<int> part;
  for (int64_t i = 0; i < rank; ++i) {
    self.push_back(shape->NewLabel(i == dim ? Role::kWhole : Role::kParallel));
    if (i != dim) part.push_back(self.back());
    if (i == dim && !is_select) part.push_back(shape->NewLabel(Role::kWhole));
  }
  shape->operands = {self, part};
  shape->results = {self};
}

// cat, pad: dimensions in `along` are whole, in the operands and in the result.
void DescribeJoin(const OpCall& call, const std::vector<int64_t>& along, OpShape* shape) {
  const int64_t rank = call.rank(0);
  std::vector<int> result;
  std::vector<bool> is_along;
  for (int64_t i = 0; i < rank; ++i) {
    is_along.push_back(std::ranges::count(along, i) > 0);
    result.push_back(shape->NewLabel(is_along[i] ? Role::kWhole : Role::kParallel));
  }
  for (size_t j = 0; j < call.operands.size(); ++j) {
    std::vector<int> labels = result;
    for (int64_t i = 0; i < rank; ++i) {
      if (is_along[i]) labels[i] = shape->NewLabel(Role::kWhole);
    }
    shape->operands.push_back(labels);
  }
  shape->results = {result};
  shape->linear = Linear::kJointly;
}

// topk, glu: the result has another size along a dimension, by default the last.
void DescribeShortened(const OpCall& call, size_t dim_arg, OpShape* shape) {
  const int64_t rank = call.rank(0);
  const bool is_named = !call.Ints(dim_arg).empty();
  DescribeJoin(call, is_named ? call.Dims(dim_arg, rank) : std::vector{rank - 1}, shape);
  shape->results.assign(call.results.size(), shape->results[0]);
  shape->linear = Linear::kNo;
}

bool HaveSameRank(const OpCall& call) {
  return std::ranges::all_of(call.operands, [&](const PlacedDims& dims) {
    return static_cast<int64_t>(dims.size()) == call.rank(0);
  });
}

std::vector<int64_t> PaddedDims(const OpCall& call) {
  const std::vector<int64_t> pads = call.Ints(1);
  std::vector<int64_t> along;
  for (size_t i = 0; i + 1 < pads.size(); i += 2) {
    if (pads[i] == 0 && pads[i + 1] == 0) continue;
    along.push_back(call.rank(0) - 1 - static_cast<int64_t>(i / 2));
  }
  return along;
}

}  // namespace

bool DescribeIndexing(const OpCall& call, OpShape* shape, absl::Status* /*status*/) {
  const std::string& op = call.instruction.op;
  const bool has_index = call.operands.size() == 2;
  if (op == "aten.index.Tensor") {
    OpShape described;
    if (!DescribeIndex(call, &described)) return false;
    *shape = described;
  } else if (op == "aten.gather.default" && has_index && call.rank(0) == call.rank(1)) {
    DescribeGather(call, shape);
  } else if (op == "aten.index_select.default" && has_index) {
    DescribeIndexSelect(call, shape);
  } else if (op == "aten.index_add.default") {
    if (call.operands.size() != 3 || call.rank(0) != call.rank(2)) return false;
    DescribeIndexAdd(call, shape);
  } else if (op == "aten.index_put.default") {
    DescribeIndexPut(call, shape);
  } else if (op == "aten.masked_scatter.default") {
    if (call.operands.size() != 3) return false;
    DescribeMaskedScatter(call, shape);
  } else if (op == "aten.bucketize.Tensor" || op == "aten.searchsorted.Tensor") {
    if (call.operands.size() < 2) return false;
    DescribeSearch(call, op == "aten.bucketize.Tensor" ? 0 : 1, shape);
  } else if (op.starts_with("aten.scatter.") || op == "aten.scatter_add.default") {
    // Some forms reduce what is written to one place, by an operation that the op names.
    if (op.ends_with("reduce") || call.operands.size() < 2 || !HaveSameRank(call)) return false;
    DescribeScatter(call, shape);
  } else if (op == "aten.slice_scatter.default" || op == "aten.select_scatter.default") {
    DescribePartWritten(call, op == "aten.select_scatter.default", shape);
  } else if (op == "aten.topk.default" || op == "aten.glu.default") {
    const bool chooses = op == "aten.topk.default";
    DescribeShortened(call, chooses ? 2 : 1, shape);
    shape->keeps_positive = chooses;
  } else if (op == "aten.cat.default") {
    if (!HaveSameRank(call)) return false;
    DescribeJoin(call, call.Dims(1, call.rank(0)), shape);
  } else if (op == "aten.diff.default") {
    const std::vector<int64_t> dim = call.Ints(2);
    DescribeJoin(call, dim.empty() ? std::vector{call.rank(0) - 1} : call.Dims(2, call.rank(0)),
                 shape);
  } else if (op == "aten.pad.default") {
    DescribeJoin(call, PaddedDims(call), shape);
    shape->linear = Linear::kNo;
  } else if (op == "aten.constant_pad_nd.default") {
    DescribeJoin(call, PaddedDims(call), shape);
    shape->keeps_zero = call.Number(2).value_or(0) == 0;
    shape->linear = shape->keeps_zero ? Linear::kFirst : Linear::kNo;
  } else {
    return false;
  }
  return true;
}

}  // namespace autosp::checker
