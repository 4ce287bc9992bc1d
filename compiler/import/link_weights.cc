#include "compiler/import/link_weights.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/edit_distance.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/type_text.h"

namespace autosp {
namespace {

std::vector<std::string> NamesOf(const GraphInput& input) {
  std::vector<std::string> names = {input.name};
  names.insert(names.end(), input.aliases.begin(), input.aliases.end());
  return names;
}

// The place of every element in its archive, in the order of the tensor.
std::vector<int64_t> Places(const WeightRef& ref) {
  std::vector<int64_t> places = {ref.storage_offset};
  for (size_t dim = 0; dim < ref.sizes.size(); ++dim) {
    std::vector<int64_t> next;
    for (int64_t place : places) {
      for (int64_t i = 0; i < ref.sizes[dim]; ++i) next.push_back(place + i * ref.strides[dim]);
    }
    places = std::move(next);
  }
  return places;
}

// Whether two weights of one type and shape have the same elements, as far as they are at hand.
bool HaveSameElements(absl::Span<const std::byte> a, const WeightRef& ref_a,
                      absl::Span<const std::byte> b, const WeightRef& ref_b) {
  if (a.empty() || b.empty() || ref_a.is_empty || ref_b.is_empty) return true;
  const int64_t size = SizeOf(ref_a.dtype);
  const auto at = [size](absl::Span<const std::byte> bytes, const WeightRef& ref, int64_t place) {
    return bytes.data() + ref.file_offset + place * size;
  };
  const bool are_contiguous = ref_a.strides == ContiguousStrides(ref_a.sizes) &&
                              ref_b.strides == ContiguousStrides(ref_b.sizes);
  if (are_contiguous) {
    int64_t num_bytes = size;
    for (int64_t each : ref_a.sizes) num_bytes *= each;
    return std::memcmp(at(a, ref_a, ref_a.storage_offset), at(b, ref_b, ref_b.storage_offset),
                       num_bytes) == 0;
  }
  const std::vector<int64_t> places_a = Places(ref_a);
  const std::vector<int64_t> places_b = Places(ref_b);
  for (size_t i = 0; i < places_a.size(); ++i) {
    if (std::memcmp(at(a, ref_a, places_a[i]), at(b, ref_b, places_b[i]), size) != 0) return false;
  }
  return true;
}

}  // namespace

WeightLinks::WeightLinks(const std::vector<ModelPart>& parts,
                         const std::vector<std::vector<std::string>>& tied) {
  for (const ModelPart& part : parts) {
    for (const WeightRef& ref : part.model.weights) {
      if (ref.is_in_state_dict()) reserved_.insert(ref.input_name);
    }
    for (const GraphInput& input : part.model.graph.inputs) {
      reserved_.insert(input.aliases.begin(), input.aliases.end());
    }
  }
  for (const std::vector<std::string>& names : tied) {
    Group& group = groups_.emplace_back();
    group.names = names;
    for (const std::string& name : names) group.is_met[name] = false;
  }
}

WeightLinks::Group* WeightLinks::FindGroup(const GraphInput& input) {
  Group* found = nullptr;
  for (const std::string& name : NamesOf(input)) {
    for (Group& group : groups_) {
      const auto met = group.is_met.find(name);
      if (met == group.is_met.end()) continue;
      met->second = true;
      found = &group;
    }
  }
  return found;
}

absl::Status WeightLinks::TakeNames(const ModelPart& part, const GraphInput& input) {
  for (const std::string& name : NamesOf(input)) {
    const auto [found, is_new] = part_of_name_.emplace(name, part.name);
    if (is_new || found->second == part.name) continue;
    return InvalidArgument(name, " is a weight of ", found->second,
                           " too; if it is one and the same, list it under model.tied; else export "
                           "the parts inside modules that give their weights names of their own");
  }
  return absl::OkStatus();
}

std::string WeightLinks::FreeName(const std::string& part, const std::string& name) const {
  if (!reserved_.contains(name)) return name;
  std::string free = absl::StrCat(part, ".", name);
  for (int i = 1; reserved_.contains(free); ++i) free = absl::StrCat(part, ".", name, "_", i);
  return free;
}

absl::StatusOr<ValueId> WeightLinks::Tie(const ModelPart& part, const GraphInput& input,
                                         const WeightRef& ref, const TensorType& type, Group& group,
                                         ImportedModel* model) {
  GraphInput& first = model->graph.inputs[group.input];
  const TensorType& first_type = model->graph.type(first.value);
  if (first.kind != input.kind || first_type.dtype != type.dtype ||
      SizeValues(first_type) != SizeValues(type)) {
    return InvalidArgument(input.name, " is ", PrintTensorType(type), ", and ", first.name,
                           ", to which model.tied ties it, is ", PrintTensorType(first_type));
  }
  if (!HaveSameElements(group.bytes, model->weights[group.weight], part.bytes, ref)) {
    return InvalidArgument(input.name, " has other values than ", first.name,
                           ", to which model.tied ties it; export all parts from the same model");
  }
  for (const std::string& name : NamesOf(input)) {
    part_of_name_.emplace(name, part.name);
    const bool is_known = name == first.name || std::ranges::count(first.aliases, name) > 0;
    if (!is_known) first.aliases.push_back(name);
  }
  first.requires_grad = first.requires_grad || input.requires_grad;
  if (model->weights[group.weight].is_empty && !ref.is_empty) {
    const std::string name = first.name;
    model->weights[group.weight] = ref;
    model->weights[group.weight].input_name = name;
  }
  return first.value;
}

absl::StatusOr<ValueId> WeightLinks::Add(const ModelPart& part, const GraphInput& input,
                                         const WeightRef& ref, const GraphValue& value,
                                         ImportedModel* model) {
  GraphInput added = input;
  Group* group = ref.is_in_state_dict() ? FindGroup(input) : nullptr;
  if (group != nullptr && group->num_weights++ > 0) {
    return Tie(part, input, ref, value.type, *group, model);
  }
  if (ref.is_in_state_dict()) {
    RETURN_IF_ERROR(TakeNames(part, input));
  } else {
    // Export numbers constants from 0 in each archive; nobody else knows them by name.
    added.name = FreeName(part.name, input.name);
    reserved_.insert(added.name);
  }
  if (group != nullptr) {
    group->input = model->graph.inputs.size();
    group->weight = model->weights.size();
    group->bytes = part.bytes;
  }
  added.value = model->graph.AddValue(value.name, value.type);
  model->graph.inputs.push_back(added);
  model->weights.push_back(ref);
  model->weights.back().input_name = added.name;
  const auto range = part.model.constant_ranges.find(input.name);
  if (range != part.model.constant_ranges.end()) {
    model->constant_ranges[added.name] = range->second;
  }
  return added.value;
}

absl::Status WeightLinks::CheckTied() const {
  std::vector<std::string> known;
  for (const auto& [name, part] : part_of_name_) known.push_back(name);
  for (const Group& group : groups_) {
    for (const auto& [name, is_met] : group.is_met) {
      if (is_met) continue;
      return InvalidArgument("model.tied: no archive has a weight ", name,
                             SuggestName(name, known));
    }
    if (group.num_weights > 1) continue;
    return InvalidArgument("model.tied: [", absl::StrJoin(group.names, ", "),
                           "] is one weight already; leave it out");
  }
  return absl::OkStatus();
}

}  // namespace autosp
