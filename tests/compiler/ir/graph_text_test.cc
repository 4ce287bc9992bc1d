#include <fstream>
#include <sstream>
#include <string>

#include "compiler/ir/argument_text.h"
#include "compiler/ir/graph.h"
#include "compiler/ir/type_text.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Every form of argument and type, in one graph.
std::string AllArguments() {
  std::ifstream file(AUTOSP_SOURCE_DIR "/tests/golden/import/all_arguments.txt");
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(GraphText, RoundTrips) {
  ASSERT_OK_AND_ASSIGN(const Graph graph, ParseGraph(AllArguments()));
  EXPECT_EQ(PrintGraph(graph), AllArguments());
  EXPECT_THAT(VerifyGraph(graph), IsOk());
}

TEST(GraphText, SaysWhatIsWrittenToBuffers) {
  const std::string text = R"(graph "g" {
  input %x "x" : f32[3]
  buffer %b "mean" : f32[3]
  %y = aten.add.Tensor(%x, %b, 1) : f32[3]
  %z = aten.sum.default(%y, none) : f32[]
  return %z "loss", %y writes %b
}
)";
  ASSERT_OK_AND_ASSIGN(const Graph graph, ParseGraph(text));
  EXPECT_EQ(PrintGraph(graph), text);
  EXPECT_THAT(VerifyGraph(graph), IsOk());
  EXPECT_EQ(graph.NumResults(), 1u);
  EXPECT_THAT(graph.ResultNames(), ElementsAre("loss"));
  EXPECT_EQ(graph.writes.at(1), graph.inputs[1].value);
}

TEST(GraphText, ReadsWhatItSays) {
  ASSERT_OK_AND_ASSIGN(const Graph graph, ParseGraph(AllArguments()));
  EXPECT_EQ(graph.name, "small");
  EXPECT_EQ(graph.symbols.at("s0"), 3);
  ASSERT_EQ(graph.inputs.size(), 4);
  EXPECT_EQ(graph.inputs[0].kind, InputKind::kUser);
  EXPECT_FALSE(graph.inputs[0].requires_grad);
  EXPECT_THAT(graph.inputs[1].aliases, ElementsAre("head.weight"));
  EXPECT_TRUE(graph.inputs[1].requires_grad);
  EXPECT_FALSE(graph.inputs[2].requires_grad);
  EXPECT_EQ(graph.type(graph.inputs[0].value).strides, (std::vector<int64_t>{12, 4, 1}));
  ASSERT_EQ(graph.nodes.size(), 3);
  EXPECT_TRUE(graph.nodes[1].no_grad);
  EXPECT_EQ(graph.nodes[0].source, (Source{"layer", "model.py:3"}));
  const std::vector<Argument>& args = graph.nodes[2].args;
  ASSERT_EQ(args.size(), 22);
  EXPECT_FALSE(std::get<ValueList>(args[1])[1].valid());
  EXPECT_TRUE(std::get<ValueList>(args[2]).empty());
  EXPECT_EQ(std::get<SymInt>(args[5]).expr.ToString(), "2*s0");
  EXPECT_EQ(std::get<SymFloat>(args[12]).value, 3.0);
  EXPECT_EQ(std::get<SymFloat>(args[13]).expr.ToString(), "div(1.0, s0 + 1)");
  EXPECT_EQ(std::get<EnumName>(args[21]).name, "contiguous_format");
  EXPECT_THAT(graph.output_names, ElementsAre("output_0", "logits"));
  EXPECT_EQ(OperandsOf(graph.nodes[2]).size(), 3);
  EXPECT_EQ(Describe(graph, graph.nodes[1]), "layer: aten.linear.default (%y) at model.py:4");
}

struct BadText {
  std::string text;
  std::string message;
};

class BadGraphText : public testing::TestWithParam<BadText> {};

TEST_P(BadGraphText, IsRefusedWithLineAndColumn) {
  EXPECT_THAT(ParseGraph("graph \"g\" {\n" + GetParam().text + "\n}\n"),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    Texts, BadGraphText,
    testing::Values(
        BadText{"  input x \"x\" : f32[2]",
                "line 2, column 9: expected a value (%name), found 'x'"},
        BadText{"  input %x \"x\" : f31[2]", "line 2, column 18: 'f31' is not an element type"},
        BadText{"  input %x \"x\" : f32[-2]", "size -2 is negative"},
        BadText{"  input %x \"x\" : f32[2]{strides=1,2}", "2 strides for 1 dimensions"},
        BadText{"  input %x \"x\" : f32[2]\n  input %x \"y\" : f32[2]", "%x is defined twice"},
        BadText{"  %y = aten.neg.default(%x) : f32[2]", "%x is used before it is defined"},
        BadText{"  return %x", "%x is used before it is defined"},
        BadText{"  %y = aten.neg.default(1, ) : f32[2]", "expected a number, found ')'"},
        BadText{"  %y = aten.neg.default([1, true]) : f32[2]", "elements of a list have one type"},
        BadText{"  %y = aten.neg.default([[1]]) : f32[2]", "lists of lists"},
        BadText{"  %y = aten.neg.default([\"a\"]) : f32[2]", "a list holds"},
        BadText{"  %y = aten.neg.default(maybe) : f32[2]", "'maybe' is not an argument"},
        BadText{"  %y = aten.neg.default(3{s0 +}) : f32[2]", "expected"},
        BadText{"  %y = aten.neg.default(1)", "expected ':'"},
        BadText{"  symbol s0 = 1\n  symbol s0 = 2", "symbol s0 is declared twice"}));

TEST(GraphText, RefusesTextBehindTheGraph) {
  EXPECT_FALSE(ParseGraph("graph \"g\" {\n}\nmore").ok());
  EXPECT_FALSE(ParseGraph("graph \"g\" {\n").ok());
  EXPECT_FALSE(ParseGraph("").ok());
}

TEST(TensorTypeText, StridesOfEmptyAndScalarTensorsAreContiguous) {
  EXPECT_EQ(PrintTensorType({DType::kF32, {}, {}}), "f32[]");
  EXPECT_EQ(PrintTensorType({DType::kI64, {0, 3}, {3, 1}}), "i64[0, 3]");
  EXPECT_EQ(PrintTensorType({DType::kI64, {2, 1}, {1, 5}}), "i64[2, 1]{strides=1,5}");
}

TEST(Graph, AddValueMakesNamesUnique) {
  Graph graph;
  graph.AddValue("x", {});
  EXPECT_EQ(graph.value(graph.AddValue("x", {})).name, "x_1");
  EXPECT_EQ(graph.value(graph.AddValue("x", {})).name, "x_2");
}

}  // namespace
}  // namespace autosp
