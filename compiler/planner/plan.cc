#include "compiler/planner/plan.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/bytes.h"

namespace autosp {
namespace {

std::string RecomputeInWords(const std::string& recompute) {
  return absl::StrCat(recompute, recompute == "full"
                                     ? ": the backward makes all but the inputs of layers again\n"
                                     : ": the backward makes all but attention again\n");
}

}  // namespace

std::string PlanSummary::ToText() const {
  std::string text;
  absl::StrAppend(&text, "model        ", model_name, ", ", num_parameters, " parameters\n",
                  "ranks        ", world_size, " (dp ", dp_size, " x ring ", ring_size,
                  " x ulysses ", ulysses_size, ")\n", "batch        ", global_batch_size,
                  " sequences of ", seq_len, " tokens a step; ", grad_accum_steps,
                  " micro-steps of ", micro_batch_size, " per dp rank\n");
  for (const std::string& link : links) absl::StrAppend(&text, "linked       ", link, "\n");
  for (const std::string& sentence : shardings)
    absl::StrAppend(&text, "sharding     ", sentence, "\n");
  if (recompute != "none") absl::StrAppend(&text, "recompute    ", RecomputeInWords(recompute));
  if (offload != "none") {
    absl::StrAppend(&text, "offload      ", offload, ": they wait in the memory of the host\n");
  }
  for (const auto& [account, bytes] : predicted_peak_bytes) {
    absl::StrAppend(&text, "peak memory  ", account, " ", FormatBytes(bytes), " per rank\n");
  }
  if (collectives.empty()) absl::StrAppend(&text, "collectives  none\n");
  for (const CollectiveTotals& row : collectives) {
    absl::StrAppendFormat(
        &text, "collectives  %-9s %-14s over %-10s %5d calls, %s received a step\n", row.phase,
        row.kind, row.axis, row.calls, FormatBytes(row.bytes_received_per_rank));
  }
  if (num_checked_values > 0) {
    absl::StrAppend(&text, "checked      ", num_checked_values, " values; all ",
                    num_checked_results,
                    " outputs, parameters and states equal the one-device program's\n");
  }
  for (const std::string& warning : warnings)
    absl::StrAppend(&text, "warning      ", warning, "\n");
  return text;
}

nlohmann::json PlanSummary::ToJson() const {
  nlohmann::json rows = nlohmann::json::array();
  for (const CollectiveTotals& row : collectives) {
    rows.push_back({{"kind", row.kind},
                    {"phase", row.phase},
                    {"axis", row.axis},
                    {"calls", row.calls},
                    {"bytes_received_per_rank", row.bytes_received_per_rank}});
  }
  return {{"model_name", model_name},
          {"world_size", world_size},
          {"dp_size", dp_size},
          {"ulysses_size", ulysses_size},
          {"ring_size", ring_size},
          {"ring_exchange", ring_exchange},
          {"zero_stage", zero_stage},
          {"seq_len", seq_len},
          {"seq_len_local", seq_len_local},
          {"global_batch_size", global_batch_size},
          {"micro_batch_size", micro_batch_size},
          {"grad_accum_steps", grad_accum_steps},
          {"num_parameters", num_parameters},
          {"recompute", recompute},
          {"tiling", tiling},
          {"offload", offload},
          {"tokens_per_step", tokens_per_step},
          {"predicted_peak_bytes", predicted_peak_bytes},
          {"collectives", rows},
          {"num_checked_values", num_checked_values},
          {"num_checked_results", num_checked_results},
          {"links", links},
          {"shardings", shardings},
          {"warnings", warnings}};
}

}  // namespace autosp
