#include "compiler/import/pt2_archive.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/mapped_file.h"
#include "common/status_macros.h"
#include "compiler/import/complex_pairs.h"
#include "compiler/import/complex_signs.h"
#include "compiler/import/exported_draws.h"
#include "compiler/import/exported_program.h"
#include "compiler/import/graph_importer.h"
#include "compiler/import/import_limits.h"
#include "compiler/import/lost_gradients.h"
#include "compiler/import/op_names.h"
#include "compiler/import/random_draws.h"
#include "compiler/import/remove_noise.h"
#include "compiler/import/size_guards.h"
#include "compiler/import/weights.h"
#include "compiler/import/zip_archive.h"
#include "compiler/ir/argument_access.h"
#include "compiler/ir/random_ops.h"

namespace autosp {
namespace {

constexpr std::string_view kModelPath = "models/model.json";
constexpr int64_t kMaxMarkerBytes = 64;  // archive_format, archive_version, byteorder

absl::Status OldLayout() {
  return Unimplemented(
      "the archive has the layout of torch 2.8 or older; re-save it with torch "
      "2.9 or newer");
}

// The folder that holds everything, named after the file it was saved as; with '/' at its end.
absl::StatusOr<std::string> FindRoot(const ZipArchive& archive) {
  const auto has_suffix = [&](std::string_view suffix) {
    return std::ranges::any_of(archive.entries(), [&](const ZipEntry& entry) {
      return entry.name == suffix || entry.name.ends_with(absl::StrCat("/", std::string(suffix)));
    });
  };
  for (const ZipEntry& entry : archive.entries()) {
    const size_t slash = entry.name.find('/');
    if (slash == std::string::npos) continue;
    if (entry.name.substr(slash + 1) == "archive_format") return entry.name.substr(0, slash + 1);
  }
  // Up to torch 2.7 the program was an entry of the root itself.
  if (has_suffix("serialized_exported_program.json")) return OldLayout();
  if (has_suffix("data.pkl")) {
    return InvalidArgument(
        "the archive is a pickled checkpoint or TorchScript, not an exported "
        "program; save it with torch.export.save");
  }
  return InvalidArgument(
      "the zip archive holds no exported program (no archive_format); save it "
      "with torch.export.save");
}

absl::StatusOr<std::string> ReadMarker(const ZipArchive& archive, const std::string& name) {
  const ZipEntry* entry = archive.Find(name);
  if (entry == nullptr) return NotFound(name, " is missing from the archive; save it again");
  ASSIGN_OR_RETURN(const std::string content, archive.Read(*entry, kMaxMarkerBytes));
  return std::string(absl::StripAsciiWhitespace(content));
}

absl::Status CheckMarkers(const ZipArchive& archive, const std::string& root) {
  ASSIGN_OR_RETURN(const std::string format, ReadMarker(archive, root + "archive_format"));
  if (format != "pt2") {
    return InvalidArgument("archive_format is '", format, "', only 'pt2' is read");
  }
  ASSIGN_OR_RETURN(const std::string version, ReadMarker(archive, root + "archive_version"));
  if (version != "0") {
    return Unimplemented("archive_version is '", version,
                         "', only '0' is read; export again with torch 2.9 to 2.15");
  }
  if (archive.Find(root + "byteorder") == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string byte_order, ReadMarker(archive, root + "byteorder"));
  if (byte_order == "little") return absl::OkStatus();
  return Unimplemented("byteorder is '", byte_order, "', only 'little' is read");
}

// torch 2.8 has the same tree with pickled weights and no config of them.
absl::Status CheckNotTorch28(const ZipArchive& archive, const std::string& root) {
  for (const ZipEntry& entry : archive.entries()) {
    const bool is_weight = entry.name.starts_with(root + "data/weights/");
    if (is_weight && entry.name.ends_with(".pt")) return OldLayout();
  }
  return absl::OkStatus();
}

absl::StatusOr<exported::Program> ReadModel(const ZipArchive& archive, const std::string& root) {
  const ZipEntry* entry = archive.Find(absl::StrCat(root, std::string(kModelPath)));
  if (entry == nullptr) {
    return NotFound(std::string(kModelPath),
                    " is missing from the archive; save one module, named "
                    "'model', with torch.export.save");
  }
  ASSIGN_OR_RETURN(const std::string json, archive.Read(*entry, kMaxJsonBytes));
  return exported::ReadProgram(json, "model.json");
}

absl::Status VerifyWeightSums(const ZipArchive& archive, const std::vector<WeightRef>& weights,
                              int64_t max_bytes) {
  std::set<std::string> entries;
  int64_t total_bytes = 0;
  for (const WeightRef& weight : weights) {
    if (entries.insert(weight.entry).second) total_bytes += weight.size_bytes;
  }
  if (total_bytes > max_bytes) return absl::OkStatus();
  for (const std::string& name : entries) {
    RETURN_IF_ERROR(archive.VerifyChecksum(*archive.Find(name)));
  }
  return absl::OkStatus();
}

// All weights have bytes, or none has.
absl::StatusOr<bool> IsGraphOnly(const std::vector<WeightRef>& weights) {
  const WeightRef* empty = nullptr;
  const WeightRef* filled = nullptr;
  for (const WeightRef& weight : weights) {
    // Constants and buffers are sometimes kept where parameters are not.
    if (weight.is_empty) empty = &weight;
    if (!weight.is_empty && weight.is_in_state_dict()) filled = &weight;
  }
  if (empty != nullptr && filled != nullptr && filled->size_bytes > 0) {
    return InvalidArgument("weight ", empty->input_name, " is empty, but ", filled->input_name,
                           " is not; export with all weights or with none");
  }
  return empty != nullptr;
}

SymbolRanges RangesOf(const exported::Program& program, const SymBindings& symbols) {
  SymbolRanges ranges;
  for (const auto& [name, range] : program.symbol_ranges) {
    if (!symbols.contains(name)) continue;
    SymbolRange& result = ranges[name];
    if (range.min.has_value()) result.min = *range.min;
    if (range.max.has_value()) result.max = *range.max;
  }
  return ranges;
}

bool MayDraw(const Node& node) {
  return DrawsRandomNumbers(node.op) || (node.op == "aten.scaled_dot_product_attention.default" &&
                                         NumberArgument(node.args, 4).value_or(0) > 0);
}

// For plans, and for what plans are held against.
absl::Status WriteBothDraws(ImportedModel& model) {
  const bool draws = std::ranges::any_of(model.graph.nodes, MayDraw);
  if (draws) model.graph_as_drawn = model.graph;
  ASSIGN_OR_RETURN(const GraphDraws numbers, ExpandDraws(model.graph));
  if (!draws) return absl::OkStatus();
  model.num_draws = WriteDraws(*model.graph_as_drawn, numbers);
  RemoveNoise(*model.graph_as_drawn);
  return WithContext(VerifyGraph(*model.graph_as_drawn), "graph as drawn");
}

// Tied buffers are one; of others that lie in one memory, a write to one would change both.
absl::Status CheckWrittenAlone(const Graph& graph, const std::vector<WeightRef>& weights) {
  for (const auto& [output, buffer] : graph.writes) {
    const std::string& name = graph.FindInput(buffer)->name;
    const auto own = std::ranges::find(weights, name, &WeightRef::input_name);
    if (own == weights.end() || own->size_bytes == 0) continue;
    for (const WeightRef& other : weights) {
      if (&other == &*own || other.entry != own->entry) continue;
      return Unimplemented("buffer ", name, " lies in one memory with ", other.input_name,
                           ", and a step writes to it; make one of them a clone");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ImportedModel> ImportArchiveFromMemory(absl::Span<const std::byte> bytes,
                                                      const ImportOptions& options) {
  ASSIGN_OR_RETURN(const ZipArchive archive, ZipArchive::Open(bytes));
  ASSIGN_OR_RETURN(const std::string root, FindRoot(archive));
  RETURN_IF_ERROR(CheckMarkers(archive, root));
  RETURN_IF_ERROR(CheckNotTorch28(archive, root));
  ASSIGN_OR_RETURN(exported::Program program, ReadModel(archive, root));
  ASSIGN_OR_RETURN(auto payloads, ReadPayloads(archive, root));
  ImportedModel model;
  model.warnings = LostGradients(program);
  model.reads_signs_of_zeros = ReadsSigns(program.graph);
  const bool keeps_signs = options.keeps_signs_of_zeros || model.reads_signs_of_zeros;
  RETURN_IF_ERROR(SplitComplex(program, payloads, keeps_signs));
  ASSIGN_OR_RETURN(const auto facts, FindTies(archive, program, payloads));
  ASSIGN_OR_RETURN(model.graph, ImportGraph(program, root.substr(0, root.size() - 1), facts));
  UnifyOpNames(model.graph);
  for (std::string& warning : WritesWithGradients(model.graph)) {
    model.warnings.push_back(std::move(warning));
  }
  RETURN_IF_ERROR(WriteBothDraws(model));
  RemoveNoise(model.graph);
  RETURN_IF_ERROR(WithContext(VerifyGraph(model.graph), "imported graph"));
  ASSIGN_OR_RETURN(model.weights, LocateWeights(archive, model.graph, payloads));
  RETURN_IF_ERROR(CheckWrittenAlone(model.graph, model.weights));
  ASSIGN_OR_RETURN(model.is_graph_only, IsGraphOnly(model.weights));
  model.constant_ranges = ConstantRanges(bytes, model.weights);
  for (const auto& [output, buffer] : model.graph.writes) {
    model.constant_ranges.erase(model.graph.FindInput(buffer)->name);
  }
  RETURN_IF_ERROR(VerifyWeightSums(archive, model.weights, options.max_checked_weight_bytes));
  model.symbol_ranges = RangesOf(program, model.graph.symbols);
  model.guards = ReadGuards(program, model.graph);
  model.torch_version = program.torch_version;
  model.schema_minor = program.schema_minor;
  return model;
}

absl::StatusOr<ImportedModel> ImportArchive(const std::string& path, const ImportOptions& options) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  absl::StatusOr<ImportedModel> model = ImportArchiveFromMemory(file.bytes(), options);
  if (!model.ok()) return WithContext(model.status(), "model archive ", path);
  return model;
}

}  // namespace autosp
