#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/ir/filled_tensor.h"
#include "compiler/passes/graph_rewriter.h"
#include "compiler/passes/pass.h"
#include "compiler/rules/token_window.h"

namespace autosp {
namespace {

// v[t] = base[t + offset] for first <= t < last, and 0 for the other t, along one dimension.
struct ShiftedView {
  ValueId base;
  int64_t offset = 0;
  int64_t first = 0;
  int64_t last = 0;
  int64_t size = 0;  // of v

  // v of which `before` places in front and `after` behind are added, or taken away where negative.
  void Pad(int64_t before, int64_t after) {
    offset -= before;
    size += before + after;
    first = std::clamp<int64_t>(first + before, 0, size);
    last = std::clamp<int64_t>(last + before, first, size);
  }
  // Whether v is its base, as where places are added and taken away again.
  bool IsAll(int64_t base_size) const {
    return size == base_size && offset == 0 && first == 0 && last == size;
  }
  // Whether v has all places of its base, and all tokens that fall on them.
  bool IsShift(int64_t base_size) const {
    return size == base_size && offset != 0 && std::abs(offset) < size &&
           first == std::max<int64_t>(-offset, 0) && last == std::min(size, size - offset);
  }
};

struct WindowOp {
  std::string_view op;  // or kItself: argument 0 is what the node computes
  std::vector<Argument> args;
  std::optional<TensorType> averages = std::nullopt;  // of a weight that is filled with 1 / taps
};
constexpr std::string_view kItself = "";

class WindowRecognizer {
 public:
  WindowRecognizer(const Graph& graph, const std::vector<Node>& nodes, const GraphFactors& factors,
                   const std::vector<int32_t>& definer)
      : graph_(graph), nodes_(nodes), factors_(factors), definer_(definer) {
    for (const Node& node : nodes) {
      const std::vector<ValueId> operands = OperandsOf(node);
      for (ValueId operand : std::set<ValueId>(operands.begin(), operands.end())) {
        ++num_readers_[operand];
      }
    }
    for (ValueId output : graph.outputs) ++num_readers_[output];
  }

  // The op that computes what `node` does; nullopt: neither a shift nor a convolution of tokens.
  std::optional<WindowOp> Recognize(const Node& node) const {
    const bool is_one_float =
        node.outputs.size() == 1 && !node.no_grad && IsFloating(graph_.type(node.outputs[0]).dtype);
    if (!is_one_float) return std::nullopt;
    if (std::optional<WindowOp> conv = RecognizeConv(node)) return conv;
    if (node.op == "aten.roll.default") return RecognizeRoll(node);
    if (node.op == "aten.avg_pool1d.default") return RecognizeAverage(node);
    return RecognizeShift(node);
  }

 private:
  int64_t SizeOf(ValueId value, int64_t dim) const { return graph_.type(value).sizes[dim].value; }
  const Node* NodeOf(ValueId value) const {
    const int32_t index = definer_[value.index];
    return index < 0 || nodes_[index].no_grad ? nullptr : &nodes_[index];
  }

  // Whether a dimension of the value is the sequence.
  bool IsTokens(ValueId value, int64_t dim) const {
    if (factors_.seq < 0) return false;
    const FactorDims dims = factors_.Of(value);
    return dim >= 0 && dim < static_cast<int64_t>(dims.size()) &&
           dims[dim] == factors_.table.Resolve(FactorDim{factors_.seq});
  }

  static int64_t FromFront(int64_t dim, int64_t rank) { return dim < 0 ? dim + rank : dim; }
  static int64_t DimArgument(const Node& node, size_t arg, int64_t rank) {
    return FromFront(IntegerArgument(node.args, arg).value_or(0), rank);
  }

  bool IsZeros(ValueId value) const {
    const Node* node = NodeOf(value);
    if (node == nullptr) return false;
    return FilledWith(*node) == 0 || node->op == "aten.zeros.default" ||
           node->op == "aten.zeros_like.default" || node->op == "aten.new_zeros.default";
  }

