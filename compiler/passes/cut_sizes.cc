#include "compiler/passes/cut_sizes.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/passes/folded_sizes.h"
#include "compiler/rules/op_context.h"

namespace autosp {
namespace {

// The node that cuts a dimension into parts, or repeats one part as often as the other says.
struct Cutter {
  std::string node;
  bool repeats = false;
};

// The first node that takes `parts` together and gives them apart, else the first that takes one
// and gives both. nullopt: no op of the model says how the dimension is cut.
std::optional<Cutter> WhoCuts(const Graph& graph, const GraphFactors& factors,
                              const std::vector<FactorVar>& parts) {
  const auto has = [&](ValueId value, bool is_whole) {
    return std::ranges::any_of(factors.values[value.index], [&](const FactorDim& dim) {
      const std::vector<FactorVar> found = factors.table.Resolve(dim);
      const bool has_major = std::ranges::count(found, parts[0]) > 0;
      const bool has_minor = std::ranges::count(found, parts[1]) > 0;
      return is_whole ? has_major && has_minor : has_major != has_minor;
    });
  };
  std::optional<Cutter> repeater;
  for (const Node& node : graph.nodes) {
    const std::vector<ValueId> operands = OperandsOf(node);
    const auto any_has = [&](const std::vector<ValueId>& values, bool is_whole) {
      return std::ranges::any_of(values, [&](ValueId id) { return has(id, is_whole); });
    };
    const bool takes_whole = any_has(operands, /*is_whole=*/true);
    if (takes_whole && any_has(node.outputs, /*is_whole=*/false)) {
      return Cutter{Describe(graph, node), /*repeats=*/false};
    }
    const bool repeats = !takes_whole && any_has(operands, /*is_whole=*/false) &&
                         any_has(node.outputs, /*is_whole=*/true);
    if (repeats && !repeater) repeater = Cutter{Describe(graph, node), /*repeats=*/true};
  }
  return repeater;
}

// The dimension of its result that a view gives what is left (-1); nullopt: it gives none.
std::optional<size_t> DimOfTheRest(const Graph& graph, const Node& node) {
  const bool is_unflatten = node.op == "aten.unflatten.int";
  const bool is_view = node.op == "aten.view.default" || node.op == "aten.reshape.default" ||
                       node.op == "aten._unsafe_view.default";
  if (!is_view && !is_unflatten) return std::nullopt;
  const OpContext context(graph, node);
  const IntList sizes = context.Ints(is_unflatten ? 2 : 1);
  const auto rest = std::ranges::find(sizes, -1, &SymInt::value);
  if (rest == sizes.end()) return std::nullopt;
  const int64_t first = is_unflatten ? context.Dim(1, context.Rank(context.Tensor(0))) : 0;
  return static_cast<size_t>(first + (rest - sizes.begin()));
}

// A root that is cut into parts, which are constants of the archive.
class ConstantCut {
 public:
  ConstantCut(const Graph& graph, const GraphFactors& factors, FactorVar root)
      : graph_(graph),
        table_(factors.table),
        values_(factors.values),
        parts_(factors.table.Resolve(FactorDim{root})),
        size_(factors.table.Size(root)) {
    for (const FactorVar part : parts_) {
      if (table_.Size(part) > 1 && !IsOfAnotherInput(part)) open_.push_back(part);
    }
    for (const Node& node : graph.nodes) CloseBesideTheRest(node);
  }

  // The part that changes with the size.
  FactorVar Changing() const { return open_.empty() ? parts_[0] : open_[0]; }
  // Others that may be meant to: none where what the model's inputs are made for decides.
  std::vector<FactorVar> Others() const {
    return {open_.begin() + (open_.empty() ? 0 : 1), open_.end()};
  }

  // What the size is a multiple of if this part changes.
  int64_t BlockBeside(FactorVar changing) const { return size_ / table_.Size(changing); }

  // "8 x 6"; the changing part fits `size`.
  std::string Text(FactorVar changing, int64_t size) const {
    return absl::StrJoin(parts_, " x ", [&](std::string* out, FactorVar part) {
      absl::StrAppend(out, part == changing ? size / BlockBeside(changing) : table_.Size(part));
    });
  }
  std::string Text() const { return Text(parts_[0], size_); }

