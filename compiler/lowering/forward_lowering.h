// Lowers a graph to the forward instructions of one micro-step on a mesh.
//
// Each node runs at one placement: its batch split or whole, and one run of factors split over sp.
// The sequence is the first choice. An op that needs it whole is moved to the cheapest run that the
// op leaves alone: heads for attention (which makes the reshards all_to_all: Ulysses), channels for
// others. Where no run is left, operands are gathered and every rank computes all of it.
//
// Values made from inputs alone (labels, positions, masks) are *lazy*: lowered where and how a use
// wants them, so that what needs whole sequences is computed from whole inputs, with no
// communication.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/config/job_spec.h"
#include "compiler/ir/graph.h"
#include "compiler/lowering/placement.h"
#include "compiler/lowering/program_builder.h"
#include "compiler/rules/factor_roles.h"
#include "compiler/rules/infer_factors.h"
#include "compiler/rules/token_window.h"
#include "compiler/rules/value_signs.h"

namespace autosp {

class ForwardLowering {
 public:
  // `persistents`: program values of parameters and buffers, by graph value. `pads`: what fills a
  // padded position of an input, by name. All must outlive the lowering.
  struct Inputs {
    const Graph& graph;
    GraphFactors& factors;
    const std::map<ValueId, ValueId>& persistents;
    const std::set<ValueId>& trained;  // graph values of parameters that are trained
    const std::map<std::string, int64_t>& pads;
    RingExchange ring_exchange;
    // What masks of dropout depend on: the number of the step, a persistent.
    ValueId step = {};
    int64_t seed = 0;
    bool is_training = true;  // else dropout does nothing
  };
  ForwardLowering(const Inputs& inputs, ProgramBuilder& builder);

  // Appends the forward of `output` to builder.body(), and what must be known of all micro-steps
  // before the first to `prologue`; returns the value, partial sums left as they are.
  absl::StatusOr<ValueId> Lower(ValueId output, std::vector<Instruction>* prologue);

  // Of what is lowered, the sums over micro-steps that `value` follows from, where it is known
  // after the last of them alone.
  std::vector<ValueId> SumsBefore(ValueId value) const;
  // Appends what makes a value whole on every rank; the part of such a sum stays one.
  absl::StatusOr<ValueId> WholeValue(ValueId value);

  // What `values` need, after the micro-steps: `sums` are known by then, whole on every rank.
  // Returns the values, whole.
  absl::StatusOr<std::vector<ValueId>> LowerAfter(const std::vector<ValueId>& values,
                                                  const std::map<ValueId, ValueId>& sums,
                                                  std::vector<Instruction>* prologue);

  // Results through which no gradient flows (no_grad regions, detach).
  const std::set<ValueId>& stopped() const { return stopped_; }
  // Sentences on how cross-token ops were split, each once, for the plan.
  const std::vector<std::string>& decisions() const { return decisions_; }
  // Attentions that every rank computes in full.
  int64_t num_gathered_attentions() const {
    return static_cast<int64_t>(gathered_attentions_.size());
  }
  // What they lack and what helps, one sentence for each number of heads.
  std::vector<std::string> warnings() const;

 private:
  struct Version {
    Placement placement;
    std::optional<int64_t> pad;
    ValueId id;
  };
  void FindBatch();
  void FindTokens();
  // placement_choice.cc
  void MarkLazyValues();
  void MarkValuesOfParameters();
  bool HoldsTokens(const FactorDims& dims) const;
  FactorRoles RolesOf(size_t node);
  Placement ChoosePlacement(size_t node, const FactorRoles& roles);
  std::optional<Placement> RingPlacement(size_t node, const FactorRoles& roles) const;
  void AddPrefixes(size_t node, const FactorRoles& roles, int64_t shards,
                   std::vector<FactorRun>* runs) const;
  std::vector<FactorRun> CandidateRuns(size_t node, const FactorRoles& roles) const;
  double Cost(size_t node, const FactorRoles& roles, const Placement& placement) const;
  bool IsOfBatch(FactorVar factor) const;
  bool NeedsWholeBatch(size_t node, const FactorRoles& roles) const;
  bool HasGroups(ValueId value) const;
  void NoteGroups(size_t node);
  std::string WhyWholeGroups() const;
  bool IsValidRun(size_t node, const FactorRoles& roles, const FactorRun& run) const;
  bool SumsSequence(size_t node, const FactorRoles& roles) const;
  bool HoldsPart(const FactorDims& dims, const FactorRun& run) const;
  void Explain(size_t node, const Placement& placement);
  int64_t NumHeads(const Node& attention) const;
  std::string WhyWhole(const Node& attention) const;
  void ExplainRing(const Placement& placement);
  void ExplainRows();

