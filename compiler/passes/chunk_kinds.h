// What the members of chunk families are, as factors say: parts of one tensor, or of its sum.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "compiler/passes/chunk_families.h"
#include "compiler/passes/pass.h"
#include "compiler/rules/infer_factors.h"

namespace autosp {

enum class PartKind : uint8_t { kUnknown, kParts, kSums };

// Parts are what each op makes of a part by itself, which it would make of the whole in one. Sums
// are what ops that add up make of parts, or what linear ops make of such. Of all others nothing is
// known: a mean of a part, and parts of what is neither batch nor sequence, which can stay.
//
// Where sizes that were constants are others in the job, only parts that are as many whatever the
// size, and no number that may have been made of them. Requires: all outlive this.
class ChunkKinds {
 public:
  ChunkKinds(const Graph& graph, const ChunkFamilies& found, const GraphFactors& factors,
             const PassContext& context);

  PartKind Of(size_t family) const { return kinds_[family]; }
  // The family whose parts a cat puts one behind the other, as they were cut.
  std::optional<size_t> JoinedBy(const Node& cat) const;
  // The type of what is made of the whole in place of the parts.
  TensorType JoinedType(size_t family) const;

 private:
  bool HasNewSize(FactorVar root, int64_t wanted) const;
  bool MayHaveStaleNumbers(size_t family) const;

  // The parts that a family goes back to.
  const ChunkFamily& OriginOf(size_t family) const { return found_.families[origins_[family]]; }
  SymInt WholeOf(size_t family) const;
  FactorDim RunOf(size_t family, size_t part) const;  // the factors of the dimension that is cut

  void Classify(const ChunkFamily& family);
  PartKind KindOfCut(size_t family) const;
  std::optional<size_t> FamilyReadBy(const Node& node) const;
  PartKind KindOfResults(const ChunkFamily& family, size_t read) const;
  PartKind KindOfResult(const ChunkFamily& family, size_t part, size_t read) const;
  bool ReadsParts(const Node& node, size_t part, const FactorDim& run) const;
  bool IsScaled(const ChunkFamily& family, size_t part, size_t read) const;
  bool IsLinearInSums(const Node& node, size_t read) const;

  const Graph& graph_;
  const ChunkFamilies& found_;
  const GraphFactors& factors_;
  const bool has_new_sizes_;
  std::vector<PartKind> kinds_;  // by family
  std::vector<size_t> origins_;  // by family: the first parts that it is made of
};

}  // namespace autosp
