#include "absl/cleanup/cleanup.h"
#include "client/commands/command.h"
#include "client/format.h"
#include "client/local_servers.h"
#include "client/run_interrupts.h"
#include "client/submission.h"
#include "client/watch.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

struct RunArgs {
  std::string job_path;
  std::vector<std::string> overrides;
  int64_t every_steps = 0;
  int num_devices = 0;
};

absl::Status ShowPlan(CoordinatorClient& client, const std::string& job_id,
                      const CommandContext& context) {
  if (context.is_json()) return absl::OkStatus();  // The job at the end has it.
  const absl::StatusOr<v1::Plan> plan = client.GetPlan(job_id, /*include_program_text=*/false);
  if (!plan.ok()) return plan.status();
  context.out() << Printable(plan->summary_text()) << "\n" << std::flush;
  return absl::OkStatus();
}

absl::StatusOr<v1::Job> WatchRun(CoordinatorClient& client, const std::string& job_id,
                                 const RunArgs& args, CommandContext& context) {
  RETURN_IF_ERROR(ShowPlan(client, job_id, context));
  const WatchOptions options{.is_json = context.is_json(),
                             .is_terminal = context.environment.is_terminal,
                             .every_steps = args.every_steps};
  return WatchToEnd(client, job_id, options, context.out());
}

void RunJob(const LoadedJob& loaded, const v1::SubmitJobRequest& request, const RunArgs& args,
            const std::string& address, RunInterrupts& interrupts, CommandContext& context) {
  CoordinatorClient client(address);
  const absl::Cleanup end = [&interrupts] { interrupts.EndJob(); };
  interrupts.BeginSubmission(&client);
  const absl::StatusOr<v1::SubmitJobResponse> submitted = client.SubmitJob(request);
  if (!submitted.ok()) return context.FailServer(Located(submitted.status(), loaded));
  const std::string job_id = submitted->job().job_id();
  interrupts.BeginJob(address, job_id);
  const absl::StatusOr<v1::Job> job = WatchRun(client, job_id, args, context);
  if (!job.ok()) return context.FailServer(job.status());
  context.exit_code = ExitCodeOf(*job);
}

void Run(const RunArgs& args, CommandContext& context) {
  const absl::StatusOr<LoadedJob> job = LoadJob(args.job_path, args.overrides);
  if (!job.ok()) return context.FailInput(job.status());
  const absl::StatusOr<v1::SubmitJobRequest> request = MakeSubmission(*job);
  if (!request.ok()) return context.FailInput(request.status());

  // Outlives the servers: an interrupt must not end this process before it has stopped them.
  RunInterrupts interrupts;
  {
    const auto servers = LocalServers::Start(
        {.program_folder = context.environment.program_folder,
         .num_devices = args.num_devices,
         .is_interrupted = [&interrupts] { return interrupts.is_interrupted(); }});
    if (servers.ok()) {
      RunJob(*job, *request, args, (*servers)->address(), interrupts, context);
    } else if (!interrupts.is_interrupted()) {
      context.Fail(servers.status(), ExitCode::kFailed);
    }
  }
  if (interrupts.is_interrupted()) context.exit_code = ExitCode::kInterrupted;
}

}  // namespace

void AddRunCommand(CLI::App& app, CommandContext& context) {
  auto args = std::make_shared<RunArgs>();
  CLI::App* command = app.add_subcommand(
      "run", "Run a job on this machine: starts a coordinator and an agent, and stops them again");
  command->add_option("JOB", args->job_path, "Job file, see docs/job-file.md")->required();
  AddSetOption(*command, args->overrides);
  command
      ->add_option("--every", args->every_steps,
                   "Steps per line where the output is no terminal; 0: about twenty lines")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
  command
      ->add_option("--devices", args->num_devices,
                   "Ranks that this machine takes; without it, one per core")
      ->check(CLI::Range(1, 256));
  command->callback([args, &context] { Run(*args, context); });
}

}  // namespace autosp
