// autosp-verify: runs a plan on virtual ranks, and compares it with the model as exported or with
// the one-device program.
// Started by `autosp-cli verify`, and by agents with --spec.
//
// With --spec it is the only rank of an attempt: it reports to its agent and logs, as autosp-rank
// does; exit codes: 0 there is a result; 1 failed; 2 wrong spec. Without:
// On stdout one JSON object per line: {"progress": TEXT} and at the end {"result": ...} or
// {"error": {"code", "message"}}. Exit codes: 0 equal; 1 failed; 2 wrong flags; 6 different.

#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "CLI/CLI.hpp"
#include "common/log.h"
#include "common/process_setup.h"
#include "common/version.h"
#include "worker/rank/rank_threads.h"
#include "worker/verify/verifier.h"
#include "worker/verify/verify_rank.h"

namespace autosp {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr int kExitDifferent = 6;

void PrintLine(const nlohmann::json& json) {
  std::cout << json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << std::endl;
}

int Run(const VerifierOptions& options) {
  Verifier verifier(options, [](absl::string_view text) {
    PrintLine({{"progress", std::string(text)}});
  });
  const absl::StatusOr<VerifierResult> result = verifier.Run();
  if (!result.ok()) {
    PrintLine({{"error",
                {{"code", absl::StatusCodeToString(result.status().code())},
                 {"message", std::string(result.status().message())}}}});
    return kExitFailed;
  }
  PrintLine({{"result", result->ToJson()}});
  return result->is_equal() ? 0 : kExitDifferent;
}

}  // namespace
}  // namespace autosp

int main(int argc, char** argv) {
  autosp::EnsurePassiveWaiting(argv);
  autosp::RaiseOpenFilesLimit();
  std::string spec_path;
  autosp::VerifierOptions options;
  CLI::App app(
      "Compares a plan with the model on one device. Started by autosp-cli verify and by "
      "autosp-agent.");
  auto* spec = app.add_option("--spec", spec_path, "RankSpec of rank.proto, as JSON");
  app.add_option("--plan", options.plan_path, "Text of the plan's program")->excludes(spec);
  app.add_option("--one-device", options.one_device_path, "Text of the one-device program")
      ->excludes(spec);
  app.add_option("--exact", options.exact_path,
                 "Text of the one-device program in fp32, where the others are not");
  app.add_option("--exported", options.exported_path,
                 "Text of the graph as exported, to hold the plan against; without it, the "
                 "one-device program");
  app.add_option("--job", options.job_path, "Job file of the programs, paths absolute")
      ->excludes(spec);
  app.add_option("--batch", options.batch_path,
                 "Inputs as safetensors; without it, the job's data");
  app.add_option("--gradients", options.gradients_path, "Write all gradients to this safetensors");
  app.add_option("--tolerance", options.tolerance, "Of fp32 programs")->capture_default_str();
  app.add_option("--device", options.device,
                 "Where the plan runs: cpu, or a GPU that its virtual ranks share, as cuda:0")
      ->capture_default_str();
  app.add_flag("--random-weights", options.random_weights,
               "Weights by training.seed where the archive has none");
  app.set_version_flag("--version", autosp::kVersion);
  CLI11_PARSE(app, argc, argv);
  autosp::InitLogging("verify");
  if (!spec_path.empty()) return autosp::RunAsRank(spec_path);
  if (options.plan_path.empty() || options.one_device_path.empty() || options.job_path.empty()) {
    std::cerr << "autosp-verify: --plan, --one-device and --job are required, or --spec\n";
    return autosp::kExitUsage;
  }
  return autosp::Run(options);
}
