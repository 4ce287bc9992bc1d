#include <algorithm>
#include <atomic>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/commands/command.h"
#include "client/format.h"
#include "client/interrupts.h"
#include "client/submission.h"
#include "client/temporary_folder.h"
#include "client/verify_inputs.h"
#include "client/verify_process.h"
#include "client/verify_report.h"
#include "common/bytes.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "compiler/config/glob.h"
#include "compiler/config/job_yaml.h"
#include "compiler/import/link_models.h"
#include "compiler/planner/verification.h"

namespace autosp {
namespace {

constexpr char kRandomData[] = "random tokens";
constexpr int64_t kMaxAxisSize = 1 << 10;

struct VerifyArgs {
  std::string job_path;
  std::string cluster_path;
  std::vector<std::string> overrides;
  std::string mesh;
  std::optional<int64_t> seq_len;
  std::optional<int64_t> batch_size;
  double tolerance = 1e-5;
  std::string device = "cpu";
  std::string batch_path;
  std::string gradients_path;
};

// "dp=2,ulysses=2"; axes that are not named are 1.
absl::StatusOr<Mesh> ParseMesh(const std::string& text) {
  Mesh mesh;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const std::vector<std::string> pair = absl::StrSplit(part, '=');
    int64_t size = 0;
    if (pair.size() != 2 || !absl::SimpleAtoi(pair[1], &size) || size < 1 || size > kMaxAxisSize) {
      return InvalidArgument("--mesh: ", part, " is no axis with a size from 1 to ", kMaxAxisSize,
                             "; write it as in dp=2,ulysses=2,ring=1");
    }
    if (pair[0] == "dp") {
      mesh.dp = size;
    } else if (pair[0] == "ulysses") {
      mesh.ulysses = size;
    } else if (pair[0] == "ring") {
      mesh.ring = size;
    } else {
      return InvalidArgument("--mesh: ", pair[0], " is no axis; there are dp, ulysses and ring");
    }
  }
  return mesh;
}

bool HasWeights(const ImportedModel& model, const JobSpec& job) {
  return !job.model.weights.empty() || std::ranges::none_of(model.weights, &WeightRef::is_empty);
}

// A job to verify, compiled.
struct Prepared {
  ImportedModel model;
  Verification verification;
  std::string data;  // where the batch comes from, for people
  bool has_weights = true;
};

int64_t MachineMemoryBytes() {
  const ClusterSpec machine = LocalCluster();
  return machine.num_devices() * machine.nodes.front().device_memory_bytes;
}

absl::StatusOr<VerificationRequest> RequestOf(const VerifyArgs& args, const ImportedModel& model,
                                              const JobSpec& job) {
  VerificationRequest request{.seq_len = args.seq_len,
                              .batch_size = args.batch_size,
                              .mesh = std::nullopt,
                              .memory_bytes = MachineMemoryBytes()};
  if (!args.mesh.empty()) {
    ASSIGN_OR_RETURN(request.mesh, ParseMesh(args.mesh));
  }
  if (args.batch_path.empty()) return request;
  ASSIGN_OR_RETURN(const BatchSizes sizes, SizesOfBatch(model.graph, job.data, args.batch_path),
                   "--batch");
  if (sizes.seq_len) request.seq_len = *sizes.seq_len;
  request.batch_size = sizes.batch_size;
  return request;
}

absl::Status CheckMemory(int64_t needed_bytes, const Mesh& mesh) {
  const int64_t memory_bytes = MachineMemoryBytes();
  if (needed_bytes <= memory_bytes) return absl::OkStatus();
  return ResourceExhausted("verify: the plan's ", mesh.world_size(),
                           " virtual ranks and the one-device program need ",
                           FormatBytes(needed_bytes), ", more than the ", FormatBytes(memory_bytes),
                           " of this machine; give a smaller --seq-len, --batch-size or --mesh, "
                           "or verify an export with fewer layers");
}

absl::StatusOr<Prepared> Prepare(const VerifyArgs& args, const LoadedJob& job,
                                 const TemporaryFolder& folder) {
  Prepared prepared;
  ASSIGN_OR_RETURN(prepared.model, ImportModel(job.spec.model.archives, job.spec.model.tied));
  ASSIGN_OR_RETURN(const ClusterSpec cluster, LoadCluster(args.cluster_path));
  ASSIGN_OR_RETURN(const VerificationRequest request, RequestOf(args, prepared.model, job.spec));
  ASSIGN_OR_RETURN(prepared.verification,
                   MakeVerification(prepared.model, job.spec, cluster, request));
  RETURN_IF_ERROR(CheckMemory(prepared.verification.needed_bytes, prepared.verification.mesh));
  prepared.has_weights = HasWeights(prepared.model, job.spec);
  if (!args.batch_path.empty()) {
    prepared.data = absl::StrCat("the inputs of ", args.batch_path);
  } else if (job.data_status.ok()) {
    prepared.data = "the first step of the job's data, at this length";
  } else {
    ASSIGN_OR_RETURN(const int64_t vocabulary, VocabularyOf(prepared.model.graph, job.spec.data));
    RETURN_IF_ERROR(UseRandomTokens(vocabulary, folder.Join("tokens"), prepared.verification.job));
    prepared.data = absl::StrCat(kRandomData, " below ", vocabulary, ", because of ",
                                 job.data_status.message());
  }
  return prepared;
}

// Hands everything over as files and runs the programs.
absl::StatusOr<nlohmann::json> RunPrograms(const VerifyArgs& args, const Prepared& prepared,
                                           const TemporaryFolder& folder,
                                           const std::atomic<bool>& is_interrupted,
                                           const CommandContext& context) {
  const Verification& verification = prepared.verification;
  VerifyProcessOptions options{
      .program = JoinPath(context.environment.program_folder, "autosp-verify"),
      .arguments = {"--tolerance", absl::StrCat(args.tolerance), "--device", args.device},
      .is_interrupted = [&is_interrupted] { return is_interrupted.load(); },
      .on_progress = [](absl::string_view) {}};
  // What is on its way is for people, and no part of the answer.
  if (context.environment.is_terminal && !context.is_json()) {
    options.on_progress = [&context](absl::string_view text) { context.err() << text << "\n"; };
  }
  const auto pass = [&](const char* flag, const std::string& text) -> absl::Status {
    const std::string path = folder.Join(absl::string_view(flag).substr(2));
    options.arguments.insert(options.arguments.end(), {flag, path});
    return WriteFileAtomically(path, text);
  };
  RETURN_IF_ERROR(pass("--plan", verification.plan));
  RETURN_IF_ERROR(pass("--one-device", verification.one_device));
  if (!verification.exact.empty()) RETURN_IF_ERROR(pass("--exact", verification.exact));
  if (!verification.exported.empty()) RETURN_IF_ERROR(pass("--exported", verification.exported));
  RETURN_IF_ERROR(pass("--job", CanonicalJobYaml(verification.job)));
  for (const auto& [flag, path] :
       {std::pair("--batch", args.batch_path), std::pair("--gradients", args.gradients_path)}) {
    if (!path.empty()) options.arguments.insert(options.arguments.end(), {flag, path});
  }
  if (!prepared.has_weights) options.arguments.emplace_back("--random-weights");
  return RunVerifyProcess(options);
}

// The other names of tied parameters.
void AddAliases(const Graph& graph, nlohmann::json& gradients) {
  for (nlohmann::json& row : gradients) {
    const auto input = std::ranges::find_if(
        graph.inputs, [&](const GraphInput& each) { return row["name"] == each.name; });
    row["aliases"] = input == graph.inputs.end() ? std::vector<std::string>() : input->aliases;
  }
}

// Parameters without a gradient in either program.
nlohmann::json NotCompared(const Prepared& prepared, const nlohmann::json& gradients) {
  nlohmann::json rows = nlohmann::json::array();
  for (const GraphInput& input : prepared.model.graph.inputs) {
    if (input.kind != InputKind::kParameter) continue;
    const bool is_compared = std::ranges::any_of(
        gradients, [&](const nlohmann::json& row) { return row["name"] == input.name; });
    if (is_compared) continue;
    const bool is_frozen =
        std::ranges::any_of(prepared.verification.job.model.frozen,
                            [&](const std::string& glob) { return GlobMatch(glob, input.name); });
    rows.push_back(
        {{"name", input.name}, {"why", is_frozen ? "frozen" : "the loss does not depend on it"}});
  }
  return rows;
}

void Report(const Prepared& prepared, nlohmann::json result, CommandContext& context) {
  const Verification& verification = prepared.verification;
  result["mesh"] = {{"dp", verification.mesh.dp},
                    {"ring", verification.mesh.ring},
                    {"ulysses", verification.mesh.ulysses},
                    {"accum", verification.mesh.accum}};
  result["job"] = {{"seq_len", verification.job.training.seq_len},
                   {"batch_size", verification.job.training.global_batch_size}};
  result["oracle_detail"] = verification.oracle;
  result["proof"] = verification.proof;
  result["warnings"] = verification.warnings;
  result["data"] = prepared.data;
  result["weights"] = prepared.has_weights
                          ? "of the job"
                          : absl::StrCat("random by training.seed ", verification.job.training.seed,
                                         "; the archive has none, and model.weights is not set");
  result["not_compared"] = NotCompared(prepared, result["gradients"]);
  AddAliases(prepared.model.graph, result["gradients"]);
  if (!result["is_equal"].get<bool>()) context.exit_code = ExitCode::kDiffers;
  if (context.is_json()) return PrintJson({{"verification", std::move(result)}}, context.out());
  context.out() << Printable(VerifyReportText(result));
}

void Verify(const VerifyArgs& args, CommandContext& context) {
  const absl::StatusOr<LoadedJob> job = LoadJobForVerify(args.job_path, args.overrides);
  if (!job.ok()) return context.FailInput(job.status());
  const absl::StatusOr<TemporaryFolder> folder = TemporaryFolder::Create("verify");
  if (!folder.ok()) return context.Fail(folder.status(), ExitCode::kFailed);

  // An interrupt must not end this process before the folder and the child are gone.
  std::atomic<bool> is_interrupted = false;
  const Interrupts interrupts([&is_interrupted](int /*count*/) { is_interrupted = true; });
  const absl::StatusOr<Prepared> prepared = Prepare(args, *job, *folder);
  if (!prepared.ok()) return context.FailInput(Located(prepared.status(), *job));
  absl::StatusOr<nlohmann::json> result =
      RunPrograms(args, *prepared, *folder, is_interrupted, context);
  if (is_interrupted) {
    context.exit_code = ExitCode::kInterrupted;
  } else if (!result.ok()) {
    context.Fail(result.status(), ExitCodeOf(result.status()));
  } else {
    Report(*prepared, *std::move(result), context);
  }
}

}  // namespace

