#include "worker/rank/trained_weights.h"

#include <algorithm>
#include <vector>

#include "common/file.h"
#include "common/sha256.h"
#include "common/status_macros.h"

namespace autosp {

absl::StatusOr<at::Tensor> TrainedWeight(const Executor& executor, WeightFiles& initial,
                                         const std::string& name) {
  const auto& persistents = executor.program().persistents;
  const std::string& canonical = initial.CanonicalName(name);
  const auto parameter = std::ranges::find_if(persistents, [&](const Persistent& each) {
    const bool is_weight =
        each.kind == PersistentKind::kParam || each.kind == PersistentKind::kBuffer;
    return is_weight && (each.name == canonical || std::ranges::count(each.aliases, name) > 0);
  });
  if (parameter == persistents.end()) return initial.Load(name);
  const auto master = std::ranges::find_if(persistents, [&](const Persistent& each) {
    return each.kind == PersistentKind::kState && each.init == StateInit::kCopyOfParameter &&
           each.init_from == parameter->name;
  });
  return executor.GatherWhole(master == persistents.end() ? parameter->name : master->name);
}

absl::StatusOr<WrittenFile> WriteTrainedWeights(const Executor& executor, WeightFiles& initial,
                                                const std::string& directory) {
  RETURN_IF_ERROR(MakeDirectories(directory));
  return WriteStateDict(
      JoinPath(directory, "model.safetensors"), initial.state_dict(),
      [&](const std::string& name) { return TrainedWeight(executor, initial, name); });
}

absl::Status GivePartsOfTrainedWeights(const Executor& executor, WeightFiles& initial) {
  ASSIGN_OR_RETURN(const std::vector<SafetensorsEntry> order,
                   SafetensorsWriter::OrderOf(initial.state_dict()));
  for (const SafetensorsEntry& entry : order) {
    RETURN_IF_ERROR(TrainedWeight(executor, initial, entry.name).status());
  }
  return absl::OkStatus();
}

absl::StatusOr<WrittenFile> WriteModelConfig(const std::string& text,
                                             const std::string& directory) {
  const std::string path = JoinPath(directory, "config.json");
  RETURN_IF_ERROR(WriteFileAtomically(path, text));
  return WrittenFile{
      .path = path, .sha256 = Sha256Hex(text), .size_bytes = static_cast<int64_t>(text.size())};
}

}  // namespace autosp
