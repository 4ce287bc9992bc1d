#include "client/watch.h"

#include "client/commands/command.h"
#include "client/interrupts.h"

namespace autosp {
namespace {

struct WatchArgs {
  std::string job_id;
  int64_t every_steps = 0;
};

void Watch(const WatchArgs& args, CommandContext& context) {
  CoordinatorClient client(context.server);
  const Interrupts interrupts([&client](int) { client.CancelCalls(); });
  const WatchOptions options{.is_json = context.is_json(),
                             .is_terminal = context.environment.is_terminal,
                             .every_steps = args.every_steps,
                             .only_shows = true};
  const absl::StatusOr<v1::Job> job = WatchToEnd(client, args.job_id, options, context.out());
  if (!context.out()) {
    context.exit_code = ExitCode::kFailed;  // RunCli says why.
  } else if (!job.ok()) {
    context.FailServer(job.status());
  } else {
    context.exit_code = ExitCodeOf(*job);
  }
}

}  // namespace

void AddWatchCommand(CLI::App& app, CommandContext& context) {
  auto args = std::make_shared<WatchArgs>();
  CLI::App* command =
      app.add_subcommand("watch", "Follow a job to its end; Ctrl-C leaves it running");
  command->add_option("ID", args->job_id, "Job id, as in list")->required();
  command
      ->add_option("--every", args->every_steps,
                   "Steps per line where the output is no terminal; 0: about twenty lines")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
  command->callback([args, &context] { Watch(*args, context); });
}

}  // namespace autosp
