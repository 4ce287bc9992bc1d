// Graphs of parts of a model, joined to the graph of the whole.
#include "compiler/import/link_models.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace autosp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kEmbed = R"(graph "embed" {
  symbol s3 = 2
  symbol s5 = 8
  input %ids "ids" : i64[2{s3}, 8{s5}]
  param %w "embed.weight" : f32[24, 16]
  buffer %c "lifted_tensor_0" : f32[16]
  %e = aten.embedding.default(%w, %ids, -1, false, false) : f32[2{s3}, 8{s5}, 16]
  %x = aten.mul.Tensor(%e, %c) : f32[2{s3}, 8{s5}, 16]
  return %x
}
)";

// The symbols are others, of the same names crosswise; %more is one of its own.
constexpr const char* kHead = R"(graph "head" {
  symbol s3 = 8
  symbol s5 = 2
  symbol s7 = 6
  input %hidden "hidden" : f32[2{s5}, 8{s3}, 16]
  input %more "more" : f32[6{s7}]
  param %w "head.weight" : f32[24, 16]
  buffer %c "lifted_tensor_0" : f32[16]
  %x = aten.view.default(%hidden, [16{s3*s5}, 16]) : f32[16{s3*s5}, 16]
  %y = aten.mul.Tensor(%x, %c) : f32[16{s3*s5}, 16]
  %z = aten.linear.default(%y, %w, none) : f32[16{s3*s5}, 24]
  return %z
}
)";

// As the importer describes a graph of the archive `name`.
ModelPart Part(const std::string& name, const std::string& text) {
  ModelPart part{.name = name, .model = {}};
  auto graph = ParseGraph(text);
  EXPECT_TRUE(graph.ok()) << graph.status();
  part.model.graph = *std::move(graph);
  for (GraphInput& input : part.model.graph.inputs) {
    if (input.kind == InputKind::kUser) continue;
    input.requires_grad = input.kind == InputKind::kParameter;
    const TensorType& type = part.model.graph.type(input.value);
    WeightRef ref;
    ref.input_name = input.name;
    ref.dtype = type.dtype;
    ref.strides = type.strides;
    for (const SymInt& size : type.sizes) ref.sizes.push_back(size.value);
    ref.entry = input.kind == InputKind::kParameter ? "m/data/weights/w" : "m/data/constants/c";
    part.model.weights.push_back(ref);
  }
  for (const auto& [symbol, hint] : part.model.graph.symbols) {
    part.model.symbol_ranges[symbol] = {.min = 1, .max = 4 * hint};
  }
  return part;
}

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  EXPECT_NE(text.find(from), std::string::npos) << from;
  return text.replace(text.find(from), from.size(), to);
}

using Tied = std::vector<std::vector<std::string>>;

absl::StatusOr<ImportedModel> Link(const std::string& first, const std::string& second,
                                   const Tied& tied = {}) {
  return LinkModels({Part("embed", first), Part("head", second)}, tied);
}

// Each part counts its draws from zero; together each has a number of its own, in the graph for
// plans and in that of the export alike.
TEST(LinkModelsTest, DrawsOfAllPartsHaveNumbersOfTheirOwn) {
  const auto dropping = [](const std::string& name, const char* text, const std::string& type) {
    ModelPart part = Part(
        name, Replaced(text, "  return",
                       "  %d = aten.dropout.default(%x, 0.5, true, 0) : " + type + "\n  return"));
    part.model.graph.outputs = {ValueId{static_cast<int32_t>(part.model.graph.values.size()) - 1}};
    part.model.graph_as_drawn = part.model.graph;
    part.model.graph_as_drawn->nodes.back().args[1] = 0.25;
    part.model.num_draws = 1;
    return part;
  };
  const auto model = LinkModels({dropping("embed", kEmbed, "f32[2{s3}, 8{s5}, 16]"),
                                 dropping("head", kHead, "f32[16{s3*s5}, 16]")},
                                {});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->num_draws, 2);
  EXPECT_THAT(PrintGraph(model->graph),
              testing::AllOf(HasSubstr("0.5, true, 0)"), HasSubstr("0.5, true, 1)")));
  ASSERT_TRUE(model->graph_as_drawn);
  EXPECT_THAT(PrintGraph(*model->graph_as_drawn),
              testing::AllOf(HasSubstr("0.25, true, 0)"), HasSubstr("0.25, true, 1)")));
}