  // Where a constant_pad_nd adds zeros to one dimension alone: how many in front and behind.
  std::optional<std::pair<int64_t, int64_t>> PadOf(const Node& node, int64_t dim) const {
    const auto* amounts = ArgumentAs<IntList>(node.args, 1);
    const Argument& fill = ArgumentAt(node.args, 2);
    const bool is_zero = IsNone(fill) || NumberArgument(node.args, 2) == 0;
    if (node.op != "aten.constant_pad_nd.default" || amounts == nullptr || !is_zero) return {};
    std::pair<int64_t, int64_t> pad{0, 0};
    const int64_t rank = graph_.type(node.outputs[0]).rank();
    for (size_t i = 0; i + 1 < amounts->size(); i += 2) {
      const std::pair<int64_t, int64_t> each{(*amounts)[i].value, (*amounts)[i + 1].value};
      if (each == std::pair<int64_t, int64_t>{0, 0}) continue;
      if (rank - 1 - static_cast<int64_t>(i / 2) != dim) return std::nullopt;
      pad = each;
    }
    return pad;
  }

  // The first place of a slice with step 1 of `dim`.
  std::optional<int64_t> SliceStart(const Node& node, int64_t dim) const {
    if (node.op != "aten.slice.Tensor") return std::nullopt;
    const ValueId self = TensorArgument(node.args, 0);
    const int64_t size = SizeOf(self, dim);
    const bool fits = DimArgument(node, 1, graph_.type(self).rank()) == dim &&
                      IntegerArgument(node.args, 4).value_or(1) == 1;
    if (!fits) return std::nullopt;
    const int64_t start = IntegerArgument(node.args, 2).value_or(0);
    return std::clamp<int64_t>(start < 0 ? start + size : start, 0, size);
  }

  // One step from a view towards its base; false: the base is neither cut nor padded.
  bool Step(int64_t dim, ShiftedView* view) const {
    const Node* node = NodeOf(view->base);
    if (node == nullptr || node->outputs.size() != 1) return false;
    ValueId from = TensorArgument(node->args, 0);
    std::pair<int64_t, int64_t> added;
    if (const auto pad = PadOf(*node, dim)) {
      added = *pad;
    } else if (const auto start = SliceStart(*node, dim)) {
      added = {-*start, SizeOf(view->base, dim) - SizeOf(from, dim) + *start};
    } else if (!CatWithZeros(*node, dim, &from, &added)) {
      return false;
    }
    // v[t] = w[t + offset] and w[u] = from[u - added.first].
    ShiftedView inner{.base = from, .last = SizeOf(from, dim), .size = SizeOf(from, dim)};
    inner.Pad(added.first, added.second);
    const int64_t offset = view->offset;
    view->base = from;
    view->offset = offset + inner.offset;
    view->first = std::clamp<int64_t>(inner.first - offset, view->first, view->last);
    view->last = std::clamp<int64_t>(inner.last - offset, view->first, view->last);
    return true;
  }

  bool CatWithZeros(const Node& node, int64_t dim, ValueId* from,
                    std::pair<int64_t, int64_t>* added) const {
    const auto* parts = ArgumentAs<ValueList>(node.args, 0);
    if (node.op != "aten.cat.default" || parts == nullptr || parts->size() != 2) return false;
    if (DimArgument(node, 1, graph_.type(node.outputs[0]).rank()) != dim) return false;
    const bool in_front = IsZeros((*parts)[0]);
    if (in_front == IsZeros((*parts)[1])) return false;
    *from = (*parts)[in_front ? 1 : 0];
    const int64_t zeros = SizeOf((*parts)[in_front ? 0 : 1], dim);
    *added = in_front ? std::pair{zeros, int64_t{0}} : std::pair{int64_t{0}, zeros};
    return graph_.type(*from).dtype == graph_.type(node.outputs[0]).dtype;
  }

  ShiftedView Itself(ValueId value, int64_t dim) const {
    return {.base = value, .last = SizeOf(value, dim), .size = SizeOf(value, dim)};
  }

