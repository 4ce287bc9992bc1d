// Walks a program once, for all ranks, and derives what every value is: how it lies on the mesh, on
// which axes it is a partial sum, what its padding holds, and what it means on one device.
//
// Nothing is executed and no rank is singled out: a value split over an axis stands for the shards
// of all members, and means the tensor that they make up. Instructions that only move or copy
// elements have the meaning of their operand. The type that the program states is compared with
// what follows from the operands; where they differ the walk ends with a message.
//
// An in-place write makes a new version of its storage. The name that was written through, and the
// names it is a view of, then stand for the new content; any other name of the storage is stale,
// and reading it is refused. A tape remembers the versions of what it saved.
#pragma once

#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compiler/checker/expression.h"
#include "compiler/checker/op_shape.h"
#include "compiler/checker/padding.h"
#include "compiler/checker/placed_dims.h"
#include "compiler/program/program.h"

namespace autosp::checker {

// How an alias follows from the value that it is a view of.
struct AliasStep {
  enum class Kind : uint8_t { kSame, kReshape, kPermute, kExpand, kSlice, kSelect, kShard };
  Kind kind = Kind::kSame;
  std::vector<int64_t> order = {};  // kPermute
  int64_t dim = 0;                  // kSlice, kSelect
  int64_t start = 0;
  int64_t step = 1;
  AxisList axes = {};  // kShard: the axes whose place on the rank chose the part
};

struct ValueState {
  bool is_defined = false;
  Tensor meaning;
  PlacedDims dims;
  AxisList partial;
  Reduction reduction = Reduction::kSum;
  // Zeros are a partial sum on whatever axes: the first addition decides.
  bool any_partial = false;
  PadMap pads;
  // Of what is made of constants alone: what each of its elements is known to hold. That valid
  // positions read only numbers of it says nothing of its other elements. kValid: of data.
  PadState holds = PadState::Valid();
  ValueId parent;  // invalid: made by an op, not a view
  AliasStep step;
  // Not empty: the rank's part of a value that is a partial sum over these axes too. It may be
  // added to, and not be read.
  AxisList part_of_sum;
  int64_t version = 0;
  int depth = 0;  // number of loops around its definition
  // A member of the ring holds the shard of the member `rotation` places before it.
  int64_t rotation = 0;
  // Not empty: a sum over the hops of a ring of which these are added so far.
  std::vector<int64_t> hops;
  NodeId attention;  // what the hops add up to
};

struct TapeState {
  OpCall call;
  OpShape shape;
  bool is_opaque = false;
  int depth = 0;             // number of loops around the record
  bool is_used = false;      // a tape is good for one derivative
  bool is_identity = false;  // of a mask that is true wherever the value is valid
  std::vector<NodeId> operand_nodes;
  std::vector<PadMap> operand_pads;
  std::vector<AxisList> operand_partials;
  std::vector<Shape> operand_shapes;
  std::map<ValueId, int64_t> saved_versions;
};

// The attention met last: the hops of a ring follow each other, and are of one attention.
struct AttentionMemo {
  std::string rule;
  std::vector<Tensor> operands;
  std::vector<Tensor> results;
};

// A loop around the instruction at hand, and what it does to storages from outside of it.
struct LoopState {
  Axis axis = Axis::kAccum;
  std::set<int32_t> written;
  std::set<int32_t> read;
};

// The dtype among the arguments of a call; nullopt: none is.
std::optional<DType> AskedDtype(const Instruction& instruction);

class Interpreter {
 public:
  Interpreter(const Program& program, ExpressionTable& table);

  absl::Status Run();

  // By "section/output/name" and "section/persistent/name": what the host reads, and what is kept.
  const std::map<std::string, Tensor>& results() const { return results_; }
  int64_t num_values() const { return num_values_; }
  int64_t num_collectives() const { return num_collectives_; }

