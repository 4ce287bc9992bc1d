// A model's weights as the files that Hugging Face transformers loads.
//
//   model.safetensors                     where no larger than a shard may be; else
//
//   model-00001-of-00002.safetensors
//   model-00002-of-00002.safetensors
//   model.safetensors.index.json          which tensor is in which file
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/safetensors_writer.h"

namespace autosp {

inline constexpr char kModelFileName[] = "model.safetensors";
inline constexpr char kModelIndexName[] = "model.safetensors.index.json";

struct ModelShard {
  std::string name;
  std::vector<TensorSpec> tensors;
};

// Splits as Hugging Face does. In the order of `tensors`, a shard ends before the tensor that would
// take it past `max_shard_bytes`, headers not counted; a tensor that is larger has a shard of its
// own. At least one shard. INVALID_ARGUMENT for a size that overflows.
absl::StatusOr<std::vector<ModelShard>> LayOutModel(const std::vector<TensorSpec>& tensors,
                                                    int64_t max_shard_bytes);

struct WrittenFile {
  std::string path;
  std::string sha256;  // hex
  int64_t size_bytes = 0;
};

// Appends all bytes of the tensor to the writer.
using AppendTensorFn =
    absl::FunctionRef<absl::Status(const SafetensorsEntry& tensor, SafetensorsWriter& writer)>;

// One file as PyTorch loads it; `append` is called in SafetensorsWriter::OrderOf.
absl::StatusOr<WrittenFile> WriteTensorFile(const std::string& path,
                                            const std::vector<TensorSpec>& tensors,
                                            AppendTensorFn append);

// A configuration or an index beside the weights.
absl::StatusOr<WrittenFile> WriteTextFile(const std::string& path, const std::string& text);

// Writes the shards into `folder`, and the index, if there are several, last. `append` is called
// shard by shard, in SafetensorsWriter::OrderOf each. RESOURCE_EXHAUSTED before anything is written
// where the disk has no room for all. What was written when another error comes stays.
absl::StatusOr<std::vector<WrittenFile>> WriteModelFiles(const std::string& folder,
                                                         const std::vector<ModelShard>& shards,
                                                         AppendTensorFn append);

// Moves what WriteModelFiles has written into the folder `to` of the same file system, and changes
// the paths. Files of another model that were there are removed, so that at no time one is loaded
// that is made of both.
absl::Status MoveModelFiles(const std::string& to, std::vector<WrittenFile>& files);

// The folder beside the finished model in which an attempt of a job writes it:
// ".model.job-7xk-2.partial" is that of attempt 2 of job-7xk.
std::string PartialModelName(const std::string& job_id, int64_t generation);

// Removes from `folder` what attempts of the job up to `generation` have left there. Requires: none
// of them runs.
void RemovePartialModels(const std::string& folder, const std::string& job_id, int64_t generation);

}  // namespace autosp
