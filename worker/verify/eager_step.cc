#include "worker/verify/eager_step.h"

#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_safe_softmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/config/glob.h"
#include "compiler/ir/argument_access.h"
#include "compiler/ir/fourier.h"
#include "compiler/ir/random_ops.h"
#include "worker/executor/argument_stack.h"
#include "worker/executor/aten_op.h"
#include "worker/executor/tape.h"
#include "worker/executor/torch_types.h"
#include "worker/ops/dropout_kernel.h"
#include "worker/ops/philox.h"
#include "worker/ops/random_stream.h"
#include "worker/verify/comparison.h"
#include "worker/verify/eager_fourier.h"
#include "worker/verify/rounding_noise.h"

namespace autosp {
namespace {

absl::StatusOr<ValueId> FindLoss(const Graph& graph, const std::string& wanted) {
  int64_t index = -1;
  const bool is_index = absl::SimpleAtoi(wanted, &index);
  std::vector<ValueId> found;
  for (size_t i = 0; i < graph.NumResults(); ++i) {
    const TensorType& type = graph.type(graph.outputs[i]);
    const bool is_scalar = type.rank() == 0 && IsFloating(type.dtype);
    const bool is_wanted = wanted.empty() ? is_scalar
                           : is_index     ? static_cast<int64_t>(i) == index
                                          : graph.output_names[i] == wanted;
    if (is_scalar && is_wanted) found.push_back(graph.outputs[i]);
  }
  if (found.size() == 1) return found[0];
  return InvalidArgument("the graph has ", found.size(), " losses '", wanted,
                         "' among its outputs (", absl::StrJoin(graph.ResultNames(), ", "),
                         "); name one in model.loss_output");
}

// How often the loss, and what is written to buffers, need each value.
std::vector<int> CountUses(const Graph& graph, ValueId loss) {
  std::vector<int> uses(graph.values.size(), 0);
  uses[loss.index] = 1;
  for (const auto& [output, buffer] : graph.writes) ++uses[graph.outputs[output].index];
  for (size_t i = graph.nodes.size(); i-- > 0;) {
    const Node& node = graph.nodes[i];
    const bool is_needed =
        std::ranges::any_of(node.outputs, [&](ValueId output) { return uses[output.index] > 0; });
    if (!is_needed) continue;
    for (const ValueId operand : OperandsOf(node)) ++uses[operand.index];
  }
  return uses;
}

bool IsTrained(const Graph& graph, const GraphInput& input, const ModelSpec& model) {
  if (input.kind != InputKind::kParameter || !input.requires_grad) return false;
  if (!IsFloating(graph.type(input.value).dtype)) return false;
  return std::ranges::none_of(model.frozen, [&](const std::string& pattern) {
    return GlobMatch(pattern, input.name) ||
           std::ranges::any_of(input.aliases,
                               [&](const std::string& alias) { return GlobMatch(pattern, alias); });
  });
}

// A view that the strides of its operand do not allow is a copy here. Where PyTorch lays a result
// out as its operands are (complex products, attention), export leaves out `contiguous` as doing
// nothing; here the same numbers may lie otherwise, as pairs for one.
std::string WhateverStrides(const std::string& op) {
  const bool is_view = op == "aten.view.default" || op == "aten._unsafe_view.default";
  return is_view ? "aten.reshape.default" : op;
}

// Dropout that drops nothing is no choice.
bool DrawsRandomNumbers(const c10::OperatorHandle& op, const Node& node) {
  if (!op.hasTag(at::Tag::nondeterministic_seeded)) return false;
  const auto& parameters = op.schema().arguments();
  for (size_t i = 0; i < parameters.size() && i < node.args.size(); ++i) {
    const std::string& name = parameters[i].name();
    if ((name == "p" || name == "dropout_p") && NumberArgument(node.args, i) == 0.0) return false;
    if (name == "train" && FlagArgument(node.args, i) == false) return false;
  }
  return true;
}

// A number between 0 and 1 for each element.
at::Tensor UniformNumbers(at::IntArrayRef sizes, const RandomStream& stream) {
  at::Tensor numbers = at::empty(sizes, at::kFloat);
  Uniform(numbers.mutable_data_ptr<float>(), numbers.numel(), 0, stream);
  return numbers;
}

// Dropout keeps an element where its number, here with all of its bits, is not below `dropped`.
at::Tensor KeptElements(at::IntArrayRef sizes, const RandomStream& stream, double dropped) {
  at::Tensor kept = at::empty(sizes, at::kBool);
  bool* const to = kept.mutable_data_ptr<bool>();
  for (int64_t i = 0; i < kept.numel(); ++i) {
    const auto block = static_cast<uint64_t>(i / 4);
    const PhiloxWords words =
        Philox({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), stream.step,
                stream.seed_high},
               stream.key);
    to[i] = words[i % 4] * 0x1p-32 >= dropped;
  }
  return kept;
}

// torch.autocast of the CPU, as long as it lives.
class Autocast {
 public:
  explicit Autocast(at::ScalarType type)
      : was_on_(at::autocast::is_autocast_enabled(at::kCPU)),
        type_(at::autocast::get_autocast_dtype(at::kCPU)) {
    Set(true, type);
  }
  ~Autocast() { Set(was_on_, type_); }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  static void Set(bool is_on, at::ScalarType type) {
    at::autocast::set_autocast_enabled(at::kCPU, is_on);
    at::autocast::set_autocast_dtype(at::kCPU, type);
  }
  bool was_on_;
  at::ScalarType type_;
};

class EagerRun {
 public:
  EagerRun(const Graph& graph, const ModelSpec& model, ValueId loss, const EagerOptions& options)
      : graph_(graph),
        model_(model),
        options_(options),
        loss_(loss),
        uses_(CountUses(graph, loss)),
        tensors_(graph.values.size()) {}

