#include "compiler/lowering/select_kernels.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/round_up.h"
#include "compiler/ir/argument_access.h"
#include "compiler/lowering/lay_by_tokens.h"
#include "compiler/program/attention_workspace.h"
#include "compiler/program/converted_rows.h"
#include "compiler/program/loss_workspace.h"
#include "compiler/program/statistics_types.h"
#include "compiler/rules/op_workspace.h"

namespace autosp {
namespace {

constexpr std::string_view kCpuForward = "aten._scaled_dot_product_flash_attention_for_cpu.default";
constexpr std::string_view kCpuBackward =
    "aten._scaled_dot_product_flash_attention_for_cpu_backward.default";

constexpr int64_t kCudnnMaxHeadDim = 128;

bool IsFlashHeadDim(int64_t head_dim) { return head_dim % 8 == 0 && head_dim <= 256; }

// Sizes of one call: q [B, N, Sq, H], k [B, K, Sk, H].
struct CallShape {
  int64_t batch, heads, kv_heads, q_len, k_len, head_dim, element_bytes;
  bool is_half;
  bool is_flash;
  int64_t mask_bytes;  // in rows as the kernel reads them

  // The derivative runs in squares.
  bool is_cut() const { return is_flash && !is_by_products() && q_len > kWholeDerivative; }
  bool is_by_products() const { return is_half && std::min(q_len, k_len) < kGpuMinTokens; }

  std::string_view Kernel(bool has_cudnn) const {
    if (is_by_products()) return "products";
    if (!is_flash) return "efficient";
    const bool fits_cudnn = head_dim <= kCudnnMaxHeadDim && FitsCudnn(q_len, k_len);
    return has_cudnn && fits_cudnn ? "cudnn" : "flash";
  }
};

class KernelSelector {
 public:
  KernelSelector(Program& program, bool has_cudnn) : program_(program), has_cudnn_(has_cudnn) {}

  void Visit(std::vector<Instruction>& body) {
    for (Instruction& instruction : body) {
      Visit(instruction.body);
      if (instruction.op == kCpuForward) ReplaceForward(instruction);
      if (instruction.op == kCpuBackward) ReplaceBackward(instruction);
      if (instruction.op == "autosp.attend_block_") NameBlockKernel(instruction, /*query_arg=*/2);
      if (instruction.op == "autosp.attend_block_backward_") NameBlockKernel(instruction, 4);
      if (instruction.op.starts_with("autosp.cross_entropy")) SetLossWorkspace(instruction);
      // GPUs convert as they add.
      if (IsHalfSum(instruction) || AddsInPlace(instruction)) instruction.workspace_bytes = 0;
    }
  }

  // Once the layouts of outputs are settled.
  void CountCopies(std::vector<Instruction>& body) const {
    for (Instruction& call : body) {
      CountCopies(call.body);
      if (call.op == "autosp.sdpa") call.workspace_bytes += CopyBytes(call.results[0]);
      const bool is_whole = !call.attributes.contains(std::string(kDerivativeSide));
      if (call.op != "autosp.sdpa_backward" || !is_whole) continue;
      call.workspace_bytes +=
          CopyBytes(TensorArgument(call.args, 0)) + CopyBytes(TensorArgument(call.args, 4));
    }
  }

 private:
  // Which GPUs make in fp32 without a copy of the operand.
  bool IsHalfSum(const Instruction& instruction) const {
    const OpRule* rule = FindOpRule(instruction.op);
    if (rule == nullptr || rule->workspace != SumWorkspace) return false;
    return IsHalf(program_.value(OperandsOf(instruction)[0]).dtype);
  }

  // (q, k, v, dropout_p, causal, mask, scale)
  void ReplaceForward(Instruction& call) const {
    const CallShape shape = ShapeOf(call, /*query_arg=*/0, /*causal_arg=*/4);
    Rename(call, "autosp.sdpa", /*causal_arg=*/4, shape);
    call.args = {call.args[0], call.args[1], call.args[2], call.args[5]};
    call.workspace_bytes = WorkspaceOf(shape);
  }

