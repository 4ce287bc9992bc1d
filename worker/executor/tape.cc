#include "worker/executor/tape.h"

#include <ATen/core/grad_mode.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/saved_variable_hooks.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/executor/autograd_node.h"

namespace autosp {
namespace {

namespace autograd = torch::autograd;

// Where the operands' gradients leave the graph of the one op.
struct Boundary final : autograd::Node {
  autograd::variable_list apply(autograd::variable_list&& /*grads*/) override { return {}; }
  std::string name() const override { return "TapeBoundary"; }
};

// Where the bytes of a tensor are in its storage. Dims of size 1 have stride 0 here: libtorch gives
// them any stride.
struct Geometry {
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  int64_t offset = 0;

  static Geometry Of(const at::Tensor& tensor) {
    Geometry geometry = {tensor.sizes().vec(), tensor.strides().vec(), tensor.storage_offset()};
    for (size_t i = 0; i < geometry.sizes.size(); ++i) {
      if (geometry.sizes[i] == 1) geometry.strides[i] = 0;
    }
    return geometry;
  }
  int64_t End() const {  // one past the last element
    int64_t end = offset + 1;
    for (size_t i = 0; i < sizes.size(); ++i) end += (sizes[i] - 1) * strides[i];
    return end;
  }
  bool Contains(const Geometry& other) const {
    return other.offset >= offset && other.End() <= End();
  }
  friend bool operator==(const Geometry&, const Geometry&) = default;
};

// One call of the pack hook. Resolved after the op, when its results are known.
struct Packed {
  at::Tensor tensor;                  // while recording; afterwards only if the tape keeps it
  std::optional<int> save = {};       // index in RecordRequest::saves
  std::optional<Geometry> view = {};  // the packed tensor is this view of the saved one
};

}  // namespace

struct Tape::Impl {
  // Shared with the hooks, which live in the nodes.
  struct Slots {
    std::vector<Packed> packed;
    std::vector<Geometry> saves;         // of the saved tensors as they were
    absl::Span<const at::Tensor> given;  // during Vjp
  };

  std::shared_ptr<Slots> slots = std::make_shared<Slots>();
  NodePtr<Boundary> boundary = MakeNode<Boundary>();
  std::vector<autograd::Edge> roots;  // by result; invalid where it has no derivative
  int num_diff = 0;
  bool is_opaque = false;
  int64_t kept_bytes = 0;
};

namespace {

using Slots = Tape::Impl::Slots;

class TapeHooks final : public autograd::SavedVariableHooks {
 public:
  explicit TapeHooks(std::shared_ptr<Slots> slots) : slots_(std::move(slots)) {}

  void call_pack_hook(const at::Tensor& tensor) override {
    index_ = slots_->packed.size();
    slots_->packed.push_back({.tensor = tensor});
  }

  at::Tensor call_unpack_hook() override {
    const Packed& packed = slots_->packed[index_];
    if (!packed.save.has_value()) return packed.tensor;
    const Geometry& then = slots_->saves[*packed.save];
    const at::Tensor& now = slots_->given[*packed.save];
    TORCH_CHECK(now.sizes() == then.sizes, "saved tensor ", *packed.save, " came back as ",
                now.sizes(), ", it was ", at::IntArrayRef(then.sizes));
    if (!packed.view.has_value()) return now;
    TORCH_CHECK(Geometry::Of(now).strides == then.strides, "saved tensor ", *packed.save,
                " came back with other strides, and the derivative needs a view of it");
    const Geometry& view = *packed.view;
    return now.as_strided(view.sizes, view.strides,
                          now.storage_offset() + view.offset - then.offset);
  }

 private:
  std::shared_ptr<Slots> slots_;
  size_t index_ = 0;
};

// What this thread records; each virtual rank has its own thread.
thread_local std::shared_ptr<Slots> recording;

class TapeEngine final : public autograd::Engine {
 public:
  TapeEngine() = default;
  ~TapeEngine() override { stop(); }

  std::unique_ptr<autograd::SavedVariableHooks> get_default_saved_variable_hooks() override {
    return recording == nullptr ? nullptr : std::make_unique<TapeHooks>(recording);
  }

