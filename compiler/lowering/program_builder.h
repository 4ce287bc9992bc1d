// Appends instructions to a program: views with their strides, calls, collectives.
//
// Knows memory layout and nothing of what to shard; the forward and backward lowerings share it.
// Functions that make a view return an alias, or a copy where strides do not allow one.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/lowering/layout.h"
#include "compiler/program/program.h"

namespace autosp {

class ProgramBuilder {
 public:
  explicit ProgramBuilder(Program& program) : program_(program) {}

  Program& program() { return program_; }
  const Program& program() const { return program_; }
  const ProgramValue& value(ValueId id) const { return program_.value(id); }
  StridedShape Shape(ValueId id) const;
  Sizes LocalSizes(ValueId id) const { return program_.LocalSizes(value(id)); }
  // Whether several elements of the whole tensor share a place, as an expand makes them: a rank
  // that holds one of them has no stride of zero to tell by. What is stretched may not be written
  // to.
  bool IsStretched(ValueId id) const { return stretched_.contains(id); }

  // Where instructions go, and what they carry. Each returns the old one, to be put back.
  std::vector<Instruction>* SetBody(std::vector<Instruction>* body);
  Phase SetPhase(Phase phase);
  Source SetSource(Source source);
  std::vector<Instruction>& body() { return *body_; }
  Phase phase() const { return phase_; }

  // A value of this type with no instruction yet.
  ProgramValue Like(ValueId id) const;  // same dtype, dims and partial; contiguous
  ProgramValue Typed(DType dtype, std::vector<ProgramDim> dims, Partial partial = {}) const;
  ValueId Define(std::string_view name, ProgramValue value);

  Instruction& Append(InstructionKind kind, std::string op, std::vector<Argument> args,
                      std::vector<ValueId> results);
  ValueId Call(std::string op, std::vector<Argument> args, ProgramValue result);
  ValueId Zeros(ProgramValue result);
  void Update(std::string op, std::vector<Argument> args, AttributeMap attributes = {});
  void Accumulate(ValueId into, ValueId from);

  // `op` and `args` say what the view means; the strides say what it is. The offset is absolute.
  ValueId Alias(std::string op, std::vector<Argument> args, ValueId of, ProgramValue type);
  // The same elements in order under other dims.
  ValueId View(ValueId of, std::vector<ProgramDim> dims);
  ValueId Permute(ValueId of, const std::vector<int64_t>& order);
  // Elements [start, start + size of `dim` in `dims`) of a dimension; start may depend on the rank.
  ValueId Slice(ValueId of, int64_t dim, ProgramDim to, LinearExpr start, int64_t step = 1);
  ValueId Select(ValueId of, int64_t dim, int64_t index);
  ValueId Expand(ValueId of, std::vector<ProgramDim> dims);
  ValueId Contiguous(ValueId of);  // itself where it is contiguous already
  ValueId Copy(ValueId of);        // a new, contiguous storage
  ValueId Cast(ValueId of, DType dtype);
  // Pads one dimension at its end up to the size of `to`.
  ValueId PadEnd(ValueId of, int64_t dim, ProgramDim to, Argument fill);
  // A whole dimension in the order of the shards of `to`, a padded dimension, and back.
  ValueId ToShards(ValueId of, int64_t dim, ProgramDim to, Argument fill);
  ValueId FromShards(ValueId of, int64_t dim, ProgramDim to);
  // Sums dimensions, in `dtype`; keeps them as size 1 where `keep`.
  ValueId Sum(ValueId of, const std::vector<int64_t>& dims, bool keep, Partial partial,
              DType dtype);

  ValueId AllToAll(ValueId of, int64_t split, int64_t concat, const AxisList& axes,
                   std::vector<ProgramDim> dims);
  ValueId AllGather(ValueId of, int64_t dim, const AxisList& axes, std::vector<ProgramDim> dims);
  ValueId ReduceScatter(ValueId of, int64_t dim, const AxisList& axes, std::vector<ProgramDim> dims,
                        Partial partial);
  ValueId AllReduce(ValueId of, const AxisList& axes);

  // The part of `rank.<axis>` terms that stands for the place within a group along `axes`.
  static LinearExpr GroupIndex(const Mesh& mesh, const AxisList& axes, int64_t scale);

 private:
  ValueId Collective(std::string kind, ValueId of, AttributeMap attributes, const AxisList& axes,
                     ProgramValue result);

  Program& program_;
  std::vector<Instruction>* body_ = nullptr;
  Phase phase_ = Phase::kForward;
  Source source_;
  int64_t next_name_ = 0;
  std::set<ValueId> stretched_;
};

// Axes of `mesh` that have more than one member.
AxisList NonTrivial(const Mesh& mesh, const AxisList& axes);
bool Contains(const AxisList& axes, Axis axis);
// Union in the order of `Axis`.
AxisList Union(const AxisList& a, const AxisList& b);
AxisList Without(const AxisList& a, const AxisList& b);
// All axes that split a dim of the value.
AxisList ShardAxes(const ProgramValue& value);

}  // namespace autosp
