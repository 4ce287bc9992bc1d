#include "absl/time/clock.h"
#include "client/commands/command.h"
#include "client/format.h"
#include "client/job_text.h"
#include "client/message_json.h"

namespace autosp {
namespace {

void Status(const std::string& job_id, CommandContext& context) {
  CoordinatorClient client(context.server);
  const absl::StatusOr<v1::Job> job = client.GetJob(job_id);
  if (!job.ok()) return context.FailServer(job.status());
  if (context.is_json()) return PrintJson({{"job", MessageToJson(*job)}}, context.out());
  context.out() << Printable(JobPage(*job, absl::Now()));
}

}  // namespace

void AddStatusCommand(CLI::App& app, CommandContext& context) {
  auto job_id = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("status", "Show everything about one job");
  command->add_option("ID", *job_id, "Job id, as in list")->required();
  command->callback([job_id, &context] { Status(*job_id, context); });
}

}  // namespace autosp
