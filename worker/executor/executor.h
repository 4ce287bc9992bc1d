// Runs a program on one rank.
//
// The instruction list is prepared once: op handles are looked up, literals converted, layouts and
// groups resolved. A run walks the prepared steps; values are slots of a vector. The program
// decides about everything: the executor frees what it is told to free and allocates nothing of its
// own but the packing buffers of collectives.
//
//   ASSIGN_OR_RETURN(auto executor, Executor::Create(std::move(program), environment));
//   RETURN_IF_ERROR(executor->LoadPersistents(weights));
//   RETURN_IF_ERROR(executor->SetScalar("learning_rate", 1e-3));
//   ASSIGN_OR_RETURN(SectionResult result, executor->Run("step"));
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compiler/program/program.h"
#include "compiler/program/split_dim.h"
#include "worker/executor/collective_use.h"
#include "worker/executor/environment.h"
#include "worker/executor/weight_source.h"

namespace autosp {

struct MemoryUse {
  int64_t live_bytes = 0;  // after the section
  int64_t peak_bytes = 0;  // during the section
};

struct SectionResult {
  // By the name of the `output`; of several runs of one output in a loop, the last. Not charged to
  // any account.
  std::map<std::string, at::Tensor, std::less<>> outputs;
  std::vector<CollectiveUse> collectives;
  std::map<Account, MemoryUse> memory;  // of the accounts that the environment has
  int64_t num_conformed = 0;            // results that were copied into their declared layout
  int64_t num_unshared = 0;             // results that were copied because they shared memory
  double seconds = 0;

  // A scalar output as a number; an error if there is none of that name.
  absl::StatusOr<double> Number(std::string_view name) const;
};

// Thread-compatible. Several executors may run in threads of one process.
class Executor {
 public:
  // Errors name the instruction that cannot be run.
  static absl::StatusOr<std::unique_ptr<Executor>> Create(Program program,
                                                          ExecutorEnvironment environment);
  ~Executor();

  const Program& program() const;

  // Makes all persistent values: parameters and buffers from `weights`, states as they are
  // declared, scalars 0. `weights` may be null where the program has no parameters and buffers.
  absl::Status LoadPersistents(WeightSource* weights);

  absl::Status SetScalar(std::string_view name, float value);

  // The local tensor of a persistent value by its name, or an alias of it. It is the memory that
  // the program works on: writing to it changes the value.
  absl::StatusOr<at::Tensor> Get(std::string_view name) const;

  // Which part of the whole that is.
  absl::StatusOr<TensorBox> HeldBox(std::string_view name) const;

  // All of a persistent value, the parts of all ranks put together. Where it is split, every rank
  // must ask for it, in the same order.
  absl::StatusOr<at::Tensor> GatherWhole(std::string_view name) const;

  absl::StatusOr<SectionResult> Run(std::string_view section);

  // Measures every instruction from now on; see Profile. ProfileText is empty before.
  void EnableProfile();
  std::string ProfileText() const;

 private:
  struct Impl;
  absl::StatusOr<at::Tensor> Get(const Persistent& persistent) const;
  explicit Executor(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace autosp
