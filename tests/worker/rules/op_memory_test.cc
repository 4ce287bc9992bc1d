// What every row of compiler/rules says of memory against what the real op does: where results lie,
// what the tape keeps, and what the derivative allocates. See op_rule_test.cc.
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>

#include "compiler/lowering/layout.h"
#include "tests/worker/rules/op_cases.h"
#include "worker/executor/torch_types.h"

namespace autosp {
namespace {

class OpMemoryTest : public OpCasesTest {
 protected:
  // Some derivatives keep a sum of each thread (of a norm's weight): small beside activations, not
  // predicted, and another number on each machine.
  static void SetUpTestSuite() { at::set_num_threads(1); }
};

StridedShape ShapeOf(const at::Tensor& tensor) {
  return {.sizes = tensor.sizes().vec(), .strides = tensor.strides().vec()};
}

// Strides of dimensions of size 1 do not matter.
bool HasStrides(const at::Tensor& tensor, const Strides& strides) {
  for (int64_t i = 0; i < tensor.dim(); ++i) {
    if (tensor.size(i) > 1 && tensor.stride(i) != strides[i]) return false;
  }
  return true;
}

bool SharesStorage(const at::Tensor& a, const at::Tensor& b) {
  return a.storage().unsafeGetStorageImpl() == b.storage().unsafeGetStorageImpl();
}

bool LiesAsTheRuleSays(const OpCase& test, const at::Tensor& result) {
  const bool shares = !test.operands().empty() && SharesStorage(result, test.operands()[0]);
  switch (test.rule().layout) {
    case ResultLayout::kContiguous:
      return result.is_contiguous();
    case ResultLayout::kElementwise: {
      std::vector<StridedShape> shapes;
      for (const at::Tensor& operand : test.operands()) shapes.push_back(ShapeOf(operand));
      return HasStrides(result, ElementwiseStrides(result.sizes().vec(), shapes));
    }
    case ResultLayout::kView:
      return shares;
    case ResultLayout::kMaybeView:
      return shares || result.is_contiguous();
  }
  return false;
}

// What lies otherwise is copied, which costs time and memory that is not predicted. That is left to
// operands that do not lie in order.
TEST_P(OpMemoryTest, ResultsLieAsItSays) {
  for (const OpCase& test : cases_) {
    if (test.variant().memory != OperandMemory::kContiguous || IsComposite(op())) continue;
    for (size_t i = 0; i < test.results().size(); ++i) {
      EXPECT_TRUE(LiesAsTheRuleSays(test, test.results()[i]))
          << test.Describe() << ": result " << i << " has strides " << test.results()[i].strides();
    }
  }
}

// All operands that can have a gradient, and each alone.
std::vector<std::vector<int>> WantedGradients(const OpCase& test) {
  std::vector<std::vector<int>> wanted = {test.differentiable()};
  for (int i : test.differentiable()) wanted.push_back({i});
  return wanted;
}

OpCase::Derivative DerivativeOf(const OpCase& test, const std::vector<int>& diff) {
  std::vector<bool> needs(test.operands().size(), false);
  for (int i : diff) needs[i] = true;
  OpCase::Derivative derivative{.diff = diff, .saves = {}, .is_opaque = false};
  for (const SavedTensor& save : SavedTensors(test.rule(), needs)) {
    const size_t count = save.is_result ? test.results().size() : test.operands().size();
    if (save.index < count) derivative.saves.push_back(save);
  }
  return derivative;
}

absl::StatusOr<OpCase::Measured> Differentiate(const OpCase& test,
                                               const OpCase::Derivative& derivative) {
  return test.Differentiate(derivative, test.operands(), test.results()[0].sizes(),
                            test.RandomGradients(derivative.diff));
}

// A tape refuses a derivative that needs more than `saves` names; what is named and never needed
// would be predicted, and kept alive, for nothing.
TEST_P(OpMemoryTest, KeepsWhatItSavesAndNothingElse) {
  std::set<std::pair<bool, size_t>> named;
  std::set<std::pair<bool, size_t>> needed;
  for (const OpCase& test : cases_) {
    if (test.rule().derivative != Derivative::kTaped || test.differentiable().empty()) continue;
    for (const std::vector<int>& diff : WantedGradients(test)) {
      const OpCase::Derivative derivative = DerivativeOf(test, diff);
      const auto kept = Differentiate(test, derivative);
      EXPECT_TRUE(kept.ok()) << test.Describe() << ": " << kept.status();
      for (size_t i = 0; i < derivative.saves.size(); ++i) {
        const SavedTensor& save = derivative.saves[i];
        named.insert({save.is_result, save.index});
        OpCase::Derivative fewer = derivative;
        fewer.saves.erase(fewer.saves.begin() + static_cast<int64_t>(i));
        if (!Differentiate(test, fewer).ok()) needed.insert({save.is_result, save.index});
      }
    }
  }
  EXPECT_EQ(named, needed) << op() << ": pairs of is_result, index";
}

Extents ExtentsOf(const Tensors& tensors, const std::vector<int>& diff) {
  Extents extents;
  for (size_t i = 0; i < tensors.size(); ++i) {
    extents.push_back({.numel = tensors[i].numel(),
                       .dtype = *FromScalarType(tensors[i].scalar_type()),
                       .needs_grad = std::ranges::count(diff, static_cast<int>(i)) > 0});
  }
  return extents;
}

// Single numbers and sums of sums, which are small beside any activation.
constexpr int64_t kSmallBytes = 32;

// No less than is allocated, and as much for some operands at least. Operands that do not lie in
// order may be copied first, which is not predicted.
TEST_P(OpMemoryTest, DerivativeAllocatesWhatIsPredicted) {
  int64_t unused_bytes = std::numeric_limits<int64_t>::max();
  for (const OpCase& test : cases_) {
    const bool is_explicit = test.rule().derivative == Derivative::kExplicit;
    if (test.differentiable().empty() || is_explicit || IsComposite(op())) continue;
    if (test.variant().memory != OperandMemory::kContiguous) continue;
    for (const std::vector<int>& diff : WantedGradients(test)) {
      const bool is_taped = test.rule().derivative == Derivative::kTaped;
      OpCase::Derivative derivative = is_taped ? DerivativeOf(test, diff) : test.FullDerivative();
      derivative.diff = diff;
      const auto measured = Differentiate(test, derivative);
      ASSERT_TRUE(measured.ok()) << test.Describe() << ": " << measured.status();
      const int64_t predicted = VjpWorkspaceBytes(test.rule(), ExtentsOf(test.operands(), diff),
                                                  ExtentsOf(test.results(), {}));
      EXPECT_LE(measured->workspace_bytes, predicted + kSmallBytes)
          << test.Describe() << " in halves of the largest tensor: "
          << 2.0 * measured->workspace_bytes / test.LargestBytes();
      EXPECT_EQ(measured->kept_bytes, 0) << test.Describe();
      unused_bytes = std::min(unused_bytes, predicted - measured->workspace_bytes);
    }
  }
  EXPECT_LE(unused_bytes == std::numeric_limits<int64_t>::max() ? 0 : unused_bytes, kSmallBytes)
      << op() << " allocates less than is predicted, whatever its operands";
}

// In programs they are written otherwise, or are kernels of our own (attention, the loss).
bool IsReplaced(std::string_view op) { return op == kSdpa || op.starts_with("autosp."); }

// Copies its operands where it stretches their batch, which is not predicted.
bool MayStretch(std::string_view op) { return op == "aten.matmul.default"; }

// No less than is allocated, and not much more for some operands. Integers and truth values that
// are converted are small beside activations, and not tried.
TEST_P(OpMemoryTest, OpAllocatesWhatIsPredicted) {
  if (IsComposite(op()) || IsReplaced(op()) || MayStretch(op())) return;
  double excess = std::numeric_limits<double>::max();  // of the largest tensor
  for (const OpCase& test : cases_) {
    const bool is_floating = IsFloating(test.variant().dtype);
    if (test.variant().memory != OperandMemory::kContiguous || !is_floating) continue;
    const auto measured = test.MeasureWorkspace();
    ASSERT_TRUE(measured.ok()) << test.Describe() << ": " << measured.status();
    const WorkspaceFn workspace = test.rule().workspace;
    const int64_t predicted = workspace == nullptr ? 0
                                                   : workspace(ExtentsOf(test.operands(), {}),
                                                               ExtentsOf(test.results(), {}));
    EXPECT_LE(*measured, predicted + kSmallBytes) << test.Describe();
    const auto largest = static_cast<double>(std::max<int64_t>(1, test.LargestBytes()));
    excess = std::min(excess, static_cast<double>(predicted - *measured) / largest);
  }
  EXPECT_LE(excess == std::numeric_limits<double>::max() ? 0 : excess, 0.5)
      << op() << " allocates less than is predicted, whatever its operands";
}

INSTANTIATE_TEST_SUITE_P(Rows, OpMemoryTest, testing::ValuesIn(AllOps()), OpTestName);

}  // namespace
}  // namespace autosp
