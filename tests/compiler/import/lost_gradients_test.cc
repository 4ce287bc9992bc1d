#include "compiler/import/lost_gradients.h"

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compiler/import/pt2_archive.h"
#include "compiler/import/stack_trace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/compiler/import/archive_editor.h"

namespace autosp {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<std::string> WarningsOf(const std::string& name) {
  const absl::StatusOr<ImportedModel> model = ImportArchive(CaseArchive(name));
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? model->warnings : std::vector<std::string>();
}

TEST(LostGradientsTest, AreWarnedOf) {
  EXPECT_THAT(
      WarningsOf("lost_functions"),
      ElementsAre(
          AllOf(HasSubstr("is of no module of the model"),
                HasSubstr("export_lost_gradients.py:69")),
          AllOf(HasSubstr("branches.0: a torch.autograd.Function (Reverse.apply) is called"),
                HasSubstr("replaced by the derivative of its forward"))));
  EXPECT_THAT(WarningsOf("lost_functions_strict"),
              ElementsAre(HasSubstr("a torch.autograd.Function is called"),
                          AllOf(HasSubstr("branches.0: a torch.autograd.Function (Reverse.apply)"),
                                HasSubstr("no gradient goes through it"))));
  for (const char* name : {"lost_switches", "lost_switches_strict"}) {
    EXPECT_THAT(WarningsOf(name),
                ElementsAre(AllOf(HasSubstr("5 regions of torch.autocast"),
                                  HasSubstr("export_lost_gradients.py:90")),
                            HasSubstr("is written to buffer mean with a gradient")));
  }
}

// Gradients that are as the module has them.
TEST(LostGradientsTest, AreNotSeenElsewhere) {
  for (const char* name : {"kept_switches", "no_grad", "autocast", "writes_buffers"}) {
    EXPECT_THAT(WarningsOf(name), IsEmpty()) << name;
  }
}

std::string TraceOf(const std::vector<std::pair<std::string, std::string>>& frames) {
  std::string trace;
  for (const auto& [place, code] : frames) {
    absl::StrAppend(&trace, "  File \"", place, "\n    ", code, "\n");
  }
  return trace;
}

std::optional<exported::FunctionCall> FindFunctionCall(const std::string& trace,
                                                       std::string_view modules) {
  return exported::StackTrace(trace).FindFunctionCall(modules);
}

constexpr char kRoot[] = "L__self__,,models.Model";
constexpr char kHead[] = "L__self__,,models.Model;L__self___head,head,models.Head";

TEST(StackTraceTest, ForwardsOfModulesAreNoFunctions) {
  const std::string model = "/home/me/m.py\", line 7, in forward";
  const std::string other = "/home/me/ops.py\", line 3, in forward";
  const std::string torch = "/usr/x-packages/torch/nn/modules/linear.py\", line 9, in forward";
  EXPECT_FALSE(FindFunctionCall(TraceOf({{model, "x = self.head(x)"}, {other, "x + 1"}}), kHead));
  EXPECT_FALSE(FindFunctionCall(
      TraceOf({{model, "return Twice.apply(x) + self.head(x)"}, {other, "x + 1"}}), kHead));
  EXPECT_FALSE(
      FindFunctionCall(TraceOf({{model, "self.head.apply(f)"}, {torch, "F.linear(x)"}}), kHead));
  EXPECT_FALSE(
      FindFunctionCall(TraceOf({{model, "return super().forward(x)"}, {other, "x"}}), kRoot));
  EXPECT_FALSE(FindFunctionCall("", ""));
  EXPECT_FALSE(FindFunctionCall("\", line ", ";,;"));
}

TEST(StackTraceTest, FunctionsAreNamed) {
  const std::string model = "/home/me/m.py\", line 7, in forward";
  const std::string other = "/home/me/ops.py\", line 3, in forward";
  const auto named =
      FindFunctionCall(TraceOf({{model, "x = ops.Twice.apply(x, 2)"}, {other, "x + 1"}}), kHead);
  ASSERT_TRUE(named);
  EXPECT_EQ(named->name, "ops.Twice.apply");
  EXPECT_EQ(named->caller, "m.py:7");
  EXPECT_EQ(named->forward, "ops.py:3");
  EXPECT_TRUE(named->is_certain);
  const auto other_name =
      FindFunctionCall(TraceOf({{model, "x = twice(self.head(x))"}, {other, "x + 1"}}), kRoot);
  ASSERT_TRUE(other_name);
  EXPECT_EQ(other_name->name, "");
  EXPECT_FALSE(other_name->is_certain);
}

TEST(StackTraceTest, ModulesAreNamedAsInTheStateDict) {
  EXPECT_EQ(exported::InnermostModule(kRoot), "");
  EXPECT_EQ(exported::InnermostModule(kHead), "head");
  EXPECT_EQ(exported::InnermostModule("a,,m.M;b,_export_root,m.M"), "");
  EXPECT_EQ(exported::InnermostModule("a,,m.M;b,_export_root.head,m.Head"), "head");
}

}  // namespace
}  // namespace autosp
