#include "tests/worker/rules/op_case.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/ir/text_cursor.h"
#include "tests/worker/rules/random_operand.h"
#include "worker/executor/argument_stack.h"
#include "worker/executor/aten_op.h"
#include "worker/executor/device_memory.h"
#include "worker/executor/tape.h"
#include "worker/executor/torch_types.h"

namespace autosp {
namespace {

// Ops of our own are registered by own_op_definitions.cc.
std::string DispatcherName(std::string_view op) {
  constexpr std::string_view kOwn = "autosp.";
  if (!op.starts_with(kOwn)) return std::string(op);
  return absl::StrCat("autosp_definition.", Absl(op.substr(kOwn.size())), ".default");
}

Tensors TakeTensors(const torch::jit::Stack& stack) {
  Tensors tensors;
  for (const c10::IValue& value : stack) {
    if (value.isTensor()) {
      tensors.push_back(value.toTensor());
    } else if (value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorVector()) tensors.push_back(tensor);
    }
  }
  return tensors;
}

// The arguments with the sizes of the result, where the op has such.
std::vector<Argument> WithSizes(const Node& node, at::IntArrayRef sizes) {
  std::vector<Argument> args = node.args;
  if (const std::optional<size_t> argument = SizeArgument(node.op)) {
    args[*argument] = IntList(sizes.begin(), sizes.end());
  } else if (node.op == "aten.unflatten.int") {
    const auto count = static_cast<int64_t>(std::get<IntList>(args[2]).size());
    int64_t dim = *IntegerArgument(args, 1);
    if (dim < 0) dim += static_cast<int64_t>(sizes.size()) - count + 1;
    args[2] = IntList(sizes.begin() + dim, sizes.begin() + dim + count);
  }
  return args;
}

absl::StatusOr<TensorType> TypeOf(const at::Tensor& tensor) {
  TensorType type;
  ASSIGN_OR_RETURN(type.dtype, FromScalarType(tensor.scalar_type()));
  type.sizes.assign(tensor.sizes().begin(), tensor.sizes().end());
  type.strides.assign(tensor.strides().begin(), tensor.strides().end());
  return type;
}

// A call of the op, ready to be made. `sizes` are those of the result, if they are not the whole's.
struct Call {
  c10::OperatorHandle op;
  torch::jit::Stack stack;
};
absl::StatusOr<Call> Prepare(const Node& node, const Tensors& operands,
                             std::optional<at::IntArrayRef> sizes) {
  ASSIGN_OR_RETURN(const c10::OperatorHandle op, FindAtenOp(DispatcherName(node.op)));
  ASSIGN_OR_RETURN(const ArgumentStack arguments,
                   ArgumentStack::Make(op.schema(), sizes ? WithSizes(node, *sizes) : node.args));
  Call call{op, {}};
  RETURN_IF_ERROR(arguments.Push(operands, call.stack));
  return call;
}

}  // namespace

absl::StatusOr<OpCase> OpCase::Make(const ArgumentSet& set, const CaseVariant& variant) {
  OpCase result;
  result.rule_ = FindOpRule(set.op);
  result.text_ = set.text;
  result.variant_ = variant;
  Graph& graph = result.graph_;
  for (size_t i = 0; i < set.operands.size(); ++i) {
    const at::Tensor tensor = RandomOperand(set.operands[i], variant, static_cast<uint32_t>(i));
    ASSIGN_OR_RETURN(TensorType type, TypeOf(tensor));
    const ValueId id = graph.AddValue(absl::StrCat("x", i), std::move(type));
    GraphInput input;
    input.value = id;
    input.name = graph.value(id).name;
    graph.inputs.push_back(std::move(input));
    result.operands_.push_back(tensor);
  }
  Node node;
  node.op = set.op;
  node.args = set.args;
  graph.nodes.push_back(std::move(node));
  absl::Status status = CatchTorch([&] { return result.RunWhole(); });
  if (!status.ok()) return Unimplemented(std::string(status.message()));
  RETURN_IF_ERROR(result.FindDifferentiable());
  ASSIGN_OR_RETURN(result.factors_, InferFactors(graph, {}));
  result.roles_ = FactorRolesOf(graph, result.factors_, 0);
  return result;
}

