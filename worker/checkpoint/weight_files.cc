#include "worker/checkpoint/weight_files.h"

#include <ATen/ops/from_blob.h>

#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/import/link_models.h"
#include "worker/executor/torch_types.h"

namespace autosp {
namespace {

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

absl::StatusOr<std::unique_ptr<WeightFiles>> WeightFiles::Open(const ModelSpec& spec,
                                                               MissingWeights missing) {
  auto files = std::unique_ptr<WeightFiles>(new WeightFiles());
  // The sums were checked when the job was compiled.
  ASSIGN_OR_RETURN(const ImportedModel model,
                   ImportModel(spec.archives, spec.tied, {.max_checked_weight_bytes = 0}));
  for (const std::string& path : spec.archives) {
    ASSIGN_OR_RETURN(MappedFile archive, MappedFile::Open(path), "model.archive");
    files->archives_.push_back(std::make_shared<MappedFile>(std::move(archive)));
  }
  ASSIGN_OR_RETURN(ResolvedWeights resolved, ResolveWeights(model, spec.weights, missing));
  files->AddWeights(std::move(resolved));
  return files;
}

void WeightFiles::AddWeights(ResolvedWeights resolved) {
  safetensors_ = std::move(resolved.safetensors);
  for (ResolvedWeight& weight : resolved.weights) {
    const WeightRef& ref = weight.ref;
    std::vector<std::string> names = {ref.input_name};
    names.insert(names.end(), weight.aliases.begin(), weight.aliases.end());
    for (const std::string& name : names) {
      canonical_names_[name] = ref.input_name;
      if (!weight.is_in_state_dict) continue;
      state_dict_.push_back({.name = name, .dtype = ref.dtype, .shape = ref.sizes});
    }
    weights_[ref.input_name] = std::move(weight);
  }
}

const std::string& WeightFiles::CanonicalName(const std::string& name) const {
  const auto found = canonical_names_.find(name);
  return found == canonical_names_.end() ? name : found->second;
}

absl::StatusOr<at::Tensor> WeightFiles::Load(const std::string& name) {
  const auto found = weights_.find(CanonicalName(name));
  if (found == weights_.end()) return NotFound("weights: the model has no ", name);
  const ResolvedWeight& weight = found->second;
  const WeightRef& ref = weight.ref;
  if (weight.found_as.empty() && ref.is_empty) {
    return NotFound("weights: ", name, " has no bytes in the archive");
  }
  at::Tensor tensor;
  RETURN_IF_ERROR(CatchTorch([&] {
    if (!weight.found_as.empty()) {
      ASSIGN_OR_RETURN(const SafetensorsReader::Tensor source, safetensors_->Find(weight.found_as));
      tensor = ViewOf(source.bytes.data(), source.entry->shape,
                      ContiguousStrides(source.entry->shape), *source.entry->dtype, safetensors_);
      return absl::OkStatus();
    }
    const std::shared_ptr<const MappedFile>& archive = archives_[ref.archive];
    const std::byte* bytes =
        archive->data() + ref.file_offset + ref.storage_offset * SizeOf(ref.dtype);
    tensor = ViewOf(bytes, ref.sizes, ref.strides, ref.dtype, archive);
    return absl::OkStatus();
  }));
  return tensor;
}

}  // namespace autosp
