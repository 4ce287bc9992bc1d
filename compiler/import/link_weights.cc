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

// The bytes of a weight in its archive; empty where they are not at hand.
absl::Span<const std::byte> BytesOf(absl::Span<const std::byte> archive, const WeightRef& ref) {
  if (archive.empty() || ref.is_empty || ref.strides != ContiguousStrides(ref.sizes)) return {};
  int64_t num_bytes = SizeOf(ref.dtype);
  for (int64_t size : ref.sizes) num_bytes *= size;
  return archive.subspan(ref.file_offset + ref.storage_offset * SizeOf(ref.dtype), num_bytes);
}

bool DifferWhereKnown(absl::Span<const std::byte> a, absl::Span<const std::byte> b) {
  return !a.empty() && !b.empty() &&
         (a.size() != b.size() || std::memcmp(a.data(), b.data(), a.size()) != 0);
}

}  // namespace

WeightLinks::WeightLinks(const std::vector<std::vector<std::string>>& tied) {
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
  if (DifferWhereKnown(group.bytes, BytesOf(part.bytes, ref))) {
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
  } else if (!part_of_name_.emplace(input.name, part.name).second) {
    // Export numbers constants from 0 in each archive; nobody else knows them by name.
    added.name = absl::StrCat(part.name, ".", input.name);
    part_of_name_.emplace(added.name, part.name);
  }
  if (group != nullptr) {
    group->input = model->graph.inputs.size();
    group->weight = model->weights.size();
    group->bytes = BytesOf(part.bytes, ref);
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