  std::optional<WindowOp> RecognizeShift(const Node& node) const {
    const ValueId result = node.outputs[0];
    for (int64_t dim = 0; dim < graph_.type(result).rank(); ++dim) {
      ShiftedView view = Itself(result, dim);
      while (Step(dim, &view)) {
        const int64_t size = SizeOf(view.base, dim);
        if (IsTokens(view.base, dim) && view.IsAll(size)) return WindowOp{kItself, {view.base}};
        if (!IsTokens(view.base, dim) || !view.IsShift(size)) continue;
        return WindowOp{kTokenShift, {view.base, SymInt(dim), SymInt(-view.offset), false}};
      }
    }
    return std::nullopt;
  }

  std::optional<WindowOp> RecognizeRoll(const Node& node) const {
    const auto* shifts = ArgumentAs<IntList>(node.args, 1);
    const auto* dims = ArgumentAs<IntList>(node.args, 2);
    const ValueId self = TensorArgument(node.args, 0);
    if (shifts == nullptr || dims == nullptr || shifts->size() != 1 || dims->size() != 1) return {};
    const int64_t dim = FromFront((*dims)[0].value, graph_.type(self).rank());
    if (!IsTokens(self, dim) || std::abs((*shifts)[0].value) >= SizeOf(self, dim)) return {};
    return WindowOp{kTokenShift, {self, SymInt(dim), (*shifts)[0], true}};
  }

  // How many zeros a convolution of one dimension puts in front; nullopt: it is none of stride 1.
  std::optional<int64_t> ConvPadding(const Node& node, int64_t taps, int64_t dilation) const {
    const auto* stride = ArgumentAs<IntList>(node.args, 3);
    if (stride != nullptr && (stride->size() != 1 || (*stride)[0].value != 1)) return std::nullopt;
    if (node.op == "aten.conv1d.padding") {
      const auto* name = ArgumentAs<std::string>(node.args, 4);
      // What does not halve is put behind.
      return name != nullptr && *name == "same" ? (taps - 1) * dilation / 2 : 0;
    }
    const auto* padding = ArgumentAs<IntList>(node.args, 4);
    if (node.op != "aten.conv1d.default") return std::nullopt;
    return padding == nullptr || padding->empty() ? 0 : (*padding)[0].value;
  }

  // A convolution, or a slice of one that nothing else reads.
  std::optional<WindowOp> RecognizeConv(const Node& node) const {
    constexpr int64_t kTokens = 2;
    const Node* conv = &node;
    int64_t start = 0;
    if (node.op == "aten.slice.Tensor") {
      const ValueId cut = TensorArgument(node.args, 0);
      conv = NodeOf(cut);
      if (conv == nullptr || num_readers_.at(cut) != 1 || graph_.type(cut).rank() != 3) return {};
      const std::optional<int64_t> first = SliceStart(node, kTokens);
      if (!first) return std::nullopt;
      start = *first;
    }
    if (!conv->op.starts_with("aten.conv1d.") || graph_.type(node.outputs[0]).rank() != 3)
      return {};
    const ValueId weight = TensorArgument(conv->args, 1);
    const int64_t taps = SizeOf(weight, kTokens);
    const auto* dilations = ArgumentAs<IntList>(conv->args, 5);
    const int64_t dilation = dilations == nullptr || dilations->empty() ? 1 : (*dilations)[0].value;
    const std::optional<int64_t> padding = ConvPadding(*conv, taps, dilation);
    if (!padding) return std::nullopt;
    return ConvOverTokens(node, TensorArgument(conv->args, 0), *padding - start,
                          (taps - 1) * dilation, weight, ArgumentAt(conv->args, 2), dilation);
  }

  // What computes `node` from `before` places in front of each place of `input` to `reach` behind
  // those; nullopt: it does not keep the tokens.
  std::optional<WindowOp> ConvOverTokens(const Node& node, ValueId from, int64_t before,
                                         int64_t reach, ValueId weight, const Argument& bias,
                                         int64_t dilation) const {
    constexpr int64_t kTokens = 2;
    // The tokens themselves, if zeros were put around them first.
    ShiftedView input = Itself(from, kTokens);
    while (!IsTokens(input.base, kTokens) && Step(kTokens, &input)) continue;
    const int64_t size = SizeOf(input.base, kTokens);
    const bool has_all = input.last - input.first == size;
    before -= input.offset;
    const bool keeps_length =
        IsTokens(input.base, kTokens) && SizeOf(node.outputs[0], kTokens) == size;
    if (!has_all || !keeps_length || before < 0 || before > reach) return {};
    return WindowOp{kTokenConv, {input.base, weight, bias, SymInt(before), SymInt(dilation)}};
  }

