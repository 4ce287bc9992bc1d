#include "worker/verify/verifier.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "compiler/config/job_yaml.h"
#include "worker/checkpoint/state_dict_writer.h"
#include "worker/checkpoint/weight_files.h"
#include "worker/data/data_feeder.h"
#include "worker/data/token_files.h"
#include "worker/verify/eager_step.h"
#include "worker/verify/random_weights.h"

namespace autosp {
namespace {

constexpr int64_t kMaxProgramBytes = int64_t{1} << 30;
constexpr double kRoundingFactor = 2.5;
constexpr double kRoundingFloor = 2e-3;
constexpr double kMaxRounding = 1e-2;  // of one number
// Of the largest entry of one tensor. Looser than the norm's, for which roundings even out: what
// they do to one entry depends on their order. It is there for gradients that are lost or doubled,
// which hide in the norm where they are small.
constexpr double kEntryFactor = 4;
constexpr double kEntryFloor = 3e-2;
// A token whose expert a rounding changes has other gradients; a lost gradient has an error of 1.
constexpr double kMaxEntry = 0.5;
constexpr double kMaxNorm = 0.25;
// A plan rounds the numbers that the model rounds, to the same ones but for the few that lie so
// near the middle between two that another order of sums tips them. That moves gradients by less
// than a quarter of what all rounding does, or else by a few times what tips them when weights move
// by their last bit.
constexpr double kTippedPart = 0.25;
constexpr double kTippedFactor = 4;
// Noise of all gradients, in parts of them, from which on they are noise.
constexpr double kNothingLeft = 1;
// Sums of the same terms in another order, and roundings of the terms.
constexpr double kFloorBits = 8;

absl::StatusOr<Program> LoadProgram(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxProgramBytes));
  ASSIGN_OR_RETURN(Program program, ParseProgram(text), "program ", path);
  return program;
}

nlohmann::json NumberToJson(double number) {
  return std::isfinite(number) ? nlohmann::json(number) : nlohmann::json(nullptr);
}

nlohmann::json ToJson(const NumberComparison& comparison) {
  nlohmann::json json = {{"plan", NumberToJson(comparison.plan)},
                         {"one_device", NumberToJson(comparison.one_device)},
                         {"error", NumberToJson(comparison.error)},
                         {"bound", NumberToJson(comparison.bound)},
                         {"scale", NumberToJson(comparison.scale)},
                         {"is_within", comparison.is_within()}};
  if (comparison.exported) json["exported"] = NumberToJson(*comparison.exported);
  if (comparison.exact) json["exact"] = NumberToJson(*comparison.exact);
  return json;
}

absl::StatusOr<VirtualWorld::MakeFeeder> FeedBatch(const std::string& path) {
  ASSIGN_OR_RETURN(NamedTensors tensors, ReadSafetensors(path));
  auto batch = std::make_shared<const NamedTensors>(std::move(tensors));
  return [batch](int64_t /*rank*/) -> absl::StatusOr<std::unique_ptr<Feeder>> {
    return std::make_unique<BatchFeeder>(batch);
  };
}

absl::StatusOr<VirtualWorld::MakeFeeder> FeedData(const JobSpec& job) {
  ASSIGN_OR_RETURN(TokenFiles files, TokenFiles::Open(job.data));
  auto tokens = std::make_shared<const TokenFiles>(std::move(files));
  return [&job, tokens](int64_t /*rank*/) -> absl::StatusOr<std::unique_ptr<Feeder>> {
    return DataFeeder::Make(job, tokens);
  };
}

bool HasHalf(const Graph& graph) {
  return std::ranges::any_of(graph.values,
                             [](const GraphValue& each) { return IsHalf(each.type.dtype); });
}

// How the exported graph rounds where a plan does; none: nothing rounds.
std::optional<EagerTypes> RoundingOf(const Graph& graph, const Program& plan,
                                     ParamPrecision precision) {
  if (precision == ParamPrecision::kAsExported) {
    return HasHalf(graph) ? std::optional(EagerTypes::kRounded) : std::nullopt;
  }
  const bool rounds = std::ranges::any_of(
      plan.values, [](const ProgramValue& value) { return !value.is_tape && IsHalf(value.dtype); });
  return rounds ? std::optional(EagerTypes::kRoundedToBf16) : std::nullopt;
}

