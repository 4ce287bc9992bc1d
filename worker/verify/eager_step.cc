#include "worker/verify/eager_step.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/config/glob.h"
#include "compiler/ir/argument_access.h"
#include "compiler/ir/random_ops.h"
#include "worker/executor/argument_stack.h"
#include "worker/executor/aten_op.h"
#include "worker/executor/tape.h"
#include "worker/executor/torch_types.h"

namespace autosp {
namespace {

absl::StatusOr<ValueId> FindLoss(const Graph& graph, const std::string& wanted) {
  int64_t index = -1;
  const bool is_index = absl::SimpleAtoi(wanted, &index);
  std::vector<ValueId> found;
  for (size_t i = 0; i < graph.outputs.size(); ++i) {
    const TensorType& type = graph.type(graph.outputs[i]);
    const bool is_scalar = type.rank() == 0 && IsFloating(type.dtype);
    const bool is_wanted = wanted.empty() ? is_scalar
                           : is_index     ? static_cast<int64_t>(i) == index
                                          : graph.output_names[i] == wanted;
    if (is_scalar && is_wanted) found.push_back(graph.outputs[i]);
  }
  if (found.size() == 1) return found[0];
  return InvalidArgument("the graph has ", found.size(), " losses '", wanted,
                         "' among its outputs (", absl::StrJoin(graph.output_names, ", "),
                         "); name one in model.loss_output");
}

// How often the loss needs each value.
std::vector<int> CountUses(const Graph& graph, ValueId loss) {
  std::vector<int> uses(graph.values.size(), 0);
  uses[loss.index] = 1;
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

class EagerRun {
 public:
  EagerRun(const Graph& graph, const ModelSpec& model, ValueId loss)
      : graph_(graph),
        model_(model),
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
      own = tensor.to(ToScalarType(type.dtype), /*non_blocking=*/false, /*copy=*/true);
      RETURN_IF_ERROR(WithContext(Check(input.value, own), "input ", input.name));
      if (!IsTrained(graph_, input, model_)) continue;
      own.requires_grad_();
      trained_.emplace_back(input.name, own);
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
      at::Tensor& own = result.gradients[name];
      own = gradient.defined() ? gradient.to(at::kFloat)
                               : at::zeros_like(parameter.detach()).to(at::kFloat);
      squares += own.to(at::kDouble).square().sum().item<double>();
    }
    result.grad_norm = std::sqrt(squares);
    return result;
  }

 private:
  absl::Status Run(const Node& node) {
    constexpr const char* kDraws = "draws random numbers, which a plan draws in a way of its own";
    if (node.op == kUniform) return Unimplemented(kDraws);
    ASSIGN_OR_RETURN(const c10::OperatorHandle op, FindAtenOp(node.op));
    if (DrawsRandomNumbers(op, node)) return Unimplemented(kDraws);
    ASSIGN_OR_RETURN(const ArgumentStack arguments, ArgumentStack::Make(op.schema(), node.args));
    torch::jit::Stack stack;
    RETURN_IF_ERROR(arguments.Push(tensors_, stack));
    const at::AutoGradMode mode(!node.no_grad);
    op.callBoxed(stack);
    std::vector<at::Tensor> results;
    for (const c10::IValue& value : stack) {
      if (value.isTensor()) {
        results.push_back(value.toTensor());
      } else if (value.isTensorList()) {
        for (const at::Tensor& tensor : value.toTensorVector()) results.push_back(tensor);
      }
    }
    if (results.size() != node.outputs.size()) {
      return Internal("has ", results.size(), " results, and ", node.outputs.size(), " declared");
    }
    for (size_t i = 0; i < results.size(); ++i) {
      if (uses_[node.outputs[i].index] == 0) continue;
      RETURN_IF_ERROR(Check(node.outputs[i], results[i]));
      tensors_[node.outputs[i].index] = std::move(results[i]);
    }
    // What autograd needs of them it keeps itself.
    for (const ValueId operand : OperandsOf(node)) {
      if (--uses_[operand.index] == 0) tensors_[operand.index] = at::Tensor();
    }
    return absl::OkStatus();
  }

  absl::Status Check(ValueId id, const at::Tensor& tensor) const {
    const TensorType& type = graph_.type(id);
    std::vector<int64_t> sizes;
    for (const SymInt& size : type.sizes) sizes.push_back(size.value);
    if (tensor.sizes() == sizes && tensor.scalar_type() == ToScalarType(type.dtype)) {
      return absl::OkStatus();
    }
    return Internal("%", graph_.value(id).name, " is ", c10::toString(tensor.scalar_type()), "[",
                    absl::StrJoin(tensor.sizes(), ", "), "] and declared as ",
                    std::string(DTypeName(type.dtype)), "[", absl::StrJoin(sizes, ", "), "]");
  }

  const Graph& graph_;
  const ModelSpec& model_;
  const ValueId loss_;
  std::vector<int> uses_;  // that are still to come
  std::vector<at::Tensor> tensors_;
  std::vector<std::pair<std::string, at::Tensor>> trained_;
};

}  // namespace

absl::StatusOr<EagerStep> RunEagerly(const Graph& graph, const ModelSpec& model,
                                     WeightSource& weights, const NamedTensors& inputs) {
  ASSIGN_OR_RETURN(const ValueId loss, FindLoss(graph, model.loss_output));
  EagerStep step;
  RETURN_IF_ERROR(CatchTorch([&]() -> absl::Status {
    EagerRun run(graph, model, loss);
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