  // materialize.cc
  Placement Normalized(ValueId value, Placement placement) const;
  // `pad` is what the padding of a split run holds; none: what the input declares, else 0.
  absl::StatusOr<ValueId> Get(ValueId value, Placement want, std::optional<int64_t> pad = {});
  absl::StatusOr<ValueId> GetLazy(ValueId value, const Placement& want, std::optional<int64_t> pad);
  absl::StatusOr<ValueId> Feed(const GraphInput& input, const Placement& want,
                               std::optional<int64_t> pad);
  absl::StatusOr<ValueId> Reshard(ValueId value, Version from, const Placement& to,
                                  std::optional<int64_t> pad);
  absl::StatusOr<ValueId> Reduce(ValueId value, Version from);
  absl::StatusOr<ValueId> ReduceInPrologue(ValueId value, const Version& from);
  ValueId MoveRun(ValueId value, const Version& from, const Placement& to,
                  std::optional<int64_t> pad);
  ValueId MoveRing(ValueId value, const Version& from, const Placement& to,
                   std::optional<int64_t> pad);
  ValueId OrderByShard(ValueId value, ValueId id, int64_t dim, const FactorRun& run,
                       const ProgramDim& padded, std::optional<int64_t> pad);
  absl::StatusOr<ValueId> GatherBatch(ValueId value, const Version& from);
  const Version* FindVersion(ValueId value, const Placement& placement,
                             std::optional<int64_t> pad) const;
  std::optional<int64_t> DeclaredPad(const GraphInput& input) const;

  // refuse_accumulation.cc
  const Node* LoweredFor(size_t depth) const;
  std::string NeededBy(const Node* node) const;
  const Node& SumOverBatch(ValueId value);
  absl::Status RefuseSum(ValueId value, const Partial& partial);
  absl::Status RefuseGather(ValueId value);
  absl::Status RefuseSplit(ValueId value);

  // emit_node.cc
  absl::Status LowerOne(size_t node, const Placement& placement, std::optional<int64_t> pad);
  absl::Status LowerNode(size_t node, const Placement& placement, std::optional<int64_t> pad = {});
  AxisList AxesThatSplit(const Node& node, const Placement& placement) const;
  std::optional<int64_t> PadToAskFor(const Node& node, size_t operand, const Placement& want,
                                     std::optional<int64_t> pad) const;
  bool IsStretched(ValueId value, const FactorRun& run) const;
  std::optional<Argument> NumberForPadding(const Node& node, size_t operand, const FactorRun& run);
  const PaddingSigns& SignsInPaddingOf(const FactorRun& run);
  absl::StatusOr<std::vector<ValueId>> Operands(size_t node, const FactorRoles& roles,
                                                const Placement& placement,
                                                std::optional<int64_t> pad, Partial* partial);
  absl::StatusOr<std::vector<ValueId>> EmitNode(size_t node, const std::vector<ValueId>& operands,
                                                const Placement& placement, const Partial& partial);
  std::vector<ValueId> EmitView(size_t node, ValueId operand, const Placement& placement);
  ValueId WithoutInfinity(const Node& node, ValueId output, ValueId result,
                          const Placement& placement);
  ValueId ApartFrom(const std::vector<ValueId>& operands, ValueId result);
  ValueId MaskPadding(ValueId operand, const FactorDims& dims, const FactorRun& run,
                      const Argument& neutral);

  void StretchHalves(const Node& node, const Placement& placement, std::vector<ValueId>& operands);
  bool IsSpreadOver(ValueId value, const FactorDims& dims) const;
  void LayOutForCrossEntropy(std::vector<Argument>& args);
  ValueId EmitDropout(const Node& node, ValueId operand);
  ValueId EmitUniform(const Node& node, ValueId like);

  // emit_sums.cc
  const Placement* PlacementOfSum(ValueId value) const;
  AxisList AxesOfAddedSums(const Node& node) const;
  bool CarriesMicroSteps(const Node& node) const;
  absl::StatusOr<std::vector<ValueId>> AddedSums(const Node& node, const AxisList& axes);
  ValueId ShareOf(ValueId value, const AxisList& axes);
  void ShareAddedNumber(const Node& node, const Partial& partial, std::vector<Argument>& args);

