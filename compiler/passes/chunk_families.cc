#include "compiler/passes/chunk_families.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "compiler/ir/random_ops.h"
#include "compiler/rules/op_context.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();

// Consecutive slices of one tensor.
struct Slice {
  int64_t start = 0;
  int64_t end = 0;
  ValueId result;
  friend auto operator<=>(const Slice&, const Slice&) = default;
};

// Nodes that read a value, each once, by value.
std::vector<std::vector<size_t>> ReadersOf(const Graph& graph) {
  std::vector<std::vector<size_t>> readers(graph.values.size());
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    for (const ValueId operand : OperandsOf(graph.nodes[i])) {
      std::vector<size_t>& of_value = readers[operand.index];
      if (of_value.empty() || of_value.back() != i) of_value.push_back(i);
    }
  }
  return readers;
}

class FamilyFinder {
 public:
  explicit FamilyFinder(const Graph& graph) : graph_(graph) {}

  ChunkFamilies Run() {
    FindSlices();
    for (const Node& node : graph_.nodes) AddParts(node);
    if (found_.families.empty()) return {};
    readers_ = ReadersOf(graph_);
    for (size_t i = 0; i < graph_.nodes.size(); ++i) Match(i);
    return std::move(found_);
  }

 private:
  void Add(ChunkFamily family) {
    const size_t index = found_.families.size();
    for (size_t i = 0; i < family.members.size(); ++i) {
      found_.places.emplace(family.members[i], ChunkMember{index, i});
    }
    found_.families.push_back(std::move(family));
  }

  // split, split_with_sizes, chunk
  void AddParts(const Node& node) {
    const bool is_chunk = node.op == "aten.chunk.default";
    const bool cuts =
        is_chunk || node.op == "aten.split.Tensor" || node.op == "aten.split_with_sizes.default";
    if (!cuts || node.outputs.size() < 2) return;
    const OpContext context(graph_, node);
    const ValueId self = context.Tensor(0);
    Add({.members = node.outputs,
         .whole = self,
         .dim = context.Dim(2, context.Rank(self)),
         .is_counted = is_chunk && context.Int(1) == static_cast<int64_t>(node.outputs.size())});
  }

  // x[:a], x[a:b], x[b:], which together are x. Each slice begins where the one before it ends.
  void FindSlices() {
    std::map<std::pair<ValueId, int64_t>, std::set<Slice>> slices;
    for (const Node& node : graph_.nodes) {
      if (node.op != "aten.slice.Tensor") continue;
      const OpContext context(graph_, node);
      const ValueId self = context.Tensor(0);
      const std::optional<SymInt> start = context.Sym(2);
      const std::optional<SymInt> end = context.Sym(3);
      const bool is_literal = (!start || start->expr.empty()) && (!end || end->expr.empty());
      const int64_t first = start ? start->value : 0;
      if (!is_literal || first < 0 || context.Int(4).value_or(1) != 1) continue;
      const int64_t dim = context.Dim(1, context.Rank(self));
      slices[{self, dim}].insert({first, end ? end->value : kEnd, node.outputs[0]});
    }
    for (auto& [place, parts] : slices) {
      // A model may cut the same part again and again.
      while (!parts.empty()) {
        ChunkFamily family{.members = {}, .whole = place.first, .dim = place.second};
        int64_t at = 0;
        const int64_t size = graph_.type(place.first).sizes[place.second].value;
        std::set<Slice> rest;
        for (const Slice& part : parts) {
          if (part.start != at || part.end <= at || at >= size) {
            rest.insert(part);
            continue;
          }
          at = part.end;
          family.members.push_back(part.result);
        }
        if (at < size || family.members.size() < 2) break;
        Add(std::move(family));
        parts = std::move(rest);
      }
    }
  }

  // A node of the first parts, and the nodes that do the same with the others.
  void Match(size_t first) {
    const Node& node = graph_.nodes[first];
    size_t num_parts = 0;
    ValueId read;
    for (const ValueId operand : OperandsOf(node)) {
      const std::optional<ChunkMember> place = found_.Find(operand);
      if (!place) continue;
      const size_t size = found_.families[place->family].members.size();
      if (place->index != 0 || (num_parts > 0 && size != num_parts)) return;
      num_parts = size;
      read = operand;
    }
    if (num_parts == 0 || FindOpRule(node.op) == nullptr || DrawsRandomNumbers(node.op)) return;
    ChunkStep step{.nodes = {first}};
    for (size_t i = 1; i < num_parts; ++i) {
      const ChunkFamily& family = found_.families[found_.places.at(read).family];
      const std::optional<size_t> same = FindSame(node, family.members[i], i);
      if (!same) return;
      step.nodes.push_back(*same);
    }
    const auto index = static_cast<int32_t>(found_.steps.size());
    for (size_t output = 0; output < node.outputs.size(); ++output) {
      ChunkFamily family{.members = {}, .step = index, .output = output};
      for (const size_t each : step.nodes) {
        family.members.push_back(graph_.nodes[each].outputs[output]);
      }
      Add(std::move(family));
    }
    found_.steps.push_back(std::move(step));
  }

  std::optional<size_t> FindSame(const Node& node, ValueId read, size_t part) const {
    for (const size_t reader : readers_[read.index]) {
      const Node& other = graph_.nodes[reader];
      const bool is_taken = found_.places.contains(other.outputs[0]);
      if (!is_taken && IsSame(node, other, part)) return reader;
    }
    return std::nullopt;
  }

  bool IsSame(const Node& node, const Node& other, size_t part) const {
    if (node.op != other.op || node.args.size() != other.args.size() ||
        node.outputs.size() != other.outputs.size() || node.no_grad != other.no_grad) {
      return false;
    }
    const std::optional<size_t> sizes = SizeArgument(node.op);
    for (size_t i = 0; i < node.args.size(); ++i) {
      // The sizes of results tell whether they are those of parts.
      if (sizes != i && !IsSameArgument(node.args[i], other.args[i], part)) return false;
    }
    return true;
  }

  bool IsSameArgument(const Argument& first, const Argument& other, size_t part) const {
    Argument moved = first;
    ForEachValue(moved, [&](ValueId& id) {
      const std::optional<ChunkMember> place = found_.Find(id);
      if (place) id = found_.families[place->family].members[part];
    });
    return moved == other;
  }

  const Graph& graph_;
  std::vector<std::vector<size_t>> readers_;
  ChunkFamilies found_;
};

}  // namespace

std::optional<ChunkMember> ChunkFamilies::Find(ValueId value) const {
  const auto found = places.find(value);
  return found == places.end() ? std::nullopt : std::optional(found->second);
}

std::optional<size_t> ChunkFamilies::FindAll(const std::vector<ValueId>& values,
                                             bool in_order) const {
  if (values.empty()) return std::nullopt;
  const std::optional<ChunkMember> place = Find(values[0]);
  if (!place) return std::nullopt;
  const std::vector<ValueId>& members = families[place->family].members;
  const bool are_all =
      in_order ? members == values
               : members.size() == values.size() && std::ranges::is_permutation(members, values);
  return are_all ? std::optional(place->family) : std::nullopt;
}

ChunkFamilies FindChunkFamilies(const Graph& graph) { return FamilyFinder(graph).Run(); }

}  // namespace autosp
