#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/pass.h"
#include "compiler/rules/factor_roles.h"
#include "compiler/rules/op_context.h"
#include "compiler/rules/op_rule.h"
#include "compiler/rules/token_factors.h"

namespace autosp {
namespace {

// A dimension of an operand.
struct OperandDim {
  size_t operand = 0;  // counted over tensors
  int64_t dim = 0;
};

bool IsMatmul(const Node& node) { return node.op == "aten.matmul.default"; }
bool IsProduct(const Node& node) { return IsMatmul(node) || node.op == "aten.einsum.default"; }

// Attention of which each row is on its own, wherever it stands.
bool IsRowwiseSdpa(const Node& node) {
  return node.op == kSdpa && !FlagArgument(node.args, 5).value_or(false);
}
// No ring can hold it in blocks where its mask is an operand.
bool IsMaskedSdpa(const Node& node) { return IsRowwiseSdpa(node) && !IsNone(node.args[3]); }

// The letters of two operands and of the result; nullopt: another form.
struct Letters {
  std::vector<std::string> operands;
  std::string result;
};

std::optional<Letters> LettersOf(const Node& node) {
  const auto* equation = std::get_if<std::string>(node.args.data());
  if (node.op != "aten.einsum.default" || equation == nullptr) return std::nullopt;
  const std::vector<std::string> sides =
      absl::StrSplit(absl::StrReplaceAll(*equation, {{" ", ""}}), "->");
  if (sides.size() != 2 || equation->find('.') != std::string::npos) return std::nullopt;
  Letters letters{.operands = absl::StrSplit(sides[0], ','), .result = sides[1]};
  if (letters.operands.size() != 2) return std::nullopt;
  for (const std::string& term : letters.operands) {
    if (std::set<char>(term.begin(), term.end()).size() != term.size()) return std::nullopt;
  }
  return letters;
}

class RowSplitter {
 public:
  RowSplitter(Graph& graph, const GraphFactors& factors, const PassContext& context)
      : graph_(graph),
        factors_(factors),
        num_ranks_(context.head_shards * context.ring_size),
        head_shards_(context.head_shards),
        tokens_(TokenFactorsOf(graph, factors).main) {}

  bool HasTokens() const { return !tokens_.empty(); }

  // Whether something pairs all tokens that ranks can share by its rows alone: there are no heads
  // that split evenly, or they are summed over while all pairs are there.
  bool IsNeeded() const {
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      const Node& node = graph_.nodes[i];
      if (IsRowwiseSdpa(node)) {
        if (LacksHeads(node)) return true;
        continue;
      }
      if (IsProduct(node) && IsPaired(node.outputs[0]) && !HasParallelHeads(i)) return true;
    }
    return false;
  }

  bool Run() {
    GraphRewriter rewriter(graph_);
    for (const Node& node : rewriter.nodes()) {
      NoteOrder(node);
      const std::vector<OperandDim> columns = ColumnsOf(node);
      if (columns.empty()) {
        rewriter.Keep(node);
      } else {
        Gather(node, columns, rewriter);
      }
    }
    return rewriter.Finish();
  }

 private:
  std::vector<int64_t> TokenDims(ValueId value) const {
    const FactorDims dims = factors_.Of(value);
    std::vector<int64_t> found;
    for (size_t i = 0; i < dims.size(); ++i) {
      if (dims[i] == tokens_) found.push_back(static_cast<int64_t>(i));
    }
    return found;
  }
  bool IsPaired(ValueId value) const { return TokenDims(value).size() == 2; }

  bool HasPairedOperand(const Node& node) const {
    const std::vector<ValueId> operands = OperandsOf(node);
    return std::ranges::any_of(operands, [this](ValueId id) { return IsPaired(id); });
  }
  bool MakesPairs(const Node& node) const {
    return node.outputs.size() == 1 && IsPaired(node.outputs[0]) && !HasPairedOperand(node);
  }
  bool PairsInside(const Node& node) const {
    const std::vector<int64_t> query = TokenDims(TensorArgument(node.args, 0));
    const std::vector<int64_t> key = TokenDims(TensorArgument(node.args, 1));
    const int64_t rank = graph_.type(TensorArgument(node.args, 0)).rank();
    return query == std::vector{rank - 2} && key == query;
  }

  // Whether attention of the tokens has no heads to split. A ring needs them for its other axis.
  bool LacksHeads(const Node& node) const {
    const int64_t num_ranks = IsMaskedSdpa(node) ? num_ranks_ : head_shards_;
    if (num_ranks == 1 || !PairsInside(node)) return false;
    return HeadsOf(TensorArgument(node.args, 0), num_ranks).empty();
  }

  std::set<FactorVar> HeadsOf(ValueId value) const { return HeadsOf(value, num_ranks_); }

