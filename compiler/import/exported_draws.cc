#include "compiler/import/exported_draws.h"

#include <cmath>
#include <numbers>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "compiler/ir/argument_access.h"
#include "compiler/ir/random_ops.h"
#include "compiler/ir/type_text.h"

namespace autosp {
namespace {

class DrawWriter {
 public:
  DrawWriter(Graph& graph, const GraphDraws& draws)
      : graph_(graph), draws_(draws), num_numbers_(draws.num_numbers) {}

  int64_t Run() {
    for (const Node& node : graph_.nodes) Write(node);
    graph_.nodes = std::move(nodes_);
    return num_numbers_;
  }

 private:
  ValueId Emit(const Node& like, std::string op, std::vector<Argument> args, TensorType type) {
    const ValueId value = graph_.AddValue(graph_.value(like.outputs[0]).name, std::move(type));
    nodes_.push_back({std::move(op), std::move(args), {value}, like.source, like.no_grad});
    return value;
  }
  // Of the type of `x`.
  ValueId Compute(const Node& like, std::string op, ValueId x, std::vector<Argument> more = {}) {
    more.insert(more.begin(), x);
    return Emit(like, std::move(op), std::move(more), graph_.type(x));
  }
  ValueId Cast(const Node& like, ValueId x, DType dtype) {
    TensorType type = graph_.type(x);
    type.dtype = dtype;
    return Emit(like, "aten.to.dtype", {x, dtype, false, false, None{}}, std::move(type));
  }
  ValueId Scaled(const Node& like, ValueId x, double factor) {
    return Compute(like, "aten.mul.Tensor", x, {factor});
  }
  ValueId Shifted(const Node& like, ValueId x, Argument addend) {
    return Compute(like, "aten.add.Tensor", x, {std::move(addend), SymInt(1)});
  }

  // What the node's result is, of another op.
  void Finish(const Node& node, std::string op, std::vector<Argument> args) {
    Node last = node;
    last.op = std::move(op);
    last.args = std::move(args);
    TensorType& type = graph_.value(node.outputs[0]).type;
    type.strides = ContiguousStrides(SizeValues(type));
    nodes_.push_back(std::move(last));
  }
  void FinishCast(const Node& node, ValueId x) {
    Finish(node, "aten.to.dtype", {x, graph_.type(node.outputs[0]).dtype, false, false, None{}});
  }

  Draw DrawOf(const Node& node, int64_t num_numbers = 1) {
    const auto found = draws_.by_result.find(node.outputs[0]);
    if (found != draws_.by_result.end()) return found->second;
    num_numbers_ += num_numbers;
    return {.number = num_numbers_ - num_numbers};
  }

  // Between 0 and 1, neither of them.
  ValueId Uniform(const Node& node, const Draw& draw, std::vector<SymInt> sizes) {
    TensorType type{.dtype = DType::kF32, .sizes = std::move(sizes), .strides = {}};
    type.strides = ContiguousStrides(SizeValues(type));
    const ValueId like = Emit(node, "aten.full.default",
                              {IntList(type.sizes), 0.0, type.dtype, None{}, None{}, None{}}, type);
    const ValueId drawn = Compute(node, std::string(kUniform), like, {SymInt(draw.number)});
    return draw.is_mirrored ? Shifted(node, Scaled(node, drawn, -1), 1.0) : drawn;
  }
  ValueId Uniform(const Node& node, const Draw& draw) {
    return Uniform(node, draw, graph_.type(node.outputs[0]).sizes);
  }
  // Of a draw that a plan only compares with a number: the whole numbers, since the probability is
  // the one that the model names, and not the next that a half type has.
  void KeepBits(const Node& node) {
    TensorType& type = graph_.value(node.outputs[0]).type;
    if (IsHalf(type.dtype)) type.dtype = DType::kF32;
    compared_.insert(node.outputs[0]);
  }
  // In a half type, multiples of a step of its bits, so that none rounds to 1.
  ValueId UniformOfType(const Node& node) {
    const Draw draw = DrawOf(node);
    if (draw.is_compared) KeepBits(node);
    const ValueId drawn = Uniform(node, draw);
    const DType dtype = graph_.type(node.outputs[0]).dtype;
    if (!IsHalf(dtype)) return drawn;
    const double steps = dtype == DType::kBF16 ? 0x1p8 : 0x1p11;
    const ValueId whole = Compute(node, "aten.floor.default", Scaled(node, drawn, steps));
    return Scaled(node, whole, 1 / steps);
  }
  // -log(1 - u)
  ValueId Exponential(const Node& node, const Draw& draw) {
    const ValueId below = Scaled(node, Uniform(node, draw), -1);
    return Scaled(node, Compute(node, "aten.log1p.default", below), -1);
  }
  // sqrt(-2 log(1 - u)) cos(2 pi v)
  ValueId Normal(const Node& node) {
    const Draw draw = DrawOf(node, 2);
    const ValueId squared = Scaled(node, Exponential(node, draw), 2);
    const ValueId radius = Compute(node, "aten.sqrt.default", squared);
    const ValueId turns = Uniform(node, {.number = draw.number + 1});
    const ValueId cosine =
        Compute(node, "aten.cos.default", Scaled(node, turns, 2 * std::numbers::pi));
    return Compute(node, "aten.mul.Tensor", radius, {cosine});
  }
  void Integers(const Node& node, double low, double high) {
    const ValueId scaled = Scaled(node, Uniform(node, DrawOf(node)), high - low);
    const ValueId whole = Cast(node, Compute(node, "aten.floor.default", scaled), DType::kI64);
    FinishCast(node, Shifted(node, whole, SymInt(static_cast<int64_t>(low))));
  }
  // 1 with the probability `kept`: a number, or one for each element.
  void Bernoulli(const Node& node, const Argument& kept) {
    const ValueId drawn = Uniform(node, DrawOf(node));
    TensorType truth = graph_.type(drawn);
    truth.dtype = DType::kBool;
    const bool is_number = !std::holds_alternative<ValueId>(kept);
    FinishCast(node, Emit(node, is_number ? "aten.lt.Scalar" : "aten.lt.Tensor", {drawn, kept},
                          std::move(truth)));
  }

