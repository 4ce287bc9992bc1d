// Cells of recurrent layers: linear layers and gates, which are work of each row.
#include <array>
#include <string>

#include "compiler/ir/argument_access.h"
#include "compiler/passes/canonicalize_products.h"
#include "compiler/passes/graph_rewriter.h"

namespace autosp {
namespace {

// Emits what one cell is made of; gates have the sizes of the hidden state, and the type of the
// weights, which under autocast is not that of the state.
class CellWriter {
 public:
  CellWriter(const Node& node, ValueId hidden, GraphRewriter& rewriter)
      : node_(node), rewriter_(rewriter), hidden_(hidden) {
    gate_ = Contiguous(rewriter.graph().type(node.outputs[0]));
  }

  // linear(of, weight, bias) of the arguments `weight` and `weight` + 2: `count` gates side by
  // side.
  ValueId Gates(ValueId of, size_t weight, int64_t count) {
    TensorType type = GateOf(TensorArgument(node_.args, weight));
    type.sizes.back() = SymInt(count * type.sizes.back().value);
    if (TypeOf(of) != type.dtype) of = CastTo(node_, of, type.dtype, rewriter_);
    return rewriter_.EmitOne(
        node_, "aten.linear.default",
        {of, ArgumentAt(node_.args, weight), ArgumentAt(node_.args, weight + 2)}, Contiguous(type));
  }
  ValueId FromInput(int64_t count) { return Gates(TensorArgument(node_.args, 0), 2, count); }
  ValueId FromHidden(int64_t count) { return Gates(hidden_, 3, count); }

  ValueId Gate(ValueId gates, int64_t index) {
    const int64_t size = gate_.sizes.back().value;
    return rewriter_.EmitOne(node_, "aten.slice.Tensor",
                             {gates, SymInt(gate_.rank() - 1), SymInt(index * size),
                              SymInt((index + 1) * size), SymInt(1)},
                             GateOf(gates));
  }
  ValueId Of(std::string_view op, ValueId a) {
    return rewriter_.EmitOne(node_, op, {a}, GateOf(a));
  }
  ValueId Times(ValueId a, ValueId b) {
    return rewriter_.EmitOne(node_, "aten.mul.Tensor", {a, b}, GateOf(a, b));
  }
  ValueId Plus(ValueId a, ValueId b) { return Sum("aten.add.Tensor", a, b); }
  ValueId Minus(ValueId a, ValueId b) { return Sum("aten.sub.Tensor", a, b); }
  ValueId Sigmoid(ValueId a) { return Of("aten.sigmoid.default", a); }
  ValueId Tanh(ValueId a) { return Of("aten.tanh.default", a); }

 private:
  DType TypeOf(ValueId id) const { return rewriter_.graph().type(id).dtype; }
  TensorType GateOf(ValueId a) const {
    TensorType type = gate_;
    type.dtype = TypeOf(a);
    return type;
  }
  TensorType GateOf(ValueId a, ValueId b) const {
    TensorType type = gate_;
    type.dtype = PromoteTypes(TypeOf(a), TypeOf(b));
    return type;
  }
  // Of gates, or of all that are made of one operand.
  ValueId Sum(std::string_view op, ValueId a, ValueId b) {
    TensorType type = rewriter_.graph().type(a);
    type.dtype = PromoteTypes(type.dtype, TypeOf(b));
    return rewriter_.EmitOne(node_, op, {a, b, SymInt(1)}, Contiguous(type));
  }

  const Node& node_;
  GraphRewriter& rewriter_;
  ValueId hidden_;
  TensorType gate_;
};

// gru_cell(x, h, w_x, w_h, b_x, b_h), whose weights hold reset, update and new gate in this order:
//
//   r = sigmoid(x_r + h_r)   z = sigmoid(x_z + h_z)   n = tanh(x_n + r h_n)   y = (h - n) z + n
absl::StatusOr<bool> RewriteGruCell(const Node& node, GraphRewriter& rewriter) {
  const ValueId hidden = TensorArgument(node.args, 1);
  CellWriter cell(node, hidden, rewriter);
  const ValueId x = cell.FromInput(3);
  const ValueId h = cell.FromHidden(3);
  const ValueId reset = cell.Sigmoid(cell.Plus(cell.Gate(h, 0), cell.Gate(x, 0)));
  const ValueId update = cell.Sigmoid(cell.Plus(cell.Gate(h, 1), cell.Gate(x, 1)));
  const ValueId made = cell.Tanh(cell.Plus(cell.Gate(x, 2), cell.Times(cell.Gate(h, 2), reset)));
  rewriter.Replace(node.outputs[0], cell.Plus(cell.Times(cell.Minus(hidden, made), update), made));
  return true;
}

// lstm_cell(x, [h, c], w_x, w_h, b_x, b_h), whose weights hold input, forget, cell and output gate
// in this order:
//
//   c' = sigmoid(f) c + sigmoid(i) tanh(g)   h' = sigmoid(o) tanh(c')
absl::StatusOr<bool> RewriteLstmCell(const Node& node, GraphRewriter& rewriter) {
  const auto* states = ArgumentAs<ValueList>(node.args, 1);
  if (states == nullptr || states->size() != 2 || node.outputs.size() != 2) return false;
  CellWriter cell(node, (*states)[0], rewriter);
  const ValueId gates = cell.Plus(cell.FromHidden(4), cell.FromInput(4));
  const ValueId kept = cell.Times(cell.Sigmoid(cell.Gate(gates, 1)), (*states)[1]);
  const ValueId added =
      cell.Times(cell.Sigmoid(cell.Gate(gates, 0)), cell.Tanh(cell.Gate(gates, 2)));
  const ValueId state = cell.Plus(kept, added);
  const ValueId shown = cell.Sigmoid(cell.Gate(gates, 3));
  rewriter.Replace(node.outputs[0], cell.Times(shown, cell.Tanh(state)));
  rewriter.Replace(node.outputs[1], state);
  return true;
}

// rnn_tanh_cell and rnn_relu_cell(x, h, w_x, w_h, b_x, b_h) are one gate.
absl::StatusOr<bool> RewriteRnnCell(const Node& node, GraphRewriter& rewriter) {
  CellWriter cell(node, TensorArgument(node.args, 1), rewriter);
  const ValueId sum = cell.Plus(cell.FromHidden(1), cell.FromInput(1));
  const bool is_tanh = node.op == "aten.rnn_tanh_cell.default";
  rewriter.Replace(node.outputs[0],
                   cell.Of(is_tanh ? "aten.tanh.default" : "aten.relu.default", sum));
  return true;
}

}  // namespace

const RewriteTable& CellRewrites() {
  static const RewriteTable& rewrites = *new RewriteTable{
      {"aten.gru_cell.default", RewriteGruCell},
      {"aten.lstm_cell.default", RewriteLstmCell},
      {"aten.rnn_relu_cell.default", RewriteRnnCell},
      {"aten.rnn_tanh_cell.default", RewriteRnnCell},
  };
  return rewrites;
}

}  // namespace autosp
