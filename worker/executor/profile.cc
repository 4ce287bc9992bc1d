#include "worker/executor/profile.h"

#include <time.h>

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace autosp {
namespace {

int64_t NowNs(clockid_t clock) {
  timespec now = {};
  clock_gettime(clock, &now);
  return now.tv_sec * int64_t{1'000'000'000} + now.tv_nsec;
}

void AppendRow(const ProfileRow& row, const std::string& name, double total, std::string* text) {
  absl::StrAppendFormat(text, "%6d %10.3f %6.1f%% %10.3f %12d %5d %5d  %s\n", row.runs,
                        row.seconds * 1e3, total > 0 ? 100 * row.seconds / total : 0.0,
                        row.cpu_seconds * 1e3, row.bytes_allocated, row.num_conformed,
                        row.num_unshared, name);
}

void Add(const ProfileRow& row, ProfileRow& sum) {
  sum.runs += row.runs;
  sum.seconds += row.seconds;
  sum.cpu_seconds += row.cpu_seconds;
  sum.bytes_allocated = std::max(sum.bytes_allocated, row.bytes_allocated);
  sum.num_conformed += row.num_conformed;
  sum.num_unshared += row.num_unshared;
}

template <typename Rows>
void SortBySeconds(Rows& rows) {
  std::ranges::stable_sort(
      rows, [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
}

}  // namespace

void Profile::BeginRun() {
  if (++num_runs_ == 2) std::ranges::fill(rows_, ProfileRow());
  WaitForGpu();
}

void Profile::WaitForGpu() const {
  if (gpu_ != nullptr) gpu_->Synchronize();
}

std::string Profile::ToText(const Program& program, int num_rows) const {
  double total = 0;
  std::map<std::string, ProfileRow> by_op;
  std::vector<std::pair<std::string, ProfileRow>> slowest;
  for (const ProfileRow& row : rows_) {
    if (row.runs == 0 || row.instruction->kind == InstructionKind::kFor) continue;
    const Instruction& instruction = *row.instruction;
    total += row.seconds;
    Add(row, by_op[absl::StrCat(std::string(PhaseName(instruction.phase)), " ",
                                std::string(InstructionKindName(instruction.kind)), " ",
                                instruction.op)]);
    slowest.emplace_back(PrintInstruction(program, instruction), row);
  }
  std::vector<std::pair<std::string, ProfileRow>> ops(by_op.begin(), by_op.end());
  SortBySeconds(ops);
  SortBySeconds(slowest);
  slowest.resize(std::min(slowest.size(), static_cast<size_t>(num_rows)));
  const std::string head = "  runs         ms       %     cpu ms    peak bytes  conf share\n";
  std::string text = absl::StrCat("by op, ", total * 1e3, " ms in all\n", head);
  for (const auto& [name, row] : ops) AppendRow(row, name, total, &text);
  absl::StrAppend(&text, "slowest instructions\n", head);
  for (const auto& [name, row] : slowest) AppendRow(row, name, total, &text);
  return text;
}

ProfileScope::ProfileScope(Profile& profile, const PreparedStep& step, const RunState& state,
                           const MemoryAccount* account)
    : row_(profile.row(step.profile_row)),
      state_(state),
      account_(account),
      start_ns_(NowNs(CLOCK_MONOTONIC)),
      start_cpu_ns_(NowNs(CLOCK_PROCESS_CPUTIME_ID)),
      live_bytes_(account ? account->live_bytes() : 0),
      num_conformed_(state.num_conformed),
      num_unshared_(state.num_unshared) {
  row_.instruction = step.instruction;
}

ProfileScope::~ProfileScope() {
  row_.runs += 1;
  row_.seconds += static_cast<double>(NowNs(CLOCK_MONOTONIC) - start_ns_) * 1e-9;
  row_.cpu_seconds += static_cast<double>(NowNs(CLOCK_PROCESS_CPUTIME_ID) - start_cpu_ns_) * 1e-9;
  const int64_t rise = (account_ ? account_->live_bytes() : 0) - live_bytes_;
  row_.bytes_allocated = std::max(row_.bytes_allocated, rise);
  row_.num_conformed += state_.num_conformed - num_conformed_;
  row_.num_unshared += state_.num_unshared - num_unshared_;
}

}  // namespace autosp
