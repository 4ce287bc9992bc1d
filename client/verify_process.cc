#include "client/verify_process.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "common/subprocess.h"

namespace autosp {
namespace {

constexpr int kPollMs = 50;
constexpr absl::Duration kStopGrace = absl::Seconds(2);
constexpr size_t kShownLogBytes = 4000;
constexpr size_t kReadBytes = 1 << 16;

// Takes the output apart: events are lines of JSON, all else is log.
class Events {
 public:
  explicit Events(const VerifyProcessOptions& options) : options_(options) {}

  void Add(absl::string_view bytes) {
    absl::StrAppend(&rest_, bytes);
    size_t begin = 0;
    for (size_t end = 0; (end = rest_.find('\n', begin)) != std::string::npos; begin = end + 1) {
      OnLine(absl::string_view(rest_).substr(begin, end - begin));
    }
    rest_.erase(0, begin);
  }

  // What the process has said, once it has ended in this way.
  absl::StatusOr<nlohmann::json> Result(const ExitState& exit) const {
    if (result_) return *result_;
    if (error_) {
      return absl::Status(CodeOf(error_->value("code", "")), error_->value("message", ""));
    }
    const std::string log = log_ + rest_;
    return Internal(
        "autosp-verify ", exit.ToString(), exit.was_signaled ? " (is the memory exhausted?)" : "",
        "; its output ends with\n", log.substr(log.size() - std::min(log.size(), kShownLogBytes)));
  }

 private:
  // Those whose exit code is not that of any other failure.
  static absl::StatusCode CodeOf(const std::string& name) {
    for (const absl::StatusCode code :
         {absl::StatusCode::kInvalidArgument, absl::StatusCode::kNotFound,
          absl::StatusCode::kFailedPrecondition, absl::StatusCode::kResourceExhausted}) {
      if (absl::StatusCodeToString(code) == name) return code;
    }
    return absl::StatusCode::kInternal;
  }

  void OnLine(absl::string_view line) {
    const auto event = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (event.is_object() && event.contains("progress")) {
      options_.on_progress(event["progress"].get<std::string>());
    } else if (event.is_object() && event.contains("result")) {
      result_ = event["result"];
    } else if (event.is_object() && event.contains("error")) {
      error_ = event["error"];
    } else {
      absl::StrAppend(&log_, line, "\n");
    }
  }

  const VerifyProcessOptions& options_;
  std::string rest_;  // a line that is not whole yet
  std::string log_;
  std::optional<nlohmann::json> result_;
  std::optional<nlohmann::json> error_;
};

// False at the end of the output, which comes when the process has ended.
absl::StatusOr<bool> ReadSome(int fd, Events& events) {
  pollfd ready = {.fd = fd, .events = POLLIN, .revents = 0};
  const int count = poll(&ready, 1, kPollMs);
  if (count < 0 && errno != EINTR) return ErrnoError(errno, "cannot poll autosp-verify");
  if (count <= 0) return true;
  std::string bytes(kReadBytes, '\0');
  const ssize_t num_read = read(fd, bytes.data(), bytes.size());
  if (num_read < 0 && errno != EINTR) return ErrnoError(errno, "cannot read from autosp-verify");
  if (num_read > 0) events.Add(absl::string_view(bytes).substr(0, num_read));
  return num_read != 0;
}

}  // namespace

absl::StatusOr<nlohmann::json> RunVerifyProcess(const VerifyProcessOptions& options) {
  SubprocessOptions process_options;
  process_options.argv = {options.program};
  process_options.argv.insert(process_options.argv.end(), options.arguments.begin(),
                              options.arguments.end());
  process_options.output = SubprocessOptions::Output::kPipe;
  process_options.dies_with_parent = true;
  ASSIGN_OR_RETURN(Subprocess process, Subprocess::Start(process_options));
  Events events(options);
  for (bool is_open = true; is_open;) {
    if (options.is_interrupted()) {
      process.Stop(kStopGrace);
      return Cancelled("interrupted");
    }
    ASSIGN_OR_RETURN(is_open, ReadSome(process.output().get(), events));
  }
  return events.Result(process.Wait());
}

}  // namespace autosp
