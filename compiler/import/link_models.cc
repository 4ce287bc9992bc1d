#include "compiler/import/link_models.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/mapped_file.h"
#include "common/status_macros.h"
#include "compiler/import/link_symbols.h"
#include "compiler/import/link_weights.h"
#include "compiler/ir/argument_access.h"
#include "compiler/ir/random_ops.h"
#include "compiler/ir/type_text.h"

namespace autosp {
namespace {

// A result of a part, which later parts may take.
struct PartOutput {
  std::string name;
  size_t part = 0;
  ValueId value;
  bool is_taken = false;
};

// What graphs call outputs that the module gave no name.
bool IsNumbered(const std::string& name) {
  constexpr std::string_view kPrefix = "output_";
  return name.starts_with(kPrefix) && name.size() > kPrefix.size() &&
         std::ranges::all_of(name.substr(kPrefix.size()), absl::ascii_isdigit);
}

class Linker {
 public:
  Linker(const std::vector<ModelPart>& parts, const std::vector<std::vector<std::string>>& tied)
      : weights_(parts, tied) {}

  absl::Status AddPart(const ModelPart& part, size_t index);
  absl::StatusOr<ImportedModel> Finish();

 private:
  const Graph& graph() const { return model_.graph; }

  void FindSources(const ModelPart& part, size_t index);
  PartOutput* OutputNamed(const std::string& name);
  bool HasType(const ModelPart& part, const GraphInput& input, ValueId value) const;
  absl::Status CheckAllTaken(const ModelPart& part, size_t index) const;
  absl::Status CheckSource(const ModelPart& part, const GraphInput& input, ValueId from) const;
  absl::Status BindSymbols(const ModelPart& part);
  void MergeRanges(const ModelPart& part);
  absl::Status AddInputs(const ModelPart& part, size_t index);
  ValueId AsExported(ValueId value, const TensorType& type);
  void NumberDraw(Node& node) const;
  void AddNodes(const ModelPart& part);
  void AddOutputs(const ModelPart& part, size_t index);
  absl::Status AddWrites();

  ImportedModel model_;
  WeightLinks weights_;
  std::vector<std::string> part_names_;
  std::vector<PartOutput> outputs_;
  std::vector<std::pair<ValueId, ValueId>> writes_;  // buffers, and what is written to them
  std::map<ValueId, int64_t> num_readers_;           // archives that have a weight
  std::map<std::string, ValueId> data_inputs_;

