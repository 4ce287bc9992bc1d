#include "worker/verify/verify_rank.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/clock.h"
#include "common/errors.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "worker/rank/make_reporter.h"
#include "worker/rank/rank_config_from_proto.h"

namespace autosp {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr size_t kNumLoggedGradients = 5;

absl::StatusOr<VerifierOptions> OptionsFrom(const RankConfig& config) {
  if (!config.verification) {
    return InvalidArgument("verification: is missing; autosp-rank runs other attempts");
  }
  VerifierOptions options;
  options.plan_path = config.program_path;
  options.one_device_path = config.verification->one_device_path;
  options.exact_path = config.verification->exact_path;
  options.exported_path = config.verification->exported_path;
  options.job_path = config.job_yaml_path;
  return options;
}

std::string Titled(const GradientError& each) {
  return absl::StrCat(each.name.starts_with(kBufferPrefix) ? "" : "gradient of ", each.name);
}

// The last lines of the log are what people see of a job that is refused.
void LogResult(const VerifierResult& result) {
  const auto log = [](const char* what, const NumberComparison& number) {
    LogInfo(absl::StrFormat("%s: plan %.9g, one device %.9g; error %.2g, at most %.2g", what,
                            number.plan, number.one_device, number.error, number.bound));
  };
  log("loss", result.loss);
  log("grad_norm", result.grad_norm);
  for (size_t i = 0; i < std::min(result.gradients.size(), kNumLoggedGradients); ++i) {
    const GradientError& gradient = result.gradients[i];
    LogInfo(absl::StrFormat("%s: error %.2g, at most %.2g, in parts of %.2g, on virtual rank %d",
                            Titled(gradient), gradient.error, gradient.bound, gradient.scale,
                            gradient.rank));
  }
}

absl::StatusOr<VerificationResult> Verify(const VerifierOptions& options) {
  const absl::Duration start = Clock::Real().Steady();
  Verifier verifier(options, [](absl::string_view text) { LogInfo(text); });
  ASSIGN_OR_RETURN(const VerifierResult result, verifier.Run());
  LogResult(result);
  return SummaryOf(result, absl::ToDoubleSeconds(Clock::Real().Steady() - start));
}

}  // namespace

VerificationResult SummaryOf(const VerifierResult& result, double seconds) {
  VerificationResult summary{.is_equal = result.is_equal(),
                             .num_gradients = static_cast<int64_t>(result.gradients.size()),
                             .seconds = seconds};
  double worst_share = -1;
  const auto consider = [&](const std::string& what, double error, double bound) {
    const double share = error / bound;
    // Not `share > worst_share`: a NaN is the worst there is, and stays.
    if (std::isnan(worst_share) || share <= worst_share) return;
    worst_share = share;
    summary.worst = what;
    summary.error = error;
    summary.bound = bound;
  };
  consider("loss", result.loss.error, result.loss.bound);
  consider("norm of the gradients", result.grad_norm.error, result.grad_norm.bound);
  if (result.gradients.empty()) return summary;
  const GradientError& first = result.gradients.front();
  consider(Titled(first), first.error, first.bound);
  const std::string where =
      absl::StrFormat("(the worst is that of %s, error %.2g)", first.name, first.error);
  if (result.has_exact) {
    consider(absl::StrCat("all gradients together ", where), result.norm_error, result.norm_bound);
  }
  if (result.has_rounded) {
    consider(absl::StrCat("all gradients against the model that rounds ", where),
             result.rounded_error, result.rounded_bound);
  }
  if (result.shows_nothing()) {
    summary.worst +=
        " (of which this batch shows nothing: rounding alone moves all gradients further than they "
        "are large)";
  }
  return summary;
}

int RunAsRank(const std::string& spec_path) {
  const absl::StatusOr<RankConfig> config = ReadRankSpec(spec_path);
  const absl::StatusOr<VerifierOptions> options =
      config.ok() ? OptionsFrom(*config) : config.status();
  if (!options.ok()) {
    LogError(options.status().message());
    return kExitUsage;
  }
  const absl::StatusOr<std::unique_ptr<RankReporter>> reporter = MakeReporter(*config);
  if (!reporter.ok()) {
    LogError(reporter.status().message());
    return kExitFailed;
  }
  (*reporter)->Hello(config->program_digest);
  const absl::StatusOr<VerificationResult> result = Verify(*options);
  if (result.ok()) {
    LogInfo(result->is_equal ? "equal: " : "DIFFERS: ", result->WorstText());
    (*reporter)->Verified(*result);
  } else {
    LogError(result.status().message());
    (*reporter)->Failed({.status = result.status()});
  }
  const absl::Status closed = (*reporter)->Close();
  if (!closed.ok()) LogWarning("the agent may not have the result: ", closed.message());
  return result.ok() ? 0 : kExitFailed;
}

}  // namespace autosp
