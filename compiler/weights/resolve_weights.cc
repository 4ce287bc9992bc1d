#include "compiler/weights/resolve_weights.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/edit_distance.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

// So many problems are listed; the rest is counted.
constexpr size_t kMaxProblems = 10;

// Names of the file that are shown where none is near to the one that is missing.
constexpr size_t kMaxShownNames = 3;

std::string TypeText(DType dtype, const std::vector<int64_t>& sizes) {
  return absl::StrCat(std::string(DTypeName(dtype)), "[", absl::StrJoin(sizes, ", "), "]");
}

std::vector<std::string> NamesOf(const ResolvedWeight& weight) {
  std::vector<std::string> names = {weight.ref.input_name};
  names.insert(names.end(), weight.aliases.begin(), weight.aliases.end());
  return names;
}

std::string KeyOf(const SafetensorsReader& files) {
  return absl::StrCat("model.weights: ", files.path());
}

absl::Status CheckTensor(const std::string& name, const SafetensorsReader::Tensor& found,
                         const WeightRef& ref) {
  const SafetensorsEntry& entry = *found.entry;
  const std::string where = absl::StrCat("model.weights: ", *found.path, ": ", name, " is ",
                                         entry.dtype_name, "[", absl::StrJoin(entry.shape, ", "),
                                         "], the model has ", TypeText(ref.dtype, ref.sizes));
  if (entry.shape != ref.sizes) {
    return InvalidArgument(where, "; give the weights of the model that was exported");
  }
  if (!entry.dtype.has_value() || !CanConvert(*entry.dtype, ref.dtype)) {
    return InvalidArgument(where, ", to which it does not convert; save the tensor as ",
                           SafetensorsDTypeName(ref.dtype));
  }
  return absl::OkStatus();
}

absl::Status Missing(const SafetensorsReader& files, const ResolvedWeight& weight) {
  const std::string& name = weight.ref.input_name;
  if (!weight.is_in_state_dict) {
    return InvalidArgument(KeyOf(files), ": has no tensor ", name,
                           ", a buffer that state_dict leaves out (persistent=False), and the "
                           "archive has no bytes of it; add it, as named_buffers gives it");
  }
  std::vector<std::string> names = files.Names();
  std::string hint;
  if (const std::optional<std::string> nearest = NearestName(name, names)) {
    hint = absl::StrCat("; did you mean \"", *nearest, "\"?");
  } else if (!names.empty()) {
    const size_t num_tensors = names.size();
    names.resize(std::min(num_tensors, kMaxShownNames));
    hint = absl::StrCat(", but ", num_tensors, " others, of which the first are ",
                        absl::StrJoin(names, ", "));
  }
  return InvalidArgument(KeyOf(files), ": has no tensor ", name, hint,
                         "; save the model's whole state_dict");
}

absl::Status Resolve(const SafetensorsReader* files, ResolvedWeight* weight) {
  const WeightRef& ref = weight->ref;
  if (files != nullptr) {
    for (const std::string& name : NamesOf(*weight)) {
      const std::optional<SafetensorsReader::Tensor> found = files->Lookup(name);
      if (!found) continue;
      RETURN_IF_ERROR(CheckTensor(name, *found, ref));
      weight->found_as = name;
      return absl::OkStatus();
    }
    if (weight->is_in_state_dict || ref.is_empty) return Missing(*files, *weight);
  }
  // The importer has checked the bytes that are there; what lacks them is found by the caller.
  return absl::OkStatus();
}

std::string DescribeMissing(const std::vector<std::string>& names) {
  const std::string more =
      names.size() > 1 ? absl::StrCat(" and ", names.size() - 1, " others have") : " has";
  return absl::StrCat("model.weights: is not set, and ", names.front(), more,
                      " no bytes in the archive, which was exported without weights; name a "
                      "safetensors file as model.weights");
}

absl::Status Join(const std::vector<std::string>& problems) {
  if (problems.empty()) return absl::OkStatus();
  const size_t num_listed = std::min(problems.size(), kMaxProblems);
  std::string text = absl::StrJoin(problems.begin(), problems.begin() + num_listed, "\n");
  if (num_listed < problems.size()) {
    absl::StrAppend(&text, "\nand ", problems.size() - num_listed, " more");
  }
  return InvalidArgument(text);
}

std::vector<std::string> FindUnused(const ResolvedWeights& resolved) {
  std::set<std::string> known;
  for (const ResolvedWeight& weight : resolved.weights) {
    for (std::string& name : NamesOf(weight)) known.insert(std::move(name));
  }
  std::vector<std::string> unused = resolved.safetensors->Names();
  std::erase_if(unused, [&](const std::string& name) { return known.contains(name); });
  return unused;
}

}  // namespace

absl::StatusOr<ResolvedWeights> ResolveWeights(const ImportedModel& model,
                                               const std::string& weights_path,
                                               MissingWeights missing) {
  ResolvedWeights resolved;
  if (!weights_path.empty()) {
    ASSIGN_OR_RETURN(SafetensorsReader reader, SafetensorsReader::Open(weights_path));
    resolved.safetensors = std::make_shared<SafetensorsReader>(std::move(reader));
  }
  std::vector<std::string> problems;
  std::vector<std::string> without_bytes;
  for (const WeightRef& ref : model.weights) {
    ResolvedWeight weight{.ref = ref, .aliases = {}, .found_as = "", .is_in_state_dict = false};
    const auto input = std::ranges::find(model.graph.inputs, ref.input_name, &GraphInput::name);
    if (input != model.graph.inputs.end()) weight.aliases = input->aliases;
    weight.is_in_state_dict = ref.is_in_state_dict();
    if (ref.is_empty && weights_path.empty()) without_bytes.push_back(ref.input_name);
    const absl::Status status = Resolve(resolved.safetensors.get(), &weight);
    if (!status.ok()) problems.emplace_back(status.message());
    resolved.weights.push_back(std::move(weight));
  }
  if (!without_bytes.empty()) resolved.missing = DescribeMissing(without_bytes);
  if (missing != MissingWeights::kLeave && !without_bytes.empty()) {
    problems.push_back(resolved.missing);
  }
  RETURN_IF_ERROR(Join(problems));
  if (resolved.safetensors != nullptr) resolved.unused = FindUnused(resolved);
  return resolved;
}

}  // namespace autosp
