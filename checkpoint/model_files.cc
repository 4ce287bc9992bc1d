#include "checkpoint/model_files.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "common/bytes.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/log.h"
#include "common/sha256.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

constexpr char kShardPrefix[] = "model-";
constexpr char kShardSuffix[] = ".safetensors";
constexpr absl::string_view kPartialSuffix = ".partial";

// The same for all attempts of the job.
std::string PartialPrefix(const std::string& job_id) {
  return absl::StrCat(".model.", job_id, "-");
}

// Requires: LayOutModel has found that it does not overflow.
int64_t BytesOf(const ModelShard& shard) {
  int64_t bytes = 0;
  for (const TensorSpec& tensor : shard.tensors) bytes += *TensorBytes(tensor.dtype, tensor.shape);
  return bytes;
}

int64_t BytesOf(const std::vector<ModelShard>& shards) {
  int64_t bytes = 0;
  for (const ModelShard& shard : shards) bytes += BytesOf(shard);
  return bytes;
}

absl::Status CheckRoom(const std::string& folder, int64_t needed_bytes) {
  ASSIGN_OR_RETURN(const int64_t free_bytes, FreeDiskBytes(folder));
  if (needed_bytes <= free_bytes) return absl::OkStatus();
  return ResourceExhausted("weights ", folder, ": need ", FormatBytes(needed_bytes), ", ",
                           FormatBytes(free_bytes),
                           " are free; make room or choose another folder");
}

// As json.dumps(index, indent=2, sort_keys=True) of Python has it.
absl::StatusOr<WrittenFile> WriteIndex(const std::string& folder,
                                       const std::vector<ModelShard>& shards) {
  nlohmann::json weight_map = nlohmann::json::object();
  for (const ModelShard& shard : shards) {
    for (const TensorSpec& tensor : shard.tensors) weight_map[tensor.name] = shard.name;
  }
  const nlohmann::json index = {{"metadata", {{"total_size", BytesOf(shards)}}},
                                {"weight_map", std::move(weight_map)}};
  const std::string text = index.dump(2, ' ', /*ensure_ascii=*/true) + "\n";
  return WriteTextFile(JoinPath(folder, kModelIndexName), text);
}

bool IsModelFile(const std::string& name) {
  return name == kModelFileName || name == kModelIndexName ||
         (absl::StartsWith(name, kShardPrefix) && absl::StrContains(name, "-of-") &&
          absl::EndsWith(name, kShardSuffix));
}

absl::Status RemoveModelFilesExcept(const std::string& folder,
                                    const std::vector<std::string>& kept) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListFolder(folder));
  for (const std::string& name : names) {
    if (!IsModelFile(name) || std::ranges::count(kept, name) > 0) continue;
    RETURN_IF_ERROR(RemoveFile(JoinPath(folder, name)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<WrittenFile> WriteTensorFile(const std::string& path,
                                            const std::vector<TensorSpec>& tensors,
                                            AppendTensorFn append) {
  // Libraries that read such files ask for the framework that the tensors are of.
  ASSIGN_OR_RETURN(SafetensorsWriter writer,
                   SafetensorsWriter::Create(path, tensors, {{"format", "pt"}}));
  for (const SafetensorsEntry& tensor : writer.order()) {
    RETURN_IF_ERROR(WithContext(append(tensor, writer), "weights ", path));
  }
  RETURN_IF_ERROR(writer.Commit());
  return WrittenFile{.path = path, .sha256 = writer.sha256(), .size_bytes = writer.file_bytes()};
}

absl::StatusOr<WrittenFile> WriteTextFile(const std::string& path, const std::string& text) {
  RETURN_IF_ERROR(WriteFileAtomically(path, text));
  return WrittenFile{
      .path = path, .sha256 = Sha256Hex(text), .size_bytes = static_cast<int64_t>(text.size())};
}

absl::StatusOr<std::vector<ModelShard>> LayOutModel(const std::vector<TensorSpec>& tensors,
                                                    int64_t max_shard_bytes) {
  std::vector<ModelShard> shards;
  ModelShard open;
  int64_t open_bytes = 0;
  int64_t total = 0;
  for (const TensorSpec& tensor : tensors) {
    const std::optional<int64_t> bytes = TensorBytes(tensor.dtype, tensor.shape);
    if (!bytes.has_value() || __builtin_add_overflow(total, *bytes, &total)) {
      return InvalidArgument(tensor.name, ": the size of the model overflows");
    }
    if (*bytes > max_shard_bytes) {
      shards.push_back({.name = "", .tensors = {tensor}});
      continue;
    }
    if (open_bytes > max_shard_bytes - *bytes) {
      shards.push_back(std::exchange(open, {}));
      open_bytes = 0;
    }
    open.tensors.push_back(tensor);
    open_bytes += *bytes;
  }
  if (!open.tensors.empty() || shards.empty()) shards.push_back(std::move(open));
  if (shards.size() == 1) shards[0].name = kModelFileName;
  for (size_t i = 0; shards.size() > 1 && i < shards.size(); ++i) {
    shards[i].name =
        absl::StrFormat("%s%05d-of-%05d%s", kShardPrefix, i + 1, shards.size(), kShardSuffix);
  }
  return shards;
}

absl::StatusOr<std::vector<WrittenFile>> WriteModelFiles(const std::string& folder,
                                                         const std::vector<ModelShard>& shards,
                                                         AppendTensorFn append) {
  RETURN_IF_ERROR(CheckRoom(folder, BytesOf(shards)));
  std::vector<WrittenFile> files;
  for (const ModelShard& shard : shards) {
    ASSIGN_OR_RETURN(WrittenFile file,
                     WriteTensorFile(JoinPath(folder, shard.name), shard.tensors, append));
    files.push_back(std::move(file));
  }
  if (shards.size() > 1) {
    ASSIGN_OR_RETURN(WrittenFile index, WriteIndex(folder, shards));
    files.push_back(std::move(index));
  }
  return files;
}

absl::Status MoveModelFiles(const std::string& to, std::vector<WrittenFile>& files) {
  std::vector<std::string> names;
  for (const WrittenFile& file : files) {
    names.push_back(std::filesystem::path(file.path).filename().string());
  }
  // What a library opens first: it comes last, and that of another model goes before. One file is
  // replaced at once.
  if (files.size() > 1) RETURN_IF_ERROR(RemoveModelFilesExcept(to, {}));
  for (size_t i = 0; i < files.size(); ++i) {
    const std::string path = JoinPath(to, names[i]);
    RETURN_IF_ERROR(RenamePath(files[i].path, path));
    files[i].path = path;
  }
  RETURN_IF_ERROR(RemoveModelFilesExcept(to, names));
  return SyncPath(to);
}

std::string PartialModelName(const std::string& job_id, int64_t generation) {
  return absl::StrCat(PartialPrefix(job_id), generation, kPartialSuffix);
}

void RemovePartialModels(const std::string& folder, const std::string& job_id, int64_t generation) {
  const absl::StatusOr<std::vector<std::string>> names = ListFolder(folder);
  if (!names.ok()) return;
  for (absl::string_view name : *names) {
    const std::string path = JoinPath(folder, name);
    int64_t of_attempt = 0;
    const bool is_left = absl::ConsumePrefix(&name, PartialPrefix(job_id)) &&
                         absl::ConsumeSuffix(&name, kPartialSuffix) &&
                         absl::SimpleAtoi(name, &of_attempt) && of_attempt <= generation;
    if (!is_left) continue;
    const absl::Status removed = RemoveTree(path);
    if (!removed.ok()) LogWarning(removed.message());
  }
}

}  // namespace autosp