  // emit_attention.cc
  bool IsAttention(const Node& node) const;
  bool AreTokens(const FactorDim& dim) const;
  bool IsBlockable(const Node& node) const;
  absl::Status CheckAttention(const Node& node, const std::vector<ValueId>& operands) const;
  absl::StatusOr<ValueId> EmitAttention(size_t node, const std::vector<ValueId>& operands,
                                        const Placement& placement);
  ValueId EmitFlashAttention(const Node& node, std::vector<ValueId> qkv,
                             const std::vector<ValueId>& operands);
  int64_t LastSize(ValueId value) const;
  ValueId PadHeads(ValueId value, ValueId like);
  ValueId EmitBlockAttention(const Node& node, const std::vector<ValueId>& qkv,
                             const std::vector<ValueId>& operands, bool in_ring);

  // emit_windows.cc
  int64_t StretchLength(const FactorDim& tokens);
  bool HasTokensInWindowAlone(size_t node, const TokenWindow& window) const;
  bool MayExchangeEdges(size_t node, const FactorRoles& roles);
  double WindowBytes(size_t node, const FactorRun& run) const;
  ValueId EmitWindow(size_t node, const std::vector<ValueId>& operands, const Placement& placement,
                     const Partial& partial);

  // Dims of a program value.
  std::vector<ProgramDim> MakeDims(const FactorDims& dims, const Placement& placement,
                                   bool padded_run = false);
  // Whether the run begins in the midst of the tokens that stand in the dimension from there on.
  bool CutsTokens(const FactorDim& dim, size_t from, const FactorRun& run) const;
  DimFactor RunFactor(const FactorRun& run);
  FactorDims Dims(ValueId value) const { return in_.factors.table.Resolve(DimsRaw(value)); }
  const FactorDims& DimsRaw(ValueId value) const { return in_.factors.values[value.index]; }
  // Cuts dims so that each of the runs begins a dimension.
  FactorDims Isolate(const FactorDims& dims, const std::vector<FactorRun>& runs) const;
  // Dimension that holds the run; -1: none.
  int64_t DimOf(const FactorDims& dims, const FactorRun& run) const;
  int64_t Size(const FactorRun& run) const { return in_.factors.table.Size(run); }
  bool IsPadded(const FactorRun& run) const;  // over sp
  // The sequence, where a ring splits it: the work of causal attention is balanced.
  bool IsZigzag(const FactorRun& run) const;
  bool ZigzagPays() const;
  AxisList RunAxes(const Placement& placement) const;  // those that split its `run`
  bool HasBatch(const FactorDims& dims) const;
  const Mesh& mesh() const { return builder_.program().mesh; }
  void AddVersion(ValueId value, Version version);

  Inputs in_;
  ProgramBuilder& builder_;
  AxisList batch_axes_;           // accum, dp; those with more than one member
  AxisList sp_axes_;              // ring, ulysses; likewise
  FactorRun seq_run_;             // the main tokens of the graph
  bool attends_in_ring_ = false;  // attention runs on blocks of tokens, one for each of a ring
  bool is_seq_zigzag_ = false;
  std::vector<FactorRun> token_runs_;  // the others
  std::set<FactorVar> spread_;         // of all tokens, and the batch: what ranks may split
  FactorVar batch_ = -1;               // the first of batch_run_
  FactorRun batch_run_;                // what shards of the batch are cut out of
  // The nodes that values need, by index, but for what is known of them.
  std::vector<bool> NodesFor(const std::vector<ValueId>& values) const;
  bool IsLazy(const Node& node) const;
  bool IsSumOfMicroSteps(ValueId value) const;
  bool WaitsForSum(const Node& node) const;
  void TakePrologue(std::vector<Instruction>* prologue);

  std::vector<int32_t> definer_;
  std::map<FactorRun, PaddingSigns> signs_;     // of runs that are padded
  std::vector<bool> may_be_infinite_;           // by graph value
  std::vector<bool> is_lazy_;                   // by graph value
  std::vector<bool> needs_grad_;                // by graph value
  std::vector<bool> is_late_;                   // by graph value: known after all micro-steps
  std::vector<bool> is_of_parameters_;          // by graph value: made from parameters alone
  std::vector<std::vector<Version>> versions_;  // by graph value
  std::vector<std::vector<Version>> prologue_versions_;
  std::vector<Instruction> prologue_loop_;
  std::vector<Instruction> prologue_after_;
  std::vector<Instruction> prologue_before_;
  bool in_prologue_ = false;
  std::vector<size_t> lowering_;  // nodes, each lowered for the one before it
  bool is_told_ = false;          // an error names the node where it failed
  std::map<FactorRun, FactorId> program_factors_;
  std::set<ValueId> stopped_;
  std::vector<std::string> decisions_;
  std::set<std::string> explained_;
  std::vector<size_t> gathered_attentions_;  // nodes
  std::vector<size_t> groups_of_tokens_;     // nodes that every rank computes for all sequences
};

}  // namespace autosp
