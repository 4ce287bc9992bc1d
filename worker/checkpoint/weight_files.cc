#include "worker/checkpoint/weight_files.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/executor/torch_types.h"

namespace autosp {
namespace {

// Parameters and persistent buffers; constants lie in another folder of the archive.
constexpr char kStateDictFolder[] = "/data/weights/";

// So many problems are listed; the rest is counted.
constexpr size_t kMaxProblems = 10;

bool CanConvert(DType from, DType to) { return from == to || (IsFloating(from) && IsFloating(to)); }

std::string TypeText(DType dtype, const std::vector<int64_t>& sizes) {
  return absl::StrCat(std::string(DTypeName(dtype)), "[", absl::StrJoin(sizes, ", "), "]");
}

// `owner` lives as long as the tensor. Nothing writes to the tensor, which a mapping would not
// bear.
at::Tensor ViewOf(const std::byte* bytes, const std::vector<int64_t>& sizes,
                  const std::vector<int64_t>& strides, DType dtype,
                  std::shared_ptr<const void> owner) {
  return at::from_blob(
      const_cast<std::byte*>(bytes), sizes, strides, [owner = std::move(owner)](void*) {},
      at::TensorOptions(ToScalarType(dtype)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<WeightFiles>> WeightFiles::Open(const std::string& archive_path,
                                                               const std::string& weights_path) {
  auto files = std::unique_ptr<WeightFiles>(new WeightFiles());
  // The sums were checked when the job was compiled.
  ASSIGN_OR_RETURN(ImportedModel model,
                   ImportArchive(archive_path, {.max_checked_weight_bytes = 0}), archive_path);
  ASSIGN_OR_RETURN(MappedFile archive, MappedFile::Open(archive_path), "model.archive");
  files->archive_ = std::make_shared<MappedFile>(std::move(archive));
  files->AddWeights(std::move(model));
  if (!weights_path.empty()) {
    ASSIGN_OR_RETURN(SafetensorsReader reader, SafetensorsReader::Open(weights_path));
    files->safetensors_ = std::make_shared<SafetensorsReader>(std::move(reader));
  }
  RETURN_IF_ERROR(files->FindAll());
  return files;
}

void WeightFiles::AddWeights(ImportedModel model) {
  for (WeightRef& ref : model.weights) {
    const auto input = std::ranges::find(model.graph.inputs, ref.input_name, &GraphInput::name);
    Weight weight{.ref = std::move(ref), .aliases = {}, .found_as = ""};
    if (input != model.graph.inputs.end()) weight.aliases = input->aliases;
    std::vector<std::string> names = {weight.ref.input_name};
    names.insert(names.end(), weight.aliases.begin(), weight.aliases.end());
    const bool is_in_state_dict = absl::StrContains(weight.ref.entry, kStateDictFolder);
    for (const std::string& name : names) {
      canonical_names_[name] = weight.ref.input_name;
      if (!is_in_state_dict) continue;
      state_dict_.push_back({.name = name, .dtype = weight.ref.dtype, .shape = weight.ref.sizes});
    }
    weights_[weight.ref.input_name] = std::move(weight);
  }
}

absl::Status WeightFiles::FindAll() {
  std::vector<std::string> problems;
  for (auto& [name, weight] : weights_) {
    const absl::Status status = FindOne(weight);
    if (!status.ok()) problems.emplace_back(status.message());
  }
  if (problems.empty()) return absl::OkStatus();
  const size_t num_listed = std::min(problems.size(), kMaxProblems);
  std::string text = absl::StrJoin(problems.begin(), problems.begin() + num_listed, "\n");
  if (num_listed < problems.size()) {
    absl::StrAppend(&text, "\nand ", problems.size() - num_listed, " more");
  }
  return InvalidArgument(text);
}

absl::Status WeightFiles::FindOne(Weight& weight) const {
  const WeightRef& ref = weight.ref;
  std::vector<std::string> names = {ref.input_name};
  names.insert(names.end(), weight.aliases.begin(), weight.aliases.end());
  for (const std::string& name : names) {
    if (safetensors_ == nullptr) break;
    const auto found = safetensors_->Find(name);
    if (!found.ok()) continue;
    const SafetensorsEntry& entry = *found->entry;
    if (!entry.dtype.has_value() || !CanConvert(*entry.dtype, ref.dtype) ||
        entry.shape != ref.sizes) {
      return InvalidArgument("weights ", safetensors_->path(), ": ", name, " is ", entry.dtype_name,
                             "[", absl::StrJoin(entry.shape, ", "), "], the model has ",
                             TypeText(ref.dtype, ref.sizes));
    }
    weight.found_as = name;
    return absl::OkStatus();
  }
  if (!ref.is_empty) {
    // The importer has checked that the bytes are there.
    const bool must_be_in_files =
        safetensors_ != nullptr && absl::StrContains(ref.entry, kStateDictFolder);
    if (!must_be_in_files) return absl::OkStatus();
  }
  if (safetensors_ == nullptr) {
    return InvalidArgument("weights: ", ref.input_name,
                           " has no bytes in the archive, which was exported without weights; ",
                           "name a safetensors file as model.weights");
  }
  return safetensors_->Find(ref.input_name).status();
}

const std::string& WeightFiles::CanonicalName(const std::string& name) const {
  const auto found = canonical_names_.find(name);
  return found == canonical_names_.end() ? name : found->second;
}

absl::StatusOr<at::Tensor> WeightFiles::Load(const std::string& name) {
  const auto found = weights_.find(CanonicalName(name));
  if (found == weights_.end()) return NotFound("weights: the model has no ", name);
  const Weight& weight = found->second;
  const WeightRef& ref = weight.ref;
  at::Tensor tensor;
  RETURN_IF_ERROR(CatchTorch([&] {
    if (!weight.found_as.empty()) {
      ASSIGN_OR_RETURN(const SafetensorsReader::Tensor source, safetensors_->Find(weight.found_as));
      tensor = ViewOf(source.bytes.data(), source.entry->shape,
                      ContiguousStrides(source.entry->shape), *source.entry->dtype, safetensors_);
      return absl::OkStatus();
    }
    const std::byte* bytes =
        archive_->data() + ref.file_offset + ref.storage_offset * SizeOf(ref.dtype);
    tensor = ViewOf(bytes, ref.sizes, ref.strides, ref.dtype, archive_);
    return absl::OkStatus();
  }));
  return tensor;
}

}  // namespace autosp
