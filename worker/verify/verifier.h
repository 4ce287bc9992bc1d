// Runs a plan and what it is held against from the same weights on the same batch, and compares
// loss, norm and every gradient.
//
// The oracle is the model as it was exported, run eagerly (eager_step.h), where there is a graph of
// it, and else the one-device program. That program runs in any case: where the plan is wrong, it
// tells whether a pass is, or what splits the work.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "compiler/config/job_spec.h"
#include "compiler/ir/graph.h"
#include "compiler/program/program.h"
#include "worker/verify/comparison.h"
#include "worker/verify/eager_step.h"
#include "worker/verify/rounding_noise.h"
#include "worker/verify/step_run.h"

namespace autosp {

struct VerifierOptions {
  // Files. Programs are texts; the job is that of all of them.
  std::string plan_path;
  std::string one_device_path;
  std::string exact_path;     // the one-device program in fp32, where the others are not; or empty
  std::string exported_path;  // text of the graph as exported; empty: the one-device program counts
  std::string job_path;
  std::string batch_path;      // safetensors, a tensor for each input; empty: the job's data
  std::string gradients_path;  // safetensors to write; empty: none
  double tolerance = 1e-5;
  bool random_weights = false;  // where the archive has none
  std::string device = "cpu";   // of the plan's ranks, or a GPU that they share: "cuda:0"
};

// A number of the step, that of the rank that is furthest off.
struct NumberComparison {
  double plan = 0;
  double one_device = 0;
  std::optional<double> exported = {};
  std::optional<double> exact = {};
  double error = 0;  // relative; to `exact` where there is one, else to `exported`
  double bound = 0;  // that `error` must not exceed
  // What it is relative to: |truth|, or where terms cancel what makes the last bits of them the
  // tolerance.
  double scale = 0;

  bool is_within() const { return error <= bound; }  // false for NaN
};

struct VerifierResult {
  bool has_exported = false;
  bool has_exact = false;
  double tolerance = 0;
  NumberComparison loss = {};
  NumberComparison grad_norm = {};
  std::vector<GradientError> gradients = {};  // first the one that is furthest off for its bound
  // Bounds are what rounding moves the model by, as something was off by more than `tolerance`.
  bool is_held_to_noise = false;
  bool moves_values = false;  // of all results, not of weights and gradients alone
  // How far rounding moves all gradients, in parts of them; 1 and more where this batch leaves
  // nothing of them but what is rounded (two answers that are the same, of which DPO learns
  // nothing). 0 where it does not explain the loss.
  double noise_of_gradients = 0;
  // Over all gradients; counts where there is an exact program.
  double norm_error = 0;
  double norm_bound = 0;
  // Where the model rounds but multiplies in fp32: how far the plan is from the model that rounds,
  // over all gradients.
  bool has_rounded = false;
  double rounded_error = 0;
  double rounded_bound = 0;

  int64_t num_within() const;
  // Gradients that rounding alone moves so far that one which is lost could be within its bound.
  int64_t num_unsure() const;
  bool is_equal() const;
  // That the plan differs is no news of the plan, but of the batch.
  bool shows_nothing() const;
  nlohmann::json ToJson() const;  // numbers that are not finite become null
};

// What a number of the plan is held against.
struct ExpectedNumber {
  double one_device = 0;
  std::optional<double> exported = {};
  std::optional<double> exact = {};
  std::optional<double> rounded = {};  // the exported model's in half precision
  double added = 0;                    // of what it is the rest, where terms cancel
};

// The rule. `exact` is empty where all is in fp32: then `error` is relative to `exported`, or
// without one to `one_device`, and must be within `tolerance`, or within what rounding does to the
// model itself (rounding_noise.h) where that is more; a loss whose terms cancel (of GRPO, whose
// advantages add up to 0) may be off by 8 last bits of them. Programs that round to bf16 differ
// however right they are: the plan may be 2.5 times as far from the exact numbers as the exported
// model is when it rounds, and 2e-3; each gradient by itself 4 times, and 3e-2. Where that one was
// not run, the one-device program stands for it.
NumberComparison CompareNumbers(const std::vector<double>& plan, const ExpectedNumber& expected,
                                double tolerance);
double BoundFor(double one_device_error);
// Gives each of `errors` its bound where programs round; `rounding` is how far rounding takes one
// device. First the one that is furthest off for its bound.
void BoundByRounding(const std::vector<GradientError>& rounding,
                     std::vector<GradientError>& errors);

// Seeds of what a run moves by its last bit (EagerOptions).
struct EagerMoves {
  std::optional<uint64_t> gradients = {};
  std::optional<uint64_t> values = {};
};

class Verifier {
 public:
  // `progress` is told what comes next.
  Verifier(VerifierOptions options, std::function<void(absl::string_view)> progress)
      : options_(std::move(options)), progress_(std::move(progress)) {}

  absl::StatusOr<VerifierResult> Run();

 private:
  absl::Status Load(const Program& one_device);
  absl::StatusOr<std::unique_ptr<StepRun>> RunProgram(const Program& program, const char* what,
                                                      WeightSource& weights,
                                                      TorchGpu* gpu = nullptr) const;
  absl::StatusOr<EagerStep> RunOneDevice(const Program& program, const char* what,
                                         WeightSource& weights) const;
  absl::StatusOr<EagerStep> RunExported(const Graph& graph, EagerTypes types, WeightSource& weights,
                                        EagerMoves moves = {}) const;
  // What plans are held against.
  struct Truth {
    EagerStep one_device;
    std::optional<EagerStep> exported;   // in fp32
    std::optional<EagerStep> exact;      // where the plan rounds
    std::optional<EagerTypes> rounding;  // how `exported` rounds where a plan does
    std::optional<EagerStep> rounded;    // likewise

    const EagerStep& best() const { return exact ? *exact : exported ? *exported : one_device; }
  };
  absl::StatusOr<Truth> RunTruth(const Program& one_device, const Program& plan,
                                 const std::optional<Graph>& exported) const;
  absl::Status Compare(const StepRun& plan, const Truth& truth, VerifierResult& result) const;
  absl::Status CompareRounded(const StepRun& plan, const Graph& graph, const Truth& truth,
                              VerifierResult& result) const;
  absl::Status WidenByNoise(const Graph& graph, const Truth& truth, VerifierResult& result) const;
  absl::Status HoldToRounding(const std::optional<Graph>& graph, const Program& one_device,
                              const Truth& truth, VerifierResult& result) const;
  absl::Status HoldToNoise(const EagerStep& truth, const StepOfWeights& run,
                           VerifierResult& result) const;
  absl::Status WriteGradients(const std::vector<std::pair<std::string, const NamedTensors*>>& sets);

  const VerifierOptions options_;
  const std::function<void(absl::string_view)> progress_;
  JobSpec job_;
  std::unique_ptr<WeightSource> weights_;
  VirtualWorld::MakeFeeder make_feeder_;
  std::set<std::string> trained_;  // that the plan has gradients of
};

}  // namespace autosp
