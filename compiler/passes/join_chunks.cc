#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "common/status_macros.h"
#include "compiler/import/remove_noise.h"
#include "compiler/ir/argument_access.h"
#include "compiler/passes/chunk_families.h"
#include "compiler/passes/chunk_kinds.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/mean_as_sum.h"
#include "compiler/passes/pass.h"
#include "compiler/passes/summed_terms.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

bool IsRegroup(const Node& node) {
  return node.op == "aten.view.default" || node.op == "aten.reshape.default" ||
         node.op == "aten._unsafe_view.default" || node.op == "aten.flatten.using_ints" ||
         node.op == "aten.unflatten.int";
}

// What takes all members of families together.
struct Ending {
  std::vector<size_t> families;        // joined values are added up
  std::vector<SummedTerm> terms = {};  // beside them
  bool is_negative = false;            // of the families
  std::optional<int64_t> divisor = {};
};

class JoinRewrite {
 public:
  // `types`: of what is joined, by family.
  JoinRewrite(const ChunkFamilies& found, std::vector<TensorType> types,
              std::map<size_t, Ending> endings, GraphRewriter& rewriter)
      : found_(found), types_(std::move(types)), endings_(std::move(endings)), rewriter_(rewriter) {
    joined_.resize(found.families.size());
    for (const auto& [node, ending] : endings_) {
      for (const size_t family : ending.families) Need(family);
    }
  }

  void Run() {
    for (size_t i = 0; i < rewriter_.nodes().size(); ++i) {
      const Node& node = rewriter_.nodes()[i];
      if (const auto steps = needed_.find(i); steps != needed_.end()) EmitStep(steps->second);
      const auto ending = endings_.find(i);
      if (ending == endings_.end()) {
        rewriter_.Keep(node);
      } else {
        rewriter_.Replace(node.outputs[0], Sum(node, ending->second));
      }
    }
  }

 private:
  void Need(size_t family) {
    const int32_t step = found_.families[family].step;
    if (step < 0) return;
    const size_t node = found_.steps[step].nodes[0];
    if (!needed_.emplace(node, step).second) return;
    for (const ValueId operand : OperandsOf(rewriter_.nodes()[node])) {
      if (const std::optional<ChunkMember> place = found_.Find(operand)) Need(place->family);
    }
  }

  ValueId Joined(size_t family) const {
    const ChunkFamily& of = found_.families[family];
    return of.step < 0 ? of.whole : joined_[family];
  }

  void EmitStep(int32_t step) {
    const Node& node = rewriter_.nodes()[found_.steps[step].nodes[0]];
    std::vector<Argument> args = node.args;
    for (Argument& argument : args) {
      ForEachValue(argument, [&](ValueId& id) {
        if (const std::optional<ChunkMember> place = found_.Find(id)) id = Joined(place->family);
      });
    }
    std::vector<TensorType> types;
    for (const ValueId output : node.outputs) {
      types.push_back(types_[found_.places.at(output).family]);
    }
    std::string_view op = node.op;
    if (IsRegroup(node)) {
      op = "aten.reshape.default";
      args = {args[0], IntList(types[0].sizes)};
    } else if (const std::optional<size_t> sizes = SizeArgument(node.op)) {
      args[*sizes] = IntList(types[0].sizes);
    }
    const std::vector<ValueId> results = rewriter_.Emit(node, op, std::move(args), types);
    for (size_t i = 0; i < results.size(); ++i) {
      joined_[found_.places.at(node.outputs[i]).family] = results[i];
    }
  }

  ValueId Sum(const Node& node, const Ending& ending) {
    const TensorType type = rewriter_.graph().type(node.outputs[0]);
    ValueId sum;
    for (const size_t family : ending.families) {
      sum = sum.valid() ? Add(node, sum, Joined(family), false, type) : Joined(family);
    }
    if (ending.is_negative) sum = rewriter_.EmitOne(node, "aten.neg.default", {sum}, type);
    for (const SummedTerm& term : ending.terms) {
      sum = Add(node, sum, term.value, term.is_negative, type);
    }
    if (ending.divisor) {
      const double times = 1.0 / static_cast<double>(*ending.divisor);
      TensorType before = rewriter_.graph().type(sum);
      sum = rewriter_.EmitOne(node, "aten.mul.Tensor", {sum, times}, std::move(before));
    }
    const bool is_shaped = rewriter_.graph().type(sum).rank() == type.rank();
    return is_shaped ? sum : ReshapeTo(node, sum, type.sizes, rewriter_);
  }

  ValueId Add(const Node& node, ValueId sum, const Argument& other, bool subtract,
              const TensorType& type) {
    return rewriter_.EmitOne(node, subtract ? "aten.sub.Tensor" : "aten.add.Tensor",
                             {sum, other, SymInt(1)}, type);
  }

  const ChunkFamilies& found_;
  const std::vector<TensorType> types_;
  const std::map<size_t, Ending> endings_;
  std::map<size_t, int32_t> needed_;  // steps, by their first node
  std::vector<ValueId> joined_;       // by family
  GraphRewriter& rewriter_;
};

// Of a term that is a sum of parts: which.
std::optional<ChunkMember> SumOfPart(const SummedTerm& term, const ChunkFamilies& found,
                                     const ChunkKinds& kinds) {
  const ValueId* value = std::get_if<ValueId>(&term.value);
  const std::optional<ChunkMember> place = value ? found.Find(*value) : std::nullopt;
  const bool is_sum = place && kinds.Of(place->family) == PartKind::kSums;
  return is_sum ? place : std::nullopt;
}

