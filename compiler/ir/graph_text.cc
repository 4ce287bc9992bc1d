#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/argument_text.h"
#include "compiler/ir/graph.h"
#include "compiler/ir/text_cursor.h"
#include "compiler/ir/type_text.h"

namespace autosp {
namespace {

std::string_view KindWord(InputKind kind) {
  switch (kind) {
    case InputKind::kUser:
      return "input";
    case InputKind::kParameter:
      return "param";
    case InputKind::kBuffer:
      return "buffer";
  }
  return "";
}

// A parameter is trained and anything else is not, unless the text says otherwise.
bool RequiresGradByDefault(InputKind kind) { return kind == InputKind::kParameter; }

std::string DefaultOutputName(size_t index) { return absl::StrCat("output_", index); }

void PrintInput(const Graph& graph, const GraphInput& input, std::string* out) {
  absl::StrAppend(out, "  ", Absl(KindWord(input.kind)), " %", graph.value(input.value).name, " ",
                  FormatQuoted(input.name));
  for (const std::string& alias : input.aliases) absl::StrAppend(out, " = ", FormatQuoted(alias));
  absl::StrAppend(out, " : ", PrintTensorType(graph.type(input.value)));
  if (input.requires_grad != RequiresGradByDefault(input.kind)) {
    *out += input.requires_grad ? " requires_grad" : " frozen";
  }
  *out += '\n';
}

void PrintNode(const Graph& graph, const Node& node, std::string* out) {
  const auto name = [&graph](ValueId id) { return graph.value(id).name; };
  *out += "  ";
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    absl::StrAppend(out, i > 0 ? ", %" : "%", name(node.outputs[i]));
  }
  absl::StrAppend(out, node.outputs.empty() ? "" : " = ", node.op, "(");
  for (size_t i = 0; i < node.args.size(); ++i) {
    if (i > 0) *out += ", ";
    PrintArgument(node.args[i], name, out);
  }
  *out += ')';
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    absl::StrAppend(out, i > 0 ? ", " : " : ", PrintTensorType(graph.type(node.outputs[i])));
  }
  if (node.no_grad) *out += " no_grad";
  if (!node.source.empty()) {
    absl::StrAppend(out, " @ ", FormatQuoted(node.source.module()), " ",
                    FormatQuoted(node.source.location()));
  }
  *out += '\n';
}

class GraphParser {
 public:
  explicit GraphParser(std::string_view text) : cursor_(text) {}

  absl::StatusOr<Graph> Parse() {
    RETURN_IF_ERROR(cursor_.ExpectWord("graph"));
    ASSIGN_OR_RETURN(graph_.name, cursor_.QuotedString());
    RETURN_IF_ERROR(cursor_.Expect('{'));
    while (!cursor_.Consume('}')) RETURN_IF_ERROR(ParseLine());
    if (!cursor_.AtEnd()) return cursor_.Error("expected the end of the text after the graph");
    return std::move(graph_);
  }

 private:
  absl::Status ParseLine() {
    if (cursor_.ConsumeWord("symbol")) return ParseSymbol();
    if (cursor_.ConsumeWord("return")) return ParseReturn();
    for (const InputKind kind : {InputKind::kUser, InputKind::kParameter, InputKind::kBuffer}) {
      if (cursor_.ConsumeWord(KindWord(kind))) return ParseInput(kind);
    }
    return ParseNode();
  }

  absl::Status ParseSymbol() {
    ASSIGN_OR_RETURN(const std::string_view name, cursor_.Identifier());
    RETURN_IF_ERROR(cursor_.Expect('='));
    ASSIGN_OR_RETURN(const int64_t hint, cursor_.Integer());
    if (!graph_.symbols.emplace(std::string(name), hint).second) {
      return cursor_.Error(absl::StrCat("symbol ", Absl(name), " is declared twice"));
    }
    return absl::OkStatus();
  }

  absl::Status ParseInput(InputKind kind) {
    GraphInput input;
    input.kind = kind;
    const size_t start = cursor_.position();
    ASSIGN_OR_RETURN(const std::string_view name, cursor_.ValueName());
    ASSIGN_OR_RETURN(input.name, cursor_.QuotedString());
    while (cursor_.Consume('=')) {
      ASSIGN_OR_RETURN(std::string alias, cursor_.QuotedString());
      input.aliases.push_back(std::move(alias));
    }
    RETURN_IF_ERROR(cursor_.Expect(':'));
    ASSIGN_OR_RETURN(TensorType type, ParseTensorType(cursor_));
    input.requires_grad = RequiresGradByDefault(kind);
    if (cursor_.ConsumeWord("frozen")) input.requires_grad = false;
    if (cursor_.ConsumeWord("requires_grad")) input.requires_grad = true;
    ASSIGN_OR_RETURN(input.value, Define(start, name, std::move(type)));
    graph_.inputs.push_back(std::move(input));
    return absl::OkStatus();
  }