 private:
  // interpreter.cc
  absl::Status CheckPersistents();
  void BeginSection(const Section& section);
  absl::Status EndSection(const Section& section);
  absl::Status RunBody(const std::vector<Instruction>& body);
  absl::Status RunOne(const Instruction& instruction);
  bool IsComplete(const Instruction& instruction) const;
  absl::Status RunFeed(const Instruction& instruction);
  absl::Status RunCopy(const Instruction& instruction);
  absl::Status RunFor(const Instruction& instruction);
  absl::Status CheckLoop(const Instruction& instruction, Axis* axis) const;
  int depth() const { return static_cast<int>(loops_.size()); }
  AxisList InactiveLoops() const;  // loop axes that no loop around here runs over
  // The loops that a value from `depth` lies outside of.
  std::span<LoopState> LoopsAround(int depth) { return std::span(loops_).subspan(depth); }
  absl::Status RunOutput(const Instruction& instruction);
  absl::StatusOr<const ValueState*> Read(const Instruction& instruction, ValueId id);
  // Also what is on its way around the ring, or lacks hops.
  absl::StatusOr<const ValueState*> ReadAnywhere(const Instruction& instruction, ValueId id);
  absl::Status CheckReadable(const Instruction& instruction, ValueId id);
  absl::StatusOr<std::vector<const ValueState*>> ReadOperands(const Instruction& instruction);
  // Compares what was derived with what the program states, and makes it the value's state.
  absl::Status Define(const Instruction& instruction, ValueId id, ValueState derived);
  absl::Status CheckType(const Instruction& instruction, ValueId id, ValueState& derived) const;
  absl::Status CheckStated(const Instruction& instruction, ValueId id, ValueState& derived) const;
  absl::Status CheckMemory(const Instruction& instruction, ValueId id);

  // views.cc
  absl::Status RunAlias(const Instruction& instruction);
  absl::Status View(const OpCall& call, ValueState* result);
  absl::Status PermuteView(const OpCall& call, ValueState* result);
  absl::Status ExpandView(const OpCall& call, ValueState* result);
  absl::Status SliceView(const OpCall& call, ValueId operand, ValueState* result);
  absl::Status ShardView(const OpCall& call, ValueId operand, size_t dim, ValueState* result);
  absl::Status SelectView(const OpCall& call, ValueState* result);

  // collectives.cc
  absl::Status RunStart(const Instruction& instruction);
  absl::Status RunCollective(const Instruction& instruction, size_t index, ValueId operand,
                             ValueId result);
  absl::Status RunSendRecv(const Instruction& instruction, ValueId operand, ValueId result);
  absl::Status CheckGroup(const Instruction& instruction, const AxisList& axes) const;

  // calls.cc
  absl::Status RunCall(const Instruction& instruction);
  absl::StatusOr<OpCall> MakeCall(const Instruction& instruction,
                                  const std::vector<const ValueState*>& operands);
  absl::Status RunOpaque(const OpCall& call, const std::vector<const ValueState*>& operands);
  absl::Status RunKnown(const OpCall& call, const OpShape& shape,
                        const std::vector<const ValueState*>& operands);
  bool SavesAll(const Instruction& record) const;
  absl::Status AddTape(const OpCall& call, const OpShape& shape, bool is_opaque);

  // dtypes.cc
  absl::Status CheckDtype(const OpCall& call) const;

  // placement_rules.cc: what the labels of an op say about the placement of its results.
  struct Placed {
    std::vector<PlacedDim> labels;
    std::vector<AxisList> partial;  // by result
    AxisList carried;               // partial sums that pass through
    Reduction reduction = Reduction::kSum;
  };
  absl::StatusOr<Placed> PlaceOp(const OpCall& call, const OpShape& shape,
                                 const std::vector<const ValueState*>& operands);
  absl::Status PlaceLabels(const OpCall& call, const OpShape& shape, Placed* placed);
  absl::Status CheckPaddedAlike(const OpCall& call, const OpShape& shape,
                                const Placed& placed) const;
  absl::Status CheckReducedPadding(const OpCall& call, const OpShape& shape, int label,
                                   const PlacedDim& dim,
                                   const std::vector<const ValueState*>& operands);
  absl::Status CarryPartial(const OpCall& call, const OpShape& shape,
                            const std::vector<const ValueState*>& operands, Placed* placed);
  PlacedDims DimsOf(const std::vector<int>& labels, const Placed& placed) const;
  PadState HoldsOf(const OpCall& call, const OpShape& shape,
                   const std::vector<const ValueState*>& operands) const;
  PadMap PadsOf(const OpCall& call, const OpShape& shape,
                const std::vector<const ValueState*>& operands, const PlacedDims& result) const;
  PadMap PadsOfResult(const OpCall& call, const OpShape& shape,
                      const std::vector<const ValueState*>& operands, const PlacedDims& result,
                      size_t index, const Tensor& meaning) const;

