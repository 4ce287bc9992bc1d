#include <cstdlib>
#include <limits>
#include <map>
#include <optional>
#include <string>

#include "compiler/analysis/index_expr.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/pass.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

// What a mask says of a query and a key: all of it must hold.
struct MaskRule {
  bool causal = false;        // key <= query
  int64_t window = 0;         // query - key < window; 0: any
  int64_t after = 0;          // key - query < after; 0: any
  ValueId document = {};      // equal at query and key; invalid: any
  ValueId key_is_valid = {};  // not `invalid_key` at the key; invalid: any
  int64_t invalid_key = 0;

  bool HasMore() const {
    return window != 0 || after != 0 || document.valid() || key_is_valid.valid();
  }
  bool IsNone() const { return !causal && !HasMore(); }
  bool IsCausalOnly() const { return causal && !HasMore(); }
};

// Reads the conjuncts of a mask of [..., queries, keys], one after another.
class MaskReader {
 public:
  MaskReader(const Graph& graph, const TensorType& mask, IndexEvaluator& evaluator)
      : graph_(graph),
        evaluator_(evaluator),
        sizes_(Values(mask.sizes)),
        query_("i" + std::to_string(mask.rank() - 2)),
        key_("i" + std::to_string(mask.rank() - 1)) {}

  std::optional<MaskRule> Read(const IndexExpr& mask) {
    if (mask.kind != IndexExpr::Kind::kAnd) {
      if (!ReadConjunct(mask)) return std::nullopt;
    }
    for (const IndexExprPtr& part : mask.operands) {
      if (mask.kind == IndexExpr::Kind::kAnd && !ReadConjunct(*part)) return std::nullopt;
    }
    return rule_;
  }

 private:
  bool ReadConjunct(const IndexExpr& expr) {
    switch (expr.kind) {
      case IndexExpr::Kind::kAffine:
        if (expr.affine.terms.empty()) return expr.affine.constant != 0;
        return expr.affine.constant == 0 && ReadValidity(expr.affine, 0);
      case IndexExpr::Kind::kLessEqual:
        return ReadDistance(expr.affine);
      case IndexExpr::Kind::kEqual:
        return ReadDocuments(expr.affine);
      case IndexExpr::Kind::kNot:
        // A number that is not a certain one at the key.
        return expr.operands[0]->kind == IndexExpr::Kind::kEqual &&
               ReadValidity(expr.operands[0]->affine, -expr.operands[0]->affine.constant);
      default:
        return false;
    }
  }

  // key - query + c <= 0, or query - key + c <= 0.
  bool ReadDistance(const Affine& affine) {
    if (affine.terms.size() != 2) return false;
    const auto query = affine.terms.find(query_);
    const auto key = affine.terms.find(key_);
    if (query == affine.terms.end() || key == affine.terms.end()) return false;
    if (key->second == 1 && query->second == -1) {
      if (affine.constant == 0) return rule_.causal = true;
      return SetOnce(1 - affine.constant, &rule_.after);
    }
    const bool is_window = key->second == -1 && query->second == 1;
    return is_window && SetOnce(1 - affine.constant, &rule_.window);
  }

  // A window of less than one token would be an empty row; the narrower of two would be right, but
  // no model asks for it.
  static bool SetOnce(int64_t size, int64_t* window) {
    if (size < 1 || *window != 0) return false;
    *window = size;
    return true;
  }

  // table[batch, query] - table[batch, key] == 0
  bool ReadDocuments(const Affine& affine) {
    if (affine.terms.size() != 2 || affine.constant != 0 || rule_.document.valid()) return false;
    const auto& [first, first_sign] = *affine.terms.begin();
    const auto& [second, second_sign] = *affine.terms.rbegin();
    if (first_sign + second_sign != 0 || std::abs(first_sign) != 1) return false;
    const Lookup* a = evaluator_.FindLookup(first);
    const Lookup* b = evaluator_.FindLookup(second);
    if (a == nullptr || b == nullptr || a->value != b->value) return false;
    const bool both_ways = (IsTokenOf(*a, query_) && IsTokenOf(*b, key_)) ||
                           (IsTokenOf(*a, key_) && IsTokenOf(*b, query_));
    if (both_ways) rule_.document = a->value;
    return both_ways;
  }

