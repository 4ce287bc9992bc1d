#include "compiler/import/op_schemas.h"

#include <algorithm>
#include <set>
#include <string>

#include "compiler/import/autocast.h"
#include "compiler/import/functionalizer.h"
#include "compiler/import/op_refusals.h"
#include "compiler/ir/random_ops.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

TEST(OpSchemas, LinearHasAnOptionalBias) {
  const OpSchema* linear = FindOpSchema("aten.linear.default");
  ASSERT_NE(linear, nullptr);
  ASSERT_EQ(linear->parameters.size(), 3);
  EXPECT_EQ(linear->parameters[2].name, "bias");
  EXPECT_TRUE(linear->parameters[2].is_optional);
  EXPECT_TRUE(IsNone(linear->parameters[2].default_value.value()));
  EXPECT_FALSE(linear->parameters[0].default_value.has_value());
  EXPECT_EQ(linear->written(), nullptr);
}

TEST(OpSchemas, DefaultsHaveTheTypeOfTheirParameter) {
  const OpSchema* attention = FindOpSchema("aten.scaled_dot_product_attention.default");
  ASSERT_NE(attention, nullptr);
  EXPECT_EQ(std::get<double>(*attention->parameters[4].default_value), 0.0);
  EXPECT_EQ(std::get<bool>(*attention->parameters[5].default_value), false);
  EXPECT_TRUE(attention->parameters[6].is_keyword_only);
  const OpSchema* loss = FindOpSchema("aten.cross_entropy_loss.default");
  ASSERT_NE(loss, nullptr);
  EXPECT_EQ(std::get<SymInt>(*loss->parameters[4].default_value).value, -100);
  const OpSchema* contiguous = FindOpSchema("aten.contiguous.default");
  ASSERT_NE(contiguous, nullptr);
  EXPECT_EQ(std::get<EnumName>(*contiguous->parameters[1].default_value).name, "contiguous_format");
  const OpSchema* gelu = FindOpSchema("aten.gelu.default");
  ASSERT_NE(gelu, nullptr);
  EXPECT_EQ(std::get<std::string>(*gelu->parameters[1].default_value), "none");
}

TEST(OpSchemas, AliasesAreRead) {
  const OpSchema* add = FindOpSchema("aten.add_.Tensor");
  ASSERT_NE(add, nullptr);
  ASSERT_NE(add->written(), nullptr);
  EXPECT_EQ(add->written()->name, "self");
  EXPECT_EQ(add->parameters[0].alias, add->returns[0].alias);
  const OpSchema* split = FindOpSchema("aten.split.Tensor");
  ASSERT_NE(split, nullptr);
  EXPECT_TRUE(split->returns[0].is_list);
  EXPECT_EQ(split->parameters[0].alias, split->returns[0].alias);
  EXPECT_FALSE(split->parameters[0].alias.empty());
}

TEST(OpSchemas, ListsOfOptionalTensors) {
  const OpSchema* index = FindOpSchema("aten.index.Tensor");
  ASSERT_NE(index, nullptr);
  EXPECT_TRUE(index->parameters[1].is_list);
  EXPECT_TRUE(index->parameters[1].has_optional_elements);
  EXPECT_FALSE(index->parameters[1].is_optional);
}

TEST(OpSchemas, UnknownOpsAreNullAndNeighboursAreListed) {
  EXPECT_EQ(FindOpSchema("aten.linear.Tensor"), nullptr);
  EXPECT_EQ(FindOpSchema(""), nullptr);
  EXPECT_THAT(SimilarOps("aten.add.Unknown"), Contains("aten.add.Tensor"));
  EXPECT_TRUE(SimilarOps("aten.no_such_op.default").empty());
}

TEST(OpSchemas, BadSignaturesAreRefused) {
  for (const char* text : {"", "f", "f(", "f(Tensor)", "f(Unknown x) -> Tensor", "f() -> ",
                           "f(int x=) -> Tensor", "f(Tensor x, ) -> Tensor"}) {
    EXPECT_FALSE(ParseOpSchema(text).ok()) << text;
  }
  EXPECT_THAT(ParseOpSchema("f(Unknown x) -> Tensor"),
              IsError(absl::StatusCode::kInvalidArgument, HasSubstr("unknown type Unknown")));
}

