// What a value means on one device: sums of views of results of ops, numbered so that equal
// meanings are equal.
//
// A tensor is a sum of terms `coefficient * sum over reduced of base[layout]`, where the base is a
// node: an input, or one result of an op applied to tensors. Addition, scaling, views and sums over
// dimensions act on terms; they leave no trace of the order in which a program does them. Every
// other op makes a node of the tensors it reads. Nodes are shared: the same op on the same tensors
// is the same node, in whichever program of the table it was met.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "compiler/checker/layout_table.h"

namespace autosp::checker {

struct NodeId {
  int32_t index = -1;
  friend auto operator<=>(NodeId, NodeId) = default;
};

// Small, as the residual stream of a deep model is a sum of two terms for each layer.
struct Term {
  double coefficient = 1;
  NodeId base;
  LayoutId layout;
};

// Terms are in the order of base and layout, each once, none with coefficient 0.
struct Tensor {
  Shape shape;
  std::vector<Term> terms;
  bool is_zero() const { return terms.empty(); }
};

class ExpressionTable {
 public:
  ExpressionTable();

  // A node of its own for each key; `key` tells apart ops, literals and result number.
  Tensor Node(const std::string& key, const std::vector<NodeId>& operands, const Shape& shape);
  // The node that stands for a tensor where an op reads it; its shape is part of it.
  NodeId Intern(const Tensor& tensor);
  // What a node of one operand was made of, if it was made with `key`; else none.
  std::optional<NodeId> OperandOf(NodeId node, const std::string& key) const;

  static Tensor Zeros(Shape shape) { return {std::move(shape), {}}; }
  Tensor Full(const Shape& shape, double value);
  bool IsFull(const Tensor& tensor, double value);

  Tensor Add(const Tensor& a, const Tensor& b, double alpha) const;  // a + alpha b; equal shapes
  Tensor Sum(const std::vector<Tensor>& tensors, const Shape& shape) const;  // all of `shape`
  Tensor Scale(Tensor tensor, double factor) const;

  // Views. Where a layout cannot say it, the tensor becomes a node first.
  Tensor Reshape(const Tensor& tensor, const Shape& to);
  Tensor Permute(const Tensor& tensor, const std::vector<int64_t>& order);
  Tensor Expand(const Tensor& tensor, const Shape& to);
  Tensor Slice(const Tensor& tensor, int64_t dim, int64_t start, int64_t size, int64_t step);
  Tensor RemoveDim(const Tensor& tensor, int64_t dim);
  Tensor SumOver(const Tensor& tensor, int64_t dim);  // the dimension goes
  // Zeros of size `to` along `dim` but for every `step`th element from `start`: what Slice undoes.
  Tensor Embed(const Tensor& part, int64_t dim, int64_t start, int64_t step, int64_t to);
  // How much of `dim` there is in front of zeros that Embed put behind it; all of it if none.
  int64_t SizeBeforeZeros(const Tensor& tensor, int64_t dim);

  // A short form for messages: the op and, some levels deep, what it was applied to.
  std::string Describe(const Tensor& tensor, int depth = 2) const;

 private:
  struct NodeInfo {
    std::string key;
    std::vector<NodeId> operands;
    Tensor interned;  // of a node that Intern made: what it stands for
  };
  // A node that is zeros around a tensor, along one dimension.
  struct Embedding {
    int64_t dim = 0;
    int64_t start = 0;
    int64_t step = 1;
    Tensor part;
    Shape around;
  };
  // `make` describes the node if it is new; `bytes` say what it is.
  template <typename Make>
  NodeId Find(const std::string& bytes, Make make);
  Tensor Whole(NodeId node, const Shape& shape);
  Tensor AsNode(const Tensor& tensor);
  std::string DescribeNode(NodeId node, int depth) const;
  // `change` makes the layout of a term that of the view, and returns the factor that the term
  // gets.
  template <typename Change>
  Tensor EachTerm(const Tensor& tensor, Shape shape, Change change);
  std::optional<Tensor> Repeat(const Tensor& tensor, const IndexLayout& like, int64_t kept);
  // A slice of a term that Embed made, if none of it, or nothing else, is zeros around the part.
  std::optional<Tensor> SliceEmbedded(const Term& term, int64_t dim, int64_t start, int64_t size,
                                      int64_t step);

  LayoutTable layouts_;
  std::vector<NodeInfo> nodes_;
  std::unordered_map<std::string, NodeId> by_bytes_;
  std::unordered_map<int32_t, Embedding> embeddings_;  // by node
  NodeId one_;
};

bool operator==(const Tensor& a, const Tensor& b);

}  // namespace autosp::checker
