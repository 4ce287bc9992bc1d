// Every op that the compiler can split is described to the checker.
//
// The tables are written apart from the rules; only the names of ops are compared here.
#include <set>
#include <string_view>

#include "compiler/checker/op_shape.h"
#include "compiler/rules/op_rule.h"
#include "gtest/gtest.h"

namespace autosp::checker {
namespace {

using Names = std::set<std::string_view>;

// Aliases in a program (views.cc), whatever op the model has.
const Names& Views() {
  static const auto& names = *new Names{"aten._unsafe_view.default",
                                        "aten.chunk.default",
                                        "aten.contiguous.default",
                                        "aten.expand.default",
                                        "aten.flatten.using_ints",
                                        "aten.permute.default",
                                        "aten.reshape.default",
                                        "aten.select.int",
                                        "aten.slice.Tensor",
                                        "aten.split.Tensor",
                                        "aten.split_with_sizes.default",
                                        "aten.squeeze.default",
                                        "aten.squeeze.dim",
                                        "aten.squeeze.dims",
                                        "aten.t.default",
                                        "aten.transpose.int",
                                        "aten.unbind.int",
                                        "aten.unflatten.int",
                                        "aten.unsqueeze.default",
                                        "aten.view.default"};
  return names;
}

// Have no operand that lies anywhere (creations.cc).
const Names& Creations() {
  static const auto& names =
      *new Names{"aten.arange.default",   "aten.arange.start",      "aten.arange.start_step",
                 "aten.fill.Scalar",      "aten.full.default",      "aten.full_like.default",
                 "aten.new_full.default", "aten.new_ones.default",  "aten.new_zeros.default",
                 "aten.ones.default",     "aten.ones_like.default", "aten.scalar_tensor.default",
                 "aten.zeros.default",    "aten.zeros_like.default"};
  return names;
}

// Are other ops by the time there is a program.
const Names& Rewritten() {
  static const auto& names = *new Names{"aten.addbmm.default",
                                        "aten.baddbmm.default",
                                        "aten.binary_cross_entropy_with_logits.default",
                                        "aten.broadcast_tensors.default",
                                        "aten.cross_entropy_loss.default",
                                        "aten.diagonal.default",
                                        "aten.dropout.default",
                                        "aten.expand_as.default",
                                        "aten.eye.default",
                                        "aten.eye.m",
                                        "aten.gru_cell.default",
                                        "aten.huber_loss.default",
                                        "aten.kl_div.default",
                                        "aten.l1_loss.default",
                                        "aten.lstm_cell.default",
                                        "aten.mse_loss.default",
                                        "aten.nll_loss.default",
                                        "aten.nll_loss_nd.default",
                                        "aten.one_hot.default",
                                        "aten.repeat.default",
                                        "aten.repeat_interleave.self_int",
                                        "aten.rnn_relu_cell.default",
                                        "aten.rnn_tanh_cell.default",
                                        "aten.scaled_dot_product_attention.default",
                                        "aten.smooth_l1_loss.default",
                                        "aten.stack.default",
                                        "aten.tile.default",
                                        "aten.unfold.default",
                                        "autosp.all_tokens",
                                        "autosp.attention"};
  return names;
}

// Where losses of vectors, which are described without one, have their reduction.
size_t ReductionOf(std::string_view op) {
  if (op == "aten.cosine_embedding_loss.default") return 4;
  return op == "aten.triplet_margin_loss.default" ? 7 : 0;
}

// Whether a table describes the op for some number of operands of this rank.
bool IsDescribed(std::string_view op, size_t rank) {
  constexpr size_t kMaxOperands = 6;
  for (size_t num_operands = 1; num_operands <= kMaxOperands; ++num_operands) {
    Program program;
    Instruction instruction;
    instruction.op = op;
    OpCall call{program, instruction, {}, {}};
    ValueList indices;
    for (size_t i = 0; i < num_operands; ++i) {
      ProgramValue matrix;
      matrix.dtype = DType::kI64;
      matrix.dims.assign(rank, {{.factor = {}, .size = 4}});
      call.operands.push_back(Place(program, matrix.dims));
      const ValueId id = program.AddValue(std::move(matrix));
      instruction.args.emplace_back(id);
      if (i > 0) indices.push_back(id);
    }
    if (op == "aten.index.Tensor") instruction.args = {instruction.args[0], indices};
    if (op == "aten.einsum.default") instruction.args = {std::string("ij,jk->ik"), indices};
    const bool names_dim = op.starts_with("autosp.fft_");
    if (names_dim) instruction.args = {instruction.args[0], SymInt(0)};
    if (const size_t reduction = ReductionOf(op)) {
      instruction.args.resize(reduction);
      instruction.args.emplace_back(SymInt(0));
    }
    call.results.resize(1);
    OpShape shape;
    if (DescribeOp(call, &shape)) return true;
  }
  return false;
}

// Of matrices, or of images, which have channels too.
bool IsDescribed(std::string_view op) { return IsDescribed(op, 2) || IsDescribed(op, 3); }

TEST(OpTableTest, EveryRuleIsDescribed) {
  for (const OpRule& rule : AllOpRules()) {
    const bool is_other =
        Views().contains(rule.op) || Creations().contains(rule.op) || Rewritten().contains(rule.op);
    EXPECT_NE(IsDescribed(rule.op), is_other) << rule.op;
  }
}

// A name that is excused is the name of a rule.
TEST(OpTableTest, NoneIsExcusedInVain) {
  for (const Names* names : {&Views(), &Creations(), &Rewritten()}) {
    for (std::string_view op : *names) EXPECT_NE(FindOpRule(op), nullptr) << op;
  }
}

TEST(OpTableTest, UnknownOpsAreNotDescribed) {
  for (std::string_view op : {"aten.no_such_op.default", "aten.add", "autosp.cross_entropy_"}) {
    EXPECT_FALSE(IsDescribed(op)) << op;
  }
}

}  // namespace
}  // namespace autosp::checker