  // Factors at the front of dimensions that so many ranks divide, but for tokens, the batch, and
  // what attention sums over.
  std::set<FactorVar> HeadsOf(ValueId value, int64_t num_ranks) const {
    std::set<FactorVar> heads;
    const FactorDims dims = factors_.Of(value);
    const FactorDim batch =
        factors_.batch < 0 ? FactorDim{} : factors_.table.Resolve(FactorDim{factors_.batch});
    for (size_t d = 0; d < dims.size(); ++d) {
      const bool is_summed = !IsPaired(value) && d + 1 == dims.size();
      if (dims[d] == tokens_ || is_summed) continue;
      int64_t size = 1;
      for (FactorVar factor : dims[d]) {
        if (std::ranges::count(batch, factor) > 0 || std::ranges::count(tokens_, factor) > 0) break;
        size *= factors_.table.Size(factor);
        if (size % num_ranks != 0) continue;
        heads.insert(dims[d][0]);
        break;
      }
    }
    return heads;
  }

  // Whether some heads of the result are those of all pairs that go in.
  bool HasParallelHeads(size_t index) const {
    const Node& node = graph_.nodes[index];
    const FactorRoles roles = FactorRolesOf(graph_, factors_, index);
    std::set<FactorVar> heads = HeadsOf(node.outputs[0]);
    std::erase_if(heads,
                  [&](FactorVar head) { return !roles.Allows({head}) || roles.Reduces({head}); });
    for (ValueId operand : OperandsOf(node)) {
      if (!IsPaired(operand)) continue;
      const std::set<FactorVar> own = HeadsOf(operand);
      std::erase_if(heads, [&](FactorVar head) { return !own.contains(head); });
    }
    return !heads.empty();
  }

  // Of a value with two dimensions of tokens: whether the columns come first. Those that make them
  // have rows first; what swaps two dimensions turns them.
  void NoteOrder(const Node& node) {
    if (node.outputs.size() != 1 || !IsPaired(node.outputs[0])) return;
    for (ValueId operand : OperandsOf(node)) {
      if (!IsPaired(operand)) continue;
      const bool was_turned = turned_.contains(operand);
      if (was_turned != Swaps(node, operand)) turned_.insert(node.outputs[0]);
      return;
    }
  }

  bool Swaps(const Node& node, ValueId operand) const {
    const OpContext context(graph_, node);
    const int64_t rank = graph_.type(operand).rank();
    const std::vector<int64_t> dims = TokenDims(operand);
    if (node.op == "aten.t.default") return true;
    if (node.op == "aten.transpose.int") {
      const std::set<int64_t> swapped = {context.Dim(1, rank), context.Dim(2, rank)};
      return swapped == std::set<int64_t>(dims.begin(), dims.end());
    }
    if (node.op != "aten.permute.default") return false;
    const std::vector<int64_t> order = context.DimList(1, rank);
    return std::ranges::find(order, dims[1]) < std::ranges::find(order, dims[0]);
  }

  int64_t ColumnOf(ValueId paired) const {
    return TokenDims(paired)[turned_.contains(paired) ? 0 : 1];
  }

  // The dimensions that stand for the columns of pairs, or are summed with them: there a rank needs
  // all tokens.
  std::vector<OperandDim> ColumnsOf(const Node& node) const {
    if (IsRowwiseSdpa(node)) {
      const int64_t dim = graph_.type(TensorArgument(node.args, 1)).rank() - 2;
      if (!PairsInside(node) || (!IsMaskedSdpa(node) && !LacksHeads(node))) return {};
      return {{.operand = 1, .dim = dim}, {.operand = 2, .dim = dim}};
    }
    if (IsProduct(node) && OperandsOf(node).size() == 2) return ColumnsOfProduct(node);
    return MakesPairs(node) ? ColumnsOfBroadcast(node) : std::vector<OperandDim>();
  }

  std::vector<OperandDim> ColumnsOfBroadcast(const Node& node) const {
    std::vector<OperandDim> columns;
    const ValueId result = node.outputs[0];
    const int64_t from_end = graph_.type(result).rank() - TokenDims(result)[1];
    const std::vector<ValueId> operands = OperandsOf(node);
    for (size_t i = 0; i < operands.size(); ++i) {
      const int64_t dim = graph_.type(operands[i]).rank() - from_end;
      if (std::ranges::count(TokenDims(operands[i]), dim) > 0) columns.push_back({i, dim});
    }
    return columns;
  }

  // A product as einsum has it; no letters: of another form.
  Letters Spell(const Node& node) const {
    if (const std::optional<Letters> letters = LettersOf(node)) return *letters;
    const std::vector<ValueId> operands = OperandsOf(node);
    const int64_t ranks[] = {graph_.type(operands[0]).rank(), graph_.type(operands[1]).rank()};
    if (!IsMatmul(node) || ranks[0] < 2 || ranks[1] < 2) return {};
    const auto term = [](int64_t rank, const char* last) {
      std::string batch;
      for (int64_t i = rank - 2; i > 0; --i) batch += static_cast<char>('0' + i % 10);
      return batch + last;
    };
    return {{term(ranks[0], "mk"), term(ranks[1], "kn")}, term(std::max(ranks[0], ranks[1]), "mn")};
  }

