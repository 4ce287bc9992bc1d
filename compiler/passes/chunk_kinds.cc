#include "compiler/passes/chunk_kinds.h"

#include <algorithm>
#include <utility>

#include "compiler/ir/argument_access.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/summed_terms.h"
#include "compiler/rules/factor_roles.h"
#include "compiler/rules/op_context.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

bool Contains(const FactorDim& dim, const FactorDim& run) {
  return !std::ranges::search(dim, run).empty();
}

bool StartsWith(const FactorDim& dim, const FactorDim& run) {
  return run.size() <= dim.size() && std::equal(run.begin(), run.end(), dim.begin());
}

// In how many dimensions a value has the run; -1: only parts of it.
int Holds(const FactorDims& dims, const FactorDim& run) {
  int count = 0;
  for (const FactorDim& dim : dims) {
    const bool has = Contains(dim, run);
    const bool has_any = std::ranges::any_of(
        run, [&](FactorVar factor) { return std::ranges::count(dim, factor) > 0; });
    if (has_any && !has) return -1;
    count += has ? 1 : 0;
  }
  return count;
}

bool IsSumOrDifference(const Node& node) {
  return node.op == "aten.add.Tensor" || node.op == "aten.sub.Tensor";
}

}  // namespace

ChunkKinds::ChunkKinds(const Graph& graph, const ChunkFamilies& found, const GraphFactors& factors,
                       const PassContext& context)
    : graph_(graph),
      found_(found),
      factors_(factors),
      has_new_sizes_(HasNewSize(factors.batch, context.batch_size) ||
                     HasNewSize(factors.seq, context.seq_len)) {
  for (const ChunkFamily& family : found.families) Classify(family);
}

bool ChunkKinds::HasNewSize(FactorVar root, int64_t wanted) const {
  return root >= 0 && wanted > 0 && factors_.table.Size(root) != wanted;
}

// Whether python may have made numbers of how large the parts are, or how many: they stay what they
// were.
bool ChunkKinds::MayHaveStaleNumbers(size_t family) const {
  return has_new_sizes_ && WholeOf(family).expr.empty();
}

SymInt ChunkKinds::WholeOf(size_t family) const {
  const ChunkFamily& origin = OriginOf(family);
  return graph_.type(origin.whole).sizes[origin.dim];
}

FactorDim ChunkKinds::RunOf(size_t family, size_t part) const {
  const ChunkFamily& origin = OriginOf(family);
  return factors_.Of(origin.members[part])[origin.dim];
}

std::optional<size_t> ChunkKinds::JoinedBy(const Node& cat) const {
  if (cat.op != "aten.cat.default") return std::nullopt;
  const std::vector<ValueId> operands = OperandsOf(cat);
  const std::optional<size_t> family = found_.FindAll(operands, /*in_order=*/true);
  if (!family || kinds_[*family] != PartKind::kParts) return std::nullopt;
  const OpContext context(graph_, cat);
  for (size_t i = 0; i < operands.size(); ++i) {
    // In front of its dimension: the whole has the parts one behind the other.
    const FactorDim dim = factors_.Of(operands[i])[context.Dim(1, context.Rank(operands[i]))];
    if (!StartsWith(dim, RunOf(*family, i))) return std::nullopt;
  }
  return family;
}

TensorType ChunkKinds::JoinedType(size_t family) const {
  const ValueId first = found_.families[family].members[0];
  TensorType type = graph_.type(first);
  if (kinds_[family] != PartKind::kParts) return type;
  const FactorDims dims = factors_.Of(first);
  const FactorDim run = RunOf(family, 0);
  const SymInt whole = WholeOf(family);
  for (size_t i = 0; i < dims.size(); ++i) {
    if (!Contains(dims[i], run)) continue;
    const int64_t times = type.sizes[i].value / factors_.table.Size(run);
    SymExpr expr = whole.expr;
    if (!expr.empty() && times > 1) {
      expr = SymExpr::Make(SymExpr::Op::kMul, {SymExpr::Const(times), whole.expr});
    }
    type.sizes[i] = SymInt(whole.value * times, expr);
  }
  return Contiguous(std::move(type));
}

void ChunkKinds::Classify(const ChunkFamily& family) {
  const size_t index = kinds_.size();
  kinds_.push_back(PartKind::kUnknown);
  origins_.push_back(index);
  if (family.step < 0) {
    kinds_[index] = KindOfCut(index);
    return;
  }
  const std::optional<size_t> read = FamilyReadBy(graph_.nodes[found_.steps[family.step].nodes[0]]);
  if (!read) return;
  origins_[index] = origins_[*read];
  kinds_[index] = KindOfResults(family, *read);
  // Results of one op are made at once: something is known of all of them, or of none.
  const auto siblings = kinds_.end() - static_cast<std::ptrdiff_t>(family.output + 1);
  if (std::ranges::count(siblings, kinds_.end(), PartKind::kUnknown) > 0) {
    std::fill(siblings, kinds_.end(), PartKind::kUnknown);
  }
}