// Without "aten." and overload.
constexpr absl::string_view kProducts[] = {"_grouped_mm",
                                           "addbmm",
                                           "addmm",
                                           "addmv",
                                           "addr",
                                           "baddbmm",
                                           "bilinear",
                                           "bmm",
                                           "chain_matmul",
                                           "conv1d",
                                           "conv2d",
                                           "conv3d",
                                           "conv_transpose1d",
                                           "conv_transpose2d",
                                           "conv_transpose3d",
                                           "convolution",
                                           "dot",
                                           "einsum",
                                           "linear",
                                           "matmul",
                                           "mm",
                                           "mv",
                                           "scaled_dot_product_attention",
                                           "tensordot"};

// Kernels of products keep sums in fp32 and round at places of their own.
bool MultipliesInHalf(const Graph& graph) {
  return std::ranges::any_of(graph.nodes, [&](const Node& node) {
    absl::string_view name = node.op;
    const bool is_aten = absl::ConsumePrefix(&name, "aten.");
    const bool is_other =
        is_aten && !absl::c_linear_search(kProducts, name.substr(0, name.find('.')));
    return !is_other && std::ranges::any_of(node.outputs, [&](ValueId output) {
      return IsHalf(graph.type(output).dtype);
    });
  });
}

bool IsUnsure(const GradientError& each) { return each.bound > kMaxEntry; }

// First the one that is furthest off for its bound.
void SortByExcess(std::vector<GradientError>& errors) {
  std::ranges::stable_sort(errors, std::greater(),
                           [](const GradientError& each) { return each.error / each.bound; });
}

absl::StatusOr<GradientComparison> Between(const EagerStep& step, const EagerStep& expected) {
  GradientComparison comparison(expected.gradients);
  for (const auto& [name, tensor] : step.gradients) {
    const auto found = expected.gradients.find(name);
    if (found == expected.gradients.end()) return Internal("no gradient of ", name, " in fp32");
    RETURN_IF_ERROR(comparison.Add(name, 0, tensor, found->second));
  }
  return comparison;
}

// Over all gradients, in parts of those of `expected`.
absl::StatusOr<double> NormBetween(const EagerStep& step, const EagerStep& expected) {
  ASSIGN_OR_RETURN(const GradientComparison comparison, Between(step, expected));
  return comparison.NormError();
}

}  // namespace

double BoundFor(double one_device_error) {
  return kRoundingFactor * one_device_error + kRoundingFloor;
}

void BoundByRounding(const std::vector<GradientError>& rounding,
                     std::vector<GradientError>& errors) {
  std::map<std::string, double, std::less<>> own;
  for (const GradientError& each : rounding) own[each.name] = each.error;
  for (GradientError& each : errors) {
    each.bound = std::max(kEntryFloor, kEntryFactor * own[each.name]);
  }
  SortByExcess(errors);
}

NumberComparison CompareNumbers(const std::vector<double>& plan, const ExpectedNumber& expected,
                                double tolerance) {
  NumberComparison result{.one_device = expected.one_device,
                          .exported = expected.exported,
                          .exact = expected.exact,
                          .error = -1,
                          .bound = tolerance};
  if (expected.exact) {
    // A single number may be right by chance, so that the larger error counts; one that no rounding
    // explains does not.
    const double own = RelativeError(expected.one_device, *expected.exact);
    const double rounded =
        RelativeError(expected.rounded.value_or(*expected.exact), *expected.exact);
    result.bound =
        BoundFor(expected.rounded ? std::max(rounded, std::min(own, kMaxRounding)) : own);
  }
  const double truth = expected.exact.value_or(expected.exported.value_or(expected.one_device));
  const double added = expected.exact ? 0 : expected.added;
  result.scale = std::max(std::abs(truth), kFloorBits * kLastBit * added / tolerance);
  for (const double number : plan) {
    const double apart = std::abs(number - truth);
    const double error = apart == 0 ? 0 : apart / result.scale;
    // Not `error > result.error`: a NaN is the worst there is, and stays.
    if (std::isnan(result.error) || error <= result.error) continue;
    result.plan = number;
    result.error = error;
  }
  return result;
}

int64_t VerifierResult::num_within() const {
  return std::ranges::count_if(gradients, &GradientError::is_within);
}

int64_t VerifierResult::num_unsure() const { return std::ranges::count_if(gradients, &IsUnsure); }

