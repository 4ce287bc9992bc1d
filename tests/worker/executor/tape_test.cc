// Each op's derivative from the tape, with every saved tensor replaced by a copy in other storage,
// has the bits of ordinary autograd.

#include "worker/executor/tape.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <map>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "worker/executor/device_memory.h"

namespace autosp {
namespace {

using c10::IValue;
using ::testing::HasSubstr;
using torch::jit::Stack;

struct Case {
  std::string name;
  std::string op;  // "aten::mul"
  std::string overload;
  Stack stack;
  std::vector<int> diff;
  std::vector<TapeTensor> saves;
  bool opaque = false;
};

constexpr TapeTensor Operand(int index) { return {false, index}; }
constexpr TapeTensor Result(int index) { return {true, index}; }

c10::OperatorHandle FindOp(const std::string& name, const std::string& overload) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), overload.c_str());
}

at::Tensor Number(double value) {
  at::Tensor tensor = at::scalar_tensor(value);
  tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
  return tensor;
}

std::vector<at::Tensor> TensorsOf(const Stack& stack) {
  std::vector<at::Tensor> tensors;
  for (const IValue& value : stack) {
    if (value.isTensor()) {
      const at::Tensor& tensor = value.toTensor();
      if (tensor.defined() && !tensor.unsafeGetTensorImpl()->is_wrapped_number()) {
        tensors.push_back(tensor);
      }
    } else if (value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorVector()) tensors.push_back(tensor);
    }
  }
  return tensors;
}

at::Tensor CopyElsewhere(const at::Tensor& tensor) {
  at::Tensor copy = at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options());
  return copy.copy_(tensor.detach());
}

bool BitEqual(const at::Tensor& a, const at::Tensor& b) {
  if (a.defined() != b.defined()) return false;
  return !a.defined() || (a.scalar_type() == b.scalar_type() && a.equal(b));
}

// The reference: results and gradients by torch::autograd::grad.
struct Reference {
  std::vector<at::Tensor> results;
  std::vector<at::Tensor> grads_in;  // of the results; undefined where there is no history
  std::vector<at::Tensor> grads_out;
};

