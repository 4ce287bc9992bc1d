#include "client/commands/command.h"
#include "client/format.h"
#include "client/message_json.h"
#include "client/submission.h"

namespace autosp {
namespace {

struct SubmitArgs {
  std::string job_path;
  std::vector<std::string> overrides;
};

void Submit(const SubmitArgs& args, CommandContext& context) {
  const absl::StatusOr<LoadedJob> job = LoadJob(args.job_path, args.overrides);
  if (!job.ok()) return context.FailInput(job.status());
  const absl::StatusOr<v1::SubmitJobRequest> request = MakeSubmission(*job);
  if (!request.ok()) return context.FailInput(request.status());

  CoordinatorClient client(context.server);
  const absl::StatusOr<v1::SubmitJobResponse> response = client.SubmitJob(*request);
  if (!response.ok()) return context.FailServer(Located(response.status(), *job));
  if (context.is_json()) return PrintJson({{"job", MessageToJson(response->job())}}, context.out());

  const v1::Job& submitted = response->job();
  for (const std::string& warning : submitted.plan().warnings()) {
    context.err() << "warning: " << Printable(warning) << "\n";
  }
  context.out() << "submitted job " << submitted.job_id() << " (" << Printable(submitted.name())
                << ")\n"
                << "  autosp-cli watch " << submitted.job_id() << "\n";
}

}  // namespace

void AddSubmitCommand(CLI::App& app, CommandContext& context) {
  auto args = std::make_shared<SubmitArgs>();
  CLI::App* command = app.add_subcommand("submit", "Submit a job to the coordinator");
  command->add_option("JOB", args->job_path, "Job file, see docs/job-file.md")->required();
  AddSetOption(*command, args->overrides);
  command->callback([args, &context] { Submit(*args, context); });
}

}  // namespace autosp
