// What collectives in a program have in common, whether they are started and waited for or write in
// place.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstddef>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/executor/layout.h"
#include "worker/executor/packing.h"
#include "worker/executor/step.h"

namespace autosp {

// Everything about a collective that does not change between runs.
struct CollectivePlan {
  CollectiveKind kind = CollectiveKind::kBarrier;
  ReduceOp reduce = ReduceOp::kSum;
  Phase phase = Phase::kForward;
  AxisList axes;
  int root = 0;
  int shift = 1;
  Collectives* group = nullptr;  // null: a group of one rank, nothing to exchange
  const MemoryAccount* buffers = nullptr;
  c10::Device device{c10::DeviceType::CPU};
  std::vector<ValueLayout> operands;
  std::vector<ValueLayout> results;
  std::vector<BlockCut> send_cuts;  // by operand
  std::vector<BlockCut> recv_cuts;  // by result
  int64_t send_bytes = 0;
  int64_t recv_bytes = 0;
  bool sends_in_place = false;     // the operand's memory is the buffer
  bool receives_in_place = false;  // the result's memory is the buffer

  CollectiveUse& UseIn(RunState& state) const;
  at::Tensor AllocateBuffer(int64_t bytes) const;
};

// Kind, group and reduction.
absl::StatusOr<CollectivePlan> PlanGroup(const Instruction& instruction, CollectiveKind kind,
                                         const StepContext& context);

// Adds the time and what the group counted meanwhile.
class UseScope {
 public:
  UseScope(const CollectivePlan& plan, RunState& state);
  ~UseScope();
  UseScope(const UseScope&) = delete;
  UseScope& operator=(const UseScope&) = delete;

 private:
  const CollectivePlan& plan_;
  RunState& state_;
  const std::chrono::steady_clock::time_point start_;
  CollectiveCounter before_;
};

inline std::byte* BytesOf(const at::Tensor& tensor) {
  return static_cast<std::byte*>(tensor.mutable_data_ptr());
}

}  // namespace autosp
