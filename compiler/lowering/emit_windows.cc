// Shifts and convolutions over tokens: each rank its own tokens, with the borders of all shards.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "compiler/lowering/forward_lowering.h"
#include "compiler/lowering/token_edges.h"
#include "compiler/program/token_stretches.h"

namespace autosp {
namespace {

// As in MoveRun: padding never counts, but must do as a divisor.
constexpr int64_t kPadding = 1;

}  // namespace

// Tokens of a stretch, if the sequence were split in the dimension of the window; 0: it cannot be.
int64_t ForwardLowering::StretchLength(const FactorDim& tokens) {
  const bool begins = !seq_run_.empty() && tokens.size() >= seq_run_.size() &&
                      std::equal(seq_run_.begin(), seq_run_.end(), tokens.begin());
  if (!begins || sp_axes_.empty()) return 0;
  Placement placement;
  placement.run = seq_run_;
  const ProgramDim dim = MakeDims({tokens}, placement)[0];
  return TokenStretchesOf(builder_.program(), dim)->length;
}

// Whether the tokens lie in the dimension of the window alone: scores of attention, [.., S, S],
// have them twice, and only one of the two can be split.
bool ForwardLowering::HasTokensInWindowAlone(size_t node_index, const TokenWindow& window) const {
  const Node& node = in_.graph.nodes[node_index];
  std::vector<ValueId> values = OperandsOf(node);
  values.push_back(node.outputs[0]);
  return std::ranges::all_of(values, [&](ValueId value) {
    FactorDims dims = Dims(value);
    const bool has_window = value == values.front() || value == values.back();
    if (has_window) dims[window.dim].clear();
    return !HoldsPart(dims, seq_run_);
  });
}

// Whether a node may run on shards of the sequence because ranks exchange the tokens at borders.
// What inputs alone determine needs no exchange. Around the ends lie the neighbours of a roll only
// where no padding does.
bool ForwardLowering::MayExchangeEdges(size_t node_index, const FactorRoles& roles) {
  const Node& node = in_.graph.nodes[node_index];
  const std::optional<TokenWindow> window = TokenWindowOf(in_.graph, node);
  if (!window || is_lazy_[node.outputs[0].index]) return false;
  const bool is_halo =
      std::ranges::all_of(seq_run_, [&](FactorVar factor) { return roles.halo.contains(factor); });
  if (!is_halo || (window->wraps && IsPadded(seq_run_))) return false;
  if (!HasTokensInWindowAlone(node_index, *window)) return false;
  return std::max(window->before, window->after) <=
         StretchLength(Dims(OperandsOf(node)[0])[window->dim]);
}

// What a rank receives for a shift or a convolution beside its operands: the borders, where it runs
// on its own tokens; else its tokens of the result, since what is around works token by token.
double ForwardLowering::WindowBytes(size_t node_index, const FactorRun& run) const {
  const Node& node = in_.graph.nodes[node_index];
  const std::optional<TokenWindow> window = TokenWindowOf(in_.graph, node);
  if (!window || run.empty() || seq_run_.empty()) return 0;
  const auto bytes = [&](ValueId value) {
    const TensorType& type = in_.graph.type(value);
    return static_cast<double>(type.numel() * SizeOf(type.dtype));
  };
  const auto shards = static_cast<double>(mesh().size(sp_axes_));
  if (run != seq_run_) return bytes(node.outputs[0]) / shards * (shards - 1) / shards;
  const ValueId tokens = OperandsOf(node)[0];
  const auto length = static_cast<double>(in_.graph.type(tokens).sizes[window->dim].value);
  const double stretches = (shards - 1) * (IsZigzag(seq_run_) ? 2 : 1);
  return stretches * static_cast<double>(window->before + window->after) * bytes(tokens) / length;
}

ValueId ForwardLowering::EmitWindow(size_t node_index, const std::vector<ValueId>& operands,
                                    const Placement& placement, const Partial& partial) {
  const Node& node = in_.graph.nodes[node_index];
  const TokenWindow window = *TokenWindowOf(in_.graph, node);
  const ValueId tokens = operands[0];
  const Argument edges = GatherEdges(builder_, tokens, window.dim, window.before, window.after);
  std::vector<Argument> args;
  if (node.op == kTokenShift) {
    args = {tokens, edges, node.args[1], node.args[2], node.args[3]};
  } else {
    const Argument bias = operands.size() > 2 ? Argument(operands[2]) : Argument(None{});
    args = {tokens, operands[1], bias, edges, node.args[3], node.args[4]};
  }
  ProgramValue type = builder_.Typed(in_.graph.type(node.outputs[0]).dtype,
                                     MakeDims(Dims(node.outputs[0]), placement), partial);
  const ValueId result = builder_.Call(node.op, std::move(args), std::move(type));
  builder_.body().back().attributes["pad"] = SymInt(kPadding);
  const int64_t size = window.before + window.after;
  builder_.body().back().workspace_bytes =
      node.op == kTokenShift
          ? ShiftWorkspaceBytes(builder_.program(), tokens, window.dim, size, result)
          : ConvWorkspaceBytes(builder_.program(), tokens, size, result);
  if (!IsNone(edges)) {
    const std::string how =
        absl::StrCat("shifts and convolutions over tokens: each rank its own, with the tokens at ",
                     "the borders of all shards (all_gather)");
    if (explained_.insert(how).second) decisions_.push_back(how);
  }
  return result;
}

}  // namespace autosp
