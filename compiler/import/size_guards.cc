#include "compiler/import/size_guards.h"

#include <algorithm>
#include <optional>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"

namespace autosp {
namespace {

using Path = std::vector<std::string>;

// What the inputs of a forward(*args) are called, by their number.
constexpr char kFlatArgs[] = "flat_args";
constexpr char kAssertion[] = "torch.ops.aten._assert_scalar.default";

// The name that torch.export gives to the input at a path: batch_ids of L['batch']['ids'].
std::string PlaceholderName(absl::Span<const std::string> path) {
  std::string name;
  for (const std::string& part : path) {
    if (!name.empty()) name += '_';
    for (const char c : part) name += absl::ascii_isalnum(c) ? absl::ascii_tolower(c) : '_';
  }
  return name;
}

// Inputs whose names would be one have a number behind them.
bool IsNumbered(absl::string_view name, const std::string& base) {
  return absl::ConsumePrefix(&name, base) && absl::ConsumePrefix(&name, "_") && !name.empty() &&
         std::ranges::all_of(name, absl::ascii_isdigit);
}

class InputFinder {
 public:
  InputFinder(const Graph& graph, const std::vector<std::string>& forward_names)
      : names_(forward_names) {
    for (const GraphInput& input : graph.inputs) {
      if (input.kind == InputKind::kUser) inputs_.push_back(&input);
    }
  }

  // nullptr: there is none, or it is not certain which it is.
  const GraphInput* Find(const Path& path) const {
    if (path.empty()) return nullptr;
    const auto named = std::ranges::find(names_, path[0]);
    const bool is_named = named != names_.end();
    if (is_named && path.size() == 1 && names_.size() == inputs_.size()) {
      return inputs_[static_cast<size_t>(named - names_.begin())];
    }
    int64_t number = -1;
    if (!is_named && path.size() == 2 && path[0] == kFlatArgs &&
        absl::SimpleAtoi(path[1], &number)) {
      const bool is_there = number >= 0 && number < static_cast<int64_t>(inputs_.size());
      return is_there ? inputs_[static_cast<size_t>(number)] : nullptr;
    }
    const GraphInput* input = FindByName(PlaceholderName(path));
    // What forward(**named) takes is called without `named`.
    const bool may_be_inside = input == nullptr && !is_named && path.size() > 1;
    return may_be_inside ? FindByName(PlaceholderName(absl::MakeConstSpan(path).subspan(1)))
                         : input;
  }

 private:
  const GraphInput* FindByName(const std::string& name) const {
    const GraphInput* found = nullptr;
    for (const GraphInput* input : inputs_) {
      if (input->name == name) found = input;
      if (IsNumbered(input->name, name)) return nullptr;
    }
    return found;
  }

  const std::vector<std::string>& names_;
  std::vector<const GraphInput*> inputs_;
};

}  // namespace

std::vector<SizeGuard> ReadGuards(const exported::Program& program, const Graph& graph) {
  const InputFinder finder(graph, program.forward_names);
  const auto size_of = [&](const Path& path, int64_t dim) -> std::optional<SymInt> {
    if (dim == SizeGuard::kSymbol) {
      const auto symbol = graph.symbols.find(path[0]);
      if (symbol == graph.symbols.end()) return std::nullopt;
      return SymInt(symbol->second, SymExpr::Symbol(path[0]));
    }
    const GraphInput* input = finder.Find(path);
    if (input == nullptr) return std::nullopt;
    const std::vector<SymInt>& sizes = graph.type(input->value).sizes;
    if (dim < 0 || dim >= static_cast<int64_t>(sizes.size())) return std::nullopt;
    return sizes[static_cast<size_t>(dim)];
  };
  std::vector<SizeGuard> guards;
  for (const std::string& text : program.guards) guards.push_back(SizeGuard::Parse(text, size_of));
  for (const exported::Node& node : program.graph.nodes) {
    if (node.target != kAssertion || node.inputs.empty()) continue;
    const std::vector<exported::Item>& items = node.inputs[0].value.items;
    if (items.empty()) continue;
    const auto relation = program.graph.sym_bools.find(items[0].name);
    if (relation == program.graph.sym_bools.end()) continue;
    guards.push_back(SizeGuard::Parse(relation->second, size_of));
  }
  return guards;
}

}  // namespace autosp
