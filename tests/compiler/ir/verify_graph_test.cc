#include <functional>
#include <string>

#include "compiler/ir/graph.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;

Graph SmallGraph() {
  return ParseGraph(R"(graph "g" {
    symbol s0 = 3
    input %x "x" : f32[2, 3{s0}]
    param %w "w" : f32[3]
    %y = aten.mul.Tensor(%x, %w) : f32[2, 3{s0}] @ "layer" "model.py:1"
    %z = aten.add.Tensor(%y, 3{s0}, 1) : f32[2, 3{s0}]
    return %z
  })")
      .value();
}

struct Damage {
  std::string name;
  std::function<void(Graph&)> apply;
  std::string message;
};

class DamagedGraph : public testing::TestWithParam<Damage> {};

TEST_P(DamagedGraph, IsRefused) {
  Graph graph = SmallGraph();
  ASSERT_THAT(VerifyGraph(graph), IsOk());
  GetParam().apply(graph);
  const absl::Status status = VerifyGraph(graph);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

TEST(VerifyGraphTest, WritesAreToBuffersOfTheirSizesOnce) {
  const auto error = [](const std::string& returned) {
    const Graph graph = ParseGraph(R"(graph "g" {
    input %x "x" : f32[3]
    param %w "w" : f32[3]
    buffer %b "b" : f32[3]
    %y = aten.mul.Tensor(%x, %w) : f32[3]
    %z = aten.sum.default(%y, none) : f32[]
    return )" + returned + "\n}")
                            .value();
    return std::string(VerifyGraph(graph).message());
  };
  EXPECT_EQ(error("%z, %y writes %b"), "");
  EXPECT_EQ(error("%z, %y writes %w"), "output 1 is written to what is no buffer");
  EXPECT_EQ(error("%z, %y writes %b, %x writes %b"), "b is written twice");
  EXPECT_EQ(error("%y, %z writes %b"), "what is written to b has other sizes");
  EXPECT_EQ(error("%y writes %b, %z"), "a write stands before output 0");
}

TEST(VerifyGraphTest, AParameterMayBeCalledAsAnInput) {
  Graph graph = SmallGraph();
  graph.inputs[1].name = "x";
  EXPECT_THAT(VerifyGraph(graph), IsOk());
}

INSTANTIATE_TEST_SUITE_P(
    Damages, DamagedGraph,
    testing::Values(
        Damage{"order", [](Graph& g) { std::swap(g.nodes[0], g.nodes[1]); },
               "%y is used before it is defined"},
        Damage{"twice", [](Graph& g) { g.nodes[1].outputs = g.nodes[0].outputs; },
               "%y is defined twice"},
        Damage{"negative", [](Graph& g) { g.values[2].type.sizes[0] = SymInt(-7); },
               "layer: aten.mul.Tensor (%y) at model.py:1: %y has a dimension of -7"},
        Damage{"huge", [](Graph& g) { g.values[2].type.sizes[0] = SymInt(int64_t{1} << 51); },
               "dimensions are 0 to 1125899906842624"},
        Damage{"operand", [](Graph& g) { g.nodes[0].args[0] = ValueId{99}; },
               "layer: aten.mul.Tensor (%y) at model.py:1: value 99 does not exist"},
        Damage{"in_list", [](Graph& g) { g.nodes[0].args[0] = ValueList{ValueId{3}}; },
               "%z is used before it is defined"},
        Damage{"result", [](Graph& g) { g.nodes[0].outputs[0] = ValueId{99}; },
               "value 99 does not exist"},
        Damage{"output", [](Graph& g) { g.outputs[0] = ValueId{}; }, "output output_0"},
        Damage{"names", [](Graph& g) { g.output_names.clear(); }, "1 outputs have 0 names"},
        Damage{"value_name", [](Graph& g) { g.values[3].name = "x"; }, "two values are named %x"},
        Damage{"no_name", [](Graph& g) { g.values[3].name = ""; }, "a value has no name"},
        Damage{"input_name",
               [](Graph& g) {
                 g.inputs[1].name = "x";
                 g.inputs[1].kind = InputKind::kUser;
               },
               "two inputs are named x"},
        Damage{"no_op", [](Graph& g) { g.nodes[0].op = ""; }, "has no op"},
        Damage{"rank", [](Graph& g) { g.values[0].type.strides.pop_back(); },
               "1 strides for 2 dimensions"},
        Damage{"hint", [](Graph& g) { g.values[0].type.sizes[1].value = 4; },
               "4 stands for s0, which is 3 at the exported sizes"},
        Damage{"argument_hint", [](Graph& g) { std::get<SymInt>(g.nodes[1].args[1]).value = 5; },
               "5 stands for s0"},
        Damage{"symbol", [](Graph& g) { g.symbols.clear(); }, "symbol s0 has no value"}),
    [](const testing::TestParamInfo<Damage>& info) { return info.param.name; });

}  // namespace
}  // namespace autosp