bool VerifierResult::is_equal() const {
  if (!loss.is_within() || !grad_norm.is_within()) return false;
  if (has_rounded && !(rounded_error <= rounded_bound)) return false;
  if (has_exact && !(norm_error <= norm_bound)) return false;
  return num_within() == static_cast<int64_t>(gradients.size());
}

bool VerifierResult::shows_nothing() const {
  return !is_equal() && !(noise_of_gradients < kNothingLeft);
}

nlohmann::json VerifierResult::ToJson() const {
  nlohmann::json rows = nlohmann::json::array();
  for (const GradientError& each : gradients) {
    rows.push_back({{"name", each.name},
                    {"error", NumberToJson(each.error)},
                    {"scale", NumberToJson(each.scale)},
                    {"rank", each.rank},
                    {"bound", each.bound},
                    {"is_within", each.is_within()},
                    {"is_unsure", IsUnsure(each)}});
  }
  nlohmann::json json = {{"is_equal", is_equal()},
                         {"oracle", has_exported ? "exported" : "one_device"},
                         {"rule", has_exact ? "norm" : "entries"},
                         {"tolerance", tolerance},
                         {"loss", autosp::ToJson(loss)},
                         {"grad_norm", autosp::ToJson(grad_norm)},
                         {"num_within", num_within()},
                         {"num_unsure", num_unsure()},
                         {"gradients", std::move(rows)}};
  if (is_held_to_noise) json["noise_factor"] = kNoiseFactor;
  if (moves_values) json["moves_values"] = true;
  if (shows_nothing()) json["noise_of_gradients"] = NumberToJson(noise_of_gradients);
  if (has_rounded) {
    json["rounded"] = {{"error", NumberToJson(rounded_error)},
                       {"bound", NumberToJson(rounded_bound)},
                       {"is_within", rounded_error <= rounded_bound}};
  }
  if (has_exact) {
    json["norm"] = {{"error", NumberToJson(norm_error)},
                    {"bound", NumberToJson(norm_bound)},
                    {"is_within", norm_error <= norm_bound}};
  }
  return json;
}

absl::Status Verifier::Load(const Program& one_device) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(options_.job_path, kMaxConfigBytes));
  ASSIGN_OR_RETURN(job_, ParseJobYaml(text, options_.job_path));
  ASSIGN_OR_RETURN(
      std::unique_ptr<WeightFiles> files,
      WeightFiles::Open(
          job_.model, options_.random_weights ? MissingWeights::kLeave : MissingWeights::kRefuse));
  weights_ = std::move(files);
  if (options_.random_weights) {
    weights_ = std::make_unique<RandomWeights>(one_device, std::move(weights_),
                                               static_cast<uint64_t>(job_.training.seed));
  }
  ASSIGN_OR_RETURN(make_feeder_,
                   options_.batch_path.empty() ? FeedData(job_) : FeedBatch(options_.batch_path));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<StepRun>> Verifier::RunProgram(const Program& program,
                                                              const char* what,
                                                              WeightSource& weights,
                                                              TorchGpu* gpu) const {
  progress_(absl::StrCat("one step of ", what, " on ", program.mesh.world_size(),
                         program.mesh.world_size() == 1 ? " virtual rank" : " virtual ranks",
                         gpu == nullptr ? "" : absl::StrCat(" of ", gpu->Describe())));
  ASSIGN_OR_RETURN(std::unique_ptr<StepRun> run,
                   StepRun::Run(program, job_, weights, make_feeder_, gpu), what);
  return run;
}

absl::StatusOr<EagerStep> Verifier::RunOneDevice(const Program& program, const char* what,
                                                 WeightSource& weights) const {
  ASSIGN_OR_RETURN(const std::unique_ptr<StepRun> run, RunProgram(program, what, weights));
  EagerStep result{.loss = run->losses()[0], .grad_norm = run->grad_norms()[0]};
  ASSIGN_OR_RETURN(result.gradients, run->Gradients());
  return result;
}

