// What an importer reads, from anywhere: it must not crash, hang or make a graph that does not
// verify, and every graph must survive its text. The first byte chooses the door, because the sums
// of a zip archive keep a fuzzer from getting past it:
//   A an archive   M a model.json   G the text of a graph   E a size expression   S a signature
//   R a relation between sizes
#include <cstdint>
#include <string_view>

#include "absl/types/span.h"
#include "common/check.h"
#include "compiler/import/exported_program.h"
#include "compiler/import/graph_importer.h"
#include "compiler/import/op_names.h"
#include "compiler/import/op_schemas.h"
#include "compiler/import/pt2_archive.h"
#include "compiler/import/remove_noise.h"
#include "compiler/import/srepr.h"
#include "compiler/ir/size_guard.h"

namespace autosp {
namespace {

void CheckText(const Graph& graph) {
  const std::string text = PrintGraph(graph);
  const absl::StatusOr<Graph> again = ParseGraph(text);
  AUTOSP_CHECK(again.ok(), again.status().ToString(), "\n", text);
  AUTOSP_CHECK(PrintGraph(*again) == text, text);
}

void CheckArchive(std::string_view data) {
  const auto model =
      ImportArchiveFromMemory({reinterpret_cast<const std::byte*>(data.data()), data.size()});
  if (!model.ok()) return;
  CheckText(model->graph);
  for (const SizeGuard& guard : model->guards) {
    guard.Holds(model->graph.symbols).IgnoreError();
    guard.SizesToString(model->graph.symbols);
  }
}

void CheckModel(std::string_view data) {
  const auto program = exported::ReadProgram(data, "model.json");
  if (!program.ok()) return;
  absl::StatusOr<Graph> graph = ImportGraph(*program, "fuzz", {});
  if (!graph.ok()) return;
  UnifyOpNames(*graph);
  RemoveNoise(*graph);
  if (VerifyGraph(*graph).ok()) CheckText(*graph);
}

void CheckGraphText(std::string_view data) {
  const absl::StatusOr<Graph> graph = ParseGraph(data);
  if (!graph.ok()) return;
  CheckText(*graph);
  VerifyGraph(*graph).IgnoreError();
}

void CheckExpression(std::string_view data) {
  for (const absl::StatusOr<SymExpr>& expr : {ParseSrepr(data), SymExpr::Parse(data)}) {
    if (!expr.ok()) continue;
    const SymBindings bindings = {{"s0", 7}, {"s1", -3}};
    const absl::StatusOr<int64_t> value = expr->Evaluate(bindings);
    const absl::StatusOr<SymExpr> again = SymExpr::Parse(expr->ToString());
    // The text of an expression may nest deeper than the parser goes.
    if (!again.ok()) continue;
    AUTOSP_CHECK(*again == *expr, expr->ToString(), " is read as ", again->ToString());
    const absl::StatusOr<int64_t> same = again->Evaluate(bindings);
    AUTOSP_CHECK(!value.ok() || !same.ok() || *value == *same, expr->ToString());
  }
}

void CheckRelation(std::string_view data) {
  const SizeGuard guard = SizeGuard::Parse(data, [](const auto&, int64_t dim) {
    return SymInt(0, SymExpr::Symbol(dim > 0 ? "s1" : "s0"));
  });
  const SymBindings bindings = {{"s0", 7}, {"s1", -3}};
  guard.Holds(bindings).IgnoreError();
  guard.SizesToString(bindings);
  guard.ToString();
}

}  // namespace
}  // namespace autosp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 'A':
      autosp::CheckArchive(rest);
      break;
    case 'M':
      autosp::CheckModel(rest);
      break;
    case 'G':
      autosp::CheckGraphText(rest);
      break;
    case 'E':
      autosp::CheckExpression(rest);
      break;
    case 'R':
      autosp::CheckRelation(rest);
      break;
    case 'S':
      autosp::ParseOpSchema(rest).status().IgnoreError();
      break;
    default:
      break;
  }
  return 0;
}
