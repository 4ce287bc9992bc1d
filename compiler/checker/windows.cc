// Shifts and convolutions over tokens, where ranks hold shards of these: a rank may compute its own
// tokens if it has the borders of its neighbours' shards of the same tensor.
//
// What autosp.shard_edges makes is a node of its own: the borders of that tensor, for that layout.
// Moves between ranks keep what it means, so that the op can tell the borders that it needs from
// those of another tensor, layout or width. Padding reads as zero, whatever it holds.
#include <algorithm>
#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/checker/interpreter.h"

namespace autosp::checker {
namespace {

constexpr int kTokens = 2;  // of [batch, channels, tokens]

// An op as it reads tokens of operand `tokens`, whose edges argument `edges` names.
struct Window {
  size_t tokens = 0;
  size_t edges = 0;
  int64_t dim = 0;
  int64_t before = 0;
  int64_t after = 0;
};

int64_t Reach(const PlacedDims& weight, int64_t dilation) {
  return weight.size() == 3 ? (LogicalSize(weight[kTokens]) - 1) * dilation : -1;
}

// nullopt: no such op, or not with these arguments.
std::optional<Window> WindowOf(const OpCall& call) {
  const std::string& op = call.instruction.op;
  if (op == "autosp.token_shift") {
    const int64_t by = call.Int(3).value_or(0);
    return Window{0, 1, call.Int(2).value_or(-1), std::max<int64_t>(by, 0),
                  std::max<int64_t>(-by, 0)};
  }
  const size_t edges = op == "autosp.token_conv" ? 3 : 2;
  const int64_t before = call.Int(edges + 1).value_or(-1);
  const int64_t dilation = call.Int(edges + 2).value_or(0);
  if (call.operands.size() < 2 || dilation < 1) return std::nullopt;
  if (op == "autosp.token_conv") {
    return Window{0, edges, kTokens, before, Reach(call.operands[1], dilation) - before};
  }
  // A gradient of a token is spread over those that depended on it.
  if (op == "autosp.token_conv_input_grad") {
    return Window{0, edges, kTokens, Reach(call.operands[1], dilation) - before, before};
  }
  if (op == "autosp.token_conv_weight_grad") {
    return Window{1, edges, kTokens, before, Reach(call.results[0], dilation) - before};
  }
  return std::nullopt;
}

// Consecutive tokens on a rank: all of its shard, or each half of one that lies in zigzag. 0: the
// dimension is split in another way.
int64_t NumStretches(const PlacedDim& dim) {
  const bool is_padded = !dim.empty() && dim[0].kind == Digit::Kind::kPaddedShard;
  auto rest = dim.begin() + (is_padded ? 1 : 0);
  while (!is_padded && rest != dim.end() && rest->kind == Digit::Kind::kShard) ++rest;
  const bool is_rest_whole = std::all_of(
      rest, dim.end(), [](const Digit& digit) { return digit.kind == Digit::Kind::kWhole; });
  if (!is_rest_whole || HoldsAny(ShardAxes(dim), {kLoopAxes.begin(), kLoopAxes.end()})) return 0;
  const bool is_zigzag = is_padded && dim[0].pad.layout == Layout::kZigzag &&
                         !dim[0].axes.empty() && dim[0].axes[0] == Axis::kRing;
  return is_zigzag ? 2 : 1;
}

std::string EdgesKey(const PlacedDims& dims, const Window& window) {
  const int64_t local = LocalSize(dims[window.dim]);
  return absl::StrCat("edges of ", ToText({dims[window.dim]}), " in parts of ", local, " dim ",
                      window.dim, " before ", window.before, " after ", window.after);
}

// The edges of all ranks, each with its own.
PlacedDim EdgesDim(const PlacedDim& tokens, const Window& window, const Mesh& mesh) {
  PlacedDim dim;
  for (Axis axis : ShardAxes(tokens)) {
    dim.push_back({.kind = Digit::Kind::kShard, .size = mesh.size(axis), .axis = axis});
  }
  const int64_t size = NumStretches(tokens) * (window.before + window.after);
  dim.push_back({.size = size, .local_size = size});
  return Normalized(dim);
}

}  // namespace

bool IsWindowOp(std::string_view op) {
  return op == "autosp.token_shift" || op.starts_with("autosp.token_conv");
}

// (tokens, dim, before, after) -> of each stretch of consecutive tokens the last and the first.
absl::Status Interpreter::RunShardEdges(const Instruction& instruction) {
  ASSIGN_OR_RETURN(const std::vector<const ValueState*> operands, ReadOperands(instruction));
  ASSIGN_OR_RETURN(const OpCall call, MakeCall(instruction, operands));
  const Window window{0, 0, call.Int(1).value_or(-1), call.Int(2).value_or(-1),
                      call.Int(3).value_or(-1)};
  const bool is_call = instruction.kind == InstructionKind::kCall && operands.size() == 1 &&
                       call.results.size() == 1;
  if (!is_call || window.dim < 0 || window.dim >= call.rank(0) || window.before < 0 ||
      window.after < 0) {
    return Refuse(instruction, "it takes tokens, their dimension and two numbers of tokens");
  }
  const PlacedDim& tokens = call.operands[0][window.dim];
  const int64_t stretches = NumStretches(tokens);
  const int64_t longest = std::max(window.before, window.after);
  if (IsWhole(tokens) || stretches == 0 || longest * stretches > LocalSize(tokens)) {
    return Refuse(instruction, absl::StrCat("what is ", ToText({tokens}), " has no stretches of ",
                                            longest, " tokens on each rank"));
  }
  const ValueId result = instruction.results[0];
  if (program_.value(result).dtype != program_.value(OperandsOf(instruction)[0]).dtype) {
    return Refuse(instruction, "edges have the dtype of their tokens");
  }
  ValueState edges;
  edges.dims = call.operands[0];
  edges.dims[window.dim] = EdgesDim(tokens, window, program_.mesh);
  edges.partial = operands[0]->partial;
  edges.reduction = operands[0]->reduction;
  edges.meaning = table_.Node(EdgesKey(call.operands[0], window),
                              {table_.Intern(operands[0]->meaning)}, LogicalShape(edges.dims));
  return Define(instruction, result, std::move(edges));
}

// Where tokens are split, the edges must be those of the same tokens, as wide as the op looks.
absl::Status Interpreter::CheckWindow(const OpCall& call,
                                      const std::vector<const ValueState*>& operands) {
  const Instruction& instruction = call.instruction;
  const std::optional<Window> window = WindowOf(call);
  const bool is_valid = window && instruction.kind == InstructionKind::kCall &&
                        window->tokens < operands.size() && window->dim >= 0 &&
                        window->dim < call.rank(window->tokens) && window->before >= 0 &&
                        window->after >= 0;
  if (!is_valid) return Refuse(instruction, "the window is none of its tokens");
  for (ValueId id : OperandsOf(instruction)) {
    if (program_.value(id).dtype == program_.value(instruction.results[0]).dtype) continue;
    return Refuse(instruction, absl::StrCat("%", NameOf(id), " has another dtype than the result"));
  }
  const PlacedDims& dims = call.operands[window->tokens];
  const bool wraps = instruction.op == "autosp.token_shift" && call.Flag(4);
  if (wraps && !PadKeys({dims[window->dim]}).empty()) {
    return Refuse(instruction, "padding lies between the ends of the tokens that wrap around");
  }
  const bool has_edges = call.HasTensor(window->edges);
  if (IsWhole(dims[window->dim]) || window->before + window->after == 0) {
    return has_edges ? Refuse(instruction, "it looks beyond no edge") : absl::OkStatus();
  }
  if (!has_edges) {
    return Refuse(instruction, absl::StrCat("the tokens are ", ToText({dims[window->dim]}),
                                            ", and the edges of other ranks are missing"));
  }
  const ValueState& edges = state(std::get<ValueId>(instruction.args[window->edges]));
  Shape shape = LogicalShape(dims);
  shape[window->dim] = LogicalSize(EdgesDim(dims[window->dim], *window, program_.mesh));
  const Tensor needed = table_.Node(EdgesKey(dims, *window),
                                    {table_.Intern(operands[window->tokens]->meaning)}, shape);
  if (edges.meaning == needed) return absl::OkStatus();
  return Refuse(instruction, absl::StrCat("the edges are not those of its tokens, ", window->before,
                                          " before and ", window->after, " behind each stretch"));
}

// Beyond the ends lie zeros, or the tokens of the other end.
Tensor Interpreter::ShiftMeaning(const Tensor& tokens, int64_t dim, int64_t by, bool wraps) {
  const int64_t size = tokens.shape[dim];
  const auto part = [&](int64_t from, int64_t to, int64_t count) {
    if (count <= 0) return ExpressionTable::Zeros(tokens.shape);
    return table_.Embed(table_.Slice(tokens, dim, from, count, 1), dim, to, 1, size);
  };
  if (!wraps) return part(std::max<int64_t>(-by, 0), std::max<int64_t>(by, 0), size - std::abs(by));
  const int64_t ahead = ((by % size) + size) % size;
  return table_.Add(part(0, ahead, size - ahead), part(size - ahead, 0, ahead), 1);
}

// Of tokens, weights and the bias; the edges say nothing that the tokens do not.
Tensor Interpreter::WindowMeaning(const OpCall& call,
                                  const std::vector<const ValueState*>& operands) {
  const Instruction& instruction = call.instruction;
  const Window window = *WindowOf(call);
  if (instruction.op == "autosp.token_shift") {
    return ShiftMeaning(operands[0]->meaning, window.dim, *call.Int(3), call.Flag(4));
  }
  const DType dtype = program_.value(instruction.results[0]).dtype;
  const bool has_bias = instruction.op == "autosp.token_conv" && call.HasTensor(2);
  const std::string key =
      absl::StrCat(instruction.op, has_bias ? " bias" : "", " before ", *call.Int(window.edges + 1),
                   " dilation ", *call.Int(window.edges + 2), " ", std::string(DTypeName(dtype)));
  std::vector<NodeId> nodes;
  for (size_t i = 0; i < (has_bias ? 3U : 2U); ++i) {
    nodes.push_back(table_.Intern(operands[i]->meaning));
  }
  return table_.Node(key, nodes, LogicalShape(call.results[0]));
}

// Results say what their padding holds; gradients have none.
void Interpreter::SetWindowPads(const OpCall& call, const PlacedDims& result, PadMap* pads) const {
  const std::string& op = call.instruction.op;
  const Window window = *WindowOf(call);
  if (op == "autosp.token_conv_weight_grad") return;
  double pad = 0;
  if (op == "autosp.token_shift" || op == "autosp.token_conv") {
    const absl::StatusOr<double> stated = FloatAttribute(call.instruction, "pad");
    pad = stated.value_or(std::numeric_limits<double>::quiet_NaN());
  }
  for (const PadKey& key : PadKeys({result[window.dim]})) {
    (*pads)[key] = PadState::Constant(pad);
  }
}

namespace {

// x[..., tokens, ...] and its edges, of which every rank has all.
void DescribeShift(const OpCall& call, OpShape* shape) {
  std::vector<int> tokens;
  for (int64_t i = 0; i < call.rank(0); ++i) tokens.push_back(shape->NewLabel(Role::kParallel));
  shape->operands = {tokens};
  shape->results = {tokens};
  shape->linear = Linear::kJointly;
  if (call.operands.size() < 2) return;
  std::vector<int> edges = tokens;
  const int64_t dim = call.Int(2).value_or(-1);
  if (dim >= 0 && dim < call.rank(0)) edges[dim] = shape->NewLabel(Role::kWhole);
  shape->operands.push_back(edges);
}

// Labels of a convolution x [b, c, s], w [o, i, k] -> y [b, o, s].
struct ConvLabels {
  int b, c, s, o, i, k, edge;
  std::vector<int> Input() const { return {b, c, s}; }
  std::vector<int> Weight() const { return {o, i, k}; }
  std::vector<int> Output() const { return {b, o, s}; }
};

// Each channel by itself (c is o), each result of all channels (c is i), or in groups, which are
// whole.
ConvLabels LabelConv(const PlacedDims& input, const PlacedDims& weight, Role batch, Role tokens,
                     Role outputs, OpShape* shape) {
  ConvLabels labels{};
  const int64_t channels = LogicalSize(input[1]);
  const bool is_apart = LogicalSize(weight[0]) == channels && LogicalSize(weight[1]) == 1;
  const bool is_dense = !is_apart && LogicalSize(weight[1]) == channels;
  labels.b = shape->NewLabel(batch);
  labels.c = shape->NewLabel(is_apart ? Role::kParallel : Role::kWhole);
  labels.s = shape->NewLabel(tokens);
  labels.o = is_apart ? labels.c : shape->NewLabel(is_dense ? outputs : Role::kWhole);
  labels.i = is_dense ? labels.c : shape->NewLabel(Role::kWhole);
  labels.k = shape->NewLabel(Role::kWhole);
  labels.edge = shape->NewLabel(Role::kWhole);
  return labels;
}

}  // namespace

bool DescribeWindow(const OpCall& call, OpShape* shape, absl::Status* status) {
  const std::string& op = call.instruction.op;
  constexpr Role kParallel = Role::kParallel;
  if (op == "autosp.token_shift") {
    DescribeShift(call, shape);
    return true;
  }
  if (!IsWindowOp(op)) return false;
  if (call.operands.size() < 2 || call.rank(0) != 3 || call.rank(1) != 3 ||
      call.results.size() != 1 || call.results[0].size() != 3) {
    *status = Unimplemented("a convolution of tokens that is not [batch, channels, tokens]");
    return true;
  }
  ConvLabels labels{};
  std::vector<int> read;  // of which edges may be given
  if (op == "autosp.token_conv") {
    labels = LabelConv(call.operands[0], call.operands[1], kParallel, kParallel, kParallel, shape);
    read = labels.Input();
    shape->operands = {labels.Input(), labels.Weight()};
    if (call.HasTensor(2)) shape->operands.push_back({labels.o});
    shape->results = {labels.Output()};
  } else if (op == "autosp.token_conv_input_grad") {
    labels = LabelConv(call.results[0], call.operands[1], kParallel, kParallel, Role::kSum, shape);
    read = labels.Output();
    shape->operands = {labels.Output(), labels.Weight()};
    shape->results = {labels.Input()};
    shape->linear = Linear::kFirst;
  } else {
    labels = LabelConv(call.operands[1], call.results[0], Role::kSum, Role::kSum, kParallel, shape);
    read = labels.Input();
    shape->operands = {labels.Output(), labels.Input()};
    shape->results = {labels.Weight()};
    shape->linear = Linear::kFirst;
    shape->masked = labels.s;
  }
  if (call.operands.size() > shape->operands.size()) {
    read[kTokens] = labels.edge;
    shape->operands.push_back(read);
  }
  return true;
}

}  // namespace autosp::checker