Reference RunAutograd(const Case& test, Stack stack) {
  const at::AutoGradMode enable(true);
  std::vector<at::Tensor> leaves;
  int index = 0;
  const auto attach = [&](const at::Tensor& tensor) {
    const bool wanted = std::count(test.diff.begin(), test.diff.end(), index++) > 0;
    at::Tensor leaf = tensor.detach();
    if (wanted) leaves.push_back(leaf.requires_grad_(true));
    return leaf;
  };
  for (IValue& value : stack) {
    if (value.isTensor() && !TensorsOf({value}).empty()) {
      value = attach(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(attach(tensor));
      value = list;
    }
  }
  FindOp(test.op, test.overload).callBoxed(stack);
  Reference reference;
  reference.results = TensorsOf(stack);
  torch::autograd::variable_list outputs;
  torch::autograd::variable_list grads;
  for (const at::Tensor& result : reference.results) {
    reference.grads_in.emplace_back();
    if (!result.requires_grad()) continue;
    reference.grads_in.back() = at::randn(result.sizes()).to(result.scalar_type());
    outputs.push_back(result);
    grads.push_back(reference.grads_in.back());
  }
  reference.grads_out = torch::autograd::grad(outputs, leaves, grads, std::nullopt, false, true);
  return reference;
}

// What stands in `saves`, copied to other storage.
std::vector<at::Tensor> CopiesOfSaves(const Case& test, const Stack& arguments,
                                      const std::vector<at::Tensor>& results) {
  const std::vector<at::Tensor> operands = TensorsOf(arguments);
  std::vector<at::Tensor> copies;
  for (const TapeTensor& save : test.saves) {
    copies.push_back(CopyElsewhere((save.is_result ? results : operands)[save.index]));
  }
  return copies;
}

// After the call, memory of what was saved is overwritten: nobody may still look at it.
void Spoil(const std::vector<at::Tensor>& tensors) {
  for (const at::Tensor& tensor : tensors) {
    if (tensor.is_floating_point()) tensor.fill_(1e30);
  }
}

// Copies of the tensors of a case, which the test may overwrite. One tensor stays one tensor.
Stack CloneTensors(const Stack& stack) {
  std::map<const void*, at::Tensor> copies;
  const auto clone = [&copies](const at::Tensor& tensor) {
    at::Tensor& copy = copies[tensor.unsafeGetTensorImpl()];
    if (!copy.defined()) copy = CopyElsewhere(tensor);
    if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) return tensor;
    return copy;
  };
  Stack result = stack;
  for (IValue& value : result) {
    if (value.isTensor()) {
      value = clone(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(clone(tensor));
      value = list;
    }
  }
  return result;
}

class TapeOpTest : public testing::TestWithParam<Case> {};

TEST_P(TapeOpTest, HasTheBitsOfAutograd) {
  const Case& test = GetParam();
  const at::NoGradGuard no_grad;
  const Stack arguments = CloneTensors(test.stack);
  const Reference reference = RunAutograd(test, arguments);

  Stack stack = arguments;
  const c10::OperatorHandle op = FindOp(test.op, test.overload);
  auto tape = Record({op, test.diff, test.saves, test.opaque}, stack);
  ASSERT_TRUE(tape.ok()) << tape.status();
  EXPECT_EQ(tape->kept_bytes() > 0, test.opaque);
  const std::vector<at::Tensor> results = TensorsOf(stack);
  ASSERT_EQ(results.size(), reference.results.size());
  for (size_t i = 0; i < results.size(); ++i) {
    EXPECT_FALSE(results[i].requires_grad());
    EXPECT_TRUE(BitEqual(results[i], reference.results[i].detach())) << "result " << i;
  }

  const std::vector<at::Tensor> saved = CopiesOfSaves(test, arguments, results);
  stack.clear();
  Spoil(results);
  Spoil(TensorsOf(arguments));
  const auto grads = Vjp(*tape, reference.grads_in, saved);
  ASSERT_TRUE(grads.ok()) << grads.status();
  ASSERT_EQ(grads->size(), reference.grads_out.size());
  for (size_t i = 0; i < grads->size(); ++i) {
    EXPECT_TRUE(BitEqual((*grads)[i], reference.grads_out[i])) << "gradient " << i;
  }
}

const IValue kNone;

at::Tensor X() { return at::randn({2, 5, 8}); }
at::Tensor Positive() { return at::rand({2, 5, 8}) + 0.5; }

std::vector<Case> ArithmeticCases() {
  const at::Tensor a = X();
  const std::string mul = "aten::mul";
  const std::vector<TapeTensor> both = {Operand(0), Operand(1)};
  return {
      {"mul_broadcast", mul, "Tensor", {X(), at::randn({5, 1})}, {0, 1}, both},
      {"mul_one_side", mul, "Tensor", {X(), at::randn({8})}, {0}, {Operand(1)}},
      {"mul_by_itself", mul, "Tensor", {a, a}, {0, 1}, {Operand(0)}},
      {"mul_wrapped_number", mul, "Tensor", {X(), Number(0.3)}, {0}, {}},
      {"mul_transposed", mul, "Tensor", {X().mT(), at::randn({2, 8, 5})}, {0, 1}, both},
      {"add_broadcast", "aten::add", "Tensor", {X(), at::randn({8}), 2.0}, {0, 1}, {}},
      {"div", "aten::div", "Tensor", {X(), Positive()}, {0, 1}, both},
      {"neg", "aten::neg", "", {X()}, {0}, {}},
      {"pow", "aten::pow", "Tensor_Scalar", {X(), 2}, {0}, {Operand(0)}},
      {"rsqrt", "aten::rsqrt", "", {Positive()}, {0}, {Result(0)}},
      {"matmul", "aten::matmul", "", {X(), at::randn({8, 3})}, {0, 1}, both},
      {"bmm", "aten::bmm", "", {X(), at::randn({2, 8, 3})}, {0, 1}, both},
      {"linear", "aten::linear", "", {X(), at::randn({3, 8}), at::randn({3})}, {0, 1, 2}, both},
  };
}

std::vector<Case> FunctionCases() {
  return {
      {"silu", "aten::silu", "", {X()}, {0}, {Operand(0)}},
      {"gelu_tanh", "aten::gelu", "", {X(), "tanh"}, {0}, {Operand(0)}},
      {"gelu", "aten::gelu", "", {X(), "none"}, {0}, {Operand(0)}},
      {"tanh", "aten::tanh", "", {X()}, {0}, {Result(0)}},
      {"sin", "aten::sin", "", {X()}, {0}, {Operand(0)}},
      {"cos", "aten::cos", "", {X()}, {0}, {Operand(0)}},
      {"softmax", "aten::_softmax", "", {X(), -1, false}, {0}, {Result(0)}},
      {"softmax_composite", "aten::softmax", "int", {X(), -1, kNone}, {0}, {Result(0)}},
      {"where", "aten::where", "self", {X() > 0, X(), at::randn({8})}, {1, 2}, {Operand(0)}},
      {"masked_fill", "aten::masked_fill", "Scalar", {X(), X() > 0, -1e9}, {0}, {Operand(1)}},
  };
}

std::vector<Case> ShapeCases() {
  const std::vector<int64_t> last = {-1};
  const std::vector<int64_t> width = {8};
  const at::Tensor w = at::randn({8});
  const at::Tensor b = at::randn({8});
  const at::Tensor ids = at::arange(10).reshape({2, 5});
  const std::vector<at::Tensor> three = {X(), X(), X()};
  const std::vector<TapeTensor> operands = {Operand(0), Operand(1), Operand(2)};
  std::vector<TapeTensor> statistics = operands;
  statistics.insert(statistics.end(), {Result(1), Result(2)});
  const IValue bf16 = static_cast<int64_t>(at::kBFloat16);
  return {
      {"mean", "aten::mean", "dim", {X(), last, true, kNone}, {0}, {}},
      {"max_dim", "aten::max", "dim", {X(), 1, false}, {0}, {Result(1)}},
      {"cat", "aten::cat", "", {three, 1}, {0, 2}, {}},
      {"split_results", "aten::split", "Tensor", {X(), 4, 2}, {0}, {}},
      {"to_bf16", "aten::_to_copy", "", {X(), bf16, kNone, kNone, kNone, false, kNone}, {0}, {}},
      {"embedding",
       "aten::embedding",
       "",
       {at::randn({11, 4}), ids, 3, false, false},
       {0},
       {Operand(1)}},
      {"native_layer_norm",
       "aten::native_layer_norm",
       "",
       {X(), width, w, b, 1e-5},
       {0, 1, 2},
       statistics},
      {"layer_norm_inside",
       "aten::layer_norm",
       "",
       {X(), width, w, b, 1e-5, false},
       {0, 1, 2},
       operands,
       /*opaque=*/true},
  };
}

std::vector<Case> Cases() {
  std::vector<Case> cases = ArithmeticCases();
  for (const auto& more : {FunctionCases(), ShapeCases()}) {
    cases.insert(cases.end(), more.begin(), more.end());
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Ops, TapeOpTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

TEST(TapeTest, NamesTheOperandThatIsNotDeclared) {
  Stack stack{at::randn({3}), at::randn({3})};
  const c10::OperatorHandle op = FindOp("aten::mul", "Tensor");
  const std::vector<int> diff = {0, 1};
  const std::vector<TapeTensor> saves = {Operand(0)};
  const auto tape = Record({op, diff, saves}, stack);
  ASSERT_FALSE(tape.ok());
  EXPECT_THAT(std::string(tape.status().message()), HasSubstr("aten::mul"));
  EXPECT_THAT(std::string(tape.status().message()), HasSubstr("needs operand 1 (Float[3])"));
}

TEST(TapeTest, NamesTheResultThatIsNotDeclared) {
  Stack stack{at::randn({3})};
  const c10::OperatorHandle op = FindOp("aten::tanh", "");
  const std::vector<int> diff = {0};
  const auto tape = Record({op, diff, {}}, stack);
  ASSERT_FALSE(tape.ok());
  EXPECT_THAT(std::string(tape.status().message()), HasSubstr("needs result 0 (Float[3])"));
}

TEST(TapeTest, RefusesInternalTensorsUnlessOpaque) {
  Stack stack{at::randn({2, 8}), std::vector<int64_t>{8}, kNone, kNone, 1e-5, false};
  const c10::OperatorHandle op = FindOp("aten::layer_norm", "");
  const std::vector<int> diff = {0};
  const std::vector<TapeTensor> saves = {Operand(0)};
  const auto tape = Record({op, diff, saves}, stack);
  ASSERT_FALSE(tape.ok());
  EXPECT_THAT(std::string(tape.status().message()), HasSubstr("internal tensor (Float[2, 1])"));
}

TEST(TapeTest, RefusesAGradientForAResultWithoutHistory) {
  Stack stack{at::randn({4, 3}), 1, false};
  const c10::OperatorHandle op = FindOp("aten::max", "dim");
  const std::vector<int> diff = {0};
  const std::vector<TapeTensor> saves = {Result(1)};
  auto tape = Record({op, diff, saves}, stack);
  ASSERT_TRUE(tape.ok()) << tape.status();
  const std::vector<at::Tensor> saved = {stack[1].toTensor()};
  const std::vector<at::Tensor> grads = {at::ones({4}), at::ones({4})};
  EXPECT_THAT(std::string(Vjp(*tape, grads, saved).status().message()),
              HasSubstr("result 1 does not depend on an operand in diff"));
}

// Of an op without a rule the plan cannot know: what has no history has no gradient.
TEST(TapeTest, GradientsOfAResultWithoutHistoryAreZeroWhereOpaque) {
  Stack stack{at::randn({4, 3}), std::vector<int64_t>{2, 5}, kNone, kNone, kNone, kNone};
  const c10::OperatorHandle op = FindOp("aten::new_empty", "");
  const std::vector<int> diff = {0};
  auto tape = Record({op, diff, {}, /*opaque=*/true}, stack);
  ASSERT_TRUE(tape.ok()) << tape.status();
  const auto gradients = Vjp(*tape, std::vector<at::Tensor>{at::ones({2, 5})}, {});
  ASSERT_TRUE(gradients.ok()) << gradients.status();
  ASSERT_EQ(gradients->size(), 1U);
  EXPECT_FALSE((*gradients)[0].defined());
}

TEST(TapeTest, RefusesASavedTensorOfOtherSizes) {
  Stack stack{at::randn({3, 4})};
  const c10::OperatorHandle op = FindOp("aten::sin", "");
  const std::vector<int> diff = {0};
  const std::vector<TapeTensor> saves = {Operand(0)};
  auto tape = Record({op, diff, saves}, stack);
  ASSERT_TRUE(tape.ok()) << tape.status();
  const std::vector<at::Tensor> saved = {at::randn({4, 3})};
  const std::vector<at::Tensor> grads = {at::ones({3, 4})};
  EXPECT_THROW(static_cast<void>(Vjp(*tape, grads, saved)), c10::Error);
}

TEST(TapeTest, UndefinedGradientsAreZero) {
  Stack stack{at::randn({3})};
  const c10::OperatorHandle op = FindOp("aten::neg", "");
  const std::vector<int> diff = {0};
  auto tape = Record({op, diff, {}}, stack);
  ASSERT_TRUE(tape.ok()) << tape.status();
  const std::vector<at::Tensor> grads(1);
  const auto result = Vjp(*tape, grads, {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE((*result)[0].defined());
}

// The tape holds neither operand nor result: once they are freed, the account is empty.
TEST(TapeTest, OwnsNoTensors) {
  MemoryAccount account("device");
  const MemoryScope scope(&account);
  const int64_t bytes = 64 * 64 * 4;
  std::optional<Tape> tape;
  {
    Stack stack{at::randn({64, 64}), at::randn({64, 64})};
    EXPECT_EQ(account.live_bytes(), 2 * bytes);
    const c10::OperatorHandle op = FindOp("aten::mul", "Tensor");
    const std::vector<int> diff = {0, 1};
    const std::vector<TapeTensor> saves = {Operand(0), Operand(1)};
    auto recorded = Record({op, diff, saves}, stack);
    ASSERT_TRUE(recorded.ok()) << recorded.status();
    tape.emplace(*std::move(recorded));
    EXPECT_EQ(account.live_bytes(), bytes);  // The operands went with the call; the result is left.
  }
  EXPECT_EQ(account.live_bytes(), 0);
  EXPECT_EQ(account.peak_bytes(), 3 * bytes);
}

TEST(TapeTest, ThreadsRecordIndependently) {
  const auto work = [](int seed, bool* ok) {
    const at::NoGradGuard no_grad;
    *ok = true;
    for (int i = 0; i < 200; ++i) {
      const at::Tensor a = at::full({16}, 0.5 + seed + i);
      Stack stack{a, a + 1};
      const c10::OperatorHandle op = FindOp("aten::mul", "Tensor");
      const std::vector<int> diff = {0, 1};
      const std::vector<TapeTensor> saves = {Operand(0), Operand(1)};
      auto tape = Record({op, diff, saves}, stack);
      const std::vector<at::Tensor> saved = {a.clone(), a + 1};
      const std::vector<at::Tensor> grads = {at::ones({16})};
      const auto result = Vjp(*tape, grads, saved);
      *ok = *ok && result.ok() && (*result)[0].equal(a + 1) && (*result)[1].equal(a);
    }
  };
  std::vector<std::thread> threads;
  bool ok[4] = {};
  for (int i = 0; i < 4; ++i) threads.emplace_back(work, 1000 * i, &ok[i]);
  for (std::thread& thread : threads) thread.join();
  for (const bool each : ok) EXPECT_TRUE(each);
}

}  // namespace
}  // namespace autosp

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  autosp::InstallCountingAllocator();
  return RUN_ALL_TESTS();
}
