#include "tests/random_graphs/shrink_case.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/random_graphs/graph_sketch.h"

namespace autosp {
namespace {

// Each is tried in turn, and kept where the case still fails.
std::vector<GraphRecipe> SmallerRecipes(const GraphRecipe& recipe) {
  std::vector<GraphRecipe> smaller;
  for (size_t i = 0; i < recipe.blocks.size(); ++i) {
    GraphRecipe& less = smaller.emplace_back(recipe);
    less.blocks.erase(less.blocks.begin() + static_cast<std::ptrdiff_t>(i));
  }
  const auto with = [&](auto change) {
    GraphRecipe changed = recipe;
    change(changed);
    smaller.push_back(changed);
  };
  const bool is_resized =
      recipe.job_seq_len != recipe.sizes.seq_len || recipe.job_batch != recipe.sizes.batch;
  if (is_resized) {
    with([](GraphRecipe& r) {
      r.job_seq_len = r.sizes.seq_len;
      r.job_batch = r.sizes.batch;
    });
  }
  if (recipe.is_sequence_first) with([](GraphRecipe& r) { r.is_sequence_first = false; });
  for (int64_t Mesh::*axis : {&Mesh::accum, &Mesh::dp, &Mesh::ring, &Mesh::ulysses}) {
    if (recipe.mesh.*axis > 1) with([&](GraphRecipe& r) { r.mesh.*axis = 1; });
    if (recipe.mesh.*axis > 2) with([&](GraphRecipe& r) { r.mesh.*axis = 2; });
  }
  const int64_t places = recipe.mesh.dp * recipe.mesh.accum;
  if (!is_resized && recipe.sizes.batch > places) {
    with([&](GraphRecipe& r) { r.sizes.batch = r.job_batch = places; });
  }
  if (!is_resized && recipe.sizes.seq_len > 4) {
    for (const int64_t seq_len : {int64_t{4}, recipe.sizes.seq_len - 1}) {
      with([&](GraphRecipe& r) { r.sizes.seq_len = r.job_seq_len = seq_len; });
    }
  }
  if (recipe.sizes.head_dim > 2 && recipe.sizes.heads > 1)
    with([](GraphRecipe& r) { r.sizes.head_dim = 2; });
  if (recipe.sizes.heads > 1) {
    for (const int64_t heads : {int64_t{1}, int64_t{2}, recipe.sizes.kv_heads}) {
      if (heads >= recipe.sizes.heads || heads * recipe.sizes.head_dim < 4) continue;
      with([&](GraphRecipe& r) { r.sizes.heads = r.sizes.kv_heads = heads; });
    }
  }
  return smaller;
}

bool HasType(const Graph& graph, ValueId value, const TensorType& type) {
  const TensorType& other = graph.type(value);
  return other.dtype == type.dtype && other.sizes == type.sizes;
}

void ReplaceUses(Graph& graph, ValueId from, ValueId to) {
  for (Node& node : graph.nodes) {
    for (Argument& argument : node.args) {
      ForEachValue(argument, [&](ValueId& id) {
        if (id == from) id = to;
      });
    }
  }
}

// What may stand for the result of node `index`: its operands first, then what is older.
std::vector<ValueId> Substitutes(const Graph& graph, size_t index) {
  const Node& node = graph.nodes[index];
  const TensorType& type = graph.type(node.outputs[0]);
  std::vector<ValueId> found;
  const auto consider = [&](ValueId value) {
    if (HasType(graph, value, type) && std::ranges::count(found, value) == 0)
      found.push_back(value);
  };
  for (const ValueId operand : OperandsOf(node)) consider(operand);
  for (const GraphInput& input : graph.inputs) consider(input.value);
  for (size_t i = 0; i < index; ++i) {
    for (const ValueId output : graph.nodes[i].outputs) consider(output);
  }
  constexpr size_t kMaxTried = 3;
  if (found.size() > kMaxTried) found.resize(kMaxTried);
  return found;
}

// A bias, a mask.
constexpr std::pair<std::string_view, size_t> kOptionalOperands[] = {
    {"aten.linear.default", 2}, {"aten.scaled_dot_product_attention.default", 3}};

// Drops one node, or one optional operand; false where nothing can be dropped.
bool DropOne(RandomCase& failing, const StillFails& still_fails) {
  for (size_t i = failing.graph.nodes.size(); i-- > 0;) {
    const Node& node = failing.graph.nodes[i];
    if (node.outputs[0] != failing.graph.outputs[0] && node.outputs.size() == 1) {
      for (const ValueId substitute : Substitutes(failing.graph, i)) {
        RandomCase smaller = failing;
        ReplaceUses(smaller.graph, node.outputs[0], substitute);
        DropUnused(smaller.graph);
        if (!still_fails(smaller)) continue;
        failing = std::move(smaller);
        return true;
      }
    }
    for (const auto& [op, arg] : kOptionalOperands) {
      if (node.op != op || !std::holds_alternative<ValueId>(node.args[arg])) continue;
      RandomCase smaller = failing;
      smaller.graph.nodes[i].args[arg] = None{};
      DropUnused(smaller.graph);
      if (!still_fails(smaller)) continue;
      failing = std::move(smaller);
      return true;
    }
  }
  return false;
}

}  // namespace

RandomCase ShrinkCase(const GraphRecipe& recipe, const StillFails& still_fails) {
  GraphRecipe smallest = recipe;
  bool is_smaller = true;
  while (is_smaller) {
    is_smaller = false;
    for (const GraphRecipe& each : SmallerRecipes(smallest)) {
      if (!still_fails(MakeCase(each))) continue;
      smallest = each;
      is_smaller = true;
      break;
    }
  }
  RandomCase failing = MakeCase(smallest);
  while (DropOne(failing, still_fails)) {
  }
  return failing;
}

}  // namespace autosp
