#include "compiler/lowering/select_kernels.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "compiler/ir/argument_access.h"
#include "compiler/rules/op_workspace.h"

namespace autosp {
namespace {

constexpr std::string_view kCpuForward = "aten._scaled_dot_product_flash_attention_for_cpu.default";
constexpr std::string_view kCpuBackward =
    "aten._scaled_dot_product_flash_attention_for_cpu_backward.default";

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Sizes of one call: q [B, N, Sq, H], k [B, K, Sk, H].
struct CallShape {
  int64_t batch, heads, kv_heads, q_len, k_len, head_dim, element_bytes;
  bool is_flash;
  bool has_mask;
};

class KernelSelector {
 public:
  explicit KernelSelector(Program& program) : program_(program) {}

  void Visit(std::vector<Instruction>& body) {
    for (Instruction& instruction : body) {
      Visit(instruction.body);
      if (instruction.op == kCpuForward) ReplaceForward(instruction);
      if (instruction.op == kCpuBackward) ReplaceBackward(instruction);
      if (IsHalfSum(instruction)) instruction.workspace_bytes = 0;
    }
  }

 private:
  // Which GPUs make in fp32 without a copy of the operand.
  bool IsHalfSum(const Instruction& instruction) const {
    const OpRule* rule = FindOpRule(instruction.op);
    if (rule == nullptr || rule->workspace != SumWorkspace) return false;
    const DType dtype = program_.value(OperandsOf(instruction)[0]).dtype;
    return dtype == DType::kBF16 || dtype == DType::kF16;
  }

  // (q, k, v, dropout_p, causal, mask, scale)
  void ReplaceForward(Instruction& call) const {
    const CallShape shape = ShapeOf(call, /*query_arg=*/0, /*causal_arg=*/4);
    Rename(call, "autosp.sdpa", /*causal_arg=*/4, shape);
    call.args = {call.args[0], call.args[1], call.args[2], call.args[5]};
    if (shape.is_flash) return;
    call.workspace_bytes += EfficientWorkspace(shape);
  }

  // (grad, q, k, v, o, lse, dropout_p, causal, mask, scale)
  void ReplaceBackward(Instruction& call) const {
    const CallShape shape = ShapeOf(call, /*query_arg=*/1, /*causal_arg=*/7);
    Rename(call, "autosp.sdpa_backward", /*causal_arg=*/7, shape);
    const Argument mask = call.args[8];
    call.args.resize(6);
    call.args.push_back(mask);
    // Both kernels add up the gradient of q in fp32, and keep a sum for each row.
    call.workspace_bytes = shape.batch * shape.heads * RoundUp(shape.q_len, 128) *
                           (RoundUp(shape.head_dim, 32) + 1) * 4;
    if (shape.heads != shape.kv_heads) call.workspace_bytes += 2 * RepeatedKvBytes(shape);
    if (!shape.is_flash) call.workspace_bytes += EfficientWorkspace(shape);
  }

  void Rename(Instruction& call, std::string op, size_t causal_arg, const CallShape& shape) const {
    const double scale = NumberArgument(call.args, call.args.size() - 1)
                             .value_or(1.0 / std::sqrt(static_cast<double>(shape.head_dim)));
    call.op = std::move(op);
    call.attributes = {{"causal", call.args[causal_arg]},
                       {"kernel", std::string(shape.is_flash ? "flash" : "efficient")},
                       {"scale", scale}};
    call.workspace_bytes = 0;
  }

  // The mask is the argument after `causal_arg`.
  CallShape ShapeOf(const Instruction& call, size_t query_arg, size_t causal_arg) const {
    const ProgramValue& q = program_.value(TensorArgument(call.args, query_arg));
    const ProgramValue& k = program_.value(TensorArgument(call.args, query_arg + 1));
    const std::vector<int64_t> q_sizes = program_.LocalSizes(q);
    const std::vector<int64_t> k_sizes = program_.LocalSizes(k);
    const bool is_half = q.dtype == DType::kBF16 || q.dtype == DType::kF16;
    const int64_t head_dim = q_sizes[3];
    const bool has_mask = TensorArgument(call.args, causal_arg + 1).valid();
    // Flash aligns a causal mask with the last key, and the model's is aligned with the first.
    const bool* causal = std::get_if<bool>(&call.args[causal_arg]);
    const bool is_aligned = causal == nullptr || !*causal || q_sizes[2] == k_sizes[2];
    return {.batch = q_sizes[0],
            .heads = q_sizes[1],
            .kv_heads = k_sizes[1],
            .q_len = q_sizes[2],
            .k_len = k_sizes[2],
            .head_dim = head_dim,
            .element_bytes = SizeOf(q.dtype),
            .is_flash = is_half && !has_mask && is_aligned && head_dim % 8 == 0 && head_dim <= 256,
            .has_mask = has_mask};
  }

  // One of k and v with a head for each head of q.
  static int64_t RepeatedKvBytes(const CallShape& shape) {
    return shape.batch * shape.heads * shape.k_len * shape.head_dim * shape.element_bytes;
  }

  // The kernel wants as many key heads as query heads, and rows of a mask that are aligned.
  static int64_t EfficientWorkspace(const CallShape& shape) {
    int64_t bytes = 0;
    if (shape.heads != shape.kv_heads) bytes += 2 * RepeatedKvBytes(shape);
    if (shape.has_mask && shape.k_len % 8 != 0) {
      bytes +=
          shape.batch * shape.heads * shape.q_len * RoundUp(shape.k_len, 8) * shape.element_bytes;
    }
    return bytes;
  }

  Program& program_;
};

}  // namespace

void SelectCudaKernels(Program& program) {
  KernelSelector selector(program);
  for (Section& section : program.sections) selector.Visit(section.body);
}

}  // namespace autosp