// The sizes that the arguments state are those of the whole.
absl::Status OpCase::RunWhole() {
  ASSIGN_OR_RETURN(Call call, Prepare(node(), operands_, std::nullopt));
  call.op.callBoxed(call.stack);
  for (const at::Tensor& tensor : TakeTensors(call.stack)) {
    results_.push_back(tensor);
    ASSIGN_OR_RETURN(TensorType type, TypeOf(tensor));
    graph_.nodes[0].outputs.push_back(graph_.AddValue("y", std::move(type)));
  }
  return absl::OkStatus();
}

// One operand at a time: some ops refuse a gradient for some of theirs.
absl::Status OpCase::FindDifferentiable() {
  for (size_t i = 0; i < operands_.size(); ++i) {
    if (!operands_[i].is_floating_point()) continue;
    Tensors leaves = operands_;
    leaves[i] = operands_[i].detach().requires_grad_();
    std::vector<bool> depends;
    const absl::Status run = CatchTorch([&]() -> absl::Status {
      const at::AutoGradMode enable_grad(true);
      ASSIGN_OR_RETURN(Call call, Prepare(node(), leaves, std::nullopt));
      call.op.callBoxed(call.stack);
      for (const at::Tensor& tensor : TakeTensors(call.stack)) {
        depends.push_back(tensor.requires_grad());
      }
      return absl::OkStatus();
    });
    const bool is_refused = absl::StrContains(run.message(), "is not differentiable");
    if (!run.ok() && !is_refused) return run;
    if (std::ranges::count(depends, true) == 0) continue;
    differentiable_.push_back(static_cast<int>(i));
    has_gradient_[static_cast<int>(i)] = depends;
  }
  return absl::OkStatus();
}

Tensors OpCase::RandomGradients(const std::vector<int>& diff) const {
  Tensors grads;
  for (size_t i = 0; i < results_.size(); ++i) {
    grads.emplace_back();
    const bool has = std::ranges::any_of(diff, [&](int j) { return has_gradient_.at(j)[i]; });
    if (!has) continue;
    OperandSpec spec;
    for (int64_t size : results_[i].sizes()) spec.type.sizes.emplace_back(size);
    grads.back() =
        RandomOperand(spec, {}, 100 + static_cast<uint32_t>(i)).to(results_[i].scalar_type());
  }
  return grads;
}

int64_t OpCase::LargestBytes() const {
  size_t bytes = 0;
  for (const Tensors* side : {&operands_, &results_}) {
    for (const at::Tensor& tensor : *side) {
      if (tensor.is_floating_point()) bytes = std::max(bytes, tensor.nbytes());
    }
  }
  return static_cast<int64_t>(bytes);
}

std::string OpCase::Describe() const {
  static constexpr std::string_view kMemory[] = {"contiguous", "transposed", "expanded"};
  return absl::StrCat(node().op, "(", text_, ") with f32 as ", Absl(DTypeName(variant_.dtype)),
                      ", ", Absl(kMemory[static_cast<size_t>(variant_.memory)]));
}

std::vector<FactorVar> OpCase::SplitFactors() const {
  std::set<FactorVar> split;
  const auto add = [&](const FactorDims& dims) {
    for (const FactorDim& dim : dims) {
      for (FactorVar factor : dim) {
        if (table().Size(factor) > 1 && !roles_.whole.contains(factor)) split.insert(factor);
      }
    }
  };
  for (size_t i = 0; i < operands_.size(); ++i) add(OperandDims(i));
  for (size_t i = 0; i < results_.size(); ++i) add(ResultDims(i));
  return {split.begin(), split.end()};
}

int64_t OpCase::NumParts(FactorVar factor) const {
  const int64_t size = table().Size(factor);
  int64_t parts = 2;
  while (size % parts != 0) ++parts;
  return parts;
}

bool OpCase::Holds(const FactorDims& dims, FactorVar factor) {
  return std::ranges::any_of(
      dims, [&](const FactorDim& dim) { return std::ranges::count(dim, factor) > 0; });
}

