// What an executor is given by its rank.
#pragma once

#include <c10/core/Device.h>

#include "absl/status/statusor.h"
#include "compiler/program/mesh.h"
#include "compiler/program/program.h"
#include "worker/collectives/collectives.h"
#include "worker/executor/device_memory.h"
#include "worker/executor/feeder.h"

namespace autosp {

// The groups of one rank.
class CollectiveProvider {
 public:
  virtual ~CollectiveProvider() = default;
  // The group along `axes` (device axes, more than one rank). Owned by the provider.
  virtual absl::StatusOr<Collectives*> Group(const AxisList& axes) = 0;
  // Collectives::Synchronize of all groups: what sections have computed counts after it.
  virtual absl::Status Synchronize() = 0;
};

// One GPU: what libtorch's caching allocator holds of it for this process, and its queue of work.
class Gpu {
 public:
  virtual ~Gpu() = default;
  virtual int64_t live_bytes() const = 0;  // in tensors, as rounded by the allocator
  virtual int64_t peak_bytes() const = 0;  // since ResetPeak
  virtual void ResetPeak() = 0;
  virtual void Synchronize() = 0;  // returns when all that was started on it is done
};

// All pointers outlive the executor. Null: the program must not need it (an error when it does).
struct ExecutorEnvironment {
  MeshCoordinate place;
  // Where values of the accounts `device` and `communication` live and ops run. The calling thread
  // has made it current.
  c10::Device compute{c10::DeviceType::CPU};
  CollectiveProvider* collectives = nullptr;
  Feeder* feeder = nullptr;
  // Charged by Account of each value. Kernels' workspace goes to `device`, packing buffers of
  // collectives to `communication`, which lies within `device`. Null: not counted.
  MemoryAccount* device = nullptr;
  MemoryAccount* pinned_host = nullptr;
  MemoryAccount* communication = nullptr;
  // What computes, and whose memory the accounts do not see; null on CPUs.
  Gpu* gpu = nullptr;

  MemoryAccount* account(Account which) const {
    switch (which) {
      case Account::kDevice:
        return device;
      case Account::kPinnedHost:
        return pinned_host;
      case Account::kCommunication:
        return communication;
      case Account::kDisk:
        return nullptr;
    }
    return nullptr;
  }
};

}  // namespace autosp