  // The engine must be the default one before the first backward pass of the process.
  static void Install() {
    static const bool installed = [] {
      autograd::set_default_engine_stub(+[]() -> autograd::Engine& {
        // Never destroyed: its threads may outlive main's statics.
        static TapeEngine& engine = *new TapeEngine;
        return engine;
      });
      return true;
    }();
    static_cast<void>(installed);
  }
};

class RecordingScope {
 public:
  explicit RecordingScope(std::shared_ptr<Slots> slots) { recording = std::move(slots); }
  ~RecordingScope() { recording = nullptr; }
  RecordingScope(const RecordingScope&) = delete;
  RecordingScope& operator=(const RecordingScope&) = delete;
};

// Calls `visit(tensor)` for each tensor of the stack; what it returns takes the tensor's place.
template <typename Visit>
void ReplaceTensors(torch::jit::Stack& stack, Visit visit) {
  for (c10::IValue& value : stack) {
    if (value.isTensor()) {
      value = visit(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(visit(tensor));
      value = std::move(list);
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector()) {
        list.push_back(tensor.has_value() && tensor->defined() ? std::optional(visit(*tensor))
                                                               : std::nullopt);
      }
      value = std::move(list);
    }
  }
}

bool IsProgramTensor(const at::Tensor& tensor) {
  return tensor.defined() && !tensor.unsafeGetTensorImpl()->is_wrapped_number();
}

// Collects the operands, and gives those in `diff` an edge to the boundary.
std::vector<at::Tensor> AttachOperands(Tape::Impl& tape, absl::Span<const int> diff,
                                       torch::jit::Stack& stack) {
  std::vector<at::Tensor> operands;
  std::vector<std::pair<int, at::Tensor>> attached;
  ReplaceTensors(stack, [&](const at::Tensor& tensor) {
    if (!IsProgramTensor(tensor)) return tensor;
    const auto index = static_cast<int>(operands.size());
    operands.push_back(tensor);
    if (std::find(diff.begin(), diff.end(), index) == diff.end()) return tensor;
    // A tensor of its own: the caller's must not learn of any history.
    at::Tensor copy = tensor.detach();
    attached.emplace_back(index, copy);
    return copy;
  });
  for (const int index : diff) {
    const auto found = std::find_if(attached.begin(), attached.end(),
                                    [&](const auto& entry) { return entry.first == index; });
    TORCH_CHECK(found != attached.end(), "diff names operand ", index, " of ", operands.size());
    const uint32_t slot = tape.boundary->add_input_metadata(found->second);
    autograd::impl::set_gradient_edge(found->second, {tape.boundary, slot});
  }
  return operands;
}

// Takes the results off the stack's graph; keeps their edges as roots.
std::vector<at::Tensor> DetachResults(Tape::Impl& tape, torch::jit::Stack& stack) {
  std::vector<at::Tensor> results;
  ReplaceTensors(stack, [&](const at::Tensor& tensor) {
    const bool has_history = tensor.defined() && tensor.requires_grad();
    tape.roots.push_back(has_history ? autograd::impl::gradient_edge(tensor) : autograd::Edge());
    results.push_back(has_history ? tensor.detach() : tensor);
    return results.back();
  });
  return results;
}

std::string DescribeTensor(const at::Tensor& tensor) {
  return absl::StrCat(c10::toString(tensor.scalar_type()), "[", absl::StrJoin(tensor.sizes(), ", "),
                      "]");
}

// Finds out what each packed tensor is: a saved one, a view of a saved one, or internal to the op.
class SlotResolver {
 public:
  SlotResolver(const RecordRequest& request, absl::Span<const at::Tensor> operands,
               absl::Span<const at::Tensor> results)
      : request_(request), operands_(operands), results_(results) {}

  absl::Status Resolve(Tape::Impl& tape) {
    Slots& slots = *tape.slots;
    for (const TapeTensor& save : request_.saves) {
      if (!IsValid(save)) {
        return InvalidArgument("saves names ", Describe(save), ", which the op does not have");
      }
      slots.saves.push_back(Geometry::Of(Get(save)));
    }
    for (Packed& packed : slots.packed) {
      if (MatchSave(slots, packed, /*as_view=*/false)) continue;
      if (MatchSave(slots, packed, /*as_view=*/true)) continue;
      RETURN_IF_ERROR(Keep(tape, packed));
    }
    return absl::OkStatus();
  }

 private:
  bool IsValid(const TapeTensor& which) const {
    const auto& tensors = which.is_result ? results_ : operands_;
    return which.index >= 0 && which.index < static_cast<int>(tensors.size());
  }
  const at::Tensor& Get(const TapeTensor& which) const {
    return (which.is_result ? results_ : operands_)[which.index];
  }
  static std::string Describe(const TapeTensor& which) {
    return absl::StrCat(which.is_result ? "result " : "operand ", which.index);
  }

  static bool SharesStorage(const at::Tensor& a, const at::Tensor& b) {
    return a.storage().unsafeGetStorageImpl() == b.storage().unsafeGetStorageImpl() &&
           a.scalar_type() == b.scalar_type();
  }

  bool MatchSave(const Slots& slots, Packed& packed, bool as_view) const {
    const Geometry geometry = Geometry::Of(packed.tensor);
    for (size_t i = 0; i < request_.saves.size(); ++i) {
      if (!SharesStorage(Get(request_.saves[i]), packed.tensor)) continue;
      if (as_view ? !slots.saves[i].Contains(geometry) : slots.saves[i] != geometry) continue;
      packed.save = static_cast<int>(i);
      if (as_view) packed.view = geometry;
      packed.tensor.reset();
      return true;
    }
    return false;
  }