void AddVerifyCommand(CLI::App& app, CommandContext& context) {
  auto args = std::make_shared<VerifyArgs>();
  CLI::App* command = app.add_subcommand(
      "verify", "Run one small step of a job's plan and of its model as exported, and compare");
  command->add_option("JOB", args->job_path, "Job file, see docs/job-file.md")->required();
  command->add_option("--cluster", args->cluster_path,
                      "Cluster file to plan for; without it, this machine");
  command->add_option("--mesh", args->mesh,
                      "dp=N,ulysses=N,ring=N: instead of the mesh of the plan; 1 where not given");
  auto* seq_len = command->add_option("--seq-len", args->seq_len, "Tokens; without it, few")
                      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  auto* batch_size = command
                         ->add_option("--batch-size", args->batch_size,
                                      "Sequences; without it, few for each dp rank")
                         ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  command
      ->add_option("--tolerance", args->tolerance,
                   "Error of loss and gradients that still is equal, where all is in fp32")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      ->add_option("--device", args->device,
                   "Where the plan runs: cpu, or a GPU of this machine that its virtual ranks "
                   "share, as cuda:0. The one-device program runs on the CPU all the same")
      ->capture_default_str();
  command
      ->add_option("--batch", args->batch_path,
                   "Inputs from this safetensors file, by their names; without it, the job's data")
      ->excludes(seq_len)
      ->excludes(batch_size);
  command->add_option("--gradients", args->gradients_path,
                      "Write all gradients to this safetensors file: plan.NAME, one_device.NAME, "
                      "exported.NAME");
  AddSetOption(*command, args->overrides);
  command->callback([args, &context] { Verify(*args, context); });
}

}  // namespace autosp