at::Tensor OpCase::PartOf(const at::Tensor& tensor, const FactorDims& dims, FactorVar factor,
                          int64_t part) const {
  for (size_t d = 0; d < dims.size(); ++d) {
    const auto found = std::ranges::find(dims[d], factor);
    if (found == dims[d].end()) continue;
    int64_t before = 1;
    for (auto major = dims[d].begin(); major != found; ++major) before *= table().Size(*major);
    const int64_t size = table().Size(factor);
    const int64_t count = size / NumParts(factor);
    const auto dim = static_cast<int64_t>(d);
    const int64_t after = tensor.size(dim) / before / size;
    return tensor.unflatten(dim, {before, size, after})
        .narrow(dim + 1, part * count, count)
        .flatten(dim, dim + 2);
  }
  return tensor;
}

Tensors OpCase::OperandParts(FactorVar factor, int64_t part) const {
  Tensors parts;
  for (size_t i = 0; i < operands_.size(); ++i) {
    const at::Tensor mine = PartOf(operands_[i], OperandDims(i), factor, part);
    parts.push_back(variant_.memory == OperandMemory::kContiguous ? mine.contiguous() : mine);
  }
  return parts;
}

absl::StatusOr<Tensors> OpCase::Run(const Tensors& operands, at::IntArrayRef sizes) const {
  Tensors results;
  RETURN_IF_ERROR(CatchTorch([&]() -> absl::Status {
    const at::NoGradGuard no_grad;
    ASSIGN_OR_RETURN(Call call, Prepare(node(), operands, sizes));
    call.op.callBoxed(call.stack);
    results = TakeTensors(call.stack);
    return absl::OkStatus();
  }));
  return results;
}

absl::StatusOr<int64_t> OpCase::MeasureWorkspace() const {
  MemoryAccount account("op");
  Tensors results;
  RETURN_IF_ERROR(CatchTorch([&]() -> absl::Status {
    const at::NoGradGuard no_grad;
    ASSIGN_OR_RETURN(Call call, Prepare(node(), operands_, std::nullopt));
    const MemoryScope scope(&account);
    call.op.callBoxed(call.stack);
    results = TakeTensors(call.stack);
    return absl::OkStatus();
  }));
  return account.peak_bytes() - account.live_bytes();
}

OpCase::Derivative OpCase::FullDerivative() const {
  Derivative derivative{.diff = differentiable_, .saves = {}, .is_opaque = true};
  for (size_t i = 0; i < operands_.size(); ++i) derivative.saves.push_back({false, i});
  for (size_t i = 0; i < results_.size(); ++i) derivative.saves.push_back({true, i});
  return derivative;
}

absl::StatusOr<OpCase::Measured> OpCase::Differentiate(const Derivative& derivative,
                                                       const Tensors& operands,
                                                       at::IntArrayRef sizes,
                                                       const Tensors& grads) const {
  Measured measured;
  MemoryAccount account("op");
  RETURN_IF_ERROR(CatchTorch([&]() -> absl::Status {
    const at::NoGradGuard no_grad;
    ASSIGN_OR_RETURN(Call call, Prepare(node(), operands, sizes));
    std::vector<TapeTensor> saves;
    for (const SavedTensor& save : derivative.saves) {
      saves.push_back({save.is_result, static_cast<int>(save.index)});
    }
    ASSIGN_OR_RETURN(Tape tape,
                     Record({call.op, derivative.diff, saves, derivative.is_opaque}, call.stack));
    const Tensors results = TakeTensors(call.stack);
    Tensors saved;
    for (const TapeTensor& save : saves) {
      saved.push_back((save.is_result ? results : operands)[save.index]);
    }
    measured.kept_bytes = tape.kept_bytes();
    const MemoryScope scope(&account);
    ASSIGN_OR_RETURN(measured.gradients, Vjp(tape, grads, saved));
    measured.workspace_bytes = account.peak_bytes() - account.live_bytes();
    return absl::OkStatus();
  }));
  return measured;
}

}  // namespace autosp