// The checker has no signatures, and knows such ops by their names.
TEST(RandomOps, EveryOpWithAGeneratorIsRefusedOrDrawnByUs) {
  const std::set<std::string> drawn_by_us = {
      "aten.bernoulli.default",    "aten.bernoulli.p",       "aten.bernoulli_.float",
      "aten.bernoulli.Tensor",     "aten.bernoulli_.Tensor", "aten.exponential.default",
      "aten.exponential_.default", "aten.normal_.default",   "aten.normal_functional.default",
      "aten.normal.float_float",   "aten.uniform.default",   "aten.uniform_.default"};
  int num_random = 0;
  for (const std::string& name : SimilarOps("aten.")) {
    const OpSchema& schema = *FindOpSchema(name);
    const auto is_generator = [](const SchemaParameter& parameter) {
      return parameter.type == SchemaType::kGenerator;
    };
    if (!std::ranges::any_of(schema.parameters, is_generator)) continue;
    ++num_random;
    EXPECT_TRUE(DrawsRandomNumbers(name)) << name;
    EXPECT_EQ(CheckSupported(schema, {}).ok(), drawn_by_us.contains(name)) << name;
  }
  EXPECT_GT(num_random, 40);
}

TEST(RandomOps, OthersDrawFromTheDefaultGenerator) {
  for (const char* name :
       {"aten.randn.generator", "aten.randint_like.Tensor", "aten.randperm.default"}) {
    EXPECT_THAT(CheckSupported(*FindOpSchema(name), {}),
                IsError(absl::StatusCode::kUnimplemented,
                        HasSubstr("it draws random numbers, which would be others on every rank; "
                                  "draw them outside of the model, and pass them as an input")));
  }
  EXPECT_THAT(CheckSupported(*FindOpSchema("aten.rand.default"), {}), IsOk());
  EXPECT_TRUE(DrawsRandomNumbers("aten.dropout.default"));
  EXPECT_FALSE(DrawsRandomNumbers("aten.normalize.default"));
  EXPECT_FALSE(DrawsRandomNumbers("autosp.dropout"));
}

TEST(DataDependentOps, AreRefusedWithWhatToWriteInstead) {
  for (const char* name : {"aten.masked_select.default", "aten.nonzero.default"}) {
    const OpSchema* schema = FindOpSchema(name);
    ASSERT_NE(schema, nullptr) << name;
    EXPECT_THAT(CheckSupported(*schema, {}),
                IsError(absl::StatusCode::kUnimplemented,
                        AllOf(HasSubstr("ignore_index, a weight or a mask instead of selecting"),
                              HasSubstr("experts in its dense or grouped form"))));
  }
}

TEST(FunctionalOpName, DropsTheUnderscore) {
  EXPECT_EQ(FunctionalOpName("aten.add_.Tensor"), "aten.add.Tensor");
  EXPECT_EQ(FunctionalOpName("aten.masked_fill_.Scalar"), "aten.masked_fill.Scalar");
  EXPECT_EQ(FunctionalOpName("aten.__iand__.Tensor"), "aten.__and__.Tensor");
  EXPECT_EQ(FunctionalOpName("aten.add.Tensor"), "");
  EXPECT_EQ(FunctionalOpName("aten.__and__.Tensor"), "");
}

TEST(AutocastPolicy, DependsOnTheDevice) {
  EXPECT_EQ(AutocastPolicy("cpu", "aten.linear.default"), CastPolicy::kLowerPrecision);
  EXPECT_EQ(AutocastPolicy("cuda", "aten.linear.default"), CastPolicy::kLowerPrecision);
  EXPECT_EQ(AutocastPolicy("cpu", "aten.cross_entropy_loss.default"), CastPolicy::kFloat32);
  EXPECT_EQ(AutocastPolicy("cuda", "aten.cross_entropy_loss.default"), CastPolicy::kNone);
  EXPECT_EQ(AutocastPolicy("cpu", "aten.layer_norm.default"), CastPolicy::kNone);
  EXPECT_EQ(AutocastPolicy("cuda", "aten.layer_norm.default"), CastPolicy::kFloat32);
  EXPECT_EQ(AutocastPolicy("cuda", "aten.softmax.int"), CastPolicy::kFloat32Result);
  EXPECT_EQ(AutocastPolicy("cpu", "aten.cat.default"), CastPolicy::kPromote);
  EXPECT_EQ(AutocastPolicy("cpu", "aten.add.Tensor"), CastPolicy::kNone);
  EXPECT_EQ(AutocastPolicy("cpu", "aten.gru_cell.default"), CastPolicy::kNone);
  EXPECT_EQ(AutocastPolicy("cuda", "aten.gru_cell.default"), CastPolicy::kLowerPrecision);
}

}  // namespace
}  // namespace autosp
