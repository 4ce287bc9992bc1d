// A checkpoint as a directory that Hugging Face transformers loads.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "checkpoint/model_files.h"
#include "compiler/config/job_spec.h"
#include "compiler/ir/dtype.h"

namespace autosp {

// A file that is copied beside the weights.
struct CompanionFile {
  std::string name;  // in the directory
  std::string path;  // where it comes from
};

struct ModelExportOptions {
  std::string checkpoint = {};      // or the folder of several: the newest whole one
  std::string output_dir = {};      // comes into being whole, or not at all
  bool overwrite = false;           // of a model that is there
  std::optional<DType> dtype = {};  // of all floating weights; unset: as each was exported
  int64_t max_shard_bytes = kDefaultShardBytes;
  std::string weights = {};  // safetensors with what the checkpoint has not; may be empty
  std::vector<CompanionFile> files = {};
  // Hears of bytes that were checked or written, as often as a piece is done. An error ends it.
  std::function<absl::Status(absl::string_view what, int64_t done_bytes, int64_t total_bytes)>
      on_progress = {};
};

struct ExportedModel {
  std::string checkpoint;  // the path of the one that was used
  int64_t step = 0;
  std::vector<std::string> skipped;  // why each newer one was not used
  int64_t num_tensors = 0;
  int64_t num_bytes = 0;  // of tensors
  std::set<DType> floating_types;
  std::vector<WrittenFile> files;
};

// Checks the sums of the checkpoint, and writes its parameters as the state dict of the model that
// was trained, with every name of tied weights. A weight comes from the parameter where that has
// the wanted type already, else from the optimizer's fp32 master where there is one. Needs memory
// for a piece of one tensor, however large the model is.
//
// Where it fails or is ended nothing is left, and what was at `output_dir` is as it was; only a
// process that is killed leaves a hidden folder beside it, which the next export removes.
// DATA_LOSS for a damaged checkpoint.
absl::StatusOr<ExportedModel> ExportModel(const ModelExportOptions& options);

}  // namespace autosp