  absl::Status ParseNode() {
    Node node;
    const size_t start = cursor_.position();
    std::vector<std::string_view> names;
    if (cursor_.Peek() == '%') {
      do {
        ASSIGN_OR_RETURN(const std::string_view name, cursor_.ValueName());
        names.push_back(name);
      } while (cursor_.Consume(','));
      RETURN_IF_ERROR(cursor_.Expect('='));
    }
    ASSIGN_OR_RETURN(node.op, cursor_.Identifier());
    RETURN_IF_ERROR(ParseArguments(&node));
    for (size_t i = 0; i < names.size(); ++i) {
      RETURN_IF_ERROR(cursor_.Expect(i == 0 ? ':' : ','));
      ASSIGN_OR_RETURN(TensorType type, ParseTensorType(cursor_));
      ASSIGN_OR_RETURN(const ValueId id, Define(start, names[i], std::move(type)));
      node.outputs.push_back(id);
    }
    node.no_grad = cursor_.ConsumeWord("no_grad");
    if (cursor_.Consume('@')) {
      ASSIGN_OR_RETURN(std::string module, cursor_.QuotedString());
      ASSIGN_OR_RETURN(std::string location, cursor_.QuotedString());
      node.source = Source(std::move(module), std::move(location));
    }
    graph_.nodes.push_back(std::move(node));
    return absl::OkStatus();
  }

  absl::Status ParseArguments(Node* node) {
    const auto resolve = [this](std::string_view name) { return Resolve(name); };
    RETURN_IF_ERROR(cursor_.Expect('('));
    if (cursor_.Consume(')')) return absl::OkStatus();
    do {
      ASSIGN_OR_RETURN(Argument argument, ParseArgument(cursor_, resolve));
      node->args.push_back(std::move(argument));
    } while (cursor_.Consume(','));
    return cursor_.Expect(')');
  }

  absl::Status ParseReturn() {
    do {
      const size_t start = cursor_.position();
      ASSIGN_OR_RETURN(const std::string_view name, cursor_.ValueName());
      const absl::StatusOr<ValueId> id = Resolve(name);
      if (!id.ok()) return cursor_.ErrorAt(start, std::string(id.status().message()));
      if (cursor_.ConsumeWord("writes")) {
        RETURN_IF_ERROR(ParseWrite(*id));
        continue;
      }
      std::string output_name = DefaultOutputName(graph_.outputs.size());
      if (cursor_.Peek() == '"') {
        ASSIGN_OR_RETURN(output_name, cursor_.QuotedString());
      }
      graph_.outputs.push_back(*id);
      graph_.output_names.push_back(std::move(output_name));
    } while (cursor_.Consume(','));
    return absl::OkStatus();
  }

  absl::Status ParseWrite(ValueId value) {
    const size_t start = cursor_.position();
    ASSIGN_OR_RETURN(const std::string_view name, cursor_.ValueName());
    const absl::StatusOr<ValueId> buffer = Resolve(name);
    if (!buffer.ok()) return cursor_.ErrorAt(start, std::string(buffer.status().message()));
    if (graph_.FindInput(*buffer) == nullptr) {
      return cursor_.ErrorAt(start, absl::StrCat("%", Absl(name), " is no buffer"));
    }
    graph_.AddWrite(*buffer, value);
    return absl::OkStatus();
  }

  absl::StatusOr<ValueId> Resolve(std::string_view name) const {
    const auto found = ids_.find(std::string(name));
    if (found == ids_.end()) return NotFound("%", Absl(name), " is used before it is defined");
    return found->second;
  }

  absl::StatusOr<ValueId> Define(size_t start, std::string_view name, TensorType type) {
    const ValueId id{static_cast<int32_t>(graph_.values.size())};
    if (!ids_.emplace(std::string(name), id).second) {
      return cursor_.ErrorAt(start, absl::StrCat("%", Absl(name), " is defined twice"));
    }
    graph_.values.push_back({std::string(name), std::move(type)});
    return id;
  }

  TextCursor cursor_;
  Graph graph_;
  std::unordered_map<std::string, ValueId> ids_;
};

}  // namespace

std::string PrintGraph(const Graph& graph) {
  std::string out = absl::StrCat("graph ", FormatQuoted(graph.name), " {\n");
  for (const auto& [name, hint] : graph.symbols) {
    absl::StrAppend(&out, "  symbol ", name, " = ", hint, "\n");
  }
  for (const GraphInput& input : graph.inputs) PrintInput(graph, input, &out);
  for (const Node& node : graph.nodes) PrintNode(graph, node, &out);
  for (size_t i = 0; i < graph.outputs.size(); ++i) {
    absl::StrAppend(&out, i == 0 ? "  return %" : ", %", graph.value(graph.outputs[i]).name);
    if (const auto write = graph.writes.find(i); write != graph.writes.end()) {
      absl::StrAppend(&out, " writes %", graph.value(write->second).name);
    } else if (graph.output_names[i] != DefaultOutputName(i)) {
      absl::StrAppend(&out, " ", FormatQuoted(graph.output_names[i]));
    }
  }
  if (!graph.outputs.empty()) out += '\n';
  return out + "}\n";
}

absl::StatusOr<Graph> ParseGraph(std::string_view text) { return GraphParser(text).Parse(); }

}  // namespace autosp