  // (grad, q, k, v, o, lse, dropout_p, causal, mask, scale)
  void ReplaceBackward(Instruction& call) const {
    const CallShape shape = ShapeOf(call, /*query_arg=*/1, /*causal_arg=*/7);
    Rename(call, "autosp.sdpa_backward", /*causal_arg=*/7, shape);
    const Argument mask = call.args[8];
    call.args.resize(6);
    call.args.push_back(mask);
    if (shape.is_cut()) {
      const int64_t side = AttentionSide(/*on_gpu=*/true);
      call.attributes[std::string(kDerivativeSide)] = SymInt(side);
      call.workspace_bytes = SquaresWorkspace(shape, side + kGpuMinTokens);
      return;
    }
    call.workspace_bytes = shape.batch * shape.heads * FlashSumsBytes(shape.q_len, shape.head_dim);
    if (shape.heads != shape.kv_heads) call.workspace_bytes += 2 * RepeatedKvBytes(shape);
    call.workspace_bytes += WorkspaceOf(shape);
  }

  // (.., q, k, v, ..); documents are at the arguments before the last one.
  void NameBlockKernel(Instruction& block, size_t query_arg) const {
    const auto value = [&](size_t arg) -> const ProgramValue& {
      return program_.value(TensorArgument(block.args, query_arg + arg));
    };
    const std::vector<int64_t> q = program_.LocalSizes(value(0));
    const std::vector<int64_t> k = program_.LocalSizes(value(1));
    const size_t docs_arg = block.args.size() - 3;
    const AttentionShape shape = {
        .batch = q[0],
        .num_heads = q[1],
        .num_kv_heads = k[1],
        .q_len = q[2],
        .k_len = k[2],
        .qk_head_dim = q[3],
        .v_head_dim = program_.LocalSizes(value(2))[3],
        .element_bytes = SizeOf(value(0).dtype),
        .causal = std::get<bool>(block.attributes.at("causal")),
        .window = std::get<SymInt>(block.attributes.at("window")).value,
        .has_docs = !IsNone(block.args[docs_arg]) || !IsNone(block.args[docs_arg + 1]),
        .on_gpu = true};
    if (!IsHalf(value(0).dtype) || !IsFlashHeadDim(shape.head_dim())) return;
    // cuDNN prepares itself anew for each size, and documents are of many.
    const bool is_cudnn = has_cudnn_ && !shape.has_docs && shape.head_dim() <= kCudnnMaxHeadDim;
    block.attributes["kernel"] = std::string(is_cudnn ? "cudnn" : "flash");
    block.workspace_bytes = block.op == "autosp.attend_block_"
                                ? AttendBlockWorkspace(shape)
                                : AttendBlockBackwardWorkspace(shape);
  }

  // (logits [T, V], ..)
  void SetLossWorkspace(Instruction& loss) const {
    const ProgramValue& logits = program_.value(OperandsOf(loss)[0]);
    const std::vector<int64_t> sizes = program_.LocalSizes(logits);
    loss.workspace_bytes = DeviceLossWorkspace(sizes[0], sizes[1], IsHalf(logits.dtype),
                                               loss.op == "autosp.cross_entropy_backward_");
  }

  void Rename(Instruction& call, std::string op, size_t causal_arg, const CallShape& shape) const {
    const double scale = NumberArgument(call.args, call.args.size() - 1)
                             .value_or(1.0 / std::sqrt(static_cast<double>(shape.head_dim)));
    call.op = std::move(op);
    call.attributes = {{"causal", call.args[causal_arg]},
                       {"kernel", std::string(shape.Kernel(has_cudnn_))},
                       {"scale", scale}};
  }

  // Of all kernels but flash and cuDNN's.
  static int64_t WorkspaceOf(const CallShape& shape) {
    if (shape.is_by_products()) return ProductsWorkspace(shape);
    return shape.is_flash ? 0 : EfficientWorkspace(shape);
  }

