#include "compiler/lowering/program_builder.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace autosp {
namespace {

int64_t Product(const Sizes& sizes) {
  int64_t product = 1;
  for (int64_t size : sizes) product *= size;
  return product;
}

IntList ToIntList(const std::vector<int64_t>& values) { return {values.begin(), values.end()}; }

}  // namespace

AxisList NonTrivial(const Mesh& mesh, const AxisList& axes) {
  AxisList result;
  for (Axis axis : axes) {
    if (mesh.size(axis) > 1) result.push_back(axis);
  }
  return result;
}

bool Contains(const AxisList& axes, Axis axis) { return std::ranges::count(axes, axis) > 0; }

AxisList Union(const AxisList& a, const AxisList& b) {
  AxisList result;
  for (Axis axis : kAllAxes) {
    if (Contains(a, axis) || Contains(b, axis)) result.push_back(axis);
  }
  return result;
}

AxisList Without(const AxisList& a, const AxisList& b) {
  AxisList result;
  for (Axis axis : a) {
    if (!Contains(b, axis)) result.push_back(axis);
  }
  return result;
}

AxisList ShardAxes(const ProgramValue& value) {
  AxisList axes;
  for (const ProgramDim& dim : value.dims) {
    for (const DimFactor& factor : dim) {
      if (!factor.padded) axes = Union(axes, factor.axes);
    }
  }
  return axes;
}

StridedShape ProgramBuilder::Shape(ValueId id) const {
  return {program_.LocalSizes(value(id)), program_.LocalStrides(value(id))};
}

std::vector<Instruction>* ProgramBuilder::SetBody(std::vector<Instruction>* body) {
  return std::exchange(body_, body);
}
Phase ProgramBuilder::SetPhase(Phase phase) { return std::exchange(phase_, phase); }
Source ProgramBuilder::SetSource(Source source) {
  return std::exchange(source_, std::move(source));
}

ProgramValue ProgramBuilder::Like(ValueId id) const {
  return Typed(value(id).dtype, value(id).dims, value(id).partial);
}

ProgramValue ProgramBuilder::Typed(DType dtype, std::vector<ProgramDim> dims,
                                   Partial partial) const {
  ProgramValue result;
  result.dtype = dtype;
  result.dims = std::move(dims);
  result.partial = std::move(partial);
  return result;
}

ValueId ProgramBuilder::Define(std::string_view name, ProgramValue value) {
  value.name = absl::StrCat(std::string(name), next_name_++);
  return program_.AddValue(std::move(value));
}

Instruction& ProgramBuilder::Append(InstructionKind kind, std::string op,
                                    std::vector<Argument> args, std::vector<ValueId> results) {
  Instruction instruction;
  instruction.kind = kind;
  instruction.op = std::move(op);
  instruction.args = std::move(args);
  instruction.results = std::move(results);
  instruction.phase = phase_;
  instruction.source = source_;
  body_->push_back(std::move(instruction));
  return body_->back();
}

ValueId ProgramBuilder::Call(std::string op, std::vector<Argument> args, ProgramValue result) {
  const ValueId id = Define("v", std::move(result));
  Append(InstructionKind::kCall, std::move(op), std::move(args), {id});
  return id;
}

ValueId ProgramBuilder::Zeros(ProgramValue result) {
  IntList sizes = ToIntList(program_.LocalSizes(result));
  std::vector<Argument> args = {std::move(sizes), result.dtype, None{}, None{}, None{}};
  return Call("aten.zeros.default", std::move(args), std::move(result));
}

void ProgramBuilder::Update(std::string op, std::vector<Argument> args, AttributeMap attributes) {
  Append(InstructionKind::kUpdate, std::move(op), std::move(args), {}).attributes =
      std::move(attributes);
}

void ProgramBuilder::Accumulate(ValueId into, ValueId from) {
  Append(InstructionKind::kAccumulate, "", {into, from}, {});
}

ValueId ProgramBuilder::Alias(std::string op, std::vector<Argument> args, ValueId of,
                              ProgramValue type) {
  type.dtype = value(of).dtype;
  if (type.strides == ContiguousStrides(program_.LocalSizes(type)) && type.offset == LinearExpr{}) {
    type.strides.clear();
  }
  type.name = absl::StrCat("v", next_name_++);
  const ValueId id = program_.AddAlias(std::move(type), of);
  if (op == "aten.expand.default" || IsStretched(of)) stretched_.insert(id);
  Append(InstructionKind::kAlias, std::move(op), std::move(args), {id});
  return id;
}

