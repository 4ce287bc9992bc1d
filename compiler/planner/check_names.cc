#include "compiler/planner/check_names.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/edit_distance.h"
#include "common/errors.h"
#include "compiler/config/glob.h"

namespace autosp {
namespace {

using Problems = std::vector<std::string>;

void CheckInputs(const Graph& graph, const DataSpec& data, Problems& problems) {
  std::vector<std::string> known;
  for (const GraphInput& input : graph.inputs) {
    if (input.kind == InputKind::kUser) known.push_back(input.name);
  }
  for (const auto& [name, feed] : data.inputs) {
    if (std::ranges::count(known, name) > 0) continue;
    problems.push_back(absl::StrCat("data.inputs.", name, ": the model has no input ", name,
                                    SuggestName(name, known)));
  }
}

// Names of the state dict, those of tied parameters each.
std::vector<std::string> ParameterNames(const Graph& graph) {
  std::vector<std::string> names;
  for (const GraphInput& input : graph.inputs) {
    if (input.kind != InputKind::kParameter) continue;
    names.push_back(input.name);
    names.insert(names.end(), input.aliases.begin(), input.aliases.end());
  }
  return names;
}

// Of hundreds of parameters a list is of no help; the nearest is, or any as an example.
void CheckPatterns(const std::string& key, const std::vector<std::string>& patterns,
                   const std::vector<std::string>& names, Problems& problems) {
  for (size_t i = 0; i < patterns.size(); ++i) {
    const std::string& pattern = patterns[i];
    const bool matches = std::ranges::any_of(
        names, [&](const std::string& name) { return GlobMatch(pattern, name); });
    if (matches) continue;
    std::string hint;
    if (const auto nearest = NearestName(pattern, names)) {
      hint = absl::StrCat("; did you mean \"", *nearest, "\"?");
    } else if (!names.empty()) {
      hint = absl::StrCat("; write a name of the state dict or a glob over them, such as \"",
                          names.front(), "\"");
    }
    problems.push_back(
        absl::StrCat(key, "[", i, "]: \"", pattern, "\" matches no parameter of the model", hint));
  }
}

void CheckLossOutput(const Graph& graph, const std::string& wanted, Problems& problems) {
  if (wanted.empty()) return;
  const std::vector<std::string> names = graph.ResultNames();
  size_t index = names.size();
  int64_t number = -1;
  if (absl::SimpleAtoi(wanted, &number)) {
    if (number >= 0) index = std::min(names.size(), static_cast<size_t>(number));
  } else {
    index = static_cast<size_t>(std::ranges::find(names, wanted) - names.begin());
  }
  if (index == names.size()) {
    problems.push_back(absl::StrCat("model.loss_output: the model has no output ", wanted,
                                    SuggestName(wanted, names)));
    return;
  }
  const TensorType& type = graph.type(graph.outputs[index]);
  if (type.rank() == 0 && IsFloating(type.dtype)) return;
  problems.push_back(absl::StrCat(
      "model.loss_output: output ", wanted, " is ", std::string(DTypeName(type.dtype)), " with ",
      type.rank(), " dimensions; name a floating point scalar among ", absl::StrJoin(names, ", "),
      ", or export a module whose forward returns the loss"));
}

}  // namespace

absl::Status CheckNames(const Graph& graph, const JobSpec& job) {
  Problems problems;
  CheckInputs(graph, job.data, problems);
  const std::vector<std::string> names = ParameterNames(graph);
  CheckPatterns("model.frozen", job.model.frozen, names, problems);
  CheckPatterns("model.no_decay", job.model.no_decay, names, problems);
  CheckLossOutput(graph, job.model.loss_output, problems);
  if (problems.empty()) return absl::OkStatus();
  return InvalidArgument(absl::StrJoin(problems, "\n"));
}

}  // namespace autosp
