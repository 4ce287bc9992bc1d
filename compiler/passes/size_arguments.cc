#include "compiler/passes/size_arguments.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <string_view>
#include <vector>

#include "common/errors.h"
#include "compiler/ir/argument_access.h"
#include "compiler/rules/op_context.h"

namespace autosp {
namespace {

// An argument that is the size of a dimension of the result, from its end if negative.
struct ResultSize {
  size_t arg = 0;
  int64_t dim = 0;
};
std::optional<ResultSize> ResultSizeOf(std::string_view op) {
  static const auto& sizes = *new std::map<std::string_view, ResultSize>{
      {"aten.linspace.default", {2, 0}},        {"aten.logspace.default", {2, 0}},
      {"aten.bartlett_window.default", {0, 0}}, {"aten.bartlett_window.periodic", {0, 0}},
      {"aten.blackman_window.default", {0, 0}}, {"aten.blackman_window.periodic", {0, 0}},
      {"aten.fft_fftfreq.default", {0, 0}},     {"aten.hamming_window.default", {0, 0}},
      {"aten.hamming_window.periodic", {0, 0}}, {"aten.hann_window.default", {0, 0}},
      {"aten.hann_window.periodic", {0, 0}},    {"aten.kaiser_window.default", {0, 0}},
      {"aten.kaiser_window.periodic", {0, 0}},  {"aten.one_hot.default", {1, -1}}};
  const auto found = sizes.find(op);
  return found == sizes.end() ? std::nullopt : std::optional(found->second);
}

bool RewriteResultSize(const OpContext& context, Node& node, const ResultSize& size) {
  const std::vector<int64_t> sizes = context.ResultSizes();
  const auto rank = static_cast<int64_t>(sizes.size());
  node.args[size.arg] = SymInt(sizes[size.dim < 0 ? size.dim + rank : size.dim]);
  return true;
}

// arange(end), arange(start, end), arange(start, end, step): as many numbers as there are, from the
// same start on. Where they run downwards, or in parts of a whole, the start or the step was made
// of the size.
bool RewriteRange(const OpContext& context, Node& node) {
  const bool has_start = node.op != "aten.arange.default";
  const size_t end_arg = has_start ? 1 : 0;
  const std::optional<double> start = has_start ? NumberArgument(node.args, 0) : 0.0;
  std::optional<double> step = 1;
  if (node.op == "aten.arange.start_step" && context.Has(2)) step = NumberArgument(node.args, 2);
  if (!start || !step || *step < 1 || *step != std::floor(*step)) return false;
  if (*step > 1 && *start != 0) return false;
  const double end = *start + *step * static_cast<double>(context.ResultSizes()[0]);
  if (ArgumentAs<SymInt>(node.args, end_arg) != nullptr) {
    node.args[end_arg] = SymInt(static_cast<int64_t>(end));
  } else {
    node.args[end_arg] = end;
  }
  return true;
}

// repeat_interleave(self, copies, dim): how often, from what there is and what there must be.
bool RewriteCopies(const OpContext& context, Node& node) {
  const ValueId self = context.Tensor(0);
  const std::vector<int64_t> from = Values(context.Type(self).sizes);
  const std::vector<int64_t> to = context.ResultSizes();
  int64_t size = context.Type(self).numel();
  int64_t wanted = to[0];
  if (context.Has(2)) {
    const auto dim = static_cast<size_t>(context.Dim(2, context.Rank(self)));
    size = from[dim];
    wanted = to[dim];
  }
  if (size == 0 || wanted % size != 0) return false;
  node.args[1] = SymInt(wanted / size);
  if (context.Has(3)) node.args[3] = SymInt(wanted);
  return true;
}

// The last sizes of a value, as many as the list in the argument has.
bool RewriteLastSizes(const OpContext& context, Node& node, size_t arg, ValueId value) {
  const std::vector<int64_t> sizes = Values(context.Type(value).sizes);
  const size_t count = context.Ints(arg).size();
  if (count == 0 || count > sizes.size()) return false;
  node.args[arg] = IntList(sizes.end() - static_cast<int64_t>(count), sizes.end());
  return true;
}

}  // namespace

bool RewriteSizeArgument(const Graph& graph, Node& node) {
  const OpContext context(graph, node);
  if (const std::optional<ResultSize> size = ResultSizeOf(node.op)) {
    return RewriteResultSize(context, node, *size);
  }
  if (node.op.starts_with("aten.arange.")) return RewriteRange(context, node);
  if (node.op == "aten.repeat_interleave.self_int") return RewriteCopies(context, node);
  if (node.op == "aten.layer_norm.default" || node.op == "aten.native_layer_norm.default" ||
      node.op == "aten.rms_norm.default") {
    return RewriteLastSizes(context, node, 1, context.Tensor(0));
  }
  if (node.op.starts_with("aten.adaptive_")) {
    return RewriteLastSizes(context, node, 1, node.outputs[0]);
  }
  if (node.op == "aten.topk.default") {
    const int64_t rank = context.Rank(context.Tensor(0));
    const int64_t dim = context.Dim(2, rank, rank - 1);
    return RewriteResultSize(context, node, {.arg = 1, .dim = dim});
  }
  return false;
}

absl::Status CheckOperandSizes(const Graph& graph, const Node& node) {
  const OpContext context(graph, node);
  const bool is_view = node.op == "aten.view.default" || node.op == "aten.reshape.default" ||
                       node.op == "aten._unsafe_view.default" || node.op == "aten.unflatten.int" ||
                       node.op == "aten.flatten.using_ints";
  if (is_view) {
    const int64_t given = graph.type(context.Tensor(0)).numel();
    const int64_t shown = graph.type(node.outputs[0]).numel();
    if (given == shown) return absl::OkStatus();
    return InvalidArgument("shows ", given, " elements as ", shown,
                           " at the sizes of the job: how its sizes follow the batch and the "
                           "sequence is not known; train with the exported sizes, or export with "
                           "dynamic shapes");
  }
  if (node.op == "aten.index_add.default") {
    const int64_t dim = context.Dim(1, context.Rank(context.Tensor(0)));
    const int64_t places = graph.type(context.Tensor(2)).numel();
    const int64_t rows = graph.type(context.Tensor(3)).sizes[dim].value;
    if (places == rows) return absl::OkStatus();
    return InvalidArgument("adds ", rows, " rows to ", places,
                           " places at the sizes of the job: the places do not follow the batch "
                           "and the sequence; train with the exported sizes, or export with "
                           "dynamic shapes");
  }
  return absl::OkStatus();
}

absl::Status CheckStridedView(const Graph& graph, const Node& node, const TensorType& old_type) {
  const OpContext context(graph, node);
  const std::vector<int64_t> sizes = Values(context.Ints(1));
  const std::vector<int64_t> strides = Values(context.Ints(2));
  const ValueId self = context.Tensor(0);
  const bool is_in_order = old_type.strides == ContiguousStrides(Values(old_type.sizes));
  int64_t last = 0;
  for (size_t i = 0; i < std::min(sizes.size(), strides.size()); ++i) {
    last += (sizes[i] - 1) * strides[i];
  }
  if (is_in_order && !context.Has(3) && last < graph.type(self).numel()) return absl::OkStatus();
  return Unimplemented("reads the memory behind %", graph.value(self).name,
                       ", which plans lay out in another way, by strides and an offset; make it "
                       "contiguous() before and leave the offset out, or write unfold or slices");
}

namespace {

// The sizes that each part of a cat or a stack must have beside the others; empty: another op.
std::vector<SymInt> WantedSizes(const OpContext& context, ValueId part) {
  const bool is_cat = context.node().op == "aten.cat.default";
  if (!is_cat && context.node().op != "aten.stack.default") return {};
  std::vector<SymInt> sizes = context.ResultType().sizes;
  const int64_t dim = context.Dim(1, static_cast<int64_t>(sizes.size()));
  const std::vector<SymInt>& own = context.Type(part).sizes;
  if (is_cat && own.size() == sizes.size()) {
    sizes[dim] = own[dim];
  } else if (!is_cat) {
    sizes.erase(sizes.begin() + dim);
  }
  return sizes;
}

bool MayStretch(const std::vector<SymInt>& from, const std::vector<SymInt>& to) {
  if (from.size() != to.size() || Values(from) == Values(to)) return false;
  for (size_t i = 0; i < from.size(); ++i) {
    if (from[i].value != 1 && from[i].value != to[i].value) return false;
  }
  return true;
}

}  // namespace

void StretchParts(Graph& graph) {
  std::vector<Node> nodes;
  for (Node& node : graph.nodes) {
    auto* parts = node.args.empty() ? nullptr : std::get_if<ValueList>(&node.args[0]);
    if (parts != nullptr) {
      const OpContext context(graph, node);
      ValueList stretched = *parts;
      for (ValueId& part : stretched) {
        const std::vector<SymInt> wanted =
            part.valid() ? WantedSizes(context, part) : std::vector<SymInt>{};
        if (wanted.empty() || !MayStretch(graph.type(part).sizes, wanted)) continue;
        TensorType type = graph.type(part);
        type.sizes = wanted;
        type.strides = ContiguousStrides(Values(wanted));
        Node expand{.op = "aten.expand.default",
                    .args = {part, IntList(wanted), false},
                    .outputs = {graph.AddValue("expand", type)},
                    .source = node.source,
                    .no_grad = node.no_grad};
        part = expand.outputs[0];
        nodes.push_back(std::move(expand));
      }
      *parts = std::move(stretched);
    }
    nodes.push_back(std::move(node));
  }
  graph.nodes = std::move(nodes);
}

}  // namespace autosp
