// Finds the bytes of parameters, buffers and constants in an archive, and which of them are tied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compiler/import/exported_program.h"
#include "compiler/import/graph_importer.h"
#include "compiler/import/pt2_archive.h"
#include "compiler/import/zip_archive.h"

namespace autosp {

// Requires grad and ties of all inputs that have a payload, by qualified name. Two names of one
// storage with the same shape are tied. Two parameters of one storage, and those that overlap
// otherwise, cannot be trained apart, which is an error.
// An archive without weights does not say what is tied.
absl::StatusOr<std::map<std::string, InputFacts>> FindTies(
    const ZipArchive& archive, const exported::Program& program,
    const std::map<std::string, exported::Payload>& payloads);

// The weights config of the archive (parameters and buffers) and that of the constants, in one map.
// `root` is the archive's folder, with a '/' at its end.
absl::StatusOr<std::map<std::string, exported::Payload>> ReadPayloads(const ZipArchive& archive,
                                                                      const std::string& root);

// One reference per parameter and buffer of the graph. Checks entry, type and size of each.
absl::StatusOr<std::vector<WeightRef>> LocateWeights(
    const ZipArchive& archive, const Graph& graph,
    const std::map<std::string, exported::Payload>& payloads);

// ImportedModel::constant_ranges; `bytes` are the archive's, checked by LocateWeights.
std::map<std::string, std::pair<int64_t, int64_t>> ConstantRanges(
    absl::Span<const std::byte> bytes, const std::vector<WeightRef>& weights);

}  // namespace autosp
