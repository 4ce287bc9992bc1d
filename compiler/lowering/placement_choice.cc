// Which run of factors each op is split over: by what the op allows, and by bytes moved.
#include <algorithm>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "compiler/lowering/forward_lowering.h"
#include "compiler/passes/graph_rewriter.h"

namespace autosp {
namespace {

bool Holds(const FactorDims& dims, FactorVar factor) {
  return std::ranges::any_of(
      dims, [&](const FactorDim& dim) { return std::ranges::count(dim, factor) > 0; });
}

}  // namespace

void ForwardLowering::MarkLazyValues() {
  const Graph& graph = in_.graph;
  is_lazy_.assign(graph.values.size(), false);
  needs_grad_.assign(graph.values.size(), false);
  for (const GraphInput& input : graph.inputs) {
    needs_grad_[input.value.index] = in_.trained.contains(input.value);
    is_lazy_[input.value.index] = !needs_grad_[input.value.index];
  }
  for (const Node& node : graph.nodes) {
    bool lazy = true;
    bool grad = false;
    for (ValueId operand : OperandsOf(node)) {
      lazy = lazy && is_lazy_[operand.index];
      grad = grad || needs_grad_[operand.index];
    }
    const OpRule* rule = FindOpRule(node.op);
    const bool is_constant = rule != nullptr && rule->derivative == Derivative::kZero;
    grad = grad && !node.no_grad && !is_constant && node.op != "aten.detach.default";
    for (ValueId output : node.outputs) {
      const bool floating = IsFloating(graph.type(output).dtype);
      needs_grad_[output.index] = grad && floating;
      is_lazy_[output.index] = lazy;
    }
  }
}

// What the model makes of its weights alone (1 + weight, exp(A_log), a transposed head) is small
// beside what it makes of tokens, and tokens on all ranks read it. Tables of positions are split as
// their tokens are.
void ForwardLowering::MarkValuesOfParameters() {
  const Graph& graph = in_.graph;
  is_of_parameters_.assign(graph.values.size(), false);
  for (const GraphInput& input : graph.inputs) {
    is_of_parameters_[input.value.index] = in_.persistents.contains(input.value);
  }
  for (const Node& node : graph.nodes) {
    const std::vector<ValueId> operands = OperandsOf(node);
    const bool is_of_parameters = std::ranges::all_of(
        operands, [this](ValueId id) { return bool{is_of_parameters_[id.index]}; });
    if (!is_of_parameters) continue;
    const bool holds_tokens = std::ranges::any_of(
        node.outputs, [this](ValueId output) { return HoldsTokens(Dims(output)); });
    for (ValueId output : node.outputs) is_of_parameters_[output.index] = !holds_tokens;
  }
}

bool ForwardLowering::HoldsTokens(const FactorDims& dims) const {
  return HoldsPart(dims, seq_run_) || std::ranges::any_of(token_runs_, [&](const FactorRun& run) {
           return HoldsPart(dims, run);
         });
}

FactorRoles ForwardLowering::RolesOf(size_t node_index) {
  FactorRoles roles = FactorRolesOf(in_.graph, in_.factors, node_index);
  if (MayExchangeEdges(node_index, roles)) {
    for (FactorVar factor : seq_run_) roles.whole.erase(factor);
  }
  // The gradient of a maximum goes to the rank that has it, and padding may be above it: only a
  // maximum that needs neither is taken in parts.
  const Node& node = in_.graph.nodes[node_index];
  const bool max_in_parts = !needs_grad_[node.outputs[0].index] && !IsPadded(seq_run_);
  if (!max_in_parts) {
    roles.whole.insert(roles.max.begin(), roles.max.end());
    roles.max.clear();
  }
  for (const FactorRun& run : token_runs_) {
    for (FactorVar factor : run) {
      if (IsPadded(run) && roles.max.erase(factor) > 0) roles.whole.insert(factor);
    }
  }
  return roles;
}

bool ForwardLowering::HoldsPart(const FactorDims& dims, const FactorRun& run) const {
  return std::ranges::any_of(run, [&](FactorVar factor) { return Holds(dims, factor); });
}

// Every tensor holds the whole run in one dimension, or nothing of it.
bool ForwardLowering::IsValidRun(size_t node_index, const FactorRoles& roles,
                                 const FactorRun& run) const {
  if (run.empty()) return true;
  if (!roles.Allows(run)) return false;
  const Node& node = in_.graph.nodes[node_index];
  std::vector<ValueId> values = OperandsOf(node);
  values.insert(values.end(), node.outputs.begin(), node.outputs.end());
  bool held = false;
  for (ValueId value : values) {
    const FactorDims dims = Dims(value);
    if (!HoldsPart(dims, run)) continue;
    if (DimOf(dims, run) < 0) return false;
    held = true;
  }
  return held;
}

bool ForwardLowering::IsOfBatch(FactorVar factor) const {
  return std::ranges::count(batch_run_, factor) > 0;
}

// Whether a node reads or makes more of the batch than shards of it have: it relates sequences, or
// has groups of them in a dimension of their own.
bool ForwardLowering::NeedsWholeBatch(size_t node_index, const FactorRoles& roles) const {
  if (!roles.Allows(batch_run_)) return true;
  const Node& node = in_.graph.nodes[node_index];
  return std::ranges::any_of(OperandsOf(node), [this](ValueId id) { return HasGroups(id); }) ||
         std::ranges::any_of(node.outputs, [this](ValueId id) { return HasGroups(id); });
}

// Whether a value has groups of sequences in dimensions that cut through shards of the batch.
bool ForwardLowering::HasGroups(ValueId value) const {
  const FactorDims dims = Dims(value);
  return HoldsPart(dims, batch_run_) && !HasBatch(dims);
}

std::vector<FactorRun> ForwardLowering::CandidateRuns(size_t node_index,
                                                      const FactorRoles& roles) const {
  std::vector<FactorRun> runs;
  const auto add = [&](const FactorRun& run) {
    const bool known = std::ranges::count(runs, run) > 0;
    if (!known && IsValidRun(node_index, roles, run)) runs.push_back(run);
  };
  if (!seq_run_.empty()) add(seq_run_);
  const Node& node = in_.graph.nodes[node_index];
  for (ValueId operand : OperandsOf(node)) {
    for (const Version& version : versions_[operand.index]) {
      const Placement& placement = version.placement;
      if (!placement.run.empty() && placement.ring_run.empty()) add(placement.run);
    }
  }
  for (const FactorRun& tokens : token_runs_) {
    if (Size(tokens) >= mesh().size(sp_axes_)) add(tokens);
  }
  AddPrefixes(node_index, roles, mesh().size(sp_axes_), &runs);
  runs.push_back({});
  return runs;
}

// Prefixes of dimensions, beside the batch, whose size divides evenly.
void ForwardLowering::AddPrefixes(size_t node_index, const FactorRoles& roles, int64_t shards,
                                  std::vector<FactorRun>* runs) const {
  for (ValueId operand : OperandsOf(in_.graph.nodes[node_index])) {
    for (const FactorDim& dim : Dims(operand)) {
      FactorRun prefix;
      for (FactorVar factor : dim) {
        // Heads that stand behind the batch in one dimension are split there.
        if (IsOfBatch(factor) && prefix.empty()) continue;
        if (IsOfBatch(factor) || in_.factors.table.IsRoot(factor)) break;
        prefix.push_back(factor);
        const bool fits = Size(prefix) % shards == 0 && std::ranges::count(*runs, prefix) == 0;
        if (fits && IsValidRun(node_index, roles, prefix)) runs->push_back(prefix);
      }
    }
  }
}

// Attention whose keys travel around the ring: the sequence stays split over ring, and heads are
// split over ulysses where that has more than one member.
std::optional<Placement> ForwardLowering::RingPlacement(size_t node_index,
                                                        const FactorRoles& roles) const {
  if (mesh().ring == 1 || !IsBlockable(in_.graph.nodes[node_index])) return std::nullopt;
  Placement placement;
  if (mesh().ulysses == 1) {
    placement.run = seq_run_;
    return placement;
  }
  std::vector<FactorRun> heads;
  AddPrefixes(node_index, roles, mesh().ulysses, &heads);
  if (heads.empty()) return std::nullopt;
  placement.run = heads[0];
  placement.ring_run = seq_run_;
  return placement;
}

// Bytes that this rank would receive, plus what a replicated or partial result costs later.
double ForwardLowering::Cost(size_t node_index, const FactorRoles& roles,
                             const Placement& placement) const {
  const Node& node = in_.graph.nodes[node_index];
  const auto shards = static_cast<double>(mesh().size(sp_axes_));
  const auto bytes = [&](ValueId value) {
    return static_cast<double>(in_.graph.type(value).numel() * SizeOf(in_.graph.type(value).dtype));
  };
  const FactorRun& run = placement.run;
  double cost = WindowBytes(node_index, run);
  for (ValueId operand : OperandsOf(node)) {
    if (is_lazy_[operand.index] || versions_[operand.index].empty()) continue;
    const bool holds = !run.empty() && DimOf(Dims(operand), run) >= 0;
    double best = std::numeric_limits<double>::max();
    for (const Version& version : versions_[operand.index]) {
      // Around a ring: as if the sequence were split over all of sp, which is an exchange away.
      const bool in_ring = !version.placement.ring_run.empty();
      const FactorRun& have = in_ring ? seq_run_ : version.placement.run;
      double moved = 0;
      if (have == run || (have.empty() && holds) || (have.empty() && run.empty())) {
        moved = 0;
      } else if (!have.empty() && holds) {
        moved = bytes(operand) / shards * (shards - 1) / shards;  // all_to_all
      } else if (!have.empty()) {
        moved = bytes(operand) * (shards - 1) / shards;  // all_gather
      }
      best = std::min(best, moved);
    }
    cost += best;
  }
  for (ValueId output : node.outputs) {
    if (!needs_grad_[output.index] && is_lazy_[output.index]) continue;
    if (roles.Reduces(run)) {
      cost += 2 * bytes(output) * (shards - 1) / shards;  // its all_reduce
    } else if (run.empty()) {
      // Every rank computes and keeps all of it.
      cost += bytes(output) * (shards - 1) / shards;
    }
  }
  return cost;
}

Placement ForwardLowering::ChoosePlacement(size_t node_index, const FactorRoles& roles) {
  Placement placement;
  placement.batch_split = !NeedsWholeBatch(node_index, roles);
  NoteGroups(node_index);
  if (sp_axes_.empty()) return placement;
  if (std::optional<Placement> ring = RingPlacement(node_index, roles)) {
    ring->batch_split = placement.batch_split;
    ExplainRing(*ring);
    return *std::move(ring);
  }
  if (in_.graph.nodes[node_index].op == kAllTokens) {
    ExplainRows();
    return placement;
  }
  const std::vector<ValueId>& outputs = in_.graph.nodes[node_index].outputs;
  const bool is_of_parameters = std::ranges::all_of(
      outputs, [this](ValueId output) { return bool{is_of_parameters_[output.index]}; });
  if (is_of_parameters || CarriesMicroSteps(in_.graph.nodes[node_index])) return placement;
  double best = std::numeric_limits<double>::max();
  for (const FactorRun& run : CandidateRuns(node_index, roles)) {
    Placement candidate = placement;
    candidate.run = run;
    const double cost = Cost(node_index, roles, candidate);
    if (cost < best) {
      best = cost;
      placement = candidate;
    }
  }
  Explain(node_index, placement);
  const bool is_gathered = IsAttention(in_.graph.nodes[node_index]) && placement.run.empty();
  if (is_gathered) gathered_attentions_.push_back(node_index);
  return placement;
}

void ForwardLowering::ExplainRing(const Placement& placement) {
  std::string how =
      absl::StrCat("attention: keys and values ",
                   in_.ring_exchange == RingExchange::kAllGather ? "are gathered over a ring of "
                                                                 : "travel around a ring of ",
                   mesh().ring, is_seq_zigzag_ ? " (zigzag)" : "");
  if (!placement.ring_run.empty()) {
    absl::StrAppend(&how, ", ", Size(placement.run), " heads split over ulysses ", mesh().ulysses,
                    " (all_to_all)");
  }
  if (explained_.insert(how).second) decisions_.push_back(how);
}

void ForwardLowering::NoteGroups(size_t node_index) {
  if (batch_axes_.empty()) return;
  for (ValueId output : in_.graph.nodes[node_index].outputs) {
    if (!HasGroups(output)) continue;
    const std::string how =
        absl::StrCat("groups of sequences: those of all ranks are gathered over ",
                     AxisListName(batch_axes_), ", and computed in full on every rank");
    if (explained_.insert(how).second) decisions_.push_back(how);
    if (HoldsTokens(Dims(output))) groups_of_tokens_.push_back(node_index);
    return;
  }
}

std::string ForwardLowering::WhyWholeGroups() const {
  std::vector<int64_t> sizes;
  for (FactorVar factor : batch_run_) sizes.push_back(in_.factors.table.Size(factor));
  const int64_t num_ranks = mesh().size(batch_axes_);
  return absl::StrCat(" has the ", Size(batch_run_), " sequences of a batch in groups, as ",
                      absl::StrJoin(sizes, " x "), ", and ", AxisListName(batch_axes_), " (",
                      num_ranks, ") does not divide ", sizes[0],
                      ": every rank computes all of it; set parallelism.dp to ",
                      std::gcd(sizes[0], num_ranks), ", or give a batch more groups");
}

void ForwardLowering::ExplainRows() {
  const std::string how = absl::StrCat("pairs of tokens: rows stay split over ",
                                       AxisListName(sp_axes_), ", what makes columns is gathered");
  if (explained_.insert(how).second) decisions_.push_back(how);
}

// Says once per kind of op how cross-token work was split.
void ForwardLowering::Explain(size_t node_index, const Placement& placement) {
  const Node& node = in_.graph.nodes[node_index];
  if (placement.run == seq_run_ || seq_run_.empty()) return;
  bool moved = false;
  bool has_seq = false;
  for (ValueId operand : OperandsOf(node)) {
    has_seq = has_seq || HoldsPart(Dims(operand), seq_run_);
    for (const Version& version : versions_[operand.index]) {
      moved = moved || (!version.placement.run.empty() && version.placement.run != placement.run);
    }
  }
  if (!moved || !has_seq) return;
  const std::string how =
      placement.run.empty() ? absl::StrCat(node.op, ": gathered, computed in full on every rank")
                            : absl::StrCat(node.op, ": whole sequences, ", Size(placement.run),
                                           " split over ", AxisListName(sp_axes_), " (all_to_all)");
  if (explained_.insert(how).second) decisions_.push_back(how);
}

// [.., N, L, E], where batch and heads may be one dimension.
int64_t ForwardLowering::NumHeads(const Node& attention) const {
  const FactorDims query = Dims(OperandsOf(attention)[0]);
  if (query.size() < 3) return 1;
  int64_t heads = 1;
  for (FactorVar factor : query[query.size() - 3]) {
    if (!IsOfBatch(factor)) heads *= in_.factors.table.Size(factor);
  }
  return heads;
}

std::string ForwardLowering::WhyWhole(const Node& attention) const {
  const int64_t heads = NumHeads(attention);
  const int64_t num_ranks = mesh().size(sp_axes_);
  int64_t ulysses = num_ranks;
  while (heads % ulysses != 0 || num_ranks % ulysses != 0) --ulysses;
  const std::string ranks = absl::StrCat(AxisListName(sp_axes_), " (", num_ranks, ")");
  std::string why = ulysses < num_ranks
                        ? absl::StrCat(" has ", heads, heads == 1 ? " head" : " heads", ", which ",
                                       ranks, " does not divide")
                        : absl::StrCat(" has no heads that ", ranks, " can share");
  absl::StrAppend(&why, ": every rank computes all of it");
  if (IsBlockable(attention) && ulysses < num_ranks) {
    absl::StrAppend(&why, "; set parallelism.ring to ", num_ranks / ulysses,
                    " and parallelism.ulysses to ", ulysses);
  } else {
    absl::StrAppend(&why, "; give a sequence fewer ranks, and parallelism.dp more");
  }
  return why;
}

std::vector<std::string> ForwardLowering::warnings() const {
  std::map<std::string, std::vector<size_t>> by_reason;
  for (size_t index : gathered_attentions_) {
    const Node& node = in_.graph.nodes[index];
    const std::vector<ValueId> operands = OperandsOf(node);
    const bool is_of_tokens = HoldsTokens(Dims(operands[0])) && HoldsTokens(Dims(operands[1]));
    if (is_of_tokens) by_reason[WhyWhole(node)].push_back(index);
  }
  if (!groups_of_tokens_.empty()) by_reason[WhyWholeGroups()] = groups_of_tokens_;
  std::vector<std::string> warnings;
  for (const auto& [why, nodes] : by_reason) {
    warnings.push_back(absl::StrCat(
        Describe(in_.graph, in_.graph.nodes[nodes[0]]),
        nodes.size() == 1 ? "" : absl::StrCat(", as ", nodes.size() - 1, " more of its kind,"),
        why));
  }
  return warnings;
}

}  // namespace autosp
