#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "client/commands/command.h"
#include "client/format.h"
#include "client/job_text.h"
#include "client/message_json.h"
#include "common/errors.h"

namespace autosp {
namespace {

struct ListArgs {
  std::vector<std::string> states;
  int limit = 50;
};

void List(const ListArgs& args, CommandContext& context) {
  std::vector<v1::JobState> states;
  for (const std::string& word : args.states) states.push_back(ParseJobState(word));

  CoordinatorClient client(context.server);
  const auto jobs = client.ListJobs(states, args.limit);
  if (!jobs.ok()) return context.FailServer(jobs.status());
  if (!context.is_json()) {
    context.out() << Printable(JobTable(*jobs, absl::Now()));
    return;
  }
  nlohmann::json list = nlohmann::json::array();
  for (const v1::Job& job : *jobs) list.push_back(MessageToJson(job));
  PrintJson({{"jobs", list}}, context.out());
}

// An error for a word that is no state, for CLI11.
std::string CheckState(const std::string& word) {
  if (ParseJobState(word) != v1::JOB_STATE_UNSPECIFIED) return "";
  std::vector<std::string> words;
  for (int i = v1::JOB_STATE_UNSPECIFIED + 1; i <= v1::JobState_MAX; ++i) {
    if (v1::JobState_IsValid(i)) words.push_back(FormatState(static_cast<v1::JobState>(i)));
  }
  return absl::StrCat(word, " is no state; states are ", absl::StrJoin(words, ", "));
}

}  // namespace

void AddListCommand(CLI::App& app, CommandContext& context) {
  auto args = std::make_shared<ListArgs>();
  CLI::App* command = app.add_subcommand("list", "List jobs, newest first");
  command->add_option("--state", args->states, "Only jobs in this state; may be repeated")
      ->check(CheckState)
      ->type_name("STATE");
  command->add_option("--limit", args->limit, "At most so many jobs")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  command->callback([args, &context] { List(*args, context); });
}

}  // namespace autosp
