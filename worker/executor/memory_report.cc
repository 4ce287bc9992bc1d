#include "worker/executor/memory_report.h"

#include <algorithm>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/errors.h"

namespace autosp {
namespace {

constexpr size_t kNumLargest = 5;

std::string DescribeSource(const Source& source) {
  if (source.empty()) return "";
  return absl::StrCat(" [", source.module(), source.module().empty() ? "" : " at ",
                      source.location(), "]");
}

// The instruction that makes `id`, in any body.
const Instruction* FindProducer(const std::vector<Instruction>& body, ValueId id) {
  for (const Instruction& instruction : body) {
    if (std::ranges::count(instruction.results, id) > 0) return &instruction;
    if (const Instruction* found = FindProducer(instruction.body, id)) return found;
  }
  return nullptr;
}

std::string DescribeOrigin(const Program& program, ValueId id) {
  for (const Persistent& persistent : program.persistents) {
    if (persistent.value == id) return absl::StrCat(" (", persistent.name, ")");
  }
  for (const Section& section : program.sections) {
    if (const Instruction* producer = FindProducer(section.body, id)) {
      return DescribeSource(producer->source);
    }
  }
  return "";
}

struct LiveStorage {
  ValueId value;
  int64_t bytes = 0;
};

// Each storage once, under the first of its values.
std::vector<LiveStorage> LargestLive(const RunState& state) {
  std::map<const void*, LiveStorage> storages;
  for (size_t i = 0; i < state.tensors.size(); ++i) {
    const at::Tensor& tensor = state.tensors[i];
    if (!tensor.defined()) continue;
    storages.try_emplace(tensor.storage().unsafeGetStorageImpl(),
                         LiveStorage{ValueId{static_cast<int32_t>(i)},
                                     static_cast<int64_t>(tensor.storage().nbytes())});
  }
  std::vector<LiveStorage> list;
  for (const auto& [storage, live] : storages) list.push_back(live);
  std::ranges::sort(list, [](const LiveStorage& a, const LiveStorage& b) {
    return a.bytes != b.bytes ? a.bytes > b.bytes : a.value < b.value;
  });
  list.resize(std::min(list.size(), kNumLargest));
  return list;
}

}  // namespace

std::string DescribeInstruction(const Program& program, const Instruction& instruction) {
  // The printed form ends with the phase and the source; the source reads better in brackets.
  std::string text = PrintInstruction(program, instruction);
  text.resize(std::min(text.rfind(" ; "), text.size()));
  return absl::StrCat(text, DescribeSource(instruction.source));
}

absl::Status DescribeOutOfMemory(const Program& program, ExecutorEnvironment& environment,
                                 const RunState& state) {
  for (MemoryAccount* account :
       {environment.device, environment.communication, environment.pinned_host}) {
    if (account == nullptr) continue;
    const MemoryAccount::Refusal refusal = account->TakeRefusal();
    if (refusal.wanted_bytes == 0) continue;
    std::vector<std::string> largest;
    for (const LiveStorage& live : LargestLive(state)) {
      largest.push_back(absl::StrCat("%", program.value(live.value).name, " ", live.bytes, " bytes",
                                     DescribeOrigin(program, live.value)));
    }
    return ResourceExhausted("out of ", std::string(account->name()),
                             " memory: ", refusal.wanted_bytes, " bytes wanted, ",
                             refusal.live_bytes, " bytes live, budget ", account->budget_bytes(),
                             " bytes; largest live values: ", absl::StrJoin(largest, ", "),
                             "; use more ranks, a shorter seq_len, or a larger memory budget");
  }
  return absl::OkStatus();
}

}  // namespace autosp
