#include "compiler/import/lost_gradients.h"

#include <algorithm>
#include <functional>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "compiler/import/stack_trace.h"

namespace autosp {
namespace {

using exported::FunctionCall;
using exported::Tag;

constexpr std::string_view kAutocast = "wrap_with_autocast";
constexpr std::string_view kGradMode = "wrap_with_set_grad_enabled";

bool Calls(const exported::Node& node, std::string_view name) {
  return node.target.ends_with(name);
}

const exported::Graph* BodyOf(const exported::Node& node) {
  for (const exported::NamedArgument& input : node.inputs) {
    if (input.value.tag == Tag::kGraph) return input.value.graph.get();
  }
  return nullptr;
}

// Device, type, whether it is on, and whether it caches.
bool AreAlike(const exported::Node& one, const exported::Node& other) {
  constexpr size_t kNumArguments = 4;
  if (one.inputs.size() < kNumArguments || other.inputs.size() < kNumArguments) return false;
  for (size_t i = 0; i < kNumArguments; ++i) {
    const exported::Argument& a = one.inputs[i].value;
    const exported::Argument& b = other.inputs[i].value;
    if (a.tag != b.tag || a.text != b.text || a.integer != b.integer) return false;
  }
  return true;
}

// Of one graph, by name: what a gradient may go through to a parameter.
using Names = std::set<std::string, std::less<>>;

bool IsFloatingIn(const exported::Graph& graph, const std::string& name) {
  const auto meta = graph.tensors.find(name);
  if (meta == graph.tensors.end() || !meta->second.dtype) return true;  // complex
  return IsFloating(*meta->second.dtype);
}

void ForEachName(const exported::Argument& argument,
                 const std::function<void(const std::string&)>& visit) {
  if (argument.tag == Tag::kTensor) visit(argument.text);
  if (argument.tag != Tag::kTensors) return;
  for (const exported::Item& item : argument.items) visit(item.name);
}

class Finder {
 public:
  void Visit(const exported::Graph& graph, bool no_grad, Names& trained) {
    std::vector<const exported::Node*> regions;  // in a row, alike
    std::vector<bool> are_trained;
    for (const exported::Node& node : graph.nodes) {
      const bool is_autocast = Calls(node, kAutocast);
      if (!regions.empty() && !(is_autocast && AreAlike(*regions.back(), node))) {
        WarnOfRegions(regions, are_trained, no_grad);
        regions.clear();
        are_trained.clear();
      }
      const bool is_trained = VisitNode(graph, node, no_grad, trained);
      if (!is_autocast) continue;
      regions.push_back(&node);
      are_trained.push_back(is_trained);
    }
    WarnOfRegions(regions, are_trained, no_grad);
  }

  std::vector<std::string> Take() { return std::move(warnings_); }

 private:
  // Whether a result may have a gradient, or would if none was switched off.
  bool VisitNode(const exported::Graph& graph, const exported::Node& node, bool no_grad,
                 Names& trained) {
    bool is_trained = false;
    if (const exported::Graph* body = BodyOf(node)) {
      Names inside = TrainedInputs(node, *body, trained);
      const bool is_switch = Calls(node, kGradMode) && node.inputs[0].value.tag == Tag::kBool;
      const bool is_off = is_switch ? node.inputs[0].value.integer == 0 : no_grad;
      Visit(*body, is_off, inside);
      for (size_t i = 0; i < std::min(node.outputs.size(), body->outputs.size()); ++i) {
        if (!inside.contains(body->outputs[i].text)) continue;
        is_trained = true;
        if (!is_off) trained.insert(node.outputs[i].text);
      }
      return is_trained;
    }
    if (Calls(node, "aten.detach.default")) return false;
    for (const exported::NamedArgument& input : node.inputs) {
      ForEachName(input.value,
                  [&](const std::string& name) { is_trained |= trained.contains(name); });
    }
    if (!is_trained) return false;
    if (node.function_call) WarnOfFunction(node, no_grad);
    for (const exported::Argument& output : node.outputs) {
      ForEachName(output, [&](const std::string& name) {
        if (IsFloatingIn(graph, name)) trained.insert(name);
      });
    }
    return true;
  }

  // What a nested graph is given, under its own names.
  static Names TrainedInputs(const exported::Node& node, const exported::Graph& body,
                             const Names& trained) {
    Names inside;
    const size_t num_before = node.inputs.size() - std::min(node.inputs.size(), body.inputs.size());
    for (size_t i = 0; i < body.inputs.size() && num_before + i < node.inputs.size(); ++i) {
      if (trained.contains(node.inputs[num_before + i].value.text)) {
        inside.insert(body.inputs[i].text);
      }
    }
    return inside;
  }