PartKind ChunkKinds::KindOfResults(const ChunkFamily& family, size_t read) const {
  const PartKind first = KindOfResult(family, 0, read);
  for (size_t part = 1; part < family.members.size(); ++part) {
    if (KindOfResult(family, part, read) != first) return PartKind::kUnknown;
  }
  return first;
}

PartKind ChunkKinds::KindOfCut(size_t family) const {
  const ChunkFamily& cut = found_.families[family];
  const FactorDim whole = factors_.Of(cut.whole)[cut.dim];
  const bool follows = cut.is_counted || !MayHaveStaleNumbers(family);
  const bool is_known = factors_.table.FollowsRoot(whole) && follows && !RunOf(family, 0).empty();
  return is_known ? PartKind::kParts : PartKind::kUnknown;
}

// A family that the node of first parts reads; none if it reads one that nothing is known of, or
// some that differ in kind.
std::optional<size_t> ChunkKinds::FamilyReadBy(const Node& node) const {
  std::optional<size_t> read;
  for (const ValueId operand : OperandsOf(node)) {
    const std::optional<ChunkMember> place = found_.Find(operand);
    if (!place) continue;
    const PartKind kind = kinds_[place->family];
    if (kind == PartKind::kUnknown || (read && kinds_[*read] != kind)) return std::nullopt;
    if (!read) read = place->family;
  }
  return read;
}

PartKind ChunkKinds::KindOfResult(const ChunkFamily& family, size_t part, size_t read) const {
  const size_t index = found_.steps[family.step].nodes[part];
  const Node& node = graph_.nodes[index];
  if (kinds_[read] == PartKind::kSums) {
    return IsLinearInSums(node, read) ? PartKind::kSums : PartKind::kUnknown;
  }
  const FactorDim run = RunOf(read, part);
  const FactorRoles roles = FactorRolesOf(graph_, factors_, index);
  if (run.empty() || !roles.Allows(run) || !ReadsParts(node, part, run)) return PartKind::kUnknown;
  const int holds = Holds(factors_.Of(node.outputs[family.output]), run);
  const auto is_summed = [&](FactorVar factor) { return roles.sum.contains(factor); };
  if (holds == 0 && std::ranges::all_of(run, is_summed)) return PartKind::kSums;
  const bool is_part = holds == 1 && !roles.Reduces(run) && IsScaled(family, part, read);
  return is_part ? PartKind::kParts : PartKind::kUnknown;
}

// Whether the operands are parts of this place, or have nothing of the dimension that is cut.
bool ChunkKinds::ReadsParts(const Node& node, size_t part, const FactorDim& run) const {
  return std::ranges::all_of(OperandsOf(node), [&](ValueId operand) {
    const std::optional<ChunkMember> place = found_.Find(operand);
    const bool is_part = place && place->index == part;
    if (is_part && RunOf(place->family, part) != run) return false;
    return Holds(factors_.Of(operand), run) == (is_part ? 1 : 0);
  });
}

// Whether a result has the sizes of the first part's, but for the dimension that is cut.
bool ChunkKinds::IsScaled(const ChunkFamily& family, size_t part, size_t read) const {
  const std::vector<int64_t> sizes = Values(graph_.type(family.members[part]).sizes);
  const std::vector<int64_t> first = Values(graph_.type(family.members[0]).sizes);
  if (sizes.size() != first.size()) return false;
  const FactorDim run = RunOf(read, part);
  const FactorDims dims = factors_.Of(family.members[part]);
  for (size_t i = 0; i < sizes.size(); ++i) {
    const bool is_cut = Contains(dims[i], run);
    const int64_t per_part = is_cut ? factors_.table.Size(run) : 1;
    const int64_t per_first = is_cut ? factors_.table.Size(RunOf(read, 0)) : 1;
    if (sizes[i] * per_first != first[i] * per_part) return false;
  }
  return true;
}

// A linear op of a sum and what is the same for all, or the sum of two that are added up alike.
bool ChunkKinds::IsLinearInSums(const Node& node, size_t read) const {
  const std::vector<ValueId> operands = OperandsOf(node);
  const auto is_sum = [&](ValueId value) { return found_.Find(value).has_value(); };
  const auto num_sums = std::ranges::count_if(operands, is_sum);
  const bool has_number = NumberArgument(node.args, 1).has_value();
  if (has_number && MayHaveStaleNumbers(read)) return false;
  if (num_sums == 2) return IsPlainSum(graph_, node);
  const bool is_product = node.op == "aten.mul.Tensor" && operands.size() == 2;
  if (num_sums != 1 || !(is_sum(operands[0]) || is_product)) return false;
  const OpRule* rule = FindOpRule(node.op);
  return rule != nullptr && IsLinear(*rule, graph_, node) && !IsSumOrDifference(node);
}

}  // namespace autosp
