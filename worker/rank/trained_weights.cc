#include "worker/rank/trained_weights.h"

#include <algorithm>
#include <utility>

#include "absl/functional/function_ref.h"
#include "checkpoint/model_files.h"
#include "common/file.h"
#include "common/status_macros.h"

namespace autosp {

namespace {

// The values of a program that have a weight; null: none.
struct ValuesOfWeight {
  const Persistent* tensor = nullptr;
  const Persistent* master = nullptr;  // in fp32
};

const Persistent* FindPersistent(const Program& program,
                                 absl::FunctionRef<bool(const Persistent& each)> is_wanted) {
  const auto found = std::ranges::find_if(program.persistents, is_wanted);
  return found == program.persistents.end() ? nullptr : &*found;
}

ValuesOfWeight ValuesOf(const Program& program, const WeightFiles& initial,
                        const std::string& name) {
  ValuesOfWeight values;
  const std::string& canonical = initial.CanonicalName(name);
  values.tensor = FindPersistent(program, [&](const Persistent& each) {
    const bool is_weight =
        each.kind == PersistentKind::kParam || each.kind == PersistentKind::kBuffer;
    return is_weight && (each.name == canonical || std::ranges::count(each.aliases, name) > 0);
  });
  if (values.tensor == nullptr) return values;
  values.master = FindPersistent(program, [&](const Persistent& each) {
    return each.kind == PersistentKind::kState && each.init == StateInit::kCopyOfParameter &&
           each.init_from == values.tensor->name;
  });
  return values;
}

}  // namespace

absl::StatusOr<at::Tensor> TrainedWeight(const Executor& executor, WeightFiles& initial,
                                         const std::string& name) {
  const ValuesOfWeight values = ValuesOf(executor.program(), initial, name);
  if (values.tensor == nullptr) return initial.Load(name);
  return executor.GatherWhole((values.master == nullptr ? values.tensor : values.master)->name);
}

std::vector<StateDictEntry> StateDictOf(const Program& program, const WeightFiles& initial) {
  std::vector<StateDictEntry> entries;
  const std::vector<const Persistent*> written = program.WrittenBuffers();
  for (const TensorSpec& weight : initial.state_dict()) {
    StateDictEntry entry{.name = weight.name, .dtype = weight.dtype, .shape = weight.shape};
    const ValuesOfWeight values = ValuesOf(program, initial, weight.name);
    // Buffers that no step writes are in no checkpoint.
    const bool is_carried =
        values.tensor != nullptr && (values.tensor->kind == PersistentKind::kParam ||
                                     std::ranges::count(written, values.tensor) > 0);
    if (is_carried) {
      entry.parameter = values.tensor->name;
      if (values.master != nullptr) entry.master = values.master->name;
    }
    entries.push_back(std::move(entry));
  }
  return entries;
}

absl::StatusOr<std::vector<WrittenFile>> WriteTrainedWeights(const Executor& executor,
                                                             WeightFiles& initial,
                                                             const OutputSpec& output,
                                                             const RankConfig& config) {
  ASSIGN_OR_RETURN(const std::vector<ModelShard> shards,
                   LayOutModel(initial.state_dict(), output.max_shard_bytes));
  // Of attempts that were killed together with their agent. One that has started later writes its
  // own.
  RemovePartialModels(config.output_directory, config.job_id, config.generation - 1);
  const std::string partial =
      JoinPath(config.output_directory, PartialModelName(config.job_id, config.generation));
  RETURN_IF_ERROR(MakeDirectories(partial));
  absl::StatusOr<std::vector<WrittenFile>> files = WriteModelFiles(
      partial, shards, [&](const SafetensorsEntry& entry, SafetensorsWriter& writer) {
        ASSIGN_OR_RETURN(const at::Tensor value, TrainedWeight(executor, initial, entry.name));
        return AppendTensor(entry, value, writer);
      });
  absl::Status status = files.status();
  if (status.ok()) status = MoveModelFiles(config.output_directory, *files);
  status.Update(RemoveTree(partial));
  RETURN_IF_ERROR(status);
  return files;
}

absl::Status GivePartsOfTrainedWeights(const Executor& executor, WeightFiles& initial,
                                       const OutputSpec& output) {
  ASSIGN_OR_RETURN(const std::vector<ModelShard> shards,
                   LayOutModel(initial.state_dict(), output.max_shard_bytes));
  for (const ModelShard& shard : shards) {
    ASSIGN_OR_RETURN(const std::vector<SafetensorsEntry> order,
                     SafetensorsWriter::OrderOf(shard.tensors));
    for (const SafetensorsEntry& entry : order) {
      RETURN_IF_ERROR(TrainedWeight(executor, initial, entry.name).status());
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<WrittenFile> WriteModelConfig(const std::string& text,
                                             const std::string& directory) {
  return WriteTextFile(JoinPath(directory, "config.json"), text);
}

}  // namespace autosp
