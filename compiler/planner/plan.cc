#include "compiler/planner/plan.h"

#include <iterator>

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

// "1.23 TFLOP"
std::string FormatFlops(double flops) {
  constexpr const char* kPrefixes[] = {"", "k", "M", "G", "T", "P", "E"};
  size_t prefix = 0;
  for (; flops >= 999.5 && prefix + 1 < std::size(kPrefixes); ++prefix) flops /= 1000;
  return absl::StrFormat("%.3g %sFLOP", flops, kPrefixes[prefix]);
}

// What a rank does beside its part of the model's own work is padding, what several ranks do, and
// what is made again.
std::string ComputeInWords(const PlanSummary& plan) {
  const double own = plan.model_flops / static_cast<double>(plan.world_size);
  std::string text = absl::StrCat(FormatFlops(plan.flops_per_rank), " per rank a step, ");
  absl::StrAppendFormat(&text, "%.0f%% of it attention",
                        100 * plan.attention_flops_per_rank / plan.flops_per_rank);
  const double added = plan.flops_per_rank / own - 1;
  if (own > 0 && added >= 0.005) {
    absl::StrAppendFormat(&text, "; %.0f%% more than its part of the model's %s", 100 * added,
                          FormatFlops(plan.model_flops));
  }
  if (plan.peak_flops_per_second > 0) {
    absl::StrAppendFormat(&text, "; %.3g s at the device's peak of %s/s in bf16",
                          plan.flops_per_rank / plan.peak_flops_per_second,
                          FormatFlops(plan.peak_flops_per_second));
  }
  return text;
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
  if (flops_per_rank > 0) absl::StrAppend(&text, "compute      ", ComputeInWords(*this), "\n");
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
          {"model_flops", model_flops},
          {"flops_per_rank", flops_per_rank},
          {"attention_flops_per_rank", attention_flops_per_rank},
          {"peak_flops_per_second", peak_flops_per_second},
          {"collectives", rows},
          {"num_checked_values", num_checked_values},
          {"num_checked_results", num_checked_results},
          {"links", links},
          {"shardings", shardings},
          {"warnings", warnings}};
}

}  // namespace autosp