  void WarnOfFunction(const exported::Node& node, bool no_grad) {
    const FunctionCall& call = *node.function_call;
    if (!callers_.insert(call.caller).second) return;
    const std::string at = node.module.empty() ? "" : absl::StrCat(node.module, ": ");
    const std::string name = call.name.empty() ? "" : absl::StrCat(" (", call.name, ")");
    const std::string what =
        call.is_certain
            ? absl::StrCat("a torch.autograd.Function", name, " is called at ", call.caller,
                           ", and torch.export keeps its forward (", call.forward, ") alone: ")
            : absl::StrCat("the forward at ", call.forward, ", called at ", call.caller,
                           ", is of no module of the model. If it is of a torch.autograd.Function, "
                           "torch.export keeps the forward alone: ");
    warnings_.push_back(absl::StrCat(
        at, what,
        no_grad ? "no gradient goes through it, whatever its backward says. "
                : "its backward is replaced by the derivative of its forward, which is right only "
                  "where it is the same. ",
        "Write it without a backward: x + (f(x) - x).detach() for a straight-through f(x), and "
        "(1 + a) * x.detach() - a * x for a gradient times -a"));
  }

  void WarnOfRegions(const std::vector<const exported::Node*>& regions,
                     const std::vector<bool>& are_trained, bool no_grad) {
    if (no_grad) return;
    bool is_cut = false;
    std::vector<std::string> places;
    for (size_t i = 0; i < regions.size(); ++i) {
      const std::string place = StartOf(*regions[i]);
      if (!place.empty()) places.push_back(place);
      // The mode changes from one to the next, so that every second one was without gradients:
      // positions of attention, which no parameter has a part in, are no loss. Where both start at
      // one line, a block of the user's runs again. One around a function is warned of already.
      if (i % 2 == 0 || !are_trained[i]) continue;
      is_cut |= (place.empty() || place != StartOf(*regions[i - 1])) && !HasFunction(*regions[i]) &&
                !HasFunction(*regions[i - 1]);
    }
    if (!is_cut) return;
    warnings_.push_back(absl::StrCat(
        regions.size(), " regions of torch.autocast with the same arguments follow each other, at ",
        absl::StrJoin(places, ", "),
        ". So torch.export writes one block in which gradients were switched off or on, and loses "
        "the switch: gradients may go through what stood in torch.no_grad. Put torch.no_grad "
        "around a torch.autocast of its own, or use .detach(); if these are separate blocks, "
        "make them one"));
  }

  static std::string StartOf(const exported::Node& region) {
    const exported::Graph* body = BodyOf(region);
    if (body == nullptr) return "";
    for (const exported::Node& node : body->nodes) {
      if (!node.location.empty()) return node.location;
    }
    return "";
  }

  static bool HasFunction(const exported::Node& region) {
    const exported::Graph* body = BodyOf(region);
    return body != nullptr && std::ranges::any_of(body->nodes, [](const exported::Node& node) {
             return node.function_call.has_value();
           });
  }

  std::set<std::string> callers_;
  std::vector<std::string> warnings_;
};

// By value: whether a gradient goes from it to a parameter that is trained; and the node that made
// it.
std::vector<const Node*> NodesWithGradients(const Graph& graph) {
  std::vector<bool> has(graph.values.size(), false);
  std::vector<const Node*> makers(graph.values.size(), nullptr);
  for (const GraphInput& input : graph.inputs) has[input.value.index] = input.requires_grad;
  for (const Node& node : graph.nodes) {
    if (node.no_grad || node.op == "aten.detach.default") continue;
    const bool any =
        std::ranges::any_of(OperandsOf(node), [&](ValueId operand) { return has[operand.index]; });
    const bool has_statistics = node.op.find("batch_norm") != std::string::npos;
    for (const ValueId output : node.outputs) {
      if (has_statistics && output != node.outputs[0]) continue;
      has[output.index] = any && IsFloating(graph.type(output).dtype);
      if (has[output.index]) makers[output.index] = &node;
    }
  }
  return makers;
}

}  // namespace

std::vector<std::string> LostGradients(const exported::Program& program) {
  Names trained;
  for (const exported::InputSpec& input : program.inputs) {
    const auto meta = program.graph.tensors.find(input.value_name);
    const bool is_trained = input.role == exported::InputRole::kParameter &&
                            meta != program.graph.tensors.end() && meta->second.requires_grad;
    if (is_trained) trained.insert(input.value_name);
  }
  Finder finder;
  finder.Visit(program.graph, /*no_grad=*/false, trained);
  return finder.Take();
}

std::vector<std::string> WritesWithGradients(const Graph& graph) {
  std::vector<std::string> warnings;
  if (graph.writes.empty()) return warnings;
  const std::vector<const Node*> makers = NodesWithGradients(graph);
  for (const auto& [output, buffer] : graph.writes) {
    const Node* maker = makers[graph.outputs[output].index];
    if (maker == nullptr) continue;
    warnings.push_back(absl::StrCat(
        Describe(graph, *maker), ": is written to buffer ", graph.FindInput(buffer)->name,
        " with a gradient, which PyTorch's next backward would refuse. Where it stood in "
        "torch.no_grad inside of torch.autocast, torch.export has lost that, and gradients may go "
        "through what else stood there: put torch.no_grad around torch.autocast, or write "
        ".detach() of it"));
  }
  return warnings;
}

}  // namespace autosp
