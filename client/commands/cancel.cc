#include "client/commands/command.h"
#include "client/format.h"
#include "client/message_json.h"

namespace autosp {
namespace {

struct CancelArgs {
  std::string job_id;
  std::string reason;
};

void Cancel(const CancelArgs& args, CommandContext& context) {
  CoordinatorClient client(context.server);
  const absl::StatusOr<v1::Job> job = client.CancelJob(args.job_id, args.reason);
  if (!job.ok()) return context.FailServer(job.status());
  if (context.is_json()) return PrintJson({{"job", MessageToJson(*job)}}, context.out());
  context.out() << "job " << job->job_id() << " is " << FormatState(job->state()) << "\n";
}

}  // namespace

void AddCancelCommand(CLI::App& app, CommandContext& context) {
  auto args = std::make_shared<CancelArgs>();
  CLI::App* command = app.add_subcommand("cancel", "Stop a job and free its devices");
  command->add_option("ID", args->job_id, "Job id, as in list")->required();
  command->add_option("--reason", args->reason, "For the history of the job");
  command->callback([args, &context] { Cancel(*args, context); });
}

}  // namespace autosp