  // Of the part at hand: its inputs that earlier parts have, and all its values, as values of the
  // model.
  std::map<ValueId, ValueId> sources_;
  std::map<ValueId, ValueId> values_;
  SymbolLinks symbols_;
};

PartOutput* Linker::OutputNamed(const std::string& name) {
  const auto found = std::ranges::find(outputs_.rbegin(), outputs_.rend(), name, &PartOutput::name);
  return found == outputs_.rend() ? nullptr : &*found;
}

bool Linker::HasType(const ModelPart& part, const GraphInput& input, ValueId value) const {
  const TensorType& wanted = part.model.graph.type(input.value);
  const TensorType& given = graph().type(value);
  return wanted.dtype == given.dtype && SizeValues(wanted) == SizeValues(given);
}

void Linker::FindSources(const ModelPart& part, size_t index) {
  const auto link = [&](const GraphInput& input, PartOutput& output) {
    output.is_taken = true;
    sources_[input.value] = output.value;
    model_.links.push_back(absl::StrCat(part.name, ".", input.name, " is ", output.name, " of ",
                                        part_names_[output.part]));
  };
  std::vector<const GraphInput*> left;
  for (const GraphInput& input : part.model.graph.inputs) {
    if (input.kind != InputKind::kUser) continue;
    const auto data = data_inputs_.find(input.name);
    if (PartOutput* output = OutputNamed(input.name)) {
      link(input, *output);
    } else if (data != data_inputs_.end()) {
      sources_[input.value] = data->second;
    } else {
      left.push_back(&input);
    }
  }
  const auto is_source = [&](ValueId value) {
    return std::ranges::any_of(sources_, [&](const auto& each) { return each.second == value; });
  };
  auto next = left.begin();
  for (PartOutput& output : outputs_) {
    if (output.part + 1 != index || !IsNumbered(output.name) || output.is_taken) continue;
    if (is_source(output.value)) {
      output.is_taken = true;  // an input that is handed through
    } else if (next != left.end()) {
      link(**next++, output);
    }
  }
}

// That no input is fed from the data by mistake: every part of a model may call its input x, and a
// part may return a mask that it has changed.
absl::Status Linker::CheckAllTaken(const ModelPart& part, size_t index) const {
  std::set<ValueId> fed;
  for (const auto& [name, value] : data_inputs_) fed.insert(value);
  for (const PartOutput& output : outputs_) {
    if (output.part + 1 != index || !IsNumbered(output.name) || fed.contains(output.value))
      continue;
    for (const GraphInput& input : part.model.graph.inputs) {
      const auto source = sources_.find(input.value);
      const bool is_new = source == sources_.end();
      const bool is_fed = is_new ? !output.is_taken : fed.contains(source->second);
      if (input.kind != InputKind::kUser || !is_fed || !HasType(part, input, output.value)) {
        continue;
      }
      return InvalidArgument("input ", input.name, " is fed from the data, but could be ",
                             output.name, " of ", part_names_[output.part],
                             "; return a dictionary there, with the names of the inputs that take "
                             "its values");
    }
  }
  return absl::OkStatus();
}

absl::Status Linker::CheckSource(const ModelPart& part, const GraphInput& input,
                                 ValueId from) const {
  if (HasType(part, input, from)) return absl::OkStatus();
  return InvalidArgument(
      "input ", input.name, " is ", PrintTensorType(part.model.graph.type(input.value)), ", but %",
      graph().value(from).name, ", which it is given, is ", PrintTensorType(graph().type(from)),
      "; give the archives in the order in which they run, exported with the "
      "same example sizes, and inputs the names of the outputs that they take");
}

absl::Status Linker::BindSymbols(const ModelPart& part) {
  symbols_ = SymbolLinks();
  for (const GraphInput& input : part.model.graph.inputs) {
    const auto source = sources_.find(input.value);
    if (source == sources_.end()) continue;
    RETURN_IF_ERROR(CheckSource(part, input, source->second));
    const TensorType& wanted = part.model.graph.type(input.value);
    for (size_t dim = 0; dim < wanted.sizes.size(); ++dim) {
      RETURN_IF_ERROR(
          WithContext(symbols_.Bind(wanted.sizes[dim], graph().type(source->second).sizes[dim]),
                      "input ", input.name, ", dimension ", dim));
    }
  }
  return symbols_.Finish(part.model.graph.symbols, &model_.graph.symbols);
}

// A size that several archives bound lies in all their ranges.
void Linker::MergeRanges(const ModelPart& part) {
  for (const auto& [name, range] : part.model.symbol_ranges) {
    const auto replacement = symbols_.replacements().find(name);
    if (replacement == symbols_.replacements().end()) continue;
    const std::string* symbol = replacement->second.symbol();
    if (symbol == nullptr) continue;
    SymbolRange& merged = model_.symbol_ranges[*symbol];
    merged = {.min = std::max(merged.min, range.min), .max = std::min(merged.max, range.max)};
  }
}

// What export saw was laid out in some way; operations on strides were recorded for that one.
ValueId Linker::AsExported(ValueId value, const TensorType& type) {
  if (graph().type(value).strides == type.strides) return value;
  TensorType contiguous = graph().type(value);
  contiguous.strides = type.strides;
  const std::string name = graph().value(value).name;
  const ValueId copy = model_.graph.AddValue(name, contiguous);
  model_.graph.nodes.push_back({.op = "aten.clone.default",
                                .args = {value, EnumName{"contiguous_format"}},
                                .outputs = {copy},
                                .source = {},
                                .no_grad = false});
  return copy;
}

absl::Status Linker::AddInputs(const ModelPart& part, size_t index) {
  std::map<std::string, const WeightRef*> refs;
  for (const WeightRef& ref : part.model.weights) refs[ref.input_name] = &ref;
  for (const GraphInput& input : part.model.graph.inputs) {
    const GraphValue& value = part.model.graph.value(input.value);
    const auto source = sources_.find(input.value);
    if (source != sources_.end()) {
      const bool is_contiguous = value.type.strides == ContiguousStrides(SizeValues(value.type));
      if (!is_contiguous && graph().type(source->second).strides != value.type.strides) {
        return Unimplemented("input ", input.name, " was exported with a tensor that is not ",
                             "contiguous; call contiguous() on it where the part begins");
      }
      values_[input.value] = AsExported(source->second, value.type);
      continue;
    }
    const GraphValue added_value{.name = value.name, .type = symbols_.Apply(value.type)};
    if (input.kind == InputKind::kUser) {
      GraphInput added = input;
      added.value = model_.graph.AddValue(added_value.name, added_value.type);
      data_inputs_[input.name] = added.value;
      model_.graph.inputs.push_back(added);
      values_[input.value] = added.value;
      continue;
    }
    WeightRef ref = *refs.at(input.name);
    ref.archive = index;
    ASSIGN_OR_RETURN(values_[input.value], weights_.Add(part, input, ref, added_value, &model_));
    ++num_readers_[values_[input.value]];
  }
  return absl::OkStatus();
}

// After those of the parts before.
void Linker::NumberDraw(Node& node) const {
  const std::optional<size_t> argument = DrawNumberArgument(node.op);
  const std::optional<int64_t> number =
      argument ? IntegerArgument(node.args, *argument) : std::nullopt;
  if (number) node.args[*argument] = SymInt(*number + model_.num_draws);
}

void Linker::AddNodes(const ModelPart& part) {
  for (const Node& node : part.model.graph.nodes) {
    Node added = node;
    NumberDraw(added);
    for (Argument& argument : added.args) {
      argument = symbols_.Apply(std::move(argument));
      ForEachValue(argument, [&](ValueId& id) { id = values_.at(id); });
    }
    for (ValueId& output : added.outputs) {
      const GraphValue& value = part.model.graph.value(output);
      const ValueId id = model_.graph.AddValue(value.name, symbols_.Apply(value.type));
      values_[output] = id;
      output = id;
    }
    model_.graph.nodes.push_back(std::move(added));
  }
}

void Linker::AddOutputs(const ModelPart& part, size_t index) {
  const Graph& from = part.model.graph;
  for (const auto& [output, buffer] : from.writes) {
    writes_.emplace_back(values_.at(buffer), values_.at(from.outputs[output]));
  }
  for (size_t i = 0; i < from.NumResults(); ++i) {
    outputs_.push_back({.name = from.output_names[i],
                        .part = index,
                        .value = values_.at(from.outputs[i]),
                        .is_taken = false});
  }
}

absl::Status Linker::AddPart(const ModelPart& part, size_t index) {
  sources_.clear();
  values_.clear();
  FindSources(part, index);
  RETURN_IF_ERROR(CheckAllTaken(part, index));
  const bool has_weights = !part.model.weights.empty();
  if (has_weights && !model_.weights.empty() && part.model.is_graph_only != model_.is_graph_only) {
    return InvalidArgument("was exported with", part.model.is_graph_only ? "out" : "",
                           " weights, unlike the archives before it; export all with or without");
  }
  if (has_weights) model_.is_graph_only = part.model.is_graph_only;
  RETURN_IF_ERROR(BindSymbols(part));
  MergeRanges(part);
  RETURN_IF_ERROR(AddInputs(part, index));
  AddNodes(part);
  model_.num_draws += part.model.num_draws;
  AddOutputs(part, index);
  for (const SizeGuard& guard : part.model.guards) {
    model_.guards.push_back(guard.Substitute(symbols_.replacements()));
  }
  for (const std::string& warning : part.model.warnings) {
    model_.warnings.push_back(absl::StrCat(part.name, ": ", warning));
  }
  absl::StrAppend(&model_.graph.name, index == 0 ? "" : "+", part.model.graph.name);
  model_.torch_version = part.model.torch_version;
  model_.schema_minor = std::max(model_.schema_minor, part.model.schema_minor);
  part_names_.push_back(part.name);
  return absl::OkStatus();
}

// An archive after it would read what the step has written.
absl::Status Linker::AddWrites() {
  for (const auto& [buffer, value] : writes_) {
    if (num_readers_[buffer] > 1) {
      return Unimplemented("buffer ", graph().FindInput(buffer)->name,
                           " is written by one archive, and others have it too; let one archive "
                           "read and write it");
    }
    model_.graph.AddWrite(buffer, value);
  }
  return absl::OkStatus();
}

absl::StatusOr<ImportedModel> Linker::Finish() {
  RETURN_IF_ERROR(weights_.CheckTied());
  const size_t last = part_names_.size() - 1;
  for (size_t part = 0; part < last; ++part) {
    const bool is_used = std::ranges::any_of(
        outputs_, [&](const PartOutput& output) { return output.part == part && output.is_taken; });
    if (is_used) continue;
    return InvalidArgument("model.archive: ", part_names_[part],
                           ": nothing takes its outputs; list ",
                           "the archives in the order in which they run, and name an input like "
                           "the output that it takes");
  }
  std::ranges::stable_partition(outputs_,
                                [&](const PartOutput& output) { return output.part == last; });
  for (const PartOutput& output : outputs_) {
    if (output.is_taken) continue;
    const std::string prefix = output.part == last ? "" : part_names_[output.part] + ".";
    if (output.part != last) {
      model_.links.push_back(absl::StrCat(
          prefix, output.name, " is an output of the model: no archive after it takes it"));
    }
    model_.graph.outputs.push_back(output.value);
    model_.graph.output_names.push_back(prefix + output.name);
  }
  RETURN_IF_ERROR(AddWrites());
  RETURN_IF_ERROR(WithContext(VerifyGraph(model_.graph), "linked graph"));
  return std::move(model_);
}

std::vector<std::string> PartNames(const std::vector<std::string>& paths) {
  std::vector<std::string> names;
  for (const std::string& path : paths) {
    const std::string stem = std::filesystem::path(path).stem().string();
    std::string name = stem;
    for (int i = 2; std::ranges::count(names, name) > 0; ++i) name = absl::StrCat(stem, "_", i);
    names.push_back(name);
  }
  return names;
}

absl::StatusOr<ImportedModel> Link(const std::vector<ModelPart>& parts,
                                   const std::vector<std::vector<std::string>>& tied) {
  Linker linker(parts, tied);
  for (size_t i = 0; i < parts.size(); ++i) {
    RETURN_IF_ERROR(WithContext(linker.AddPart(parts[i], i), "model.archive: ", parts[i].name));
  }
  return linker.Finish();
}

absl::StatusOr<std::vector<ModelPart>> ImportParts(const std::vector<std::string>& paths,
                                                   const std::vector<MappedFile>& files,
                                                   const ImportOptions& options) {
  const std::vector<std::string> names = PartNames(paths);
  std::vector<ModelPart> parts;
  for (size_t i = 0; i < paths.size(); ++i) {
    ModelPart part{.name = names[i], .model = {}, .bytes = files[i].bytes()};
    ASSIGN_OR_RETURN(part.model, ImportArchiveFromMemory(files[i].bytes(), options),
                     "model archive ", paths[i]);
    if (options.max_checked_weight_bytes == 0) part.bytes = {};
    parts.push_back(std::move(part));
  }
  return parts;
}

}  // namespace

absl::StatusOr<ImportedModel> LinkModels(const std::vector<ModelPart>& parts,
                                         const std::vector<std::vector<std::string>>& tied) {
  ASSIGN_OR_RETURN(ImportedModel model, Link(parts, tied));
  if (model.num_draws == 0) return model;
  std::vector<ModelPart> as_drawn = parts;
  for (ModelPart& part : as_drawn) {
    if (part.model.graph_as_drawn) part.model.graph = *part.model.graph_as_drawn;
  }
  ASSIGN_OR_RETURN(ImportedModel linked, Link(as_drawn, tied));
  model.graph_as_drawn = std::move(linked.graph);
  return model;
}

absl::StatusOr<ImportedModel> ImportModel(const std::vector<std::string>& paths,
                                          const std::vector<std::vector<std::string>>& tied,
                                          const ImportOptions& options) {
  if (paths.empty()) return InvalidArgument("model.archive: is empty; name a .pt2 file");
  if (paths.size() == 1 && tied.empty()) return ImportArchive(paths[0], options);
  std::vector<MappedFile> files;
  for (const std::string& path : paths) {
    ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
    files.push_back(std::move(file));
  }
  ASSIGN_OR_RETURN(std::vector<ModelPart> parts, ImportParts(paths, files, options));
  const auto reads_signs = [](const ModelPart& part) { return part.model.reads_signs_of_zeros; };
  if (std::ranges::any_of(parts, reads_signs) && !std::ranges::all_of(parts, reads_signs)) {
    ImportOptions keeping = options;
    keeping.keeps_signs_of_zeros = true;
    ASSIGN_OR_RETURN(parts, ImportParts(paths, files, keeping));
  }
  return LinkModels(parts, tied);
}

}  // namespace autosp