TEST(LinkModelsTest, IsTheGraphOfTheWhole) {
  const auto model = Link(kEmbed, kHead);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(PrintGraph(model->graph), R"(graph "embed+head" {
  symbol s3 = 2
  symbol s5 = 8
  symbol s7 = 6
  input %ids "ids" : i64[2{s3}, 8{s5}]
  param %w "embed.weight" : f32[24, 16]
  buffer %c "lifted_tensor_0" : f32[16]
  input %more "more" : f32[6{s7}]
  param %w_1 "head.weight" : f32[24, 16]
  buffer %c_1 "head.lifted_tensor_0" : f32[16]
  %e = aten.embedding.default(%w, %ids, -1, false, false) : f32[2{s3}, 8{s5}, 16]
  %x = aten.mul.Tensor(%e, %c) : f32[2{s3}, 8{s5}, 16]
  %x_1 = aten.view.default(%x, [16{s5*s3}, 16]) : f32[16{s5*s3}, 16]
  %y = aten.mul.Tensor(%x_1, %c_1) : f32[16{s5*s3}, 16]
  %z = aten.linear.default(%y, %w_1, none) : f32[16{s5*s3}, 24]
  return %z
}
)");
  EXPECT_THAT(model->links, ElementsAre("head.hidden is output_0 of embed"));
  EXPECT_EQ(model->weights[3].input_name, "head.lifted_tensor_0");
  EXPECT_EQ(model->weights[3].archive, 1U);
  // Of 8 in one archive up to 32, of the size that the other calls s3 up to 8.
  EXPECT_EQ(model->symbol_ranges.at("s3").max, 8);
  EXPECT_EQ(model->symbol_ranges.at("s5").max, 32);
}

TEST(LinkModelsTest, FreeSymbolsGetNamesOfTheirOwn) {
  const std::string head =
      Replaced(Replaced(kHead, "f32[2{s5}, 8{s3}, 16]", "f32[2, 8{s3}, 16]"), "6{s7}", "2{s5}");
  const auto model = Link(kEmbed, head);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(PrintGraph(model->graph), HasSubstr("input %more \"more\" : f32[2{s5_1}]"));
  EXPECT_THAT(PrintGraph(model->graph), HasSubstr("(%x, [16{s5*s5_1}, 16])"));
}

TEST(LinkModelsTest, SizesThatWereConstantsStayConstants) {
  const std::string embed = R"(graph "embed" {
  input %x "x" : f32[2, 8, 16]
  %y = aten.neg.default(%x) : f32[2, 8, 16]
  return %y
}
)";
  const auto model = Link(embed, kHead);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(PrintGraph(model->graph), HasSubstr("aten.view.default(%y, [16, 16]) : f32[16, 16]"));
}

TEST(LinkModelsTest, TiedWeightsAreOne) {
  const auto model = Link(kEmbed, kHead, {{"embed.weight", "head.weight"}});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->weights.size(), 3U);
  EXPECT_THAT(model->graph.inputs[1].aliases, ElementsAre("head.weight"));
  EXPECT_THAT(PrintGraph(model->graph), HasSubstr("aten.linear.default(%y, %w, none)"));
  const std::string head = Replaced(kHead, "head.weight", "embed.weight");
  const auto same_name = Link(kEmbed, head, {{"embed.weight"}});
  ASSERT_TRUE(same_name.ok()) << same_name.status();
  EXPECT_EQ(same_name->weights.size(), 3U);
}

