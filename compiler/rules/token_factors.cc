#include "compiler/rules/token_factors.h"

#include <algorithm>
#include <map>

#include "compiler/ir/argument_access.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

class TokenFinder {
 public:
  TokenFinder(const Graph& graph, const GraphFactors& factors) : graph_(graph), factors_(factors) {
    if (factors.batch >= 0) batch_ = factors.table.Resolve(FactorDim{factors.batch});
    if (factors.seq >= 0) seq_ = factors.table.Resolve(FactorDim{factors.seq});
  }

  TokenFactors Find() {
    for (const Node& node : graph_.nodes) {
      if (node.op == kSdpa || node.op == kMaskedAttention) {
        NoteAttention(node);
      } else if (node.op == "aten._softmax.default") {
        NoteSoftmax(factors_.Of(node.outputs[0]));
      } else if (node.op == "aten.matmul.default") {
        NoteProduct(node);
      }
    }
    TokenFactors tokens{.main = Main(), .others = {}};
    // A sequence that the model cuts into blocks is split by whole blocks: its major factor.
    if (!seq_.empty()) Add({seq_[0]});
    AddCutOnes();
    std::erase(found_, tokens.main);
    tokens.others = std::move(found_);
    return tokens;
  }

 private:
  static bool Shares(const FactorDim& a, const FactorDim& b) {
    return std::ranges::any_of(a, [&](FactorVar each) { return std::ranges::count(b, each) > 0; });
  }

  void Add(const FactorDim& tokens) {
    if (std::ranges::count(found_, tokens) == 0) found_.push_back(tokens);
  }

  // Parts of the sequence are split as it is.
  bool IsApart(const FactorDim& dim) const {
    return !dim.empty() && !Shares(dim, batch_) && !Shares(dim, seq_);
  }

  FactorDim Main() const {
    if (!seq_.empty() && (attends_seq_ || work_.empty())) return {seq_[0]};
    FactorDim main;
    double most = 0;
    for (const auto& [tokens, work] : work_) {
      if (work > most) main = tokens;
      most = std::max(most, work);
    }
    return main;
  }

  // Blocks of tokens that attend within themselves (windows of an image) are split by whole blocks,
  // which stand beside the batch.
  bool IsOfBlocks(const FactorDims& query) const {
    const FactorDim& first = query[0];
    const bool has_heads = query.size() == 3;
    if (has_heads) return !batch_.empty() && !Shares(first, batch_);
    return std::ranges::any_of(first, [&](FactorVar factor) {
      return std::ranges::count(batch_, factor) == 0 && factors_.table.Size(factor) > 1;
    });
  }

  void NoteAttention(const Node& node) {
    const FactorDims query = factors_.Of(TensorArgument(node.args, 0));
    const FactorDims key = factors_.Of(TensorArgument(node.args, 1));
    if (query.size() < 2 || key.size() < 2) return;
    const FactorDim& rows = query[query.size() - 2];
    const FactorDim& columns = key[key.size() - 2];
    attends_seq_ = attends_seq_ || Shares(rows, seq_) || Shares(columns, seq_);
    if (query.size() < 3 || IsOfBlocks(query)) return;
    for (const FactorDim* tokens : {&rows, &columns}) {
      if (IsApart(*tokens)) Add(*tokens);
    }
    if (!IsApart(rows)) return;
    work_[rows] += static_cast<double>(graph_.type(TensorArgument(node.args, 0)).numel()) *
                   static_cast<double>(factors_.table.Size(columns));
  }

  void NoteSoftmax(const FactorDims& scores) {
    for (size_t i = scores.size() < 2 ? 0 : scores.size() - 2; i < scores.size(); ++i) {
      attends_seq_ = attends_seq_ || Shares(scores[i], seq_);
    }
  }

  // Scores that are spelled out: rows and columns are the same tokens. What is summed over the
  // sequence has features in both (their covariance).
  void NoteProduct(const Node& node) {
    const FactorDims scores = factors_.Of(node.outputs[0]);
    if (scores.size() < 3 || IsOfBlocks(scores)) return;
    if (Shares(factors_.Of(TensorArgument(node.args, 0)).back(), seq_)) return;
    const FactorDim& columns = scores.back();
    if (columns == scores[scores.size() - 2] && IsApart(columns)) Add(columns);
  }

  void AddCutOnes() {
    const std::vector<FactorDim> whole = found_;
    for (const Node& node : graph_.nodes) {
      for (ValueId output : node.outputs) {
        if (!IsFloating(graph_.type(output).dtype)) continue;
        for (const FactorDim& dim : factors_.Of(output)) {
          const bool is_cut =
              dim.size() == 1 && std::ranges::any_of(whole, [&](const FactorDim& from) {
                return from.size() == 1 && factors_.table.CutFrom(dim[0], from[0]) > 0;
              });
          if (is_cut) Add(dim);
        }
      }
    }
  }

  const Graph& graph_;
  const GraphFactors& factors_;
  FactorDim batch_;
  FactorDim seq_;
  bool attends_seq_ = false;
  std::map<FactorDim, double> work_;  // of attention, by the tokens of queries
  std::vector<FactorDim> found_;
};

}  // namespace

TokenFactors TokenFactorsOf(const Graph& graph, const GraphFactors& factors) {
  return TokenFinder(graph, factors).Find();
}

}  // namespace autosp