  // (x, p, train): elements are 0 with probability p, the others times 1 / (1 - p).
  void Dropout(const Node& node, bool of_channels) {
    const double dropped = NumberArgument(node.args, 1).value_or(0);
    if (dropped == 0 || !FlagArgument(node.args, 2).value_or(false)) {
      return Finish(node, "aten.clone.default", {node.args[0], None{}});
    }
    const Draw draw = DrawOf(node);
    if (!of_channels) {
      return Finish(node, node.op, {node.args[0], dropped, true, SymInt(draw.number)});
    }
    // One number for each channel of each sample.
    const TensorType& result = graph_.type(node.outputs[0]);
    std::vector<SymInt> sizes = result.sizes;
    for (size_t i = 2; i < sizes.size(); ++i) sizes[i] = SymInt(1);
    const DType dtype = result.dtype;
    const ValueId drawn = Uniform(node, draw, std::move(sizes));
    TensorType truth = graph_.type(drawn);
    truth.dtype = DType::kBool;
    const ValueId kept = Emit(node, "aten.ge.Scalar", {drawn, dropped}, std::move(truth));
    const ValueId factor = Scaled(node, Cast(node, kept, DType::kF32), 1 / (1 - dropped));
    Finish(node, "aten.mul.Tensor", {node.args[0], Cast(node, factor, dtype)});
  }
  void Attention(const Node& node) {
    Node numbered = node;
    numbered.args.resize(*DrawNumberArgument(node.op), None{});
    numbered.args.emplace_back(SymInt(DrawOf(node).number));
    nodes_.push_back(std::move(numbered));
  }

  void Write(const Node& node) {
    std::string_view op = node.op;
    const auto number = [&](size_t arg, double absent) {
      return NumberArgument(node.args, arg).value_or(absent);
    };
    const auto is = [&](std::string_view name) { return op == name; };
    if (is("aten.dropout.default")) return Dropout(node, /*of_channels=*/false);
    if (is("aten.feature_dropout.default")) return Dropout(node, /*of_channels=*/true);
    if (is("aten.scaled_dot_product_attention.default") && number(4, 0) > 0) {
      return Attention(node);
    }
    if (is("aten.rand.default") || is("aten.rand_like.default")) {
      return FinishCast(node, UniformOfType(node));
    }
    if (is("aten.uniform.default")) {
      const double from = number(1, 0);
      const ValueId scaled = Scaled(node, UniformOfType(node), number(2, 1) - from);
      return FinishCast(node, Shifted(node, scaled, from));
    }
    if (is("aten.randn.default") || is("aten.randn_like.default")) {
      return FinishCast(node, Normal(node));
    }
    // (self, mean, std), and (mean, std, sizes).
    if (is("aten.normal_functional.default") || is("aten.normal.float_float")) {
      const size_t mean = is("aten.normal.float_float") ? 0 : 1;
      const ValueId scaled = Scaled(node, Normal(node), number(mean + 1, 1));
      return FinishCast(node, Shifted(node, scaled, number(mean, 0)));
    }
    if (is("aten.exponential.default")) {
      const ValueId drawn = Exponential(node, DrawOf(node));
      return FinishCast(node, Scaled(node, drawn, 1 / number(1, 1)));
    }
    if (is("aten.randint.default")) return Integers(node, 0, number(0, 0));
    if (is("aten.randint_like.default")) return Integers(node, 0, number(1, 0));
    if (is("aten.randint.low")) return Integers(node, number(0, 0), number(1, 0));
    if (is("aten.randint_like.low_dtype")) return Integers(node, number(1, 0), number(2, 0));
    if (is("aten.bernoulli.default")) return Bernoulli(node, node.args[0]);
    if (is("aten.bernoulli.p") || is("aten.bernoulli.Tensor")) {
      return Bernoulli(node, node.args[1]);
    }
    // floor(0.9 + u) is a comparison too.
    const auto* operand = node.args.empty() ? nullptr : std::get_if<ValueId>(&node.args[0]);
    const bool reads_bits = operand != nullptr && compared_.contains(*operand);
    if (reads_bits && is("aten.floor.default")) {
      return FinishCast(node, Compute(node, node.op, *operand));
    }
    if (reads_bits && is("aten.add.Tensor")) KeepBits(node);
    nodes_.push_back(node);
  }

  Graph& graph_;
  const GraphDraws& draws_;
  std::vector<Node> nodes_;
  std::set<ValueId> compared_;  // draws, and sums with them, that see nothing but a comparison
  int64_t num_numbers_ = 0;
};

}  // namespace

int64_t WriteDraws(Graph& graph, const GraphDraws& draws) { return DrawWriter(graph, draws).Run(); }

}  // namespace autosp