  absl::Status Load(WeightSource& weights, const NamedTensors& inputs) {
    for (const GraphInput& input : graph_.inputs) {
      if (uses_[input.value.index] == 0) continue;
      at::Tensor tensor;
      if (input.kind == InputKind::kUser) {
        const auto found = inputs.find(input.name);
        if (found == inputs.end()) return NotFound("input ", input.name, ": the batch has none");
        tensor = found->second;
      } else {
        ASSIGN_OR_RETURN(tensor, weights.Load(input.name));
      }
      const TensorType& type = graph_.type(input.value);
      at::Tensor& own = tensors_[input.value.index];
      // A copy in any case: a parameter must be a leaf of its own.
      own = tensor.to(ToScalarType(type.dtype), /*non_blocking=*/false, /*copy=*/true)
                .to(ToScalarType(Computed(type.dtype)));
      if (input.kind == InputKind::kUser) own = Moved(input.value, own);
      RETURN_IF_ERROR(WithContext(Check(input.value, own), "input ", input.name));
      if (!IsTrained(graph_, input, model_)) continue;
      own.requires_grad_();
      trained_.emplace_back(input.name, own);
      // Half types have been rounded to, and plans round no gradient of a parameter.
      if (!IsHalf(type.dtype)) own = Rounded(input.value, own);
    }
    return absl::OkStatus();
  }

