#include "compiler/planner/short_sizes.h"

#include <algorithm>
#include <numeric>

#include "compiler/ir/linear_size.h"
#include "compiler/rules/token_window.h"

namespace autosp {
namespace {

// Enough that a block has a middle and two ends.
constexpr int64_t kTokensPerBlock = 16;
// One sequence would hide a batch that is mixed up.
constexpr int64_t kMaxMicroBatch = 2;
// Of sizes that what export took for granted does not allow.
constexpr int kMaxTries = 10'000;

// The longest look of a token at its neighbours: blocks are as long, so that ranks exchange borders
// as they do at the job's length.
int64_t LongestWindow(const Graph& graph) {
  int64_t longest = 0;
  for (const Node& node : graph.nodes) {
    const std::optional<TokenWindow> window = TokenWindowOf(graph, node);
    if (window) longest = std::max({longest, window->before, window->after});
  }
  return longest;
}

// What the model allows of lengths.
struct LengthRule {
  int64_t least = 0;
  int64_t block = 1;  // lengths differ by multiples of it
};

// Visits the sizes of inputs that follow from one symbol, with what the dimension is.
template <typename Visit>
void ForEachLinearSize(const Graph& graph, const InputRoles& roles, Visit visit) {
  for (const GraphInput& input : graph.inputs) {
    const auto dims = roles.find(input.name);
    if (dims == roles.end()) continue;
    const TensorType& type = graph.type(input.value);
    for (size_t i = 0; i < type.sizes.size() && i < dims->second.size(); ++i) {
      const auto linear = AsLinearSize(type.sizes[i].expr, graph.symbols);
      if (linear) visit(dims->second[i], *linear);
    }
  }
}

LengthRule LengthRuleOf(const ImportedModel& model, const PreparedJob& full) {
  LengthRule rule;
  if (full.factors.seq >= 0) rule.block = full.factors.table.BlockOf(full.factors.seq);
  ForEachLinearSize(model.graph, full.context.roles, [&](DimRole role, const LinearSize& linear) {
    if (role != DimRole::kSequence) return;
    rule.block = std::lcm(rule.block, linear.factor);
    const auto range = model.symbol_ranges.find(linear.symbol);
    if (range == model.symbol_ranges.end()) return;
    rule.least = std::max(rule.least, linear.Range(range->second).min);
  });
  return rule;
}

// A job whose length its ranks do not divide gets one that they do not divide either, so that its
// padding is there. A model that cuts its tokens into blocks gets whole ones: lengths that are
// right differ by a multiple of the step.
int64_t StepOf(const Mesh& mesh, const LengthRule& rule) {
  return std::lcm(2 * mesh.sp(), rule.block);
}

int64_t ShortLength(int64_t seq_len, const Mesh& mesh, int64_t window, const LengthRule& rule) {
  const int64_t blocks = 2 * mesh.sp();
  const int64_t step = StepOf(mesh, rule);
  const auto round_up = [step](int64_t length) { return (length + step - 1) / step * step; };
  int64_t length = round_up(std::max(kTokensPerBlock, window) * blocks) + seq_len % step;
  if (length < rule.least) length += round_up(rule.least - length);
  return std::min(seq_len, length);
}

// The values of the archive's symbols at these sizes.
SymBindings BindingsAt(const ShortSizes& sizes, const ImportedModel& model,
                       const InputRoles& roles) {
  SymBindings bindings = model.graph.symbols;
  ForEachLinearSize(model.graph, roles, [&](DimRole role, const LinearSize& linear) {
    if (role != DimRole::kSequence && role != DimRole::kBatch) return;
    const int64_t size = role == DimRole::kSequence ? sizes.seq_len : sizes.batch_size;
    bindings[linear.symbol] = (size - linear.constant) / linear.factor;
  });
  return bindings;
}

// What cannot be told is no reason against them: the pass that looks at it says what it is.
bool FitGuards(const ShortSizes& sizes, const ImportedModel& model, const InputRoles& roles) {
  const SymBindings bindings = BindingsAt(sizes, model, roles);
  return std::ranges::all_of(model.guards, [&bindings](const SizeGuard& guard) {
    return guard.Holds(bindings).value_or(true);
  });
}

}  // namespace

ShortSizes ChooseShortSizes(const ImportedModel& model, const PreparedJob& full,
                            const TrainingSpec& training, const Mesh& mesh,
                            std::optional<int64_t> batch_size, std::optional<int64_t> seq_len) {
  const int64_t places = mesh.dp * mesh.accum;
  const int64_t micro_batch =
      std::max<int64_t>(1, training.micro_batch_size.value_or(training.global_batch_size / places));
  const int64_t least_batch = places * std::min(micro_batch, kMaxMicroBatch);
  const LengthRule rule = LengthRuleOf(model, full);
  const int64_t least_length = ShortLength(training.seq_len, mesh, LongestWindow(full.graph), rule);
  const ShortSizes least = {batch_size.value_or(least_batch), seq_len.value_or(least_length)};
  int num_tries = 0;
  for (ShortSizes sizes = least; sizes.batch_size <= batch_size.value_or(places * micro_batch);
       sizes.batch_size += places) {
    for (sizes.seq_len = least.seq_len; sizes.seq_len <= seq_len.value_or(training.seq_len);
         sizes.seq_len += StepOf(mesh, rule)) {
      if (FitGuards(sizes, model, full.context.roles)) return sizes;
      if (++num_tries == kMaxTries) return least;
    }
  }
  return least;
}

}  // namespace autosp