TEST(LinkModelsTest, WhatIsNotTakenIsAnOutput) {
  const std::string embed = Replaced(kEmbed, "return %x", "return %x, %e");
  const auto model =
      Link(embed, Replaced(kHead, "\"more\" : f32[6{s7}]", "\"ids\" : i64[2{s5}, 8{s3}]"));
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(model->graph.output_names, ElementsAre("output_0", "embed.output_1"));
}

struct BadParts {
  std::string from;  // replaced in the second part
  std::string to;
  Tied tied;
  std::string error;
};

TEST(LinkModelsTest, RefusesWhatDoesNotFit) {
  const BadParts cases[] = {
      {"8{s3}, 16]", "9{s3}, 16]", {}, "head: input hidden is f32[2{s5}, 9{s3}, 16], but %x"},
      {"f32[2{s5}, 8{s3}, 16]",
       "f64[2{s5}, 8{s3}, 16]",
       {},
       "exported with the same example sizes"},
      {"8{s3}, 16]", "8{s5 + 6}, 16]", {}, "size s5 + 6 is s3 + 6, and s5 where it comes from"},
      {"\"head.weight\"",
       "\"embed.weight\"",
       {},
       "embed.weight is a weight of embed too; if it is"},
      {"f32[24, 16]",
       "f32[24, 17]",
       {{"embed.weight", "head.weight"}},
       "head.weight is f32[24, 17], and embed.weight, to which model.tied ties it, is f32[24, 16]"},
      {"%z",
       "%z",
       {{"embed.weight", "head.wieght"}},
       "model.tied: no archive has a weight head.wieght; did you mean \"head.weight\"?"},
      {"%z", "%z", {{"embed.weight"}}, "[embed.weight] is one weight already; leave it out"},
  };
  for (const BadParts& each : cases) {
    const auto model = Link(kEmbed, Replaced(kHead, each.from, each.to), each.tied);
    EXPECT_THAT(std::string(model.status().message()), HasSubstr(each.error));
  }
}

TEST(LinkModelsTest, RefusesPartsThatHaveNothingToDoWithEachOther) {
  const auto model = LinkModels({Part("head", kHead), Part("embed", kEmbed)}, {});
  EXPECT_THAT(std::string(model.status().message()), HasSubstr("but %z, which it is given, is"));
  const std::string alone = "graph \"alone\" {\n  buffer %c \"c\" : f32[1]\n  return %c\n}\n";
  EXPECT_THAT(std::string(Link(kEmbed, alone).status().message()),
              HasSubstr("embed: nothing takes its outputs; list"));
}

// Both parts call their input x.
TEST(LinkModelsTest, RefusesAnInputThatTheDataAndAnOutputMayFeed) {
  const std::string text = R"(graph "g" {
  input %x "x" : f32[2]
  %y = aten.neg.default(%x) : f32[2]
  return %y
}
)";
  EXPECT_THAT(std::string(Link(text, text).status().message()),
              HasSubstr("head: input x is fed from the data, but could be output_0 of embed; "
                        "return a dictionary there"));
}

// A part that hands an input on, and one that changes it.
TEST(LinkModelsTest, InputsThatAreHandedOnKeepTheirPlace) {
  const std::string first = R"(graph "first" {
  input %ids "ids" : i64[2]
  input %mask "mask" : i64[2]
  %hidden = aten.to.dtype(%ids, f32, false, false, none) : f32[2]
  return %hidden, %mask
}
)";
  const std::string second = R"(graph "second" {
  input %hidden "hidden" : f32[2]
  input %mask "mask" : i64[2]
  input %labels "labels" : i64[2]
  %y = aten.mul.Tensor(%hidden, %labels) : f32[2]
  %z = aten.mul.Tensor(%y, %mask) : f32[2]
  return %z
}
)";
  const auto model = Link(first, second);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(model->links, ElementsAre("head.hidden is output_0 of embed"));
  EXPECT_THAT(PrintGraph(model->graph), HasSubstr("input %labels \"labels\""));
  EXPECT_THAT(PrintGraph(model->graph), HasSubstr("aten.mul.Tensor(%y, %mask)"));
  const std::string changed =
      Replaced(first, "  return %hidden, %mask",
               "  %m = aten.neg.default(%mask) : i64[2]\n  return %hidden, %m");
  EXPECT_THAT(std::string(Link(changed, second).status().message()),
              HasSubstr("input mask is fed from the data, but could be output_1 of embed"));
}