  absl::Status Forward() {
    for (const Node& node : graph_.nodes) {
      const bool is_needed = std::ranges::any_of(
          node.outputs, [&](ValueId output) { return uses_[output.index] > 0; });
      if (!is_needed) continue;
      RETURN_IF_ERROR(WithContext(CatchTorch([&] { return Run(node); }), Describe(graph_, node)));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<EagerStep> Backward() {
    const at::Tensor& loss = tensors_[loss_.index];
    EagerStep result{.loss = loss.item<double>()};
    if (!loss.requires_grad()) return InvalidArgument("the loss depends on no trained parameter");
    InstallTapeEngine();  // the plan's backward pass follows
    loss.backward();
    double squares = 0;
    for (const auto& [name, parameter] : trained_) {
      // Undefined where the loss needs the parameter for its value alone, as in a no_grad region.
      const at::Tensor& gradient = parameter.grad();
      if (!gradient.defined()) result.without_gradient.push_back(name);
      at::Tensor& own = result.gradients[name];
      own = gradient.defined() ? gradient.to(at::kFloat)
                               : at::zeros_like(parameter.detach()).to(at::kFloat);
      squares += own.to(at::kDouble).square().sum().item<double>();
    }
    for (const auto& [output, buffer] : graph_.writes) {
      const std::string name = absl::StrCat(kBufferPrefix, graph_.FindInput(buffer)->name);
      result.gradients[name] = tensors_[graph_.outputs[output].index].detach().to(at::kDouble);
    }
    result.grad_norm = std::sqrt(squares);
    result.added = added_;
    return result;
  }

 private:
  // The type that stands for `declared`.
  DType Computed(DType declared) const {
    return options_.types != EagerTypes::kDeclared && IsHalf(declared) ? DType::kF32 : declared;
  }

  // A tensor in fp32 as a run in half precision would have it; its gradient is rounded too.
  at::Tensor Rounded(ValueId id, const at::Tensor& tensor) const {
    if (tensor.scalar_type() != at::kFloat) return tensor;
    const TensorType& type = graph_.type(id);
    // What is made of inputs and random numbers alone no precision of parameters changes.
    const bool rounds_all =
        options_.types == EagerTypes::kRoundedToBf16 && type.rank() > 0 && tensor.requires_grad();
    if (rounds_all) return tensor.to(at::kBFloat16).to(at::kFloat);
    if (options_.types == EagerTypes::kExact || !IsHalf(type.dtype)) return tensor;
    return tensor.to(ToScalarType(type.dtype)).to(at::kFloat);
  }

  at::Tensor Moved(ValueId id, const at::Tensor& tensor) const {
    if (!options_.moved_values) return tensor;
    return MovedWhereRounded(tensor, *options_.moved_values, graph_.value(id).name);
  }

  void MoveGradient(ValueId id) {
    const at::Tensor& tensor = tensors_[id.index];
    if (!options_.moved_gradients || !tensor.requires_grad()) return;
    tensor.register_hook(
        [seed = *options_.moved_gradients, name = graph_.value(id).name](const at::Tensor& grad) {
          return grad.defined() ? MovedByLastBit(grad, seed, name, kLastBit) : grad;
        });
  }

  // The magnitudes of what `node` adds up to one number; none: it adds nothing up. Binary cross
  // entropy adds its logits, of which it may leave no digit.
  std::optional<double> AddedBy(const Node& node) const {
    constexpr int64_t kSum = 2;
    const auto magnitude = [this](ValueId id) {
      return tensors_[id.index].detach().to(at::kDouble).abs().sum().item<double>();
    };
    if (node.op == "aten.add.Tensor" || node.op == "aten.sub.Tensor") {
      const double factor = std::abs(NumberArgument(node.args, 2).value_or(1));
      const ValueId other = TensorArgument(node.args, 1);
      return magnitude(OperandsOf(node)[0]) + (other.valid() ? factor * magnitude(other) : 0);
    }
    const bool is_loss = node.op == "aten.binary_cross_entropy_with_logits.default";
    const bool is_sum = node.op.starts_with("aten.sum.") ||
                        (is_loss && IntegerArgument(node.args, 4).value_or(1) == kSum);
    if (!is_loss && !is_sum && !node.op.starts_with("aten.mean.")) return std::nullopt;
    const auto count = static_cast<double>(graph_.type(OperandsOf(node)[0]).numel());
    return magnitude(OperandsOf(node)[0]) / (is_sum ? 1 : count);
  }

  // How much is added up to a number is known once its gradient is.
  void NoteAdded(const Node& node) {
    const at::Tensor& number = tensors_[node.outputs[0].index];
    if (number.dim() != 0 || !number.requires_grad()) return;
    const std::optional<double> added = AddedBy(node);
    if (!added) return;
    number.register_hook([this, added = *added](const at::Tensor& grad) {
      if (!grad.defined()) return;
      added_ = std::max(added_, added * std::abs(grad.item<double>()));
    });
  }

  absl::Status Run(const Node& node) {
    std::vector<at::Tensor> results;
    if (const std::optional<size_t> argument = DrawNumberArgument(node.op);
        argument && ArgumentAs<SymInt>(node.args, *argument) != nullptr) {
      const at::AutoGradMode mode(!node.no_grad);
      const auto number = ArgumentAs<SymInt>(node.args, *argument)->value;
      ASSIGN_OR_RETURN(results.emplace_back(), RunDraw(node, number));
    } else if (IsFourier(node.op)) {
      const at::AutoGradMode mode(!node.no_grad);
      const at::Tensor& operand = tensors_[TensorArgument(node.args, 0).index];
      ASSIGN_OR_RETURN(results.emplace_back(), TransformEagerly(node, operand));
    } else {
      RETURN_IF_ERROR(RunAten(node, results));
    }
    if (results.size() != node.outputs.size()) {
      return Internal("has ", results.size(), " results, and ", node.outputs.size(), " declared");
    }
    for (size_t i = 0; i < results.size(); ++i) {
      if (uses_[node.outputs[i].index] == 0) continue;
      RETURN_IF_ERROR(Check(node.outputs[i], results[i]));
      const at::AutoGradMode mode(!node.no_grad);
      const at::Tensor moved =
          RoundsResults(node.op) ? Moved(node.outputs[i], results[i]) : results[i];
      tensors_[node.outputs[i].index] = Rounded(node.outputs[i], moved);
      MoveGradient(node.outputs[i]);
    }
    if (uses_[node.outputs[0].index] > 0) NoteAdded(node);
    // What autograd needs of them it keeps itself.
    for (const ValueId operand : OperandsOf(node)) {
      if (--uses_[operand.index] == 0) tensors_[operand.index] = at::Tensor();
    }
    return absl::OkStatus();
  }

  // ATen compares a half tensor with a number as that type has it.
  bool RoundsCompared(const Node& node) const {
    static const auto& comparisons =
        *new std::set<std::string_view>{"aten.eq.Scalar", "aten.ne.Scalar", "aten.lt.Scalar",
                                        "aten.le.Scalar", "aten.gt.Scalar", "aten.ge.Scalar"};
    return options_.types == EagerTypes::kRounded && comparisons.contains(node.op) &&
           IsHalf(graph_.type(OperandsOf(node)[0]).dtype) && NumberArgument(node.args, 1);
  }
  std::vector<Argument> WithRoundedNumber(const Node& node) const {
    std::vector<Argument> args = node.args;
    const DType dtype = graph_.type(OperandsOf(node)[0]).dtype;
    args[1] = at::scalar_tensor(*NumberArgument(args, 1), at::kDouble)
                  .to(ToScalarType(dtype))
                  .item<double>();
    return args;
  }

  // A recurrent cell in autocast, whose products are in bf16 and whose state keeps its type: no op
  // outside of autocast takes both.
  bool IsCellOfTwoTypes(const Node& node) const {
    if (!node.op.ends_with("_cell.default")) return false;
    const std::vector<ValueId> operands = OperandsOf(node);
    return std::ranges::any_of(operands, [&](ValueId id) {
      return tensors_[id.index].scalar_type() != tensors_[operands[0].index].scalar_type();
    });
  }

  absl::Status RunAten(const Node& node, std::vector<at::Tensor>& results) const {
    constexpr const char* kDraws = "draws random numbers, which a plan draws in a way of its own";
    ASSIGN_OR_RETURN(const c10::OperatorHandle op, FindAtenOp(WhateverStrides(node.op)));
    if (DrawsRandomNumbers(op, node)) return Unimplemented(kDraws);
    std::vector<Argument> args = RoundsCompared(node) ? WithRoundedNumber(node) : node.args;
    for (Argument& argument : args) {
      if (auto* dtype = std::get_if<DType>(&argument)) *dtype = Computed(*dtype);
    }
    ASSIGN_OR_RETURN(const ArgumentStack arguments, ArgumentStack::Make(op.schema(), args));
    torch::jit::Stack stack;
    RETURN_IF_ERROR(arguments.Push(tensors_, stack));
    const at::AutoGradMode mode(!node.no_grad);
    std::optional<Autocast> autocast;
    if (IsCellOfTwoTypes(node)) autocast.emplace(tensors_[OperandsOf(node)[0].index].scalar_type());
    op.callBoxed(stack);
    for (const c10::IValue& value : stack) {
      if (value.isTensor()) {
        results.push_back(value.toTensor());
      } else if (value.isTensorList()) {
        for (const at::Tensor& tensor : value.toTensorVector()) results.push_back(tensor);
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<at::Tensor> RunDraw(const Node& node, int64_t number) const {
    ASSIGN_OR_RETURN(const RandomStream first_step, MakeRandomStream(options_.seed, number));
    RandomStream stream = first_step;
    stream.step = 1;
    const auto operand = [&](size_t arg) -> const at::Tensor& {
      return tensors_[TensorArgument(node.args, arg).index];
    };
    if (node.op == kUniform) return UniformNumbers(operand(0).sizes(), stream);
    const bool is_attention = node.op != "aten.dropout.default";
    const double dropped = NumberArgument(node.args, is_attention ? 4 : 1).value_or(0);
    if (!is_attention) {
      const at::Tensor kept = KeptElements(operand(0).sizes(), stream, dropped);
      return operand(0).mul(kept.to(operand(0).scalar_type())).div(1 - dropped);
    }
    std::vector<int64_t> sizes = operand(0).sizes().vec();
    sizes.back() = operand(1).size(-2);
    const at::Tensor weights = AttentionWeights(node);
    const at::Tensor kept = KeptElements(sizes, stream, dropped).to(weights.scalar_type());
    return weights.mul(kept).div(1 - dropped).matmul(ForEachQueryHead(node, operand(2)));
  }

  // Keys or values of grouped heads, once for each head that shares them.
  at::Tensor ForEachQueryHead(const Node& node, const at::Tensor& tensor) const {
    if (!FlagArgument(node.args, 7).value_or(false)) return tensor;
    const at::Tensor& query = tensors_[TensorArgument(node.args, 0).index];
    return tensor.repeat_interleave(query.size(-3) / tensor.size(-3), -3);
  }

  // (query, key, value, mask, dropout_p, is_causal, scale, enable_gqa): as PyTorch documents it.
  at::Tensor AttentionWeights(const Node& node) const {
    const at::Tensor& query = tensors_[TensorArgument(node.args, 0).index];
    const at::Tensor key = ForEachQueryHead(node, tensors_[TensorArgument(node.args, 1).index]);
    const double scale =
        NumberArgument(node.args, 6).value_or(1 / std::sqrt(static_cast<double>(query.size(-1))));
    constexpr double kHidden = -std::numeric_limits<double>::infinity();
    at::Tensor scores = query.matmul(key.transpose(-2, -1)).mul(scale);
    if (FlagArgument(node.args, 5).value_or(false)) {
      const at::Tensor visible = at::ones({query.size(-2), key.size(-2)}, at::kBool).tril();
      scores = scores.masked_fill(visible.logical_not(), kHidden);
    }
    if (const ValueId id = TensorArgument(node.args, 3); id.valid()) {
      const at::Tensor& mask = tensors_[id.index];
      scores = mask.scalar_type() == at::kBool ? scores.masked_fill(mask.logical_not(), kHidden)
                                               : scores.add(mask);
    }
    return at::_safe_softmax(scores, -1);  // 0 where nothing is visible
  }

  absl::Status Check(ValueId id, const at::Tensor& tensor) const {
    const TensorType& type = graph_.type(id);
    std::vector<int64_t> sizes;
    for (const SymInt& size : type.sizes) sizes.push_back(size.value);
    if (tensor.sizes() == sizes && tensor.scalar_type() == ToScalarType(Computed(type.dtype))) {
      return absl::OkStatus();
    }
    return Internal("%", graph_.value(id).name, " is ", c10::toString(tensor.scalar_type()), "[",
                    absl::StrJoin(tensor.sizes(), ", "), "] and declared as ",
                    std::string(DTypeName(type.dtype)), "[", absl::StrJoin(sizes, ", "), "]");
  }

  const Graph& graph_;
  const ModelSpec& model_;
  const EagerOptions options_;
  const ValueId loss_;
  std::vector<int> uses_;  // that are still to come
  std::vector<at::Tensor> tensors_;
  std::vector<std::pair<std::string, at::Tensor>> trained_;
  double added_ = 0;  // as EagerStep has it
};

}  // namespace

absl::StatusOr<EagerStep> RunEagerly(const Graph& graph, const ModelSpec& model,
                                     WeightSource& weights, const NamedTensors& inputs,
                                     const EagerOptions& options) {
  ASSIGN_OR_RETURN(const ValueId loss, FindLoss(graph, model.loss_output));
  EagerStep step;
  RETURN_IF_ERROR(CatchTorch([&]() -> absl::Status {
    EagerRun run(graph, model, loss, options);
    RETURN_IF_ERROR(run.Load(weights, inputs));
    RETURN_IF_ERROR(run.Forward());
    ASSIGN_OR_RETURN(step, run.Backward());
    return absl::OkStatus();
  }));
  return step;
}

absl::StatusOr<NamedTensors> FeedWhole(const Graph& graph, const ModelSpec& model, Feeder& feeder) {
  ASSIGN_OR_RETURN(const ValueId loss, FindLoss(graph, model.loss_output));
  const std::vector<int> uses = CountUses(graph, loss);
  const Program one_rank;
  NamedTensors inputs;
  for (const GraphInput& input : graph.inputs) {
    if (input.kind != InputKind::kUser || uses[input.value.index] == 0) continue;
    const TensorType& type = graph.type(input.value);
    ProgramValue value;
    value.name = input.name;
    value.dtype = type.dtype;
    for (const SymInt& size : type.sizes) value.dims.push_back({{.size = size.value}});
    ASSIGN_OR_RETURN(
        inputs[input.name],
        feeder.Feed(
            {.name = input.name, .program = one_rank, .value = value, .place = {}, .pad = None{}}));
  }
  return inputs;
}

}  // namespace autosp