  // creations.cc
  bool IsCreation(const std::string& op) const;
  absl::Status RunCreation(const Instruction& instruction);
  absl::Status RunPadding(const OpCall& call, const ValueState& operand, bool* is_padding);
  absl::Status RunShardOrder(const OpCall& call, const ValueState& operand);

  // meanings.cc: ops that the normal form knows; any other is a node.
  std::vector<Tensor> MeaningOf(const OpCall& call, const std::vector<const ValueState*>& operands);
  bool LinearMeaning(const OpCall& call, const std::vector<const ValueState*>& operands,
                     Tensor* result);
  bool PadMeaning(const std::vector<int64_t>& amounts, const Tensor& tensor, Tensor* result);
  bool ReductionMeaning(const OpCall& call, const std::vector<const ValueState*>& operands,
                        Tensor* result);
  bool ProductMeaning(const OpCall& call, const std::vector<const ValueState*>& operands,
                      Tensor* result);
  bool MaskMeaning(const OpCall& call, const std::vector<const ValueState*>& operands,
                   Tensor* result);
  Tensor Product(const Tensor& a, const Tensor& b, const Shape& shape, DType dtype);
  Tensor Cast(const Tensor& tensor, DType from, DType to);
  Tensor CastTerms(const Tensor& tensor, DType from, DType to);
  std::optional<Tensor> BeforeWidening(const Tensor& tensor, DType from, DType to);
  std::string KeyOf(const OpCall& call, size_t result) const;
  bool IsTrue(const Tensor& tensor) const;

  // windows.cc
  absl::Status RunShardEdges(const Instruction& instruction);
  absl::Status CheckWindow(const OpCall& call, const std::vector<const ValueState*>& operands);
  Tensor ShiftMeaning(const Tensor& tokens, int64_t dim, int64_t by, bool wraps);
  Tensor WindowMeaning(const OpCall& call, const std::vector<const ValueState*>& operands);
  void SetWindowPads(const OpCall& call, const PlacedDims& result, PadMap* pads) const;

  // norms.cc
  Tensor NormMeaning(const std::string& op, const std::vector<const ValueState*>& operands);
  absl::Status RunSumOfSquares(const Instruction& instruction);
  absl::Status RunNorm(const Instruction& instruction);

  // attention.cc
  static std::string AttentionRule(bool causal, double scale, int64_t window);
  static std::vector<Tensor> MeaningsOf(const std::vector<const ValueState*>& operands);
  std::vector<Tensor> AttentionMeaning(bool is_backward, const std::string& rule,
                                       const std::vector<Tensor>& operands);
  std::vector<Tensor> NewAttention(bool is_backward, const std::string& key,
                                   const std::vector<Tensor>& operands);
  std::vector<Tensor> FlashMeaning(const OpCall& call,
                                   const std::vector<const ValueState*>& operands);
  std::vector<Tensor> SdpaMeaning(const OpCall& call,
                                  const std::vector<const ValueState*>& operands);
  std::vector<Tensor> RoundedAttention(const OpCall& call, bool is_backward,
                                       const std::string& rule,
                                       const std::vector<const ValueState*>& operands);
  Tensor RepeatHeads(const Tensor& tensor, int64_t num_heads);
  void CutZeros(const std::vector<size_t>& which, std::vector<Tensor>* operands);

