#include "client/job_text.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/format.h"
#include "client/text_table.h"
#include "common/bytes.h"

namespace autosp {
namespace {

using Align = TextTable::Align;

constexpr size_t kMaxReasonChars = 60;
constexpr int kLabelChars = 14;

// "  label         value\n"; nothing where there is no value.
void AddField(std::string& page, absl::string_view label, absl::string_view value) {
  if (value.empty()) return;
  absl::StrAppendFormat(&page, "  %-*s%s\n", kLabelChars, label, value);
}

std::string Shorten(const std::string& text) {
  if (text.size() <= kMaxReasonChars) return text;
  return absl::StrCat(text.substr(0, kMaxReasonChars), "...");
}

std::string StepsOf(const v1::Job& job) {
  return absl::StrCat(job.progress().last_step(), "/", job.progress().num_steps());
}

std::string ReasonOf(const v1::Job& job) {
  if (job.state() == v1::JOB_STATE_QUEUED && job.has_pending()) return job.pending().message();
  return job.reason();
}

// How long a job has run, or ran.
absl::Duration RunTime(const v1::Job& job, absl::Time now) {
  if (!job.has_start_time()) return absl::ZeroDuration();
  const absl::Time end = job.has_end_time() ? ToTime(job.end_time()) : now;
  return end - ToTime(job.start_time());
}

std::string MeshText(const v1::PlanSummary& plan) {
  std::vector<std::string> axes;
  const auto add = [&axes](absl::string_view name, int64_t size) {
    if (size > 1) axes.push_back(absl::StrCat(name, " ", size));
  };
  add("dp", plan.mesh().dp_size());
  add("ulysses", plan.mesh().ulysses_size());
  add("ring", plan.mesh().ring_size());
  return axes.empty() ? "" : absl::StrCat(" (", absl::StrJoin(axes, " x "), ")");
}

// "device: predicted 512 MiB, measured 508 MiB (0.8 % below)", one line per account.
std::vector<std::string> MemoryLines(const v1::Job& job) {
  const auto& predicted = job.plan().predicted_peak_bytes();
  const auto& measured = job.progress().peak_bytes();
  std::map<std::string, std::pair<int64_t, int64_t>> accounts;
  for (const auto& [account, bytes] : predicted) accounts[account].first = bytes;
  for (const auto& [account, bytes] : measured) accounts[account].second = bytes;
  std::vector<std::string> lines;
  for (const auto& [account, bytes] : accounts) {
    if (bytes.first == 0 && bytes.second == 0) continue;
    std::string line = absl::StrCat(account, ": predicted ", FormatBytes(bytes.first),
                                    ", measured ", FormatBytes(bytes.second));
    if (measured.empty()) line = absl::StrCat(account, ": predicted ", FormatBytes(bytes.first));
    if (bytes.first > 0 && bytes.second > 0) {
      const double change =
          100.0 * (static_cast<double>(bytes.second) / static_cast<double>(bytes.first) - 1.0);
      absl::StrAppendFormat(&line, " (%+.1f %%)", change);
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

void AddMemory(std::string& page, const v1::Job& job) {
  const char* label = "peak per rank";
  for (const std::string& line : MemoryLines(job)) {
    AddField(page, label, line);
    label = "";
  }
}

// What a person wants to know when something was lost: how often, and how much would be done again.
void AddRecovery(std::string& page, const v1::Job& job) {
  const v1::JobProgress& progress = job.progress();
  const v1::JobRestarts& restarts = job.restarts();
  if (progress.checkpoint_step() > 0) {
    AddField(page, "checkpoint",
             absl::StrCat("step ", progress.checkpoint_step(), ", ", progress.checkpoint_path()));
  }
  if (progress.checkpoints_failed() > 0) {
    AddField(page, "not written",
             absl::StrCat(progress.checkpoints_failed(), progress.checkpoints_failed() == 1
                                                             ? " checkpoint since then"
                                                             : " checkpoints since then"));
  }
  if (restarts.total() == 0) return;
  AddField(page, "restarts",
           absl::StrCat(restarts.used(), " of ", restarts.max(), " since the last progress, ",
                        restarts.total(), " in all; the last: ", restarts.last_reason()));
}

std::string VerificationText(const v1::VerificationDone& verification) {
  const v1::VerificationResult& result = verification.result();
  const std::string numbers =
      absl::StrFormat("; %s has error %.2g, at most %.2g is allowed; %.2g s", result.worst(),
                      result.error(), result.bound(), result.seconds());
  switch (verification.outcome()) {
    case v1::VerificationDone::OUTCOME_EQUAL:
      return absl::StrCat("the plan computes what the model does on one device", numbers);
    case v1::VerificationDone::OUTCOME_DIFFERS:
      return absl::StrCat("the plan DIFFERS from the model on one device", numbers);
    case v1::VerificationDone::OUTCOME_KNOWN:
      return absl::StrCat("the plan is that of job ", verification.known_from_job_id(),
                          ", which was verified");
    default:
      return "ended without a result";
  }
}

void AddOutputs(std::string& page, const v1::Job& job) {
  for (const v1::OutputFile& output : job.outputs()) {
    AddField(page, output.kind(),
             absl::StrCat(output.path(), " (", FormatBytes(output.size_bytes()), ")"));
  }
}

}  // namespace

std::string JobTable(const std::vector<v1::Job>& jobs, absl::Time now) {
  TextTable table({{"JOB"},
                   {"NAME"},
                   {"STATE"},
                   {"STEP", Align::kRight},
                   {"LOSS", Align::kRight},
                   {"RANKS", Align::kRight},
                   {"AGE", Align::kRight},
                   {"REASON"}});
  for (const v1::Job& job : jobs) {
    const bool has_loss = job.progress().last_step() > 0;
    table.AddRow({job.job_id(), job.name(), FormatState(job.state()), StepsOf(job),
                  has_loss ? FormatLoss(job.progress().last_loss()) : "-",
                  absl::StrCat(job.world_size()), FormatSpan(now - ToTime(job.create_time())),
                  Shorten(ReasonOf(job))});
  }
  return table.ToString();
}

std::string NodeTable(const std::vector<v1::Node>& nodes, absl::Time now) {
  TextTable table({{"NODE"},
                   {"STATE"},
                   {"KIND"},
                   {"DEVICES", Align::kRight},
                   {"FREE", Align::kRight},
                   {"MEMORY EACH", Align::kRight},
                   {"HEARTBEAT", Align::kRight},
                   {"ADDRESS"},
                   {"JOBS"}});
  for (const v1::Node& node : nodes) {
    std::vector<std::string> jobs;
    for (const v1::AttemptRef& attempt : node.attempts()) jobs.push_back(attempt.job_id());
    const bool has_heartbeat = node.has_last_heartbeat_time();
    table.AddRow({node.node_id(), FormatState(node.state()),
                  node.device_kind() == v1::DEVICE_KIND_CUDA ? "cuda" : "cpu",
                  absl::StrCat(node.num_devices()), absl::StrCat(node.num_devices_free()),
                  FormatBytes(node.device_memory_bytes()),
                  has_heartbeat
                      ? absl::StrCat(FormatSpan(now - ToTime(node.last_heartbeat_time())), " ago")
                      : "-",
                  node.agent_address(), absl::StrJoin(jobs, " ")});
  }
  return table.ToString();
}

std::string JobPage(const v1::Job& job, absl::Time now) {
  const v1::JobProgress& progress = job.progress();
  std::string page = absl::StrCat("job ", job.job_id(), " (", job.name(), ")\n");
  AddField(page, "state", FormatState(job.state()));
  AddField(page, "reason", ReasonOf(job));
  AddField(page, "created", absl::StrCat(FormatSpan(now - ToTime(job.create_time())), " ago"));
  if (job.has_start_time()) AddField(page, "run time", FormatSpan(RunTime(job, now)));
  AddField(page, "attempt", absl::StrCat(job.generation()));
  AddField(page, "ranks", absl::StrCat(job.world_size(), MeshText(job.plan())));
  AddField(page, "step", StepsOf(job));
  if (progress.last_step() > 0) {
    AddField(
        page, "loss",
        absl::StrCat(FormatLoss(progress.first_loss()), " to ", FormatLoss(progress.last_loss())));
    AddField(page, "throughput",
             absl::StrCat(FormatRate(progress.tokens_per_second()), " tokens/s"));
  }
  if (progress.has_last_validation_loss()) {
    AddField(page, "validation", FormatLoss(progress.last_validation_loss()));
  }
  if (job.has_verification()) AddField(page, "verification", VerificationText(job.verification()));
  AddRecovery(page, job);
  AddMemory(page, job);
  AddOutputs(page, job);
  AddField(page, "output", job.output_directory());
  absl::StrAppend(&page, CauseText(job));
  if (job.ranks().empty()) return page;
  TextTable table({{"RANK", Align::kRight},
                   {"NODE"},
                   {"DEVICE", Align::kRight},
                   {"STATE"},
                   {"STEP", Align::kRight},
                   {"PID", Align::kRight}});
  for (const v1::RankPlacement& rank : job.ranks()) {
    table.AddRow({absl::StrCat(rank.rank()), rank.node_id(), absl::StrCat(rank.device_index()),
                  FormatState(rank.state()), absl::StrCat(rank.last_step()),
                  absl::StrCat(rank.pid())});
  }
  return absl::StrCat(page, "\n", table.ToString());
}

std::string CheckpointLine(const v1::CheckpointReport& checkpoint) {
  const std::string why =
      checkpoint.message().empty() ? "" : absl::StrCat(": ", checkpoint.message());
  switch (checkpoint.event()) {
    case v1::CheckpointReport::EVENT_COMMITTED:
      return absl::StrFormat("checkpoint of step %d: %s in %.2g s", checkpoint.step(),
                             FormatBytes(checkpoint.size_bytes()), checkpoint.seconds());
    case v1::CheckpointReport::EVENT_NOT_WRITTEN:
      return absl::StrCat("checkpoint of step ", checkpoint.step(),
                          " was not written, training goes on", why);
    case v1::CheckpointReport::EVENT_SKIPPED:
      return absl::StrCat("skipped ", checkpoint.path(), why);
    default:
      break;
  }
  if (checkpoint.step() == 0) return absl::StrCat("begins at the first step", why);
  return absl::StrCat("resumed at step ", checkpoint.step() + 1, " from ", checkpoint.path(), why);
}

std::string VerificationLine(const v1::VerificationDone& verification) {
  return absl::StrCat("verification: ", VerificationText(verification));
}

std::string CauseText(const v1::Job& job) {
  if (!job.has_cause()) return "";
  const v1::FailureCause& cause = job.cause();
  std::string page;
  AddField(page, "cause", cause.message());
  AddField(page, "instruction", cause.instruction());
  if (!cause.log_lines().empty()) {
    absl::StrAppend(&page, "  last log lines",
                    cause.rank() >= 0 ? absl::StrCat(" of rank ", cause.rank()) : "", ":\n");
  }
  for (const std::string& line : cause.log_lines()) absl::StrAppend(&page, "    ", line, "\n");
  return page;
}

std::string ClosingSummary(const v1::Job& job, const ProgressTracker& tracker) {
  std::string page =
      absl::StrCat("job ", job.job_id(), " (", job.name(), ") ", FormatState(job.state()));
  if (tracker.last_step() > 0) absl::StrAppend(&page, " after step ", StepsOf(job));
  if (job.has_start_time() && job.has_end_time()) {
    absl::StrAppend(&page, ", ", FormatSpan(RunTime(job, absl::InfiniteFuture())));
  }
  absl::StrAppend(&page, "\n");
  if (tracker.last_step() > 0) {
    AddField(
        page, "loss",
        absl::StrCat(FormatLoss(tracker.first_loss()), " (step ", tracker.first_step(), ") to ",
                     FormatLoss(tracker.last_loss()), " (step ", tracker.last_step(), ")"));
  }
  if (tracker.validation_loss().has_value()) {
    AddField(page, "validation",
             absl::StrCat(FormatLoss(*tracker.validation_loss()), " (step ",
                          tracker.validation_step(), ")"));
  }
  if (tracker.last_step() > 0) {
    AddField(page, "throughput",
             absl::StrCat(FormatRate(tracker.mean_tokens_per_second()), " tokens/s over ",
                          job.world_size(), job.world_size() == 1 ? " rank, " : " ranks, ",
                          FormatCount(tracker.num_tokens()), " tokens"));
  }
  AddRecovery(page, job);
  AddMemory(page, job);
  AddOutputs(page, job);
  if (job.state() != v1::JOB_STATE_SUCCEEDED) {
    // Files of such a job are not listed; what it has written so far is there.
    if (tracker.last_step() > 0) AddField(page, "output", job.output_directory());
    if (!job.has_cause()) AddField(page, "reason", job.reason());
    absl::StrAppend(&page, CauseText(job));
  }
  return page;
}

}  // namespace autosp
