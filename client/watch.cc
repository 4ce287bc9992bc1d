#include "client/watch.h"

#include "absl/strings/str_cat.h"
#include "client/format.h"
#include "client/job_text.h"
#include "client/message_json.h"
#include "client/progress.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

std::string ToLine(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// "starting: 2 devices reserved on node-0".
std::string StateLine(const v1::StateChanged& change) {
  const std::string state = FormatState(change.to());
  return change.reason().empty() ? state : absl::StrCat(state, ": ", change.reason());
}

void ShowEvent(const v1::JobEvent& event, ProgressTracker& tracker, ProgressPrinter& printer) {
  switch (event.event_case()) {
    case v1::JobEvent::kStateChanged:
      printer.Print(Printable(StateLine(event.state_changed())));
      break;
    case v1::JobEvent::kReasonChanged:
      printer.Print(Printable(event.reason_changed().reason()));
      break;
    case v1::JobEvent::kStepFinished:
      tracker.Add(event.step_finished().report(), ToTime(event.time()));
      printer.Show(tracker);
      break;
    case v1::JobEvent::kCheckpoint:
      printer.Print(Printable(CheckpointLine(event.checkpoint())));
      break;
    case v1::JobEvent::kVerificationDone:
      printer.Print(Printable(VerificationLine(event.verification_done())));
      break;
    case v1::JobEvent::EVENT_NOT_SET:
      break;
  }
}

}  // namespace

absl::StatusOr<v1::Job> WatchToEnd(CoordinatorClient& client, const std::string& job_id,
                                   const WatchOptions& options, std::ostream& out) {
  ASSIGN_OR_RETURN(v1::Job job, client.GetJob(job_id));
  ProgressTracker tracker(job.progress().num_steps());
  ProgressPrinter printer(out, options.is_terminal, options.every_steps);
  const absl::Status status = client.WatchJob(job_id, [&](const v1::JobEvent& event) {
    if (options.is_json) {
      out << ToLine(MessageToJson(event)) << std::endl;
    } else {
      ShowEvent(event, tracker, printer);
    }
    if (options.only_shows && !out) client.CancelCalls();
  });
  printer.Finish();
  RETURN_IF_ERROR(status);
  ASSIGN_OR_RETURN(job, client.GetJob(job_id));
  if (options.is_json) {
    out << ToLine({{"job", MessageToJson(job)}}) << std::endl;
  } else {
    out << "\n" << Printable(ClosingSummary(job, tracker)) << std::flush;
  }
  return job;
}

ExitCode ExitCodeOf(const v1::Job& job) {
  switch (job.state()) {
    case v1::JOB_STATE_SUCCEEDED:
      return ExitCode::kOk;
    case v1::JOB_STATE_CANCELLED:
      return ExitCode::kCancelled;
    default:
      return ExitCode::kFailed;
  }
}

}  // namespace autosp