absl::StatusOr<EagerStep> Verifier::RunExported(const Graph& graph, EagerTypes types,
                                                WeightSource& weights, EagerMoves moves) const {
  progress_(absl::StrCat("one step of the model as exported",
                         types == EagerTypes::kExact ? "" : ", rounded to half precision"));
  ASSIGN_OR_RETURN(const std::unique_ptr<Feeder> feeder, make_feeder_(0));
  ASSIGN_OR_RETURN(const NamedTensors inputs, FeedWhole(graph, job_.model, *feeder));
  ASSIGN_OR_RETURN(EagerStep step,
                   RunEagerly(graph, job_.model, weights, inputs,
                              {.types = types,
                               .seed = job_.training.seed,
                               .moved_gradients = moves.gradients,
                               .moved_values = moves.values}),
                   "the model as exported");
  // What the loss does not need has no gradient; zeros, if a plan has one.
  for (const GraphInput& input : graph.inputs) {
    if (!trained_.contains(input.name) || step.gradients.contains(input.name)) continue;
    std::vector<int64_t> sizes;
    for (const SymInt& size : graph.type(input.value).sizes) sizes.push_back(size.value);
    step.gradients[input.name] = at::zeros(sizes);
  }
  // What only the type or the sizes are read of is in no plan.
  for (const std::string& name : step.without_gradient) {
    if (!trained_.contains(name)) step.gradients.erase(name);
  }
  return step;
}

absl::StatusOr<Verifier::Truth> Verifier::RunTruth(const Program& one_device, const Program& plan,
                                                   const std::optional<Graph>& exported) const {
  Truth truth;
  if (exported) {
    ASSIGN_OR_RETURN(truth.exported, RunExported(*exported, EagerTypes::kExact, *weights_));
    truth.rounding = RoundingOf(*exported, plan, job_.precision.params);
    if (truth.rounding) {
      truth.exact = truth.exported;
      ASSIGN_OR_RETURN(truth.rounded, RunExported(*exported, *truth.rounding, *weights_));
    }
  }
  ASSIGN_OR_RETURN(truth.one_device, RunOneDevice(one_device, "the one-device program", *weights_));
  if (exported || options_.exact_path.empty()) return truth;
  ASSIGN_OR_RETURN(const Program program, LoadProgram(options_.exact_path));
  ASSIGN_OR_RETURN(truth.exact, RunOneDevice(program, "the one-device program in fp32", *weights_));
  return truth;
}

absl::Status Verifier::Compare(const StepRun& plan, const Truth& truth,
                               VerifierResult& result) const {
  GradientComparison comparison(truth.best().gradients);
  RETURN_IF_ERROR(plan.CompareWith(truth.best().gradients, comparison));
  result.gradients = comparison.Errors();
  for (GradientError& each : result.gradients) each.bound = options_.tolerance;
  result.norm_error = comparison.NormError();
  if (truth.exact) {
    ASSIGN_OR_RETURN(const GradientComparison rounding,
                     Between(truth.rounded ? *truth.rounded : truth.one_device, *truth.exact));
    result.norm_bound = BoundFor(rounding.NormError());
    BoundByRounding(rounding.Errors(), result.gradients);
  }
  const auto numbers = [&](double EagerStep::*number) {
    ExpectedNumber expected{.one_device = truth.one_device.*number};
    if (truth.exported) expected.exported = (*truth.exported).*number;
    if (truth.exact) expected.exact = (*truth.exact).*number;
    if (truth.rounded) expected.rounded = (*truth.rounded).*number;
    return expected;
  };
  ExpectedNumber loss = numbers(&EagerStep::loss);
  loss.added = truth.best().added;
  result.loss = CompareNumbers(plan.losses(), loss, options_.tolerance);
  result.grad_norm =
      CompareNumbers(plan.grad_norms(), numbers(&EagerStep::grad_norm), options_.tolerance);
  return absl::OkStatus();
}

