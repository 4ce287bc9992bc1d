// One training step of a graph as PyTorch runs it: ATen's ops one by one, and its own autograd.
//
// This is what plans are held against. It knows nothing of passes, factors, lowering or tapes, so
// that a mistake of theirs cannot be in both.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/config/job_spec.h"
#include "compiler/ir/graph.h"
#include "worker/executor/feeder.h"
#include "worker/executor/weight_source.h"
#include "worker/verify/batch_feeder.h"

namespace autosp {

struct EagerStep {
  double loss = 0;
  double grad_norm = 0;  // L2, of all gradients
  // What the loss is the rest of where terms cancel: the magnitudes of those that are added up to a
  // number, as far as the loss depends on it. Of several such numbers, the largest.
  double added = 0;
  // In fp32, of the parameters that are trained and that the loss depends on; by first name. Beside
  // them, in fp64 and by "buffer:NAME", what the step leaves in buffers that it writes.
  NamedTensors gradients = {};
  // Of those, the ones that autograd leaves undefined, for which zeros stand: the loss needs of the
  // parameter no more than its type or its sizes, or stops its gradient.
  std::vector<std::string> without_gradient = {};
};

// What a run makes of bf16 and fp16.
enum class EagerTypes : uint8_t {
  kDeclared,      // computes in them
  kExact,         // computes in fp32 instead
  kRounded,       // computes in fp32, and rounds what the graph declares to be of half precision
  kRoundedToBf16  // and, to bf16, all that has dimensions and is made of parameters
};

struct EagerOptions {
  EagerTypes types = EagerTypes::kDeclared;
  int64_t seed = 0;  // of random numbers: training.seed
  // Moves the gradient of each value by its last bit, by other parts for each seed: what is summed
  // of terms that cancel is then off by what their roundings may leave (rounding_noise.h).
  std::optional<uint64_t> moved_gradients = {};
  // Moves inputs and results by their last bit likewise, where they are rounded. Weights it does
  // not: those of a source are moved (rounding_noise.h).
  std::optional<uint64_t> moved_values = {};
};

// Runs forward and backward of the loss that `model` names, on the whole batch at once. What the
// loss does not need is not run; `inputs` and `weights` are asked for nothing else. Random numbers
// are those of a plan's first step, where the graph numbers them (exported_draws.h). Errors:
// Internal where a result has other sizes or another type than the graph declares; Unimplemented
// for an op that draws random numbers of its own.
absl::StatusOr<EagerStep> RunEagerly(const Graph& graph, const ModelSpec& model,
                                     WeightSource& weights, const NamedTensors& inputs,
                                     const EagerOptions& options = {});

// The inputs that the loss needs, whole, as `feeder` gives them to a rank that holds everything.
absl::StatusOr<NamedTensors> FeedWhole(const Graph& graph, const ModelSpec& model, Feeder& feeder);

}  // namespace autosp
