#include "client/commands/command.h"
#include "client/interrupts.h"

namespace autosp {
namespace {

constexpr int kChosenRank = -1;

struct LogsArgs {
  std::string job_id;
  int rank = kChosenRank;
  int64_t generation = 0;
  int64_t tail_lines = 0;
  bool follow = false;
};

// The rank that failed, where one did; else rank 0.
absl::StatusOr<int> ChooseRank(CoordinatorClient& client, const LogsArgs& args) {
  if (args.rank != kChosenRank) return args.rank;
  const absl::StatusOr<v1::Job> job = client.GetJob(args.job_id);
  if (!job.ok()) return job.status();
  return job->has_cause() && job->cause().rank() >= 0 ? job->cause().rank() : 0;
}

void Logs(const LogsArgs& args, CommandContext& context) {
  CoordinatorClient client(context.server);
  const absl::StatusOr<int> rank = ChooseRank(client, args);
  if (!rank.ok()) return context.FailServer(rank.status());
  v1::GetLogsRequest request;
  request.set_job_id(args.job_id);
  request.set_rank(*rank);
  request.set_generation(args.generation);
  request.set_tail_lines(args.tail_lines);
  request.set_follow(args.follow);
  const Interrupts interrupts([&client](int) { client.CancelCalls(); });
  const absl::Status status = client.GetLogs(request, [&](absl::string_view data) {
    context.out() << data << std::flush;
    if (!context.out()) client.CancelCalls();
  });
  // Of output that cannot be written RunCli says what it is worth.
  if (context.out() && !status.ok()) context.FailServer(status);
}

}  // namespace

void AddLogsCommand(CLI::App& app, CommandContext& context) {
  auto args = std::make_shared<LogsArgs>();
  CLI::App* command = app.add_subcommand("logs", "Print what a rank wrote");
  command->add_option("ID", args->job_id, "Job id, as in list")->required();
  command->add_option("--rank", args->rank, "Without it, the rank that failed, else rank 0")
      ->check(CLI::Range(0, 1 << 20));
  command->add_option("--attempt", args->generation, "Without it, the last one")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  command->add_option("--tail", args->tail_lines, "Only the last lines")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  command->add_flag("--follow", args->follow, "Go on while the job runs");
  command->callback([args, &context] { Logs(*args, context); });
}

}  // namespace autosp