  std::optional<TapeTensor> FindProgramTensor(const at::Tensor& tensor) const {
    for (const bool is_result : {false, true}) {
      const auto& tensors = is_result ? results_ : operands_;
      for (size_t i = 0; i < tensors.size(); ++i) {
        if (tensors[i].defined() && SharesStorage(tensors[i], tensor)) {
          return TapeTensor{is_result, static_cast<int>(i)};
        }
      }
    }
    return std::nullopt;
  }

  absl::Status Keep(Tape::Impl& tape, Packed& packed) const {
    const std::string op = c10::toString(request_.op.operator_name());
    if (const auto which = FindProgramTensor(packed.tensor)) {
      return InvalidArgument("the derivative of ", op, " needs ", Describe(*which), " (",
                             DescribeTensor(packed.tensor),
                             "), which is not in saves; add it to saves");
    }
    if (!request_.opaque) {
      return InvalidArgument("the derivative of ", op, " keeps an internal tensor (",
                             DescribeTensor(packed.tensor),
                             ") that no value of the program holds; mark the record opaque");
    }
    // As the op left it, with no way back into its graph.
    packed.tensor = packed.tensor.detach();
    tape.kept_bytes += static_cast<int64_t>(packed.tensor.storage().nbytes());
    return absl::OkStatus();
  }

  const RecordRequest& request_;
  const absl::Span<const at::Tensor> operands_;
  const absl::Span<const at::Tensor> results_;
};

// The gradients that are given, each with the edge where it enters. Of an op without a rule it is
// not known which results depend on its operands; a gradient of one that does not ends here, as it
// does in the model.
absl::Status CollectRoots(const Tape::Impl& tape, absl::Span<const at::Tensor> grads,
                          autograd::edge_list& roots, autograd::variable_list& inputs) {
  if (grads.size() != tape.roots.size()) {
    return InvalidArgument(grads.size(), " gradients for ", tape.roots.size(), " results");
  }
  for (size_t i = 0; i < grads.size(); ++i) {
    if (!grads[i].defined()) continue;
    if (!tape.roots[i].is_valid() && tape.is_opaque) continue;
    if (!tape.roots[i].is_valid()) {
      return InvalidArgument("result ", i,
                             " does not depend on an operand in diff, but has a gradient");
    }
    roots.push_back(tape.roots[i]);
    inputs.push_back(grads[i]);
  }
  return absl::OkStatus();
}

}  // namespace

Tape::Tape(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tape::Tape(Tape&&) noexcept = default;
Tape& Tape::operator=(Tape&&) noexcept = default;
Tape::~Tape() = default;

int64_t Tape::kept_bytes() const { return impl_->kept_bytes; }

void InstallTapeEngine() { TapeEngine::Install(); }

absl::StatusOr<Tape> Record(const RecordRequest& request, torch::jit::Stack& stack) {
  InstallTapeEngine();
  auto tape = std::make_unique<Tape::Impl>();
  tape->num_diff = static_cast<int>(request.diff.size());
  tape->is_opaque = request.opaque;
  const std::vector<at::Tensor> operands = AttachOperands(*tape, request.diff, stack);
  {
    const RecordingScope scope(tape->slots);
    const at::AutoGradMode enable_grad(true);
    request.op.callBoxed(stack);
  }
  const std::vector<at::Tensor> results = DetachResults(*tape, stack);
  const absl::Status resolved = SlotResolver(request, operands, results).Resolve(*tape);
  if (!resolved.ok()) {
    tape->slots->packed.clear();  // They would hold the graph that holds them.
    return resolved;
  }
  return Tape(std::move(tape));
}

absl::StatusOr<std::vector<at::Tensor>> Vjp(Tape& handle, absl::Span<const at::Tensor> grads,
                                            absl::Span<const at::Tensor> saved) {
  Tape::Impl& tape = handle.impl();
  autograd::edge_list roots;
  autograd::variable_list inputs;
  RETURN_IF_ERROR(CollectRoots(tape, grads, roots, inputs));
  if (saved.size() != tape.slots->saves.size()) {
    return InvalidArgument(saved.size(), " saved tensors for ", tape.slots->saves.size(), " slots");
  }
  if (roots.empty()) return std::vector<at::Tensor>(tape.num_diff);

  autograd::edge_list outputs;
  for (int i = 0; i < tape.num_diff; ++i) outputs.emplace_back(tape.boundary, i);
  tape.slots->given = saved;
  const auto forget = absl::MakeCleanup([&tape] { tape.slots->given = {}; });
  return autograd::Engine::get_default_engine().execute(roots, inputs, /*keep_graph=*/false,
                                                        /*create_graph=*/false,
                                                        /*accumulate_grad=*/false, outputs);
}

}  // namespace autosp
