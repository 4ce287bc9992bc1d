#include "worker/executor/executor.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/program/statistics_types.h"
#include "worker/executor/memory_report.h"
#include "worker/executor/persistents.h"
#include "worker/executor/profile.h"
#include "worker/executor/shard.h"
#include "worker/executor/step.h"
#include "worker/executor/torch_types.h"

namespace autosp {
namespace {

constexpr Account kAccounts[] = {Account::kDevice, Account::kPinnedHost, Account::kCommunication};

// What the model or its training keeps; a scalar of the step may be called as a buffer is.
const Persistent* FindPersistent(const Program& program, std::string_view name,
                                 bool is_scalar = false) {
  for (const Persistent& persistent : program.persistents) {
    if ((persistent.kind == PersistentKind::kScalar) != is_scalar) continue;
    if (persistent.name == name || std::ranges::count(persistent.aliases, name) > 0) {
      return &persistent;
    }
  }
  return nullptr;
}

}  // namespace

struct Executor::Impl {
  Impl(Program program, ExecutorEnvironment env)
      : program(std::move(program)), environment(env), state(this->program) {}

  StepContext context() { return {program, environment, loops, num_profile_rows}; }

  // Values that are not persistent do not outlive their section, even after an error.
  void DropTransients() {
    std::vector<bool> is_persistent(program.values.size());
    for (const Persistent& each : program.persistents) is_persistent[each.value.index] = true;
    for (size_t i = 0; i < is_persistent.size(); ++i) {
      if (!is_persistent[i]) state.tensors[i].reset();
      state.tapes[i].reset();
    }
    state.pending.clear();
    state.stack.clear();
  }

  const Program program;
  ExecutorEnvironment environment;
  LoopVariables loops;
  int num_profile_rows = 0;
  std::map<std::string, std::vector<PreparedStep>, std::less<>> sections;
  RunState state;
  std::unique_ptr<Profile> profile;
};

absl::StatusOr<double> SectionResult::Number(std::string_view name) const {
  const auto found = outputs.find(name);
  if (found == outputs.end()) {
    return NotFound("the section has no output '", std::string(name), "'");
  }
  if (found->second.numel() != 1) {
    return InvalidArgument("output '", std::string(name), "' is not one number");
  }
  return found->second.item<double>();
}

Executor::Executor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Executor::~Executor() = default;

absl::StatusOr<std::unique_ptr<Executor>> Executor::Create(Program program,
                                                           ExecutorEnvironment environment) {
  SetStatisticsTypes(program, environment.compute.is_cuda());
  auto impl = std::make_unique<Impl>(std::move(program), environment);
  for (const Section& section : impl->program.sections) {
    ASSIGN_OR_RETURN(impl->sections[section.name], PrepareBody(section.body, impl->context()));
  }
  impl->state.loop_variables.resize(impl->loops.size());
  return std::unique_ptr<Executor>(new Executor(std::move(impl)));
}

const Program& Executor::program() const { return impl_->program; }

absl::Status Executor::LoadPersistents(WeightSource* weights) {
  const at::NoGradGuard no_grad;
  const absl::Status status = autosp::LoadPersistents(impl_->context(), weights, impl_->state);
  if (status.ok()) return status;
  const absl::Status out_of_memory =
      DescribeOutOfMemory(impl_->program, impl_->environment, impl_->state);
  return out_of_memory.ok() ? status : WithContext(out_of_memory, "loading parameters and states");
}

absl::Status Executor::SetScalar(std::string_view name, float value) {
  const Persistent* persistent = FindPersistent(impl_->program, name, /*is_scalar=*/true);
  if (persistent == nullptr) {
    return NotFound("the program has no scalar '", std::string(name), "'");
  }
  ASSIGN_OR_RETURN(const at::Tensor tensor, Get(*persistent));
  const at::NoGradGuard no_grad;
  tensor.fill_(value);
  return absl::OkStatus();
}

absl::StatusOr<at::Tensor> Executor::Get(std::string_view name) const {
  const Persistent* persistent = FindPersistent(impl_->program, name);
  if (persistent == nullptr) {
    return NotFound("the program has no persistent value '", std::string(name), "'");
  }
  return Get(*persistent);
}

absl::StatusOr<at::Tensor> Executor::Get(const Persistent& persistent) const {
  const at::Tensor& tensor = impl_->state.tensor(persistent.value);
  if (!tensor.defined()) {
    return FailedPrecondition("'", persistent.name, "' is not loaded; call LoadPersistents");
  }
  return tensor;
}

absl::StatusOr<TensorBox> Executor::HeldBox(std::string_view name) const {
  const Program& program = impl_->program;
  const Persistent* persistent = FindPersistent(program, name);
  if (persistent == nullptr) {
    return NotFound("the program has no persistent value '", std::string(name), "'");
  }
  return autosp::HeldBox(program, program.value(persistent->value), impl_->environment.place);
}

absl::StatusOr<at::Tensor> Executor::GatherWhole(std::string_view name) const {
  ASSIGN_OR_RETURN(const at::Tensor local, Get(name));
  const Persistent& persistent = *FindPersistent(impl_->program, name);
  const ProgramValue& value = impl_->program.value(persistent.value);
  const at::NoGradGuard no_grad;
  at::Tensor whole;
  RETURN_IF_ERROR(CatchTorch([&]() -> absl::Status {
    ASSIGN_OR_RETURN(whole,
                     GatherShards(impl_->program, value, local, impl_->environment.collectives));
    return absl::OkStatus();
  }));
  return whole;
}

absl::StatusOr<SectionResult> Executor::Run(std::string_view name) {
  const auto section = impl_->sections.find(name);
  if (section == impl_->sections.end()) {
    return NotFound("the program has no section '", std::string(name), "'");
  }
  const at::NoGradGuard no_grad;
  const auto start = std::chrono::steady_clock::now();
  RunState& state = impl_->state;
  state.outputs.clear();
  state.collectives.clear();
  state.num_conformed = 0;
  state.num_unshared = 0;
  for (const Account account : kAccounts) {
    if (MemoryAccount* memory = impl_->environment.account(account)) memory->ResetPeak();
  }
  Gpu* const gpu = impl_->environment.gpu;
  if (gpu != nullptr) gpu->ResetPeak();
  if (impl_->profile != nullptr) impl_->profile->BeginRun();
  absl::Status status = RunBody(impl_->program, impl_->environment, section->second, state);
  CollectiveProvider* const collectives = impl_->environment.collectives;
  if (status.ok() && collectives != nullptr) status = collectives->Synchronize();
  impl_->DropTransients();
  RETURN_IF_ERROR(status);

  SectionResult result;
  result.outputs = std::move(state.outputs);
  result.collectives = std::move(state.collectives);
  result.num_conformed = state.num_conformed;
  result.num_unshared = state.num_unshared;
  for (const Account account : kAccounts) {
    if (const MemoryAccount* memory = impl_->environment.account(account)) {
      result.memory[account] = {memory->live_bytes(), memory->peak_bytes()};
    }
  }
  // One allocator serves all accounts of a GPU.
  if (gpu != nullptr) result.memory[Account::kDevice] = {gpu->live_bytes(), gpu->peak_bytes()};
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

void Executor::EnableProfile() {
  impl_->profile = std::make_unique<Profile>(impl_->num_profile_rows, impl_->environment.gpu);
  impl_->state.profile = impl_->profile.get();
}

std::string Executor::ProfileText() const {
  return impl_->profile == nullptr ? "" : impl_->profile->ToText(impl_->program);
}

}  // namespace autosp