  // avg_pool1d(x, kernel, stride, padding, ceil_mode, count_include_pad) with a window at each
  // token: a convolution of each channel. Where padding does not count, it is none.
  std::optional<WindowOp> RecognizeAverage(const Node& node) const {
    const auto one = [&](size_t arg, int64_t absent) {
      const auto* list = ArgumentAs<IntList>(node.args, arg);
      return list == nullptr || list->empty() ? absent : (*list)[0].value;
    };
    const ValueId self = TensorArgument(node.args, 0);
    const int64_t taps = one(1, 1);
    const int64_t padding = one(3, 0);
    const bool counts_padding = padding == 0 || FlagArgument(node.args, 5).value_or(true);
    const TensorType& type = graph_.type(self);
    if (one(2, taps) != 1 || taps < 2 || !counts_padding || type.rank() != 3) return std::nullopt;
    std::optional<WindowOp> conv =
        ConvOverTokens(node, self, padding, taps - 1, ValueId{}, None{}, /*dilation=*/1);
    if (conv) conv->averages = ContiguousOf(type.dtype, {type.sizes[1], SymInt(1), SymInt(taps)});
    return conv;
  }

  const Graph& graph_;
  const std::vector<Node>& nodes_;
  const GraphFactors& factors_;
  const std::vector<int32_t>& definer_;
  std::map<ValueId, int64_t> num_readers_;
};

// The weight of a convolution of each channel that averages its taps.
ValueId EmitAverages(GraphRewriter& rewriter, const Node& node, const TensorType& type) {
  const double each = 1.0 / static_cast<double>(type.sizes.back().value);
  return rewriter.EmitOne(node, "aten.full.default",
                          {IntList(type.sizes), each, type.dtype, None{}, None{}, None{}}, type);
}

}  // namespace

// Shifts of tokens and convolutions over them, in the forms that exporters write, as one op each
// that keeps the number of tokens: what a rank needs of its neighbours can be read off it.
//
//   before  %p = aten.constant_pad_nd.default(%x, [3, 0], 0)                 S -> S + 3
//           %y = aten.conv1d.default(%p, %w, %b, [1], [0], [1], 64)          S + 3 -> S
//   after   %y = autosp.token_conv(%x, %w, %b, 3, 1)
//
//   before  %c = aten.slice.Tensor(%x, 1, 0, -1, 1)
//           %y = aten.cat.default([%zeros, %c], 1)
//   after   %y = autosp.token_shift(%x, 1, 1, false)
//
// Requires: the job's sizes; one form of padding (canonicalize).
absl::StatusOr<bool> RecognizeWindows(Graph& graph, const PassContext& context) {
  ASSIGN_OR_RETURN(const GraphFactors factors, InferFactors(graph, context.roles));
  const std::vector<int32_t> definer = DefiningNodes(graph);
  GraphRewriter rewriter(graph);
  const WindowRecognizer recognizer(graph, rewriter.nodes(), factors, definer);
  for (const Node& node : rewriter.nodes()) {
    const std::optional<WindowOp> window = recognizer.Recognize(node);
    if (!window) {
      rewriter.Keep(node);
      continue;
    }
    if (window->op == kItself) {
      rewriter.Replace(node.outputs[0], std::get<ValueId>(window->args[0]));
      continue;
    }
    const TensorType type = Contiguous(graph.type(node.outputs[0]));
    std::vector<Argument> args = window->args;
    if (window->averages) args[1] = EmitAverages(rewriter, node, *window->averages);
    rewriter.Replace(node.outputs[0], rewriter.EmitOne(node, window->op, std::move(args), type));
  }
  return rewriter.Finish();
}

}  // namespace autosp