  static int64_t ProductsWorkspace(const CallShape& shape) {
    return shape.batch * ProductsBytes(shape.heads, shape.q_len, shape.k_len, shape.head_dim);
  }

  // Sums of the gradients of k and v in fp32, and for one square: its gradients, that of q in fp32
  // too, copies of the output and its gradient, and what the kernel sums up.
  static int64_t SquaresWorkspace(const CallShape& shape, int64_t side) {
    constexpr int64_t kKeyGradients = 2;
    constexpr int64_t kRows = 3;  // of the type of q
    const int64_t row_bytes = shape.head_dim * shape.element_bytes;
    const int64_t sum_bytes = shape.head_dim * 4;
    const int64_t of_keys = shape.kv_heads * shape.k_len * kKeyGradients * sum_bytes;
    const bool repeats = shape.heads != shape.kv_heads;
    const int64_t of_square =
        shape.heads *
            (side * (kRows * row_bytes + sum_bytes) + FlashSumsBytes(side, shape.head_dim)) +
        (shape.kv_heads + (repeats ? shape.heads : 0)) * side * kKeyGradients * row_bytes;
    return shape.batch * (of_keys + of_square);
  }

  // Of an output or its gradient [B, N, S, H] that does not lie as [B, S, N, H], in which order the
  // kernels write and read them.
  int64_t CopyBytes(ValueId id) const {
    const ProgramValue& value = program_.value(id);
    const std::vector<int64_t> sizes = program_.LocalSizes(value);
    const std::vector<int64_t> strides = program_.LocalStrides(value);
    const std::vector<int64_t> wanted = StridesByTokens(sizes);
    for (size_t i = 0; i < sizes.size(); ++i) {
      if (sizes[i] > 1 && strides[i] != wanted[i]) return program_.LocalBytes(value);
    }
    return 0;
  }

  // The mask is the argument after `causal_arg`.
  CallShape ShapeOf(const Instruction& call, size_t query_arg, size_t causal_arg) const {
    const ProgramValue& q = program_.value(TensorArgument(call.args, query_arg));
    const ProgramValue& k = program_.value(TensorArgument(call.args, query_arg + 1));
    const std::vector<int64_t> q_sizes = program_.LocalSizes(q);
    const std::vector<int64_t> k_sizes = program_.LocalSizes(k);
    const int64_t head_dim = q_sizes[3];
    const ValueId mask = TensorArgument(call.args, causal_arg + 1);
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
            .is_half = IsHalf(q.dtype),
            .is_flash = IsHalf(q.dtype) && !mask.valid() && is_aligned && IsFlashHeadDim(head_dim),
            .mask_bytes = MaskBytes(mask, SizeOf(q.dtype))};
  }

  // Of a mask as the memory-efficient kernel gets it: of the type of q, in rows that are aligned.
  int64_t MaskBytes(ValueId mask, int64_t element_bytes) const {
    if (!mask.valid()) return 0;
    int64_t bytes = element_bytes;
    std::vector<int64_t> sizes = program_.LocalSizes(program_.value(mask));
    sizes.back() = RoundUp(sizes.back(), 16);
    for (const int64_t size : sizes) bytes *= size;
    return bytes;
  }

  // One of k and v with a head for each head of q.
  static int64_t RepeatedKvBytes(const CallShape& shape) {
    return shape.batch * shape.heads * shape.k_len * shape.head_dim * shape.element_bytes;
  }

  // The kernel wants as many key heads as query heads.
  static int64_t EfficientWorkspace(const CallShape& shape) {
    return shape.mask_bytes + (shape.heads != shape.kv_heads ? 2 * RepeatedKvBytes(shape) : 0);
  }

  Program& program_;
  const bool has_cudnn_;
};

}  // namespace

void SelectCudaKernels(Program& program, DeviceKind device) {
  SetStatisticsTypes(program, /*on_gpu=*/true);
  KernelSelector selector(program, IsHopper(device));
  for (Section& section : program.sections) selector.Visit(section.body);
  LayOutputsByTokens(program);
  for (Section& section : program.sections) selector.CountCopies(section.body);
}

}  // namespace autosp
