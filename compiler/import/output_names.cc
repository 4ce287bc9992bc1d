#include "compiler/import/output_names.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "compiler/import/import_limits.h"

namespace autosp {
namespace {

using Json = nlohmann::json;

// The keys of a dictionary or dataclass node of a pytree; empty for lists, tuples and what is not
// understood.
std::vector<std::string> KeysOf(const Json& node) {
  std::vector<std::string> keys;
  const auto context = node.find("context");
  if (context == node.end()) return keys;
  Json list;
  if (context->is_string()) {
    list = Json::parse(context->get<std::string>(), nullptr, false);
    // A dataclass: its fields, and those that are None.
    if (list.is_array() && list.size() == 2 && list[0].is_array()) list = Json(list[0]);
  } else if (context->is_object() && context->contains("dict_context")) {
    list = (*context)["dict_context"];  // a defaultdict also says what it makes
  }
  if (!list.is_array()) return keys;
  for (const Json& key : list) {
    if (!key.is_string()) return {};
    keys.push_back(key.get<std::string>());
  }
  return keys;
}

// Appends one name per leaf, in order: nested keys are joined with '.'.
void CollectLeaves(const Json& node, const std::string& path, int depth,
                   std::vector<std::string>* leaves) {
  const auto children = node.find("children_spec");
  if (depth > kMaxSubgraphDepth || !node.is_object() || children == node.end() ||
      !children->is_array()) {
    return;
  }
  const auto type = node.find("type");
  if (children->empty() && (type == node.end() || type->is_null())) leaves->push_back(path);
  const std::vector<std::string> keys = KeysOf(node);
  for (size_t i = 0; i < children->size(); ++i) {
    // Elements of a list or tuple are numbered, if what holds them has a name.
    std::string key = keys.size() == children->size() ? keys[i] : "";
    if (key.empty() && !path.empty()) key = absl::StrCat(i);
    const std::string separator = path.empty() || key.empty() ? "" : ".";
    CollectLeaves((*children)[i], absl::StrCat(path, separator, key), depth + 1, leaves);
  }
}

}  // namespace

std::vector<std::string> OutputNames(const exported::Program& program) {
  std::vector<std::string> leaves;
  const Json spec = Json::parse(program.output_spec, nullptr, false);
  // [protocol version, tree]
  if (spec.is_array() && spec.size() == 2) CollectLeaves(spec[1], "", 0, &leaves);
  std::vector<std::string> names;
  std::set<std::string> taken;
  // What the forward returns; new values of buffers have no name.
  const auto is_written = [](const exported::OutputSpec& spec) {
    return spec.kind == "buffer_mutation";
  };
  const auto num_results =
      program.outputs.size() - std::ranges::count_if(program.outputs, is_written);
  size_t next = 0;
  for (const exported::OutputSpec& spec : program.outputs) {
    std::string name = spec.kind == "loss_output" ? "loss" : "";
    if (!is_written(spec)) {
      if (name.empty() && leaves.size() == num_results) name = leaves[next];
      if (name.empty() || name.size() > kMaxNameBytes || !taken.insert(name).second) {
        name = absl::StrCat("output_", next);
      }
      ++next;
    }
    names.push_back(std::move(name));
  }
  return names;
}

}  // namespace autosp