ValueId ProgramBuilder::View(ValueId of, std::vector<ProgramDim> dims) {
  ProgramValue type = Typed(value(of).dtype, std::move(dims), value(of).partial);
  if (type.dims == value(of).dims) return of;
  const Sizes sizes = program_.LocalSizes(type);
  AUTOSP_CHECK(Product(sizes) == program_.LocalNumel(value(of)), "view of %", value(of).name);
  std::optional<Strides> strides = ViewStrides(Shape(of), sizes);
  if (!strides) {
    of = Copy(of);
    strides = ContiguousStrides(sizes);
  }
  type.strides = *std::move(strides);
  type.offset = value(of).offset;
  return Alias("aten.view.default", {of, ToIntList(sizes)}, of, std::move(type));
}

ValueId ProgramBuilder::Permute(ValueId of, const std::vector<int64_t>& order) {
  const StridedShape shape = Shape(of);
  ProgramValue type = Typed(value(of).dtype, {}, value(of).partial);
  for (int64_t dim : order) {
    type.dims.push_back(value(of).dims[dim]);
    type.strides.push_back(shape.strides[dim]);
  }
  type.offset = value(of).offset;
  return Alias("aten.permute.default", {of, ToIntList(order)}, of, std::move(type));
}

ValueId ProgramBuilder::Slice(ValueId of, int64_t dim, ProgramDim to, LinearExpr start,
                              int64_t step) {
  // Where each rank begins is read from the offset, and in a stretched dimension it would be lost.
  if (!start.terms.empty() && Shape(of).strides[dim] == 0) of = Copy(of);
  const StridedShape shape = Shape(of);
  ProgramValue type = Like(of);
  type.dims[dim] = std::move(to);
  type.strides = shape.strides;
  type.offset = value(of).offset;
  type.offset.base += start.base * shape.strides[dim];
  for (const auto& [variable, coefficient] : start.terms) {
    type.offset.terms.emplace_back(variable, coefficient * shape.strides[dim]);
  }
  type.strides[dim] *= step;
  const int64_t size = program_.LocalSize(type.dims[dim]);
  // A start that depends on the rank is in the offset; the arguments show its base.
  return Alias(
      "aten.slice.Tensor",
      {of, SymInt(dim), SymInt(start.base), SymInt(start.base + size * step), SymInt(step)}, of,
      std::move(type));
}

ValueId ProgramBuilder::Select(ValueId of, int64_t dim, int64_t index) {
  const StridedShape shape = Shape(of);
  ProgramValue type = Like(of);
  type.strides = shape.strides;
  type.offset = value(of).offset;
  type.offset.base += index * shape.strides[dim];
  type.dims.erase(type.dims.begin() + dim);
  type.strides.erase(type.strides.begin() + dim);
  return Alias("aten.select.int", {of, SymInt(dim), SymInt(index)}, of, std::move(type));
}

ValueId ProgramBuilder::Expand(ValueId of, std::vector<ProgramDim> dims) {
  const StridedShape shape = Shape(of);
  ProgramValue type = Typed(value(of).dtype, std::move(dims), value(of).partial);
  const Sizes sizes = program_.LocalSizes(type);
  // Equal local sizes may still be another placement: a shard of one sequence.
  if (type.dims == value(of).dims) return of;
  const size_t added = sizes.size() - shape.sizes.size();
  for (size_t i = 0; i < sizes.size(); ++i) {
    const bool kept = i >= added && shape.sizes[i - added] == sizes[i];
    type.strides.push_back(kept ? shape.strides[i - added] : 0);
  }
  type.offset = value(of).offset;
  return Alias("aten.expand.default", {of, ToIntList(sizes)}, of, std::move(type));
}

ValueId ProgramBuilder::Contiguous(ValueId of) { return IsContiguous(Shape(of)) ? of : Copy(of); }

ValueId ProgramBuilder::Copy(ValueId of) {
  const ValueId id = Define("v", Like(of));
  Append(InstructionKind::kCopy, "", {of}, {id});
  return id;
}

ValueId ProgramBuilder::Cast(ValueId of, DType dtype) {
  if (value(of).dtype == dtype) return of;
  ProgramValue type = Like(of);
  type.dtype = dtype;
  type.strides = ElementwiseStrides(LocalSizes(of), {Shape(of)});
  return Call("aten.to.dtype", {of, dtype, false, false, None{}}, std::move(type));
}

