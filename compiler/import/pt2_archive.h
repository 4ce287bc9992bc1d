// Imports a `.pt2` archive as torch.export.save of torch 2.9 and newer writes it: the graph, and
// where in the file the bytes of each weight lie. No weight is copied; ranks map the archive.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compiler/ir/graph.h"
#include "compiler/ir/size_guard.h"
#include "compiler/ir/symbol_range.h"

namespace autosp {

struct ImportOptions {
  // Weights of up to this many bytes in all are read once to check their sums. Larger archives are
  // covered by the digest of the whole file.
  int64_t max_checked_weight_bytes = int64_t{1} << 30;
  // Zeros of complex numbers have the signs of PyTorch's also where nothing in the archive reads
  // them (complex_signs.h), as what takes its results may do.
  bool keeps_signs_of_zeros = false;
};

// The bytes of one parameter, buffer or constant of the graph.
struct WeightRef {
  std::string input_name;   // GraphInput::name
  std::string entry;        // "model/data/weights/weight_0"
  int64_t file_offset = 0;  // of the entry's bytes in the archive, little endian, uncompressed
  int64_t size_bytes = 0;   // of the entry; it may hold more than this tensor (shared storage)
  DType dtype = DType::kF32;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;  // elements
  int64_t storage_offset = 0;    // elements, from file_offset
  bool is_empty = false;         // the archive was exported without weights (graph only)
  size_t archive = 0;            // which of the archives has it, of a model in several

  // Parameters and persistent buffers; what is not (constants) only the archive has.
  bool is_in_state_dict() const { return entry.find("/data/weights/") != std::string::npos; }
};

struct ImportedModel {
  Graph graph;
  // Of a model that draws random numbers or drops: the graph before its draws were written for
  // plans, with draws as PyTorch defines them (exported_draws.h).
  std::optional<Graph> graph_as_drawn;
  int64_t num_draws = 0;           // numbers of draws in both
  std::vector<WeightRef> weights;  // one per parameter and buffer, in the order of the inputs
  bool is_graph_only = false;      // no weight has bytes in the archive
  // The least and the greatest element of integers that are not in the state dict, by input name:
  // places that the model names. Also of floating numbers that are whole.
  std::map<std::string, std::pair<int64_t, int64_t>> constant_ranges;
  SymbolRanges symbol_ranges;
  std::vector<SizeGuard> guards;
  std::string torch_version;
  int64_t schema_minor = 0;
  bool reads_signs_of_zeros = false;
  // Of a model in several archives, for people: "head.hidden is output_0 of layers".
  std::vector<std::string> links;
  std::vector<std::string> warnings;  // of what torch.export has left out (lost_gradients.h)
};

absl::StatusOr<ImportedModel> ImportArchive(const std::string& path,
                                            const ImportOptions& options = {});

// The same for an archive that lies in memory; tests and fuzzers feed bytes here.
absl::StatusOr<ImportedModel> ImportArchiveFromMemory(absl::Span<const std::byte> bytes,
                                                      const ImportOptions& options = {});

}  // namespace autosp