// A plan that leaves a rounding out is nearer to the exact numbers than the model is, but not to
// the model.
absl::Status Verifier::CompareRounded(const StepRun& plan, const Graph& graph, const Truth& truth,
                                      VerifierResult& result) const {
  if (!truth.rounded || job_.precision.params != ParamPrecision::kAsExported ||
      MultipliesInHalf(graph)) {
    return absl::OkStatus();
  }
  result.has_rounded = true;
  const auto error_to = [&plan](const EagerStep& step) -> absl::StatusOr<double> {
    GradientComparison comparison(step.gradients);
    RETURN_IF_ERROR(plan.CompareWith(step.gradients, comparison));
    return comparison.NormError();
  };
  ASSIGN_OR_RETURN(result.rounded_error, error_to(*truth.rounded));
  ASSIGN_OR_RETURN(const double rounding, NormBetween(*truth.exact, *truth.rounded));
  result.rounded_bound = std::max(options_.tolerance, kTippedPart * rounding);
  if (result.rounded_error <= result.rounded_bound) return absl::OkStatus();
  // Derivatives read rounded results where kernels compute in half precision, unrounded ones here.
  ASSIGN_OR_RETURN(const EagerStep declared, RunExported(graph, EagerTypes::kDeclared, *weights_));
  ASSIGN_OR_RETURN(const double kernel_error, error_to(declared));
  result.rounded_error = std::min(result.rounded_error, kernel_error);
  if (result.rounded_error <= result.rounded_bound) return absl::OkStatus();
  progress_("more than a rounding tips; three steps with weights moved by their last bit");
  const StepOfWeights run = [&](WeightSource& weights) {
    return RunExported(graph, EagerTypes::kRounded, weights);
  };
  ASSIGN_OR_RETURN(const RoundingNoise noise, MeasureRoundingNoise(*weights_, *truth.rounded, run));
  result.rounded_bound = std::max(result.rounded_bound, kTippedFactor * noise.norm);
  return absl::OkStatus();
}

// Where a rounding decides (which expert a token goes to, say), one run that rounds does not show
// what others may: those with weights moved by the last bit of bf16 do.
absl::Status Verifier::WidenByNoise(const Graph& graph, const Truth& truth,
                                    VerifierResult& result) const {
  progress_("more than one rounding explains; three steps with weights moved by their last bit");
  const StepOfWeights run = [&](WeightSource& weights) {
    return RunExported(graph, *truth.rounding, weights);
  };
  ASSIGN_OR_RETURN(const RoundingNoise noise,
                   MeasureRoundingNoise(*weights_, *truth.rounded, run, kLastBitOfBf16));
  for (GradientError& each : result.gradients) {
    const auto found = noise.gradients.find(each.name);
    const double own = found == noise.gradients.end() ? 0 : found->second;
    each.bound = std::max(each.bound, std::min(kMaxEntry, kEntryFactor * own));
  }
  SortByExcess(result.gradients);
  result.norm_bound = std::max(result.norm_bound, std::min(kMaxNorm, kRoundingFactor * noise.norm));
  return absl::OkStatus();
}

// By what the plan is held against, first with other weights. What only inputs are made of (the
// advantages of sequences) these do not move, however it is rounded.
absl::Status Verifier::HoldToRounding(const std::optional<Graph>& graph, const Program& one_device,
                                      const Truth& truth, VerifierResult& result) const {
  progress_("more than rounding should leave; three steps, moved by the last bit");
  const StepOfWeights run = [&, seed = uint64_t{0}](WeightSource& weights) mutable {
    return graph ? RunExported(*graph, EagerTypes::kExact, weights, {.gradients = seed++})
                 : RunOneDevice(one_device, "the one-device program", weights);
  };
  RETURN_IF_ERROR(HoldToNoise(truth.best(), run, result));
  if (!graph || result.is_equal()) return absl::OkStatus();
  progress_("more still; three steps with each result moved too");
  const StepOfWeights run_moved = [&, seed = uint64_t{0}](WeightSource& weights) mutable {
    const EagerMoves moves = {.gradients = seed, .values = seed};
    ++seed;
    return RunExported(*graph, EagerTypes::kExact, weights, moves);
  };
  result.moves_values = true;
  return HoldToNoise(truth.best(), run_moved, result);
}

absl::Status Verifier::HoldToNoise(const EagerStep& truth, const StepOfWeights& run,
                                   VerifierResult& result) const {
  ASSIGN_OR_RETURN(const RoundingNoise noise, MeasureRoundingNoise(*weights_, truth, run));
  const auto bound = [this](double of) { return NoiseBound(of, options_.tolerance); };
  result.loss.bound =
      std::max(result.loss.bound, LossNoiseBound(noise.loss_apart, truth) / result.loss.scale);
  result.grad_norm.bound = std::max(result.grad_norm.bound, bound(noise.grad_norm));
  for (GradientError& each : result.gradients) {
    const auto found = noise.gradients.find(each.name);
    if (found != noise.gradients.end()) each.bound = std::max(each.bound, bound(found->second));
  }
  SortByExcess(result.gradients);
  // Where the loss is no more than rounding leaves, however little that is, a plan is not wrong
  // yet.
  const double loss_apart = std::abs(result.loss.plan - truth.loss);
  const bool is_noise = result.loss.is_within() || loss_apart <= kNoiseFactor * noise.loss_apart;
  if (is_noise && std::isfinite(truth.grad_norm)) {
    result.noise_of_gradients = std::max(result.noise_of_gradients, noise.norm);
  }
  result.is_held_to_noise = true;
  return absl::OkStatus();
}