TEST(LinkModelsTest, NamesThatLookNumberedAreNames) {
  const std::string first = R"(graph "first" {
  input %ids "ids" : f32[2]
  %a = aten.neg.default(%ids) : f32[2]
  %b = aten.exp.default(%ids) : f32[2]
  return %a "output_1", %b "output_0"
}
)";
  const std::string second = R"(graph "second" {
  input %x "output_0" : f32[2]
  input %y "output_1" : f32[2]
  %z = aten.sub.Tensor(%x, %y, 1) : f32[2]
  return %z
}
)";
  const auto model = Link(first, second);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(PrintGraph(model->graph), HasSubstr("aten.sub.Tensor(%b, %a, 1)"));
}

TEST(LinkModelsTest, DerivedSizesSayWhatTheirSymbolsAre) {
  const std::string first = R"(graph "first" {
  symbol s1 = 6
  input %x "x" : f32[6{s1}]
  %y = aten.constant_pad_nd.default(%x, [2, 0], 0) : f32[8{s1 + 2}]
  return %y
}
)";
  const std::string second = R"(graph "second" {
  symbol s9 = 6
  input %y "y" : f32[8{s9 + 2}]
  input %labels "labels" : f32[6{s9}]
  %z = aten.slice.Tensor(%y, 0, 2, 8, 1) : f32[6{s9}]
  %w = aten.mul.Tensor(%z, %labels) : f32[6{s9}]
  return %w
}
)";
  const auto model = Link(first, second);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->graph.symbols.size(), 1U);
  EXPECT_THAT(PrintGraph(model->graph), HasSubstr("input %labels \"labels\" : f32[6{s1}]"));
}

TEST(LinkModelsTest, ConstantsGiveWayToWeights) {
  const std::string head = Replaced(Replaced(kHead, "\"lifted_tensor_0\"", "\"constant\""),
                                    "\"head.weight\"", "\"lifted_tensor_0\"");
  const auto model = Link(kEmbed, head);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->weights[1].input_name, "embed.lifted_tensor_0");
  EXPECT_EQ(model->weights[2].input_name, "lifted_tensor_0");
}

TEST(LinkModelsTest, WeightsThatAreTiedHaveTheSameValues) {
  const float values[] = {1, 2, 3, 4};
  const auto bytes = absl::Span<const std::byte>(reinterpret_cast<const std::byte*>(values), 16);
  const std::string text = R"(graph "g" {
  input %x "x" : f32[2]
  param %w "w" : f32[2]
  %y = aten.mul.Tensor(%x, %w) : f32[2]
  return %y
}
)";
  std::vector<ModelPart> parts = {Part("a", text), Part("b", Replaced(text, "\"x\"", "\"z\""))};
  for (ModelPart& part : parts) part.bytes = bytes;
  EXPECT_TRUE(LinkModels(parts, {{"w"}}).ok());
  parts[1].model.weights[0].strides = {2};
  EXPECT_FALSE(LinkModels(parts, {{"w"}}).ok()) << "1, 3 are not 1, 2";
  parts[1].model.weights[0].strides = {1};
  parts[1].model.weights[0].file_offset = 8;
  EXPECT_THAT(std::string(LinkModels(parts, {{"w"}}).status().message()),
              HasSubstr("w has other values than w"));
}

}  // namespace
}  // namespace autosp
