// bf16 models against fp32: error(SP) <= 2.5 x error(PyTorch on one device in bf16) + 2e-3, over
// the L2 norm of all gradients.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "tests/equality/zoo_model.h"

namespace autosp {
namespace {

// A case, and the file that says how far PyTorch itself is off.
struct Case {
  const char* model;
  ParamPrecision params;
  const char* error_file;
  Mesh mesh;
};

// The L2 norm of the difference of all gradients, relative to that of `reference`.
absl::StatusOr<double> GradientError(const ZooModel& zoo, const Program& program,
                                     const Executor& executor, const NamedTensors& reference) {
  double difference = 0;
  double total = 0;
  for (const auto& [name, expected] : reference) {
    ASSIGN_OR_RETURN(const std::string canonical, zoo.Canonical(program, name));
    ASSIGN_OR_RETURN(const at::Tensor gradient, executor.Get("grad:" + canonical));
    difference += (gradient - expected).square().sum().item<double>();
    total += expected.square().sum().item<double>();
  }
  return std::sqrt(difference / total);
}

class PrecisionTest : public testing::TestWithParam<Case> {};

TEST_P(PrecisionTest, IsAsCloseAsOneDevice) {
  const Case& c = GetParam();
  auto zoo = ZooModel::Load(c.model);
  ASSERT_TRUE(zoo.ok()) << zoo.status();
  auto reference = ReadSafetensors(ZooPath(absl::StrCat(c.model, "/reference.safetensors")));
  ASSERT_TRUE(reference.ok()) << reference.status();
  auto own = ReadSafetensors(ZooPath(absl::StrCat(c.model, "/", c.error_file)));
  ASSERT_TRUE(own.ok()) << own.status();
  JobSpec job = (*zoo)->Job(2, 32);
  job.precision.params = c.params;
  Program program;
  auto ranks = (*zoo)->Start(job, c.mesh, &program);
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  auto results = (*ranks)->Run("step", WithPrefix(*reference, "input."));
  ASSERT_TRUE(results.ok()) << results.status();
  const double loss = reference->at("loss").item<double>();
  const double own_loss = own->at("bf16.loss").item<double>();
  const double loss_bound = 2.5 * std::abs(own_loss - loss) + 2e-3 * std::abs(loss);
  for (const SectionResult& result : *results) {
    EXPECT_NEAR(result.Number("loss").value(), loss, loss_bound);
  }
  const auto error =
      GradientError(**zoo, program, (*ranks)->executor(0), WithPrefix(*reference, "grad."));
  ASSERT_TRUE(error.ok()) << error.status();
  EXPECT_LE(*error, 2.5 * own->at("bf16.grad_error").item<double>() + 2e-3);
}

std::vector<Case> AllCases() {
  std::vector<Case> cases;
  const auto add = [&](const char* model, ParamPrecision params, const char* error_file) {
    for (const Mesh& mesh :
         {Mesh{1, 1, 1, 1}, Mesh{1, 1, 1, 2}, Mesh{1, 1, 1, 4}, Mesh{1, 2, 1, 2}}) {
      cases.push_back({model, params, error_file, mesh});
    }
  };
  add("llama_bf16", ParamPrecision::kAsExported, "reference.safetensors");
  add("llama_autocast", ParamPrecision::kAsExported, "reference.safetensors");
  add("qwen3_moe", ParamPrecision::kAsExported, "reference.safetensors");
  add("llama", ParamPrecision::kBf16, "reference_bf16.safetensors");
  add("gpt2", ParamPrecision::kBf16, "reference_bf16.safetensors");
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Zoo, PrecisionTest, testing::ValuesIn(AllCases()),
                         [](const testing::TestParamInfo<Case>& info) {
                           return absl::StrCat(info.param.model, "_",
                                               std::string(ToString(info.param.params)), "_d",
                                               info.param.mesh.dp, "u", info.param.mesh.ulysses);
                         });

// The references of a bf16 model are those of its weights in fp32. What is left of the error is
// that of the rotary frequencies, a buffer that the archive holds rounded.
TEST(ParamPrecisionTest, Bf16ModelsInFp32LoseNothingMore) {
  auto zoo = ZooModel::Load("llama_bf16");
  ASSERT_TRUE(zoo.ok()) << zoo.status();
  auto reference = ReadSafetensors(ZooPath("llama_bf16/reference.safetensors"));
  ASSERT_TRUE(reference.ok()) << reference.status();
  JobSpec job = (*zoo)->Job(2, 32);
  job.precision.params = ParamPrecision::kFp32;
  Program program;
  auto ranks = (*zoo)->Start(job, Mesh{1, 1, 1, 2}, &program);
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  for (const ProgramValue& value : program.values) EXPECT_NE(value.dtype, DType::kBF16);
  auto results = (*ranks)->Run("step", WithPrefix(*reference, "input."));
  ASSERT_TRUE(results.ok()) << results.status();
  const double loss = reference->at("loss").item<double>();
  EXPECT_NEAR((*results)[0].Number("loss").value(), loss, 1e-4 * loss);
  const auto error =
      GradientError(**zoo, program, (*ranks)->executor(0), WithPrefix(*reference, "grad."));
  ASSERT_TRUE(error.ok()) << error.status();
  EXPECT_LE(*error, 0.2 * reference->at("bf16.grad_error").item<double>());
}

// The optimizer keeps what bf16 rounds away, and so do the weights that come out.
TEST(ParamPrecisionTest, Bf16ParametersHaveMasters) {
  auto zoo = ZooModel::Load("llama");
  ASSERT_TRUE(zoo.ok()) << zoo.status();
  JobSpec job = (*zoo)->Job(2, 32);
  job.precision.params = ParamPrecision::kBf16;
  Program program;
  auto ranks = (*zoo)->Start(job, Mesh{1, 1, 1, 1}, &program);
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  const auto parameter = (*ranks)->executor(0).Get("model.embed_tokens.weight");
  const auto master = (*ranks)->executor(0).Get("master:model.embed_tokens.weight");
  ASSERT_TRUE(parameter.ok() && master.ok()) << parameter.status() << master.status();
  EXPECT_EQ(parameter->scalar_type(), at::kBFloat16);
  EXPECT_EQ(master->scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(*parameter, master->to(at::kBFloat16)));
  EXPECT_FALSE(at::equal(parameter->to(at::kFloat), *master));
}

}  // namespace
}  // namespace autosp
