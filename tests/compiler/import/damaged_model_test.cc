// A well-formed archive whose model.json says something that cannot be.
#include <string>

#include "compiler/import/pt2_archive.h"
#include "tests/common/status_matchers.h"
#include "tests/compiler/import/archive_editor.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;

struct Damage {
  std::string name;
  std::string archive;
  std::string from;
  std::string to;
  std::string message;
};

class DamagedModel : public testing::TestWithParam<Damage> {};

TEST_P(DamagedModel, IsRefusedByName) {
  ArchiveEditor archive = ArchiveEditor::Read(CaseArchive(GetParam().archive));
  archive.Replace("models/model.json", GetParam().from, GetParam().to);
  const std::string bytes = archive.Write();
  const absl::StatusOr<ImportedModel> model = ImportArchiveFromMemory(Bytes(bytes));
  ASSERT_FALSE(model.ok()) << PrintGraph(model->graph);
  EXPECT_THAT(std::string(model.status().message()), HasSubstr(GetParam().message));
}

constexpr char kLinear[] = "torch.ops.aten.linear.default";

INSTANTIATE_TEST_SUITE_P(
    Damages, DamagedModel,
    testing::Values(
        Damage{"unknown_op", "noise", kLinear, "torch.ops.aten.linear.no_such_overload",
               "linear: aten.linear.no_such_overload (%linear) at linear.py:134: the op is not in "
               "the op table, which has aten.linear.default"},
        Damage{"other_namespace", "noise", kLinear, "torch.ops.vendor.linear.default",
               "the op belongs to a library of its own"},
        Damage{"no_op", "noise", kLinear, "math.floor", "the op belongs to a library of its own"},
        Damage{"unknown_parameter", "noise", R"("name": "bias")", R"("name": "biased")",
               "the op has no parameter biased"},
        Damage{"given_twice", "noise", R"("name": "bias")", R"("name": "weight")",
               "argument weight is given twice"},
        Damage{"wrong_type", "noise", R"({"as_tensor": {"name": "p_linear_weight"}}, "kind": 1)",
               R"({"as_string": "text"}, "kind": 1)", "argument weight: a tensor is expected"},
        Damage{
            "missing_argument", "noise",
            R"({"name": "weight", "arg": {"as_tensor": {"name": "p_linear_weight"}}, "kind": 1},)",
            "", "argument weight is missing and has no default"},
        Damage{"undefined_value", "noise", R"({"as_tensor": {"name": "p_linear_weight"}}, "kind")",
               R"({"as_tensor": {"name": "p_linear"}}, "kind")",
               "%p_linear is used but not defined"},
        Damage{"defined_twice", "noise", R"("outputs": [{"as_tensor": {"name": "linear"}}])",
               R"("outputs": [{"as_tensor": {"name": "x"}}])", "%x is defined twice"},
        Damage{"no_type", "noise", R"("linear": {"dtype")", R"("linear_gone": {"dtype")",
               "the archive has no type for %linear"},
        Damage{"element_type", "noise", R"("linear": {"dtype": 7)", R"("linear": {"dtype": 10)",
               "the op is not supported on complex tensors"},
        Damage{"unknown_tag", "noise", R"({"as_tensor": {"name": "p_linear_weight"}}, "kind": 1)",
               R"({"as_operator": "f"}, "kind": 1)",
               "an argument of kind as_operator is not supported"},
        Damage{"complex_number", "noise",
               R"({"as_tensor": {"name": "p_linear_weight"}}, "kind": 1)",
               R"({"as_complex": {"real": 1, "imag": 0}}, "kind": 1)",
               "a complex number is not supported here"},
        Damage{
            "custom_object", "noise", R"({"user_input": )",
            R"({"custom_obj": {"arg": {"name": "o", "class_fqn": "C"}, "custom_obj_name": "o"}},)"
            R"( {"user_input": )",
            "input of kind custom_obj is not supported"},
        Damage{"no_graph", "noise", R"("graph_module")", R"("graph_modules")",
               "model.json: member graph_module is missing"},
        Damage{"wrong_json_type", "noise", R"("nodes": [)", R"("nodes": 3, "other_nodes": [)",
               "model.json.graph_module.graph.nodes: a list is expected"},
        Damage{"two_tags", "noise", R"({"as_tensor": {"name": "p_linear_weight"}})",
               R"({"as_tensor": {"name": "p_linear_weight"}, "as_int": 3})",
               "a union has one member"},
        Damage{"buffer_mutation", "noise", R"({"user_output": {"arg")",
               R"({"buffer_mutation": {"buffer_name": "steps", "arg")",
               "buffer_mutation.arg: member name is missing"},
        Damage{"input_mutation", "noise", R"({"user_output": {"arg")",
               R"({"user_input_mutation": {"user_input_name": "x", "arg")",
               "the model writes x (user_input_mutation)"},
        Damage{"wrong_hint", "symbols",
               R"x("expr_str": "Add(Symbol('s27', positive=True, integer=True), Integer(-1))", )x"
               R"x("hint": {"as_int": 9})x",
               R"x("expr_str": "Add(Symbol('s27', positive=True, integer=True), Integer(-1))", )x"
               R"x("hint": {"as_int": 8})x",
               "size s27 - 1 is 9 at the exported sizes, but the archive says 8"},
        Damage{
            "two_hints", "symbols",
            R"x("expr_str": "Symbol('s27', positive=True, integer=True)", "hint": {"as_int": 10})x",
            R"x("expr_str": "Symbol('s27', positive=True, integer=True)", "hint": {"as_int": 11})x",
            "symbol s27 has two values at export"},
        Damage{"unknown_function", "symbols", "FloorDiv(", "Piecewise(",
               "function Piecewise is not known in size expressions"}),
    [](const testing::TestParamInfo<Damage>& info) { return info.param.name; });

}  // namespace
}  // namespace autosp