ValueId ProgramBuilder::PadEnd(ValueId of, int64_t dim, ProgramDim to, Argument fill) {
  ProgramValue type = Like(of);
  const int64_t from = program_.LocalSize(type.dims[dim]);
  type.dims[dim] = std::move(to);
  const int64_t added = program_.LocalSize(type.dims[dim]) - from;
  if (added == 0) {
    // Only the name of the dimension changes.
    ProgramValue same = type;
    same.strides = Shape(of).strides;
    same.offset = value(of).offset;
    return Alias("aten.alias.default", {of}, of, std::move(same));
  }
  std::vector<int64_t> pads((type.dims.size() - static_cast<size_t>(dim)) * 2, 0);
  pads.back() = added;
  return Call("aten.constant_pad_nd.default", {of, ToIntList(pads), std::move(fill)},
              std::move(type));
}

ValueId ProgramBuilder::ToShards(ValueId of, int64_t dim, ProgramDim to, Argument fill) {
  ProgramValue type = Like(of);
  type.dims[dim] = std::move(to);
  const ValueId id = Call("autosp.to_shards", {of, std::move(fill)}, std::move(type));
  body_->back().attributes["dim"] = SymInt(dim);
  return id;
}

ValueId ProgramBuilder::FromShards(ValueId of, int64_t dim, ProgramDim to) {
  ProgramValue type = Like(of);
  type.dims[dim] = std::move(to);
  const ValueId id = Call("autosp.from_shards", {of}, std::move(type));
  body_->back().attributes["dim"] = SymInt(dim);
  return id;
}

ValueId ProgramBuilder::Sum(ValueId of, const std::vector<int64_t>& dims, bool keep,
                            Partial partial, DType dtype) {
  ProgramValue type = Typed(dtype, {}, std::move(partial));
  for (size_t i = 0; i < value(of).dims.size(); ++i) {
    const bool summed = std::ranges::count(dims, static_cast<int64_t>(i)) > 0;
    if (!summed) type.dims.push_back(value(of).dims[i]);
    if (summed && keep) type.dims.push_back({});
  }
  const Argument asked = dtype == value(of).dtype ? Argument(None{}) : Argument(dtype);
  return Call("aten.sum.dim_IntList", {of, ToIntList(dims), keep, asked}, std::move(type));
}

ValueId ProgramBuilder::Collective(std::string kind, ValueId of, AttributeMap attributes,
                                   const AxisList& axes, ProgramValue result) {
  attributes["axes"] = AxisListName(axes);
  result.dtype = value(of).dtype;
  const ValueId id = Define("c", std::move(result));
  Append(InstructionKind::kStart, std::move(kind), {of}, {id}).attributes = std::move(attributes);
  Append(InstructionKind::kWait, "", {id}, {});
  return id;
}

ValueId ProgramBuilder::AllToAll(ValueId of, int64_t split, int64_t concat, const AxisList& axes,
                                 std::vector<ProgramDim> dims) {
  return Collective("all_to_all", of, {{"split", IntList{split}}, {"concat", IntList{concat}}},
                    axes, Typed(value(of).dtype, std::move(dims), value(of).partial));
}

ValueId ProgramBuilder::AllGather(ValueId of, int64_t dim, const AxisList& axes,
                                  std::vector<ProgramDim> dims) {
  return Collective("all_gather", of, {{"dim", IntList{dim}}}, axes,
                    Typed(value(of).dtype, std::move(dims), value(of).partial));
}

ValueId ProgramBuilder::ReduceScatter(ValueId of, int64_t dim, const AxisList& axes,
                                      std::vector<ProgramDim> dims, Partial partial) {
  return Collective("reduce_scatter", of,
                    {{"dim", IntList{dim}}, {"reduction", std::string("sum")}}, axes,
                    Typed(value(of).dtype, std::move(dims), std::move(partial)));
}

ValueId ProgramBuilder::AllReduce(ValueId of, const AxisList& axes) {
  ProgramValue type = Like(of);
  type.partial.axes = Without(type.partial.axes, axes);
  const bool is_max = value(of).partial.reduction == Reduction::kMax;
  return Collective("all_reduce", of, {{"reduction", std::string(is_max ? "max" : "sum")}}, axes,
                    std::move(type));
}

LinearExpr ProgramBuilder::GroupIndex(const Mesh& mesh, const AxisList& axes, int64_t scale) {
  LinearExpr expr;
  int64_t stride = scale;
  for (auto axis = axes.rbegin(); axis != axes.rend(); ++axis) {
    if (mesh.size(*axis) > 1) {
      expr.terms.emplace_back(absl::StrCat("rank.", std::string(AxisName(*axis))), stride);
    }
    stride *= mesh.size(*axis);
  }
  return expr;
}

}  // namespace autosp