absl::Status Verifier::WriteGradients(
    const std::vector<std::pair<std::string, const NamedTensors*>>& sets) {
  std::map<std::string, at::Tensor> tensors;
  std::vector<TensorSpec> specs;
  for (const auto& [set, gradients] : sets) {
    for (const auto& [name, tensor] : *gradients) {
      const std::string full = absl::StrCat(set, ".", name);
      tensors[full] = tensor;
      specs.push_back({.name = full,
                       .dtype = DType::kF32,
                       .shape = {tensor.sizes().begin(), tensor.sizes().end()}});
    }
  }
  return WriteStateDict(options_.gradients_path, specs,
                        [&](const std::string& name) -> absl::StatusOr<at::Tensor> {
                          return tensors.at(name);
                        })
      .status();
}

absl::StatusOr<VerifierResult> Verifier::Run() {
  ASSIGN_OR_RETURN(const Program plan_program, LoadProgram(options_.plan_path));
  ASSIGN_OR_RETURN(const Program one_program, LoadProgram(options_.one_device_path));
  RETURN_IF_ERROR(Load(one_program));
  for (const std::string& name : StepRun::GradientNames(plan_program)) trained_.insert(name);
  std::unique_ptr<TorchGpu> gpu;
  if (options_.device != "cpu") {
    ASSIGN_OR_RETURN(const int index, ParseCudaDevice(options_.device));
    ASSIGN_OR_RETURN(gpu, TorchGpu::Open(index, /*budget_bytes=*/0));
  }

  std::optional<Graph> graph;
  if (!options_.exported_path.empty()) {
    ASSIGN_OR_RETURN(const std::string text, ReadFile(options_.exported_path, kMaxProgramBytes));
    ASSIGN_OR_RETURN(graph, ParseGraph(text), "graph ", options_.exported_path);
  }
  ASSIGN_OR_RETURN(const Truth truth, RunTruth(one_program, plan_program, graph));
  ASSIGN_OR_RETURN(const std::unique_ptr<StepRun> plan,
                   RunProgram(plan_program, "the plan", *weights_, gpu.get()));

  VerifierResult result{.has_exported = truth.exported.has_value(),
                        .has_exact = truth.exact.has_value(),
                        .tolerance = options_.tolerance};
  RETURN_IF_ERROR(Compare(*plan, truth, result));
  if (graph) RETURN_IF_ERROR(CompareRounded(*plan, *graph, truth, result));
  const bool is_off = result.num_within() < static_cast<int64_t>(result.gradients.size()) ||
                      result.norm_error > result.norm_bound;
  if (truth.rounded && is_off) {
    RETURN_IF_ERROR(WidenByNoise(*graph, truth, result));
  }
  // Norms lie no further apart than the gradients do.
  if (truth.exact && result.norm_error <= result.norm_bound) {
    result.grad_norm.bound = std::max(result.grad_norm.bound, result.norm_error);
  }
  if (!truth.exact && !result.is_equal()) {
    RETURN_IF_ERROR(HoldToRounding(graph, one_program, truth, result));
  }
  if (options_.gradients_path.empty()) return result;
  ASSIGN_OR_RETURN(const NamedTensors plan_gradients, plan->Gradients());
  std::vector<std::pair<std::string, const NamedTensors*>> sets = {
      {"plan", &plan_gradients}, {"one_device", &truth.one_device.gradients}};
  if (truth.exported) sets.emplace_back("exported", &truth.exported->gradients);
  if (truth.rounded) sets.emplace_back("rounded", &truth.rounded->gradients);
  if (truth.exact && !truth.exported) sets.emplace_back("exact", &truth.exact->gradients);
  RETURN_IF_ERROR(WriteGradients(sets));
  return result;
}

}  // namespace autosp