  // table[batch, key] != invalid_key
  bool ReadValidity(const Affine& affine, int64_t invalid_key) {
    const bool is_one = affine.terms.size() == 1 && affine.terms.begin()->second == 1 &&
                        !rule_.key_is_valid.valid();
    if (!is_one) return false;
    const Lookup* table = evaluator_.FindLookup(affine.terms.begin()->first);
    if (table == nullptr || !IsTokenOf(*table, key_)) return false;
    rule_.key_is_valid = table->value;
    rule_.invalid_key = invalid_key;
    return true;
  }

  // table[batch, token], of as many sequences and tokens as the mask has; or table[0, token] of one
  // sequence. A table of which the mask reads only a part is left alone.
  bool IsTokenOf(const Lookup& table, const std::string& token) const {
    const std::vector<int64_t> sizes = Values(graph_.type(table.value).sizes);
    const int64_t num_tokens = token == key_ ? sizes_.back() : sizes_[sizes_.size() - 2];
    if (table.at.size() != 2 || sizes[1] != num_tokens) return false;
    const auto is_index = [](const IndexExprPtr& expr, const std::string& name) {
      return expr->kind == IndexExpr::Kind::kAffine && expr->affine.constant == 0 &&
             expr->affine.terms.size() == 1 && expr->affine.terms.begin()->first == name &&
             expr->affine.terms.begin()->second == 1;
    };
    const bool is_zero = table.at[0]->kind == IndexExpr::Kind::kAffine &&
                         table.at[0]->affine.terms.empty() && table.at[0]->affine.constant == 0;
    // Of fewer dimensions than four the first may be that of heads.
    const bool is_batch =
        sizes_.size() == 4 && sizes[0] == sizes_[0] && is_index(table.at[0], "i0");
    return is_index(table.at[1], token) && ((is_zero && sizes[0] == 1) || is_batch);
  }

  const Graph& graph_;
  IndexEvaluator& evaluator_;
  const std::vector<int64_t> sizes_;  // of the mask
  const std::string query_;
  const std::string key_;
  MaskRule rule_;
};

// A mask that is added to scores: 0 where a query may attend, and elsewhere so low that nothing of
// its key is left. Where a query may attend to no key, a number leaves the mean of all values and
// -inf leaves nothing: only where the keys' padding may block all of them does that matter.
std::optional<MaskRule> ReadAdded(const Graph& graph, ValueId mask, IndexEvaluator& evaluator) {
  constexpr double kHighestBlock = -1e4;
  const std::optional<ZeroOr> added = evaluator.FloatElement(mask);
  if (!added) return std::nullopt;
  const IndexExprPtr allowed = NotOf(added->is_other);
  const bool is_nothing = allowed->ToString() == ConstantIndex(1)->ToString();
  if (!is_nothing && added->high > kHighestBlock) return std::nullopt;
  const std::optional<MaskRule> rule =
      MaskReader(graph, graph.type(mask), evaluator).Read(*allowed);
  const bool is_number = added->high > -std::numeric_limits<double>::infinity();
  if (rule && is_number && rule->key_is_valid.valid()) return std::nullopt;
  return rule;
}

using MaskRules = std::map<ValueId, std::optional<MaskRule>>;

MaskRules ReadMasks(const Graph& graph) {
  IndexEvaluator evaluator(graph);
  MaskRules rules;
  for (const Node& node : graph.nodes) {
    const auto* mask = node.op == kSdpa ? std::get_if<ValueId>(&node.args[3]) : nullptr;
    if (mask == nullptr || rules.contains(*mask)) continue;
    const TensorType& type = graph.type(*mask);
    std::optional<MaskRule>& rule = rules[*mask];
    if (type.rank() < 2) continue;
    if (IsFloating(type.dtype)) {
      rule = ReadAdded(graph, *mask, evaluator);
    } else if (type.dtype == DType::kBool) {
      rule = MaskReader(graph, type, evaluator).Read(*evaluator.Element(*mask));
    }
  }
  return rules;
}