// Families of which a value adds up all members, or subtracts all.
std::optional<Ending> SumsIn(const std::vector<SummedTerm>& terms, const ChunkFamilies& found,
                             const ChunkKinds& kinds) {
  std::map<std::pair<size_t, bool>, std::set<size_t>> members;
  for (const SummedTerm& term : terms) {
    const std::optional<ChunkMember> place = SumOfPart(term, found, kinds);
    if (!place) continue;
    if (!members[{place->family, term.is_negative}].insert(place->index).second) {
      return std::nullopt;
    }
  }
  Ending ending;
  for (const auto& [key, parts] : members) {
    const auto& [family, is_negative] = key;
    if (parts.size() != found.families[family].members.size()) continue;
    if (!ending.families.empty() && is_negative != ending.is_negative) return std::nullopt;
    ending.families.push_back(family);
    ending.is_negative = is_negative;
  }
  if (ending.families.empty()) return std::nullopt;
  for (const SummedTerm& term : terms) {
    const std::optional<ChunkMember> place = SumOfPart(term, found, kinds);
    const bool is_joined = place && term.is_negative == ending.is_negative &&
                           std::ranges::count(ending.families, place->family) > 0;
    if (!is_joined && !term.IsZero()) ending.terms.push_back(term);
  }
  return ending;
}

// torch.stack(losses).sum()
std::optional<Ending> SumOfStack(const Graph& graph, const Node& node,
                                 const std::vector<int32_t>& definer, const ChunkFamilies& found,
                                 const ChunkKinds& kinds) {
  if (!IsSum(node) && !IsMean(node)) return std::nullopt;
  const ValueId operand = OperandsOf(node)[0];
  if (definer[operand.index] < 0) return std::nullopt;
  const Node& stack = graph.nodes[definer[operand.index]];
  const bool is_stack = stack.op == "aten.stack.default" || stack.op == "aten.cat.default";
  if (!is_stack || stack.no_grad) return std::nullopt;
  const std::vector<ValueId> operands = OperandsOf(stack);
  const std::optional<size_t> family = found.FindAll(operands, /*in_order=*/false);
  const bool is_number = graph.type(operands[0]).numel() == 1 &&
                         graph.type(node.outputs[0]).numel() == 1 &&
                         graph.type(node.outputs[0]).dtype == graph.type(operands[0]).dtype;
  if (!family || !is_number || kinds.Of(*family) != PartKind::kSums) return std::nullopt;
  Ending ending{.families = {*family}};
  if (IsMean(node)) ending.divisor = static_cast<int64_t>(operands.size());
  return ending;
}

std::map<size_t, Ending> FindEndings(const Graph& graph, const ChunkFamilies& found,
                                     const ChunkKinds& kinds) {
  const std::vector<int32_t> definer = DefiningNodes(graph);
  const SummedTerms sums(graph);
  std::map<size_t, Ending> endings;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    if (node.no_grad) continue;  // what replaces it would hand gradients on
    if (const std::optional<size_t> family = kinds.JoinedBy(node)) {
      endings[i] = {.families = {*family}};
    } else if (auto ending = SumOfStack(graph, node, definer, found, kinds)) {
      endings[i] = *std::move(ending);
    } else if (sums.IsRoot(i)) {
      if (auto ending = SumsIn(sums.Of(i), found, kinds)) endings[i] = *std::move(ending);
    }
  }
  return endings;
}

absl::StatusOr<bool> JoinOnce(Graph& graph, const PassContext& context) {
  const ChunkFamilies found = FindChunkFamilies(graph);
  if (found.steps.empty()) return false;
  ASSIGN_OR_RETURN(const GraphFactors factors, InferFactors(graph, context.roles));
  const ChunkKinds kinds(graph, found, factors, context);
  std::map<size_t, Ending> endings = FindEndings(graph, found, kinds);
  if (endings.empty()) return false;
  std::vector<TensorType> types;
  for (size_t i = 0; i < found.families.size(); ++i) types.push_back(kinds.JoinedType(i));
  GraphRewriter rewriter(graph);
  JoinRewrite(found, std::move(types), std::move(endings), rewriter).Run();
  rewriter.Finish();
  // Also the values: sizes of what is gone follow nothing.
  RemoveNoise(graph);
  return true;
}

}  // namespace

// What is done with each of the parts of a tensor, and then put together again or added up, is done
// with the tensor: chunks of tokens were cut to save memory, which tiles of the loss do, and cross
// the sequences that micro-steps and ranks have.
//
//   before  %a, %b = aten.chunk.default(%x, 2, 0)        of tokens
//           %la = aten.linear.default(%a, %w, none)      %lb = aten.linear.default(%b, %w, none)
//           %sa = aten.sum.default(%la, none)            %sb = aten.sum.default(%lb, none)
//           %s = aten.add.Tensor(%sa, %sb, 1)
//   after   %l = aten.linear.default(%x, %w, none)
//           %s = aten.sum.default(%l, none)
//
// Only where factors say that each op takes the parts by themselves, or adds them up: a mean of a
// part is one of that part, and stays. Where sizes were constants and are others in the job, only
// parts that are as many whatever the size, and no number that may have been made of them.
absl::StatusOr<bool> JoinChunks(Graph& graph, const PassContext& context) {
  bool has_joined = false;
  while (true) {
    ASSIGN_OR_RETURN(const bool joins, JoinOnce(graph, context));
    if (!joins) return has_joined;
    // What was put together follows the tokens now, also where it is cut again.
    has_joined = true;
  }
}

}  // namespace autosp
