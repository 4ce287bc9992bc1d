// Ops of our own on a GPU against the same ops on the CPU. Needs a GPU, and says so where there is
// none.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/worker/ops/attention_ring.h"
#include "tests/worker/ops/own_op_runner.h"
#include "worker/gpu/torch_gpu.h"
#include "worker/ops/attention_kernels.h"

namespace autosp {
namespace {

std::vector<at::Tensor> RunOn(const c10::Device& device, const std::string& op,
                              const std::vector<at::Tensor>& tensors, int num_results,
                              const std::vector<Argument>& literals = {},
                              const AttributeMap& attributes = {}) {
  OwnOpRunner runner(op, num_results);
  std::vector<at::Tensor> operands;
  for (const at::Tensor& tensor : tensors) {
    operands.push_back(tensor.to(device, tensor.scalar_type(), false, /*copy=*/true));
    runner.Tensor(operands.back());
  }
  for (const Argument& literal : literals) runner.Literal(literal);
  for (const auto& [name, value] : attributes) runner.Attribute(name, value);
  auto results = runner.Run();
  EXPECT_TRUE(results.ok()) << op << ": " << results.status();
  if (!results.ok()) return {};
  // Of an update, what it has written to.
  return num_results > 0 ? *std::move(results) : operands;
}

double RelativeError(const at::Tensor& actual, const at::Tensor& expected) {
  const at::Tensor want = expected.cpu().to(at::kDouble);
  return (actual.cpu().to(at::kDouble) - want).norm().item<double>() /
         std::max(want.norm().item<double>(), 1e-30);
}

class GpuKernelsTest : public testing::Test {
 protected:
  void SetUp() override {
    auto gpu = TorchGpu::Open(0, /*budget_bytes=*/0);
    if (!gpu.ok()) GTEST_SKIP() << gpu.status().message();
    gpu_ = *std::move(gpu);
    at::manual_seed(1);
  }
  std::unique_ptr<TorchGpu> gpu_;
};

struct KernelCase {
  std::string name;
  at::ScalarType dtype;
  int64_t heads, kv_heads, q_len, k_len, head_dim;
  bool causal;
  bool has_mask;
  std::string kernel;
  double tolerance;
  double shift = 0;  // queries are about this, and keys the negative of it
};

std::vector<KernelCase> KernelCases() {
  return {
      {"flash", at::kBFloat16, 4, 4, 130, 130, 64, true, false, "flash", 8e-3},
      {"flash, shared heads", at::kBFloat16, 8, 2, 257, 257, 128, true, false, "flash", 8e-3},
      {"flash, f16, other length", at::kHalf, 4, 1, 65, 190, 32, false, false, "flash", 2e-3},
      {"flash, far below 0", at::kBFloat16, 4, 4, 130, 130, 64, false, false, "flash", 3e-2, 2.5},
      {"cudnn", at::kBFloat16, 4, 4, 128, 128, 64, true, false, "cudnn", 8e-3},
      {"cudnn, shared heads", at::kBFloat16, 8, 2, 384, 384, 128, true, false, "cudnn", 8e-3},
      {"cudnn, f16, other length", at::kHalf, 4, 1, 128, 384, 32, false, false, "cudnn", 2e-3},
      {"cudnn, narrow heads", at::kHalf, 4, 4, 256, 128, 8, false, false, "cudnn", 2e-3},
      {"cudnn, far below 0", at::kBFloat16, 4, 4, 128, 256, 64, false, false, "cudnn", 3e-2, 2.5},
      {"fp32", at::kFloat, 4, 4, 100, 100, 16, true, false, "efficient", 2e-5},
      {"fp32, shared heads", at::kFloat, 6, 2, 77, 77, 24, false, false, "efficient", 2e-5},
      {"fp32, mask", at::kFloat, 4, 2, 33, 47, 16, false, true, "efficient", 2e-5},
      {"bf16, mask", at::kBFloat16, 4, 4, 64, 61, 64, false, true, "efficient", 1e-2},
      {"fp32, causal, longer keys", at::kFloat, 2, 2, 40, 72, 16, true, false, "efficient", 2e-5},
      {"few keys", at::kBFloat16, 4, 2, 130, 8, 64, false, false, "products", 8e-3},
      {"few queries, mask", at::kHalf, 4, 4, 1, 90, 20, false, true, "products", 2e-3},
  };
}

TEST_F(GpuKernelsTest, AttentionIsThatOfTheCpu) {
  for (const KernelCase& c : KernelCases()) {
    // As projections leave them: [B, S, N, H] in memory.
    const auto make = [&](int64_t heads, int64_t length) {
      return at::randn({2, length, heads, c.head_dim}).transpose(1, 2).to(c.dtype);
    };
    std::vector<at::Tensor> operands = {make(c.heads, c.q_len), make(c.kv_heads, c.k_len),
                                        make(c.kv_heads, c.k_len)};
    if (c.shift != 0) {
      operands[0].mul_(0.5).add_(c.shift);
      operands[1].mul_(0.5).sub_(c.shift);
    }
    if (c.has_mask) operands.push_back(at::randn({1, 1, c.q_len, c.k_len}).to(c.dtype));
    const std::vector<Argument> literals =
        c.has_mask ? std::vector<Argument>{} : std::vector<Argument>{None{}};
    const AttributeMap attributes = {{"causal", c.causal}, {"kernel", c.kernel}, {"scale", 0.3}};
    // The exact result is that of fp32 on the CPU.
    std::vector<at::Tensor> exact_operands;
    for (const at::Tensor& each : operands) exact_operands.push_back(each.to(at::kFloat));
    const auto exact = RunOn(at::kCPU, "autosp.sdpa", exact_operands, 2, literals, attributes);
    const auto actual = RunOn(gpu_->device(), "autosp.sdpa", operands, 2, literals, attributes);
    ASSERT_EQ(actual.size(), 2U) << c.name;
    EXPECT_LT(RelativeError(actual[0], exact[0]), c.tolerance) << c.name << ": out";
    EXPECT_LT(RelativeError(actual[1], exact[1]), c.tolerance) << c.name << ": lse";

    const at::Tensor grad = make(c.heads, c.q_len);
    std::vector<at::Tensor> exact_backward = {
        grad.to(at::kFloat), exact_operands[0], exact_operands[1],
        exact_operands[2],   exact[0],          exact[1]};
    if (c.has_mask) exact_backward.push_back(exact_operands[3]);
    const auto want =
        RunOn(at::kCPU, "autosp.sdpa_backward", exact_backward, 3, literals, attributes);
    // A program may keep the output and its gradient as [B, N, S, H], too.
    for (const bool is_by_heads : {false, true}) {
      const auto laid = [&](const at::Tensor& x) { return is_by_heads ? x.contiguous() : x; };
      std::vector<at::Tensor> backward = {laid(grad),  operands[0],           operands[1],
                                          operands[2], laid(actual[0].cpu()), actual[1].cpu()};
      if (c.has_mask) backward.push_back(operands[3]);
      const auto got =
          RunOn(gpu_->device(), "autosp.sdpa_backward", backward, 3, literals, attributes);
      ASSERT_EQ(got.size(), 3U) << c.name;
      for (size_t i = 0; i < 3; ++i) {
        EXPECT_LT(RelativeError(got[i], want[i]), 2 * c.tolerance)
            << c.name << ": gradient " << i << (is_by_heads ? ", by heads" : "");
      }
    }
  }
}

TEST_F(GpuKernelsTest, BlockwiseAttentionIsThatOfFp64) {
  std::vector<AttentionCase> cases;
  const auto add = [&](const std::string& kernel, auto change) {
    AttentionCase c;
    c.dtype = at::kBFloat16;
    c.device = gpu_->device();
    c.kernel = kernel;
    c.q_size = 384;
    c.num_kv_heads = 2;
    c.head_dim = c.v_head_dim = 64;
    c.causal = true;
    change(c);
    cases.push_back(c);
  };
  for (const std::string kernel : {"flash", "cudnn"}) {
    add(kernel, [](AttentionCase&) {});
    add(kernel, [](AttentionCase& c) { c.ring = 2, c.layout = Layout::kZigzag; });
    add(kernel, [](AttentionCase& c) { c.ring = 4, c.q_size = 350, c.causal = false; });
    add(kernel, [](AttentionCase& c) { c.ring = 2, c.gathered = true; });
    add(kernel, [](AttentionCase& c) { c.window = 100; });
    add(kernel, [](AttentionCase& c) { c.window = 60, c.causal = false, c.ring = 2; });
    add(kernel, [](AttentionCase& c) { c.window = 90, c.ring = 4, c.layout = Layout::kZigzag; });
    add(kernel, [](AttentionCase& c) { c.v_head_dim = 32; });
    add(kernel, [](AttentionCase& c) { c.ring = 2, c.q_size = 1200, c.layout = Layout::kZigzag; });
    add(kernel, [](AttentionCase& c) { c.ring = 2, c.q_size = 512, c.layout = Layout::kZigzag; });
    add(kernel, [](AttentionCase& c) { c.ring = 4, c.q_size = 64, c.layout = Layout::kZigzag; });
    add(kernel, [](AttentionCase& c) { c.ring = 4, c.q_size = 40, c.layout = Layout::kZigzag; });
    add(kernel, [](AttentionCase& c) { c.window = 24, c.q_size = 64, c.ring = 2; });
    add(kernel, [](AttentionCase& c) {
      c.window = 300, c.q_size = 1600, c.ring = 4, c.layout = Layout::kZigzag;
    });
    add(kernel, [](AttentionCase& c) {
      c.q_docs = c.k_docs = at::arange(c.q_size).div(70, "floor").repeat({2, 1});
    });
    add(kernel, [](AttentionCase& c) {
      c.ring = 2, c.q_docs = c.k_docs = at::arange(c.q_size).div(9, "floor").repeat({2, 1});
    });
  }
  for (const AttentionCase& c : cases) {
    const WholeOperands inputs = MakeInputs(c);
    const AttentionResults want = DenseAttention(c, inputs);
    const auto got = RingAttention(c, inputs);
    ASSERT_TRUE(got.ok()) << c.Name() << ": " << got.status();
    EXPECT_LT(L2Error(got->out, want.out), 8e-3) << c.Name();
    EXPECT_LT(L2Error(got->lse, want.lse), 1e-5) << c.Name();
    EXPECT_LT(L2Error(got->dq, want.dq), 1.2e-2) << c.Name();
    EXPECT_LT(L2Error(got->dk, want.dk), 1.2e-2) << c.Name();
    EXPECT_LT(L2Error(got->dv, want.dv), 1.2e-2) << c.Name();
  }
}

TEST_F(GpuKernelsTest, LossesNormsAndUpdatesAreThoseOfTheCpu) {
  const at::Tensor logits = at::randn({300, 1000}) * 2;
  const at::Tensor target = at::randint(1000, {300}, at::kLong);
  const auto host =
      RunOn(at::kCPU, "autosp.cross_entropy_sum", {logits, target}, 3, {Argument(SymInt(-100))});
  const auto device = RunOn(gpu_->device(), "autosp.cross_entropy_sum", {logits, target}, 3,
                            {Argument(SymInt(-100))});
  for (size_t i = 0; i < 3; ++i) EXPECT_LT(RelativeError(device[i], host[i]), 1e-6);

  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor dst = at::randn({64, 48});
    const at::Tensor a = at::randn({512, 64}).to(dtype);
    const at::Tensor b = at::randn({512, 48}).to(dtype);
    for (const double beta : {0.0, 1.0}) {
      const AttributeMap attributes = {{"beta", beta}};
      const auto want =
          RunOn(at::kCPU, "autosp.matmul_accumulate_", {dst, a, b}, 0, {}, attributes);
      const auto got =
          RunOn(gpu_->device(), "autosp.matmul_accumulate_", {dst, a, b}, 0, {}, attributes);
      EXPECT_LT(RelativeError(got[0], want[0]), 1e-5) << dtype << ", beta " << beta;
    }
  }
}

TEST_F(GpuKernelsTest, OptimizersAreThoseOfTheCpu) {
  for (const bool has_master : {false, true}) {
    std::vector<std::vector<at::Tensor>> updated;
    for (const c10::Device& device : {c10::Device(at::kCPU), gpu_->device()}) {
      at::manual_seed(5);
      const at::Tensor master = at::randn({40, 30});
      const at::Tensor param = has_master ? master.to(at::kBFloat16) : master.clone();
      const at::Tensor grad = at::randn({40, 30}).to(param.scalar_type());
      std::vector<at::Tensor> all = {param, grad, at::rand({40, 30}), at::rand({40, 30}), master};
      for (at::Tensor& each : all) each = each.to(device);
      OwnOpRunner norm("autosp.grad_norm", 1);
      norm.Tensors({all[1]});
      auto norms = norm.Run();
      ASSERT_TRUE(norms.ok()) << norms.status();
      OwnOpRunner clip("autosp.clip_");
      clip.Tensors({all[1]}).Tensor((*norms)[0]).Attribute("max_norm", 1.5);
      ASSERT_TRUE(clip.Run().ok());
      OwnOpRunner adamw("autosp.adamw_");
      adamw.Tensors({all[0]}).Tensors({all[1]}).Tensors({all[2]}).Tensors({all[3]});
      adamw.Tensor(at::full({}, 1e-2, at::TensorOptions(device)));
      adamw.Tensor(at::full({}, 3.0, at::TensorOptions(device)));
      adamw.Tensors(has_master ? std::vector<at::Tensor>{all[4]} : std::vector<at::Tensor>{});
      adamw.Attribute("beta1", 0.9).Attribute("beta2", 0.95).Attribute("eps", 1e-8);
      adamw.Attribute("weight_decay", 0.1);
      const auto status = adamw.Run();
      ASSERT_TRUE(status.ok()) << status.status();
      all.push_back((*norms)[0]);
      updated.push_back(all);
    }
    for (size_t i = 0; i < updated[0].size(); ++i) {
      EXPECT_LT(RelativeError(updated[1][i], updated[0][i]), has_master ? 4e-3 : 1e-6) << i;
    }
  }
}

TEST_F(GpuKernelsTest, FiguresAreThoseOfTheAllocator) {
  const int64_t before = gpu_->live_bytes();
  gpu_->ResetPeak();
  at::Tensor tensor = at::empty({1 << 20}, at::TensorOptions(gpu_->device()).dtype(at::kByte));
  EXPECT_EQ(gpu_->live_bytes() - before, 1 << 20);
  tensor.reset();
  EXPECT_EQ(gpu_->live_bytes(), before);
  EXPECT_EQ(gpu_->peak_bytes() - before, 1 << 20);
  EXPECT_FALSE(TorchGpu::Open(99, 0).ok());
}

}  // namespace
}  // namespace autosp