// Whether the kernel for blocks can apply the rule: windows of the past, or symmetric ones; as many
// queries as keys, since ATen aligns is_causal at the upper left.
bool IsApplicable(const Graph& graph, const Node& node, const MaskRule& rule) {
  if (rule.IsNone()) return true;
  // A causal mask leaves no key after its query, however many a window would.
  const bool is_window = rule.causal || rule.window == rule.after;
  const TensorType& query = graph.type(std::get<ValueId>(node.args[0]));
  const TensorType& key = graph.type(std::get<ValueId>(node.args[1]));
  const bool is_square = query.sizes[query.sizes.size() - 2] == key.sizes[key.sizes.size() - 2];
  if (rule.IsCausalOnly()) return is_square;
  const auto* dropout = std::get_if<double>(&node.args[4]);
  return is_window && is_square && query.rank() == 4 && (dropout == nullptr || *dropout == 0);
}

// The documents of queries and of keys. Keys that nobody may attend to are in one of their own.
std::pair<Argument, Argument> EmitDocuments(GraphRewriter& rewriter, const Node& like,
                                            const MaskRule& rule) {
  constexpr int64_t kNoDocument = -(int64_t{1} << 62);
  Argument queries = None{};
  if (rule.document.valid()) queries = CastTo(like, rule.document, DType::kI64, rewriter);
  if (!rule.key_is_valid.valid()) return {queries, queries};
  ValueId valid = rule.key_is_valid;
  TensorType type = Contiguous(rewriter.graph().type(valid));
  if (type.dtype != DType::kBool) {
    type.dtype = DType::kBool;
    valid = rewriter.EmitOne(like, "aten.ne.Scalar", {valid, SymInt(rule.invalid_key)}, type);
  }
  if (!rule.document.valid()) {
    // 0 where valid, as queries without a document are in, and -1 elsewhere.
    const ValueId number = CastTo(like, valid, DType::kI64, rewriter);
    type.dtype = DType::kI64;
    return {None{},
            rewriter.EmitOne(like, "aten.sub.Tensor", {number, SymInt(1), SymInt(1)}, type)};
  }
  TensorType both = Contiguous(rewriter.graph().type(rule.document));
  both.dtype = DType::kI64;
  if (type.sizes[0].value != 1) both.sizes[0] = type.sizes[0];
  return {queries, rewriter.EmitOne(like, "aten.where.ScalarOther",
                                    {valid, queries, SymInt(kNoDocument)}, Contiguous(both))};
}

}  // namespace

// Attention whose mask is a function of the indices of query and key says so in its arguments; the
// dense [S, S] tensor is then dead. The proof evaluates the mask as a function of its indices: it
// may be causal, a sliding window, equal documents of query and key, and a padding of keys, or any
// of these together.
//
//   before  %o = aten.scaled_dot_product_attention.default(%q, %k, %v, %mask, 0.0, false, ...)
//   after   %o = aten.scaled_dot_product_attention.default(%q, %k, %v, none, 0.0, true, ...)
//   or      %o = autosp.attention(%q, %k, %v, %docs, %docs, true, 0, none)
absl::StatusOr<bool> RecognizeMasks(Graph& graph, const PassContext& /*context*/) {
  const MaskRules rules = ReadMasks(graph);
  GraphRewriter rewriter(graph);
  std::map<ValueId, std::pair<Argument, Argument>> documents;  // by mask
  bool changed = false;
  for (const Node& node : rewriter.nodes()) {
    const auto* mask = node.op == kSdpa ? std::get_if<ValueId>(&node.args[3]) : nullptr;
    const auto found = mask == nullptr ? rules.end() : rules.find(*mask);
    if (found == rules.end() || !found->second || !IsApplicable(graph, node, *found->second)) {
      rewriter.Keep(node);
      continue;
    }
    changed = true;
    const MaskRule& rule = *found->second;
    if (rule.IsNone() || rule.IsCausalOnly()) {
      Node unmasked = node;
      unmasked.args[3] = None{};
      if (rule.causal) unmasked.args[5] = true;
      rewriter.Keep(unmasked);
      continue;
    }
    if (!documents.contains(*mask)) {
      documents[*mask] = EmitDocuments(rewriter, node, rule);
    }
    const auto& [of_queries, of_keys] = documents[*mask];
    const ValueId result =
        rewriter.EmitOne(node, kMaskedAttention,
                         {node.args[0], node.args[1], node.args[2], of_queries, of_keys,
                          rule.causal, SymInt(rule.window), node.args[6]},
                         graph.type(node.outputs[0]));
    rewriter.Replace(node.outputs[0], result);
  }
  return rewriter.Finish() || changed;
}

}  // namespace autosp
