// What a checkpoint is: the file manifest.json in its folder, written last.
//
// It says where training stood, which files belong to it with their sizes and sums, and which part
// of each tensor is where. Tensors are those of the whole job, as one device would hold them; how
// they were spread over ranks concerns only the files. So any number of ranks on any mesh can read
// them.
//
//   {"manifest": {"step": 40, "files": [...], "tensors": [...], "state_dict": [...], ...},
//    "sha256": "..."}
//
// Folders are copied around, so nothing in a manifest is trusted: the sum guards against damage,
// and sizes, names and places are checked besides.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "compiler/ir/dtype.h"
#include "compiler/program/mesh.h"

namespace autosp {

inline constexpr char kManifestName[] = "manifest.json";
inline constexpr int64_t kMaxManifestBytes = int64_t{1} << 28;

// A box of a tensor, and the file that has it under the tensor's name.
struct TensorSlice {
  int64_t file = 0;  // index in CheckpointManifest::files
  std::vector<int64_t> offset = {};
  std::vector<int64_t> shape = {};

  bool operator==(const TensorSlice&) const = default;
};

struct ManifestTensor {
  std::string name = {};
  DType dtype = DType::kF32;
  std::vector<int64_t> shape = {};
  std::vector<TensorSlice> slices = {};  // each element is in exactly one

  bool operator==(const ManifestTensor&) const = default;
};

// A name of the model's state dict, and which tensors of the checkpoint have its value.
struct StateDictEntry {
  std::string name = {};
  DType dtype = DType::kF32;  // as the model was exported
  std::vector<int64_t> shape = {};
  std::string parameter = {};  // empty: no step changes the value, so that the checkpoint has none
  std::string master = {};     // the same in fp32, where the optimizer has that; empty: it has not

  bool operator==(const StateDictEntry&) const = default;
};

struct ManifestFile {
  std::string name = {};  // plain: in the folder of the manifest
  int64_t size_bytes = 0;
  std::string sha256 = {};

  bool operator==(const ManifestFile&) const = default;
};

struct CheckpointManifest {
  std::string job_id = {};
  int64_t generation = 0;
  std::string plan_digest = {};
  Mesh mesh = {};
  int64_t step = 0;           // optimizer steps that are done
  int64_t num_sequences = 0;  // of the data that they have seen
  // Keys of the job file that a job must share to go on from here, with their values as text.
  std::map<std::string, std::string> settings = {};
  std::vector<ManifestFile> files = {};
  std::vector<ManifestTensor> tensors = {};  // by name
  // In the model's order, with every name of tied weights. Empty in what older versions wrote.
  std::vector<StateDictEntry> state_dict = {};

  const ManifestTensor* Find(absl::string_view name) const;  // null: there is none
  bool operator==(const CheckpointManifest&) const = default;
};

std::string FormatManifest(const CheckpointManifest& manifest);

// DATA_LOSS where the text is damaged, INVALID_ARGUMENT where it is whole and says what cannot be.
absl::StatusOr<CheckpointManifest> ParseManifest(absl::string_view text);

}  // namespace autosp
