#include "compiler/planner/check_names.h"

#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

// One input, two parameters of which the first is tied, a loss and logits.
Graph MakeGraph() {
  Graph graph;
  const TensorType matrix{.dtype = DType::kF32, .sizes = {4, 4}, .strides = {4, 1}};
  const TensorType scalar{.dtype = DType::kF32, .sizes = {}, .strides = {}};
  const TensorType tokens{.dtype = DType::kI64, .sizes = {2, 8}, .strides = {8, 1}};
  const auto add = [&](InputKind kind, const std::string& name, const TensorType& type,
                       std::vector<std::string> aliases) {
    graph.inputs.push_back({.value = graph.AddValue(name, type),
                            .kind = kind,
                            .name = name,
                            .aliases = std::move(aliases),
                            .requires_grad = kind == InputKind::kParameter});
  };
  add(InputKind::kParameter, "embed.weight", matrix, {"head.weight"});
  add(InputKind::kParameter, "layers.0.bias", matrix, {});
  add(InputKind::kBuffer, "frequencies", matrix, {});
  add(InputKind::kUser, "input_ids", tokens, {});
  for (const auto& [name, type] : {std::pair("loss", scalar), std::pair("logits", matrix)}) {
    graph.outputs.push_back(graph.AddValue(name, type));
    graph.output_names.emplace_back(name);
  }
  return graph;
}

struct NamesCase {
  std::string what;
  std::function<void(JobSpec&)> change;
  std::string error;  // empty: accepted
};

class CheckNamesTest : public testing::TestWithParam<NamesCase> {};

TEST_P(CheckNamesTest, NamesAreThoseOfTheModel) {
  JobSpec job;
  GetParam().change(job);
  const absl::Status status = CheckNames(MakeGraph(), job);
  if (GetParam().error.empty()) {
    EXPECT_THAT(status, IsOk());
  } else {
    EXPECT_THAT(status, IsError(absl::StatusCode::kInvalidArgument, GetParam().error));
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, CheckNamesTest,
    testing::Values(
        NamesCase{"Nothing", [](JobSpec&) {}, ""},
        NamesCase{"Input", [](JobSpec& job) { job.data.inputs["input_ids"] = {}; }, ""},
        NamesCase{"Name", [](JobSpec& job) { job.model.frozen = {"layers.0.bias"}; }, ""},
        NamesCase{"Glob", [](JobSpec& job) { job.model.no_decay = {"*.bias"}; }, ""},
        NamesCase{"TiedName", [](JobSpec& job) { job.model.frozen = {"head.*"}; }, ""},
        NamesCase{"Loss", [](JobSpec& job) { job.model.loss_output = "loss"; }, ""},
        NamesCase{"LossIndex", [](JobSpec& job) { job.model.loss_output = "0"; }, ""},
        NamesCase{"NoInput", [](JobSpec& job) { job.data.inputs["inputs_ids"] = {}; },
                  "data.inputs.inputs_ids: the model has no input inputs_ids; did you mean "
                  "\"input_ids\"?"},
        NamesCase{"BufferIsNoInput", [](JobSpec& job) { job.data.inputs["frequencies"] = {}; },
                  "data.inputs.frequencies: the model has no input frequencies; known are "
                  "input_ids"},
        NamesCase{"NoParameter",
                  [](JobSpec& job) {
                    job.model.frozen = {"*.bias", "embed.wieght"};
                  },
                  "model.frozen[1]: \"embed.wieght\" matches no parameter of the model; did you "
                  "mean \"embed.weight\"?"},
        NamesCase{"NoMatch", [](JobSpec& job) { job.model.no_decay = {"transformer.*"}; },
                  "model.no_decay[0]: \"transformer.*\" matches no parameter of the model; write a "
                  "name of the state dict or a glob over them, such as \"embed.weight\""},
        NamesCase{"BufferIsNoParameter", [](JobSpec& job) { job.model.frozen = {"frequencies"}; },
                  "model.frozen[0]: \"frequencies\" matches no parameter of the model; write a "
                  "name of the state dict or a glob over them, such as \"embed.weight\""},
        NamesCase{"NoOutput", [](JobSpec& job) { job.model.loss_output = "lose"; },
                  "model.loss_output: the model has no output lose; did you mean \"loss\"?"},
        NamesCase{"NoIndex", [](JobSpec& job) { job.model.loss_output = "2"; },
                  "model.loss_output: the model has no output 2; known are loss, logits"},
        NamesCase{"NoScalar", [](JobSpec& job) { job.model.loss_output = "logits"; },
                  "model.loss_output: output logits is f32 with 2 dimensions; name a floating "
                  "point scalar among loss, logits, or export a module whose forward returns the "
                  "loss"},
        NamesCase{"Several",
                  [](JobSpec& job) {
                    job.model.frozen = {"x"};
                    job.model.loss_output = "9";
                  },
                  "model.frozen[0]: \"x\" matches no parameter of the model; write a name of the "
                  "state dict or a glob over them, such as \"embed.weight\"\n"
                  "model.loss_output: the model has no output 9; known are loss, logits"}),
    [](const testing::TestParamInfo<NamesCase>& info) { return info.param.what; });

}  // namespace
}  // namespace autosp
