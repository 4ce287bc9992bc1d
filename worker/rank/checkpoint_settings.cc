#include "worker/rank/checkpoint_settings.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

constexpr char kRemedy[] =
    "; name a checkpoint of this job in checkpoint.resume, or write never there and name another "
    "checkpoint.directory";

// "labels: next_tokens [batch, sequence]; ..."
std::string DescribeInputs(const DataSpec& data) {
  std::vector<std::string> parts;
  for (const auto& [name, feed] : data.inputs) {
    const auto append_role = [](std::string* out, DimRole role) {
      absl::StrAppend(out, ToString(role));
    };
    parts.push_back(absl::StrCat(name, ": ", ToString(feed.source), " [",
                                 absl::StrJoin(feed.dims, ", ", append_role), "]"));
  }
  return absl::StrJoin(parts, "; ");
}

std::string Describe(const ManifestTensor& tensor) {
  return absl::StrCat(std::string(DTypeName(tensor.dtype)), "[", absl::StrJoin(tensor.shape, ", "),
                      "]");
}

const ManifestTensor* Find(const std::vector<ManifestTensor>& tensors, const std::string& name) {
  const auto found = std::ranges::find(tensors, name, &ManifestTensor::name);
  return found == tensors.end() ? nullptr : &*found;
}

absl::Status CheckTensors(const std::vector<ManifestTensor>& saved,
                          const std::vector<ManifestTensor>& wanted) {
  for (const ManifestTensor& tensor : wanted) {
    const ManifestTensor* found = Find(saved, tensor.name);
    if (found == nullptr) {
      return FailedPrecondition("it has no ", tensor.name,
                                ", so it is of another model, optimizer "
                                "or precision",
                                kRemedy);
    }
    if (found->dtype == tensor.dtype && found->shape == tensor.shape) continue;
    return FailedPrecondition(tensor.name, " is ", Describe(*found), " in it, and ",
                              Describe(tensor), " in this job", kRemedy);
  }
  for (const ManifestTensor& tensor : saved) {
    if (Find(wanted, tensor.name) != nullptr) continue;
    return FailedPrecondition("this job has no ", tensor.name,
                              ", so it is of another model, "
                              "optimizer or precision",
                              kRemedy);
  }
  return absl::OkStatus();
}

}  // namespace

std::map<std::string, std::string> CheckpointSettings(const JobSpec& job, int64_t num_tokens) {
  const DataSpec& data = job.data;
  return {{"training.seed", absl::StrCat(job.training.seed)},
          {"training.seq_len", absl::StrCat(job.training.seq_len)},
          {"training.global_batch_size", absl::StrCat(job.training.global_batch_size)},
          {"data.format", std::string(ToString(data.format))},
          {"data.files", absl::StrCat(num_tokens, " tokens")},
          {"data.shuffle_seed", absl::StrCat(data.shuffle_seed)},
          {"data.validation.fraction", absl::StrCat(data.validation.fraction)},
          {"data.inputs", DescribeInputs(data)},
          {"data.ignore_index", absl::StrCat(data.ignore_index)},
          {"data.mask_token", absl::StrCat(data.mask_token)},
          {"data.mlm_probability", absl::StrCat(data.mlm_probability)}};
}

absl::Status CheckMatches(const CheckpointManifest& manifest,
                          const std::map<std::string, std::string>& settings,
                          const std::vector<ManifestTensor>& tensors, int64_t num_steps) {
  for (const auto& [key, value] : settings) {
    const auto saved = manifest.settings.find(key);
    const std::string was = saved == manifest.settings.end() ? "" : saved->second;
    if (was == value) continue;
    return FailedPrecondition("it was made with ", key, " ", was.empty() ? "unset" : was,
                              ", and this job has ", value.empty() ? "none" : value, kRemedy);
  }
  RETURN_IF_ERROR(CheckTensors(manifest.tensors, tensors));
  if (manifest.step <= num_steps) return absl::OkStatus();
  return FailedPrecondition("it is of step ", manifest.step, ", and training.steps is ", num_steps,
                            kRemedy);
}

}  // namespace autosp
