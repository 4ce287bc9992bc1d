#include "client/commands/command.h"
#include "client/format.h"
#include "client/submission.h"
#include "common/file.h"

namespace autosp {
namespace {

struct PlanArgs {
  std::string job_path;
  std::string cluster_path;
  std::string program_path;
  std::vector<std::string> overrides;
};

void Plan(const PlanArgs& args, CommandContext& context) {
  const absl::StatusOr<LoadedJob> job = LoadJob(args.job_path, args.overrides);
  if (!job.ok()) return context.FailInput(job.status());
  const absl::StatusOr<ClusterSpec> cluster = LoadCluster(args.cluster_path);
  if (!cluster.ok()) return context.FailInput(cluster.status());
  const absl::StatusOr<CompiledPlan> plan = context.environment.compile(job->spec, *cluster);
  if (!plan.ok()) return context.FailInput(Located(plan.status(), *job));

  if (!args.program_path.empty()) {
    const absl::Status written = WriteFileAtomically(args.program_path, plan->program_text);
    if (!written.ok()) return context.FailInput(written);
  }
  if (context.is_json()) {
    return PrintJson({{"digest", plan->digest}, {"plan", plan->summary.ToJson()}}, context.out());
  }
  context.out() << Printable(plan->summary.ToText());
}

}  // namespace

void AddPlanCommand(CLI::App& app, CommandContext& context) {
  auto args = std::make_shared<PlanArgs>();
  CLI::App* command =
      app.add_subcommand("plan", "Check a job and show its plan; needs no coordinator");
  command->add_option("JOB", args->job_path, "Job file, see docs/job-file.md")->required();
  command->add_option("--cluster", args->cluster_path,
                      "Cluster file to plan for; without it, this machine");
  command->add_option("--program", args->program_path,
                      "Write the program that every rank would run to this file");
  AddSetOption(*command, args->overrides);
  command->callback([args, &context] { Plan(*args, context); });
}

}  // namespace autosp