 private:
  // Whether a parameter, a buffer or a dimension of an input that the job does not change has it.
  bool IsOfAnotherInput(FactorVar part) const {
    return std::ranges::any_of(graph_.inputs, [&](const GraphInput& input) {
      return std::ranges::any_of(values_[input.value.index], [&](const FactorDim& dim) {
        const std::vector<FactorVar> found = table_.Resolve(dim);
        const bool has_all =
            std::ranges::all_of(parts_, [&](FactorVar of) { return Has(found, of); });
        return Has(found, part) && (input.kind != InputKind::kUser || !has_all);
      });
    });
  }
  // view(b, 8, -1, d) says that 8 stays.
  void CloseBesideTheRest(const Node& node) {
    const std::optional<size_t> rest = DimOfTheRest(graph_, node);
    if (!rest) return;
    const FactorDims dims = table_.Resolve(values_[node.outputs[0].index]);
    std::vector<FactorVar> left;
    for (const FactorVar part : open_) {
      const bool is_beside = std::ranges::any_of(
          dims, [&](const FactorDim& dim) { return &dim != &dims[*rest] && Has(dim, part); });
      if (!is_beside) left.push_back(part);
    }
    const bool is_in_rest =
        std::ranges::any_of(left, [&](FactorVar part) { return Has(dims[*rest], part); });
    if (is_in_rest) open_ = std::move(left);
  }
  static bool Has(const std::vector<FactorVar>& factors, FactorVar factor) {
    return std::ranges::count(factors, factor) > 0;
  }

  const Graph& graph_;
  const FactorTable& table_;
  const ValueFactors& values_;
  std::vector<FactorVar> parts_;
  std::vector<FactorVar> open_;
  int64_t size_;
};

// What else the cut may mean at another size, "8 x 12 or 8 x 6 x 2"; "": nothing.
std::string OtherReadings(const ConstantCut& cut, int64_t size) {
  std::vector<std::string> readings;
  for (const FactorVar other : cut.Others()) {
    if (size % cut.BlockBeside(other) == 0) readings.push_back(cut.Text(other, size));
  }
  return absl::StrJoin(readings, " or ");
}

// A view that cuts a constant size may mean that many parts, or parts that long.
void WarnOfBothReadings(const ConstantCut& cut, const Cutter& who, int64_t old_size, int64_t size,
                        const PassContext& context) {
  std::string readings = OtherReadings(cut, size);
  if (readings.empty()) {
    readings = absl::StrCat(cut.BlockBeside(cut.Others()[0]), " parts of any size, and pads");
  }
  context.warnings->push_back(absl::StrCat(
      who.node, who.repeats ? ": repeats a part of " : ": cuts ", old_size,
      ", which the job changes to ", size, ", ", who.repeats ? "in " : "into ", cut.Text(),
      ", and the plan has ", cut.Text(cut.Changing(), size), ": if the model means ", readings,
      ", it is wrong; export with dynamic shapes, or train with the exported sizes"));
}

}  // namespace

absl::Status ResizeRoot(const Graph& graph, GraphFactors& factors, FactorVar root, int64_t size,
                        const char* key, const PassContext& context) {
  const std::vector<FactorVar> parts = factors.table.Resolve(FactorDim{root});
  if (parts.size() < 2) return factors.table.Resize(root, size);
  const std::optional<Cutter> who = WhoCuts(graph, factors, parts);
  const int64_t old_size = factors.table.Size(root);
  std::string remedy;
  if (size != old_size && IsConstantAtExport(graph, factors, root)) {
    const ConstantCut cut(graph, factors, root);
    const FactorVar changing = cut.Changing();
    const bool fits = size % cut.BlockBeside(changing) == 0;
    const std::string readings = fits ? "" : OtherReadings(cut, size);
    if (!readings.empty()) {
      remedy = absl::StrCat(", or export with dynamic shapes if the model means ", readings,
                            " where ", cut.Text(), " was at export");
    }
    if (fits && !cut.Others().empty() && who && context.warnings != nullptr) {
      WarnOfBothReadings(cut, *who, old_size, size, context);
    }
    factors.table.SetExpression(changing, SymExpr::Const(size / cut.BlockBeside(changing)));
  }
  const int64_t block = factors.table.BlockOf(root);
  if (size % block == 0) return factors.table.Resize(root, size);
  return InvalidArgument(key, ": ", size, " is not a multiple of ", block, ", the block that ",
                         who ? who->node : "the model",
                         who && who->repeats ? " repeats" : " cuts it into", "; set it to ",
                         (size + block - 1) / block * block, " or another multiple", remedy);
}

}  // namespace autosp
