// A graph-to-graph pass: a pure function of the graph, which keeps what the program computes.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/ir/graph.h"
#include "compiler/ir/size_guard.h"
#include "compiler/ir/symbol_range.h"
#include "compiler/rules/infer_factors.h"

namespace autosp {

// A number that the job puts into an input, beside what is in its data.
struct FedNumber {
  enum class Kind : uint8_t {
    kToken,         // one that stands among the others
    kIgnoredLabel,  // marks tokens that do not count: a loss must leave out this label, no other
    kLastPosition,
  };
  Kind kind = Kind::kToken;
  std::string key;  // "data.pad_token"
  int64_t value = 0;
};

struct PassContext {
  InputRoles roles;         // of the user inputs
  int64_t batch_size = 0;   // global sequences of one micro-step; 0: as exported
  int64_t seq_len = 0;      // 0: as exported
  int64_t head_shards = 1;  // ranks that heads are split over: ulysses, beside a ring
  int64_t ring_size = 1;    // a ring that cannot hold keys in blocks splits heads as well
  ParamPrecision params = ParamPrecision::kAsExported;
  // The least and the greatest element of constants of whole numbers, by input name, where known.
  std::map<std::string, std::pair<int64_t, int64_t>> constant_ranges = {};
  std::map<std::string, std::vector<FedNumber>> fed_numbers = {};  // by user input
  SymbolRanges symbol_ranges = {};               // of the dynamic sizes that the graph names
  std::vector<SizeGuard> guards = {};            // over the same
  std::vector<std::string>* warnings = nullptr;  // null: nobody asks
};

// One pass is one file, one golden under tests/golden/passes, and one line in pipeline.cc.
struct Pass {
  std::string_view name;  // "recognize-masks": the file's name with dashes
  std::string_view summary;
  // Whether the graph changed. A second run changes nothing.
  absl::StatusOr<bool> (*run)(Graph& graph, const PassContext& context);
  bool reads_mesh = false;  // head_shards; what comes before it is the same for all meshes
};

absl::StatusOr<bool> JoinChunks(Graph& graph, const PassContext& context);
absl::StatusOr<bool> ResizeInputs(Graph& graph, const PassContext& context);
absl::StatusOr<bool> Canonicalize(Graph& graph, const PassContext& context);
absl::StatusOr<bool> ApplyPrecision(Graph& graph, const PassContext& context);
absl::StatusOr<bool> GlobalizeNorms(Graph& graph, const PassContext& context);
absl::StatusOr<bool> GlobalizeMeans(Graph& graph, const PassContext& context);
absl::StatusOr<bool> FoldIdentityIndex(Graph& graph, const PassContext& context);
absl::StatusOr<bool> IndexMaskedRows(Graph& graph, const PassContext& context);
absl::StatusOr<bool> UnsortRows(Graph& graph, const PassContext& context);
absl::StatusOr<bool> RecognizeAttention(Graph& graph, const PassContext& context);
absl::StatusOr<bool> ShapeAttention(Graph& graph, const PassContext& context);
absl::StatusOr<bool> ExpandDropout(Graph& graph, const PassContext& context);
absl::StatusOr<bool> ExpandTrainedBias(Graph& graph, const PassContext& context);
absl::StatusOr<bool> RecognizeMasks(Graph& graph, const PassContext& context);
absl::StatusOr<bool> MaskCutTokens(Graph& graph, const PassContext& context);
absl::StatusOr<bool> RecognizeWindows(Graph& graph, const PassContext& context);
absl::StatusOr<bool> FoldRepeatedHeads(Graph& graph, const PassContext& context);
absl::StatusOr<bool> ReplicateKvHeads(Graph& graph, const PassContext& context);
absl::StatusOr<bool> SpellOutOneHot(Graph& graph, const PassContext& context);
absl::StatusOr<bool> SplitRows(Graph& graph, const PassContext& context);
absl::StatusOr<bool> CheckIndexBounds(Graph& graph, const PassContext& context);
absl::StatusOr<bool> EliminateDeadCode(Graph& graph, const PassContext& context);

// The order, with the reason for each place (pipeline.cc).
const std::vector<Pass>& GraphPasses();

// Planning looks at many meshes: the passes before the first that reads the mesh run once, and
// the others on a copy for each mesh. Both together are all of GraphPasses().
absl::Status RunSharedPasses(Graph& graph, const PassContext& context);
absl::Status RunMeshPasses(Graph& graph, const PassContext& context);

// Runs the passes of GraphPasses() from `from` to `to` (names; empty: the ends), verifying the
// graph after each.
absl::Status RunGraphPasses(Graph& graph, const PassContext& context, std::string_view from = "",
                            std::string_view to = "");

}  // namespace autosp