  // block_attention.cc
  struct Block;
  absl::Status ReadBlock(const Instruction& instruction, Block* block) const;
  absl::Status CheckBlockDims(const Instruction& instruction, const Block& block,
                              const std::vector<const ValueState*>& read);
  absl::Status CheckBlockOperand(const Instruction& instruction, const Block& block, size_t index);
  absl::Status CheckHopStart(const Instruction& instruction, ValueId id, double start) const;
  absl::Status AddHop(const Instruction& instruction, const Block& block, size_t index,
                      const std::vector<const ValueState*>& read,
                      const std::vector<Tensor>& meanings);
  absl::Status UpdateAttendBlock(const Instruction& instruction);
  absl::Status CheckComplete(const Instruction& instruction, ValueId id) const;
  absl::Status CheckAtHome(const Instruction& instruction, ValueId id) const;

  // derivatives.cc
  absl::Status RunVjp(const Instruction& instruction);
  absl::Status CheckSaved(const Instruction& instruction, const TapeState& tape);
  absl::Status DefineGrad(const Instruction& instruction, const TapeState& tape, size_t operand,
                          const std::vector<const ValueState*>& grads, const Tensor& meaning,
                          ValueId result);
  static std::optional<bool> IsTaken(std::string_view op, size_t operand,
                                     const std::vector<PadState>& operands);
  absl::StatusOr<PadState> PadOfGrad(const Instruction& instruction, const TapeState& tape,
                                     size_t operand, const PadKey& key,
                                     const std::vector<const ValueState*>& grads, bool summed);

  // losses.cc
  static bool Ignores(const OpCall& call, size_t arg, const PadMap& targets, const PadKey& key);
  absl::Status CheckCrossEntropy(const OpCall& call,
                                 const std::vector<const ValueState*>& operands) const;
  absl::Status UpdateCrossEntropy(const Instruction& instruction);

  // writes.cc
  absl::Status RunAccumulate(const Instruction& instruction);
  absl::Status RunUpdate(const Instruction& instruction);
  absl::Status UpdateZero(const Instruction& instruction);
  absl::Status UpdateBuffer(const Instruction& instruction);
  absl::Status CheckNoBuffer(const Instruction& instruction, ValueId to) const;
  absl::Status UpdateAllReduce(const Instruction& instruction);
  absl::Status UpdateAllGather(const Instruction& instruction);
  absl::Status UpdateClip(const Instruction& instruction);
  absl::Status UpdateOptimizer(const Instruction& instruction);
  absl::Status UpdateMatmul(const Instruction& instruction);
  absl::Status AddInto(const Instruction& instruction, ValueId to, const ValueState& addend);
  absl::Status CheckAddedOnce(const Instruction& instruction, ValueId to, const ValueState& addend);
  absl::Status Overwrite(const Instruction& instruction, ValueId to, ValueState content);
  absl::Status AddOne(const Instruction& instruction, ValueId to, const ValueState& addend,
                      int64_t version);
  absl::StatusOr<ValueState> Undone(const Instruction& instruction, ValueId of,
                                    const ValueState& part);

  ValueState& state(ValueId id) { return states_[id.index]; }
  const PlacedDims& StatedDims(ValueId id) const { return stated_[id.index]; }
  const std::string& NameOf(ValueId id) const { return program_.value(id).name; }
  absl::Status Refuse(const Instruction& instruction, const std::string& why) const;
  absl::Status RefuseDtype(const Instruction& instruction, ValueId value,
                           const std::string& why) const;
  absl::Status NotProven(const Instruction& instruction, const std::string& why) const;

  const Program& program_;
  ExpressionTable& table_;
  std::vector<PlacedDims> stated_;         // by value: its dimensions, as the program has them
  std::vector<ValueState> states_;         // by value
  std::vector<int64_t> storage_versions_;  // by storage
  std::vector<int32_t> storage_owner_;     // by storage: the value that it was made for
  std::map<ValueId, TapeState> tapes_;
  std::map<std::string, Tensor> results_;
  AttentionMemo last_attention_;
  std::vector<LoopState> loops_;  // around the instruction at hand, outermost first
  std::string section_;
  std::map<int32_t, std::string> buffers_;  // by storage
  std::set<int32_t> written_buffers_;       // storages, by the section so far
  int64_t num_values_ = 0;
  int64_t num_collectives_ = 0;
};

}  // namespace autosp::checker