  std::vector<OperandDim> ColumnsOfProduct(const Node& node) const {
    const std::vector<ValueId> operands = OperandsOf(node);
    const Letters product = Spell(node);
    if (product.operands.size() != 2) return {};
    const auto dim_of = [&](size_t operand, char letter) {
      const size_t place = product.operands[operand].find(letter);
      return place == std::string::npos ? int64_t{-1} : static_cast<int64_t>(place);
    };
    const auto holds = [&](size_t operand, int64_t dim) {
      return std::ranges::count(TokenDims(operands[operand]), dim) > 0;
    };
    if (MakesPairs(node)) {
      const char column = product.result[TokenDims(node.outputs[0])[1]];
      for (size_t i : {0, 1}) {
        const int64_t dim = dim_of(i, column);
        if (dim >= 0 && holds(i, dim)) return {{i, dim}};
      }
      return {};
    }
    // Pairs times values: the columns are summed over.
    for (size_t i : {0, 1}) {
      if (!IsPaired(operands[i]) || IsPaired(operands[1 - i])) continue;
      const char column = product.operands[i][ColumnOf(operands[i])];
      const int64_t dim = dim_of(1 - i, column);
      const bool is_summed = product.result.find(column) == std::string::npos;
      if (is_summed && dim >= 0 && holds(1 - i, dim)) return {{1 - i, dim}};
    }
    return {};
  }

  void Gather(const Node& node, const std::vector<OperandDim>& columns, GraphRewriter& rewriter) {
    std::vector<Argument> args = node.args;
    size_t next = 0;
    for (Argument& argument : args) {
      ForEachValue(argument, [&](ValueId& id) {
        for (const OperandDim& column : columns) {
          if (column.operand == next) id = AllTokens(node, id, column.dim, rewriter);
        }
        ++next;
      });
    }
    std::vector<TensorType> types;
    for (ValueId output : node.outputs) types.push_back(graph_.type(output));
    const std::vector<ValueId> results =
        rewriter.Emit(node, node.op, std::move(args), std::move(types));
    for (size_t i = 0; i < results.size(); ++i) rewriter.Replace(node.outputs[i], results[i]);
  }

  ValueId AllTokens(const Node& node, ValueId value, int64_t dim, GraphRewriter& rewriter) {
    ValueId& gathered = gathered_[{value.index, dim}];
    if (!gathered.valid()) {
      gathered = rewriter.EmitOne(node, kAllTokens, {value, SymInt(dim)}, graph_.type(value));
    }
    return gathered;
  }

  Graph& graph_;
  const GraphFactors& factors_;
  const int64_t num_ranks_;
  const int64_t head_shards_;
  const FactorDim tokens_;
  std::set<ValueId> turned_;
  std::map<std::pair<int32_t, int64_t>, ValueId> gathered_;
};

// Whether it is worth it to look for factors: they are found anew for each mesh.
bool MayPair(const Graph& graph, const PassContext& context) {
  return std::ranges::any_of(graph.nodes, [&](const Node& node) {
    if (IsMaskedSdpa(node)) return true;
    if (IsRowwiseSdpa(node)) {
      const TensorType& query = graph.type(TensorArgument(node.args, 0));
      const int64_t heads = query.rank() < 3 ? 1 : query.sizes[query.rank() - 3].value;
      return heads % context.head_shards != 0;
    }
    if (!IsProduct(node)) return false;
    const std::vector<int64_t> sizes = Values(graph.type(node.outputs[0]).sizes);
    return std::ranges::any_of(
        sizes, [&](int64_t size) { return size > 1 && std::ranges::count(sizes, size) > 1; });
  });
}

}  // namespace

// Pairs of tokens that are a dense matrix (scores under an arbitrary mask, similarities) or that
// all attend to each other, with fewer heads than ranks: each rank has the rows of its own tokens,
// and gathers what makes the columns.
//
//   before  %s = aten.matmul(%q, %k)                        [B, N, S, S], N not divided by ranks
//           %o = aten.matmul(softmax(%s), %v)
//   after   %s = aten.matmul(%q, all_tokens(%k))            [B, N, S, S'], S' a dimension of its
//   own
//           %o = aten.matmul(softmax(%s), all_tokens(%v))
//
// Where rows and columns come together again later, they are one dimension as before, and are put
// together. Requires: heads are as they will be split (replicate-kv-heads).
absl::StatusOr<bool> SplitRows(Graph& graph, const PassContext& context) {
  const int64_t num_ranks = context.head_shards * context.ring_size;
  if (num_ranks == 1 || !MayPair(graph, context)) return false;
  ASSIGN_OR_RETURN(const GraphFactors factors, InferFactors(graph, context.roles));
  RowSplitter splitter(graph, factors, context);
  if (!splitter.HasTokens()) return false;
  return splitter.IsNeeded() && splitter.Run();
}

}  // namespace autosp
