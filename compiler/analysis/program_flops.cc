#include "compiler/analysis/program_flops.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "compiler/ir/argument_access.h"
#include "compiler/rules/expert_products.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

using Sizes = std::vector<int64_t>;

Sizes SizesOf(const Program& program, const Instruction& instruction, size_t arg) {
  return program.LocalSizes(program.value(TensorArgument(instruction.args, arg)));
}

bool IsCausal(const Instruction& instruction) {
  const auto found = instruction.attributes.find("causal");
  const bool* causal =
      found == instruction.attributes.end() ? nullptr : std::get_if<bool>(&found->second);
  return causal != nullptr && *causal;
}

// Attention on whole operands q, k, v, of which q is argument `first`.
OpFlops WholeAttention(const Program& program, const Instruction& instruction, size_t first,
                       bool causal) {
  const Sizes q = SizesOf(program, instruction, first);
  const Sizes k = SizesOf(program, instruction, first + 1);
  return AttentionFlops(q, SizesOf(program, instruction, first + 2),
                        AttendedPairs(q[2], k[2], causal, /*window=*/0));
}

int64_t FactorSize(const Program& program, const Instruction& instruction, std::string_view key,
                   int64_t absent) {
  const absl::StatusOr<std::string> name = StringAttribute(instruction, key);
  if (!name.ok()) return absent;
  const auto found = std::ranges::find(program.factors, *name, &Factor::name);
  const int64_t piece = IntAttribute(instruction, "piece").value_or(1);
  return found == program.factors.end() ? absent : found->size * piece;
}

// Attention of the queries of a rank on the keys of one hop, or on all. Padding is in no tile.
OpFlops BlockAttention(const Program& program, const Instruction& instruction, size_t first) {
  const Sizes q = SizesOf(program, instruction, first);
  const absl::StatusOr<std::string> axes = StringAttribute(instruction, "axes");
  const int64_t ring = axes.ok() && !axes->empty() ? program.mesh.ring : 1;
  const int64_t q_len = FactorSize(program, instruction, "factor", q[2] * ring);
  const int64_t k_len = FactorSize(program, instruction, "kv_factor", q_len);
  const int64_t window = IntAttribute(instruction, "window").value_or(0);
  const double pairs = AttendedPairs(q_len, k_len, IsCausal(instruction), window);
  const int64_t num_hops = instruction.attributes.contains("gathered") ? 1 : ring;
  return AttentionFlops(q, SizesOf(program, instruction, first + 2),
                        pairs / static_cast<double>(ring * num_hops));
}

// Each of the two gradients of a convolution is as much work as the convolution: with results like
// `grad` and weights like `weight`.
OpFlops ConvolutionGradient(const Instruction& instruction, Sizes grad, Sizes weight) {
  return ConvolutionFlops({.args = instruction.args,
                           .operands = {grad, std::move(weight)},
                           .needs_grad = {false, false},
                           .results = {grad}});
}

// The FLOPs of one call, in `forward` or in `backward`: the kernel knows which it is.
struct Kernel {
  std::string_view op;
  OpFlops (*flops)(const Program& program, const Instruction& instruction);
  bool is_backward = false;
};

// Kernels that are in no graph, and so in no row of compiler/rules.
constexpr Kernel kKernels[] = {
    // (grad, weight, edges, before, dilation)
    {"autosp.token_conv_input_grad",
     [](const Program& program, const Instruction& instruction) {
       return ConvolutionGradient(instruction, SizesOf(program, instruction, 0),
                                  SizesOf(program, instruction, 1));
     }},
    // (grad, x, edges, before, dilation), whose result is like the weight
    {"autosp.token_conv_weight_grad",
     [](const Program& program, const Instruction& instruction) {
       return ConvolutionGradient(instruction, SizesOf(program, instruction, 0),
                                  program.LocalSizes(program.value(instruction.results[0])));
     }},
    // (accumulator, a [T, M], b [T, N]), which adds a transposed times b
    {"autosp.matmul_accumulate_",
     [](const Program& program, const Instruction& instruction) -> OpFlops {
       const Sizes a = SizesOf(program, instruction, 1);
       const Sizes b = SizesOf(program, instruction, 2);
       return {.forward = 2.0 * static_cast<double>(a[0] * a[1]) * static_cast<double>(b[1])};
     }},
    // (grad [..., N], x [..., K], experts, E, transposed)
    {kExpertMmWeightGrad,
     [](const Program& program, const Instruction& instruction) -> OpFlops {
       double flops = 2.0 * static_cast<double>(SizesOf(program, instruction, 0).back());
       for (int64_t size : SizesOf(program, instruction, 1)) flops *= static_cast<double>(size);
       return {.forward = flops};
     }},
    // (q, k, v, dropout_p, causal, mask, scale)
    {"aten._scaled_dot_product_flash_attention_for_cpu.default",
     [](const Program& program, const Instruction& instruction) {
       return WholeAttention(program, instruction, 0,
                             FlagArgument(instruction.args, 4).value_or(false));
     }},
    // (grad, q, k, v, o, lse, dropout_p, causal, mask, scale)
    {"aten._scaled_dot_product_flash_attention_for_cpu_backward.default",
     [](const Program& program, const Instruction& instruction) {
       return WholeAttention(program, instruction, 1,
                             FlagArgument(instruction.args, 7).value_or(false));
     },
     true},
    // (q, k, v, mask)
    {"autosp.sdpa",
     [](const Program& program, const Instruction& instruction) {
       return WholeAttention(program, instruction, 0, IsCausal(instruction));
     }},
    // (grad, q, k, v, o, lse, mask)
    {"autosp.sdpa_backward",
     [](const Program& program, const Instruction& instruction) {
       return WholeAttention(program, instruction, 1, IsCausal(instruction));
     },
     true},
    // (o, lse, q, k, v, q_docs, k_docs, hop)
    {"autosp.attend_block_",
     [](const Program& program, const Instruction& instruction) {
       return BlockAttention(program, instruction, 2);
     }},
    // (dq, dk, dv, grad, q, k, v, o, lse, q_docs, k_docs, hop)
    {"autosp.attend_block_backward_",
     [](const Program& program, const Instruction& instruction) {
       return BlockAttention(program, instruction, 4);
     },
     true},
};

// Instructions are taken in the order of the program: a derivative is that of the op which its tape
// has recorded before.
class FlopCounter {
 public:
  explicit FlopCounter(const Program& program) : program_(program) {}

  void Walk(const std::vector<Instruction>& body, int64_t repeats) {
    for (const Instruction& instruction : body) {
      if (instruction.kind == InstructionKind::kFor) {
        Walk(instruction.body, repeats * IntAttribute(instruction, "count").value_or(1));
      } else {
        Add(instruction, repeats);
      }
    }
  }

  const FlopTotals& totals() const { return totals_; }

 private:
  // By the row of the op: nothing where the row has no function, or where there is no row.
  OpFlops ByRow(const Instruction& instruction) const {
    const OpRule* rule = FindOpRule(instruction.op);
    if (rule == nullptr || rule->flops == nullptr) return {};
    OpCall call{.args = instruction.args};
    for (ValueId id : OperandsOf(instruction)) {
      call.operands.push_back(program_.LocalSizes(program_.value(id)));
    }
    for (ValueId id : instruction.results) {
      if (program_.value(id).is_tape) continue;
      call.results.push_back(program_.LocalSizes(program_.value(id)));
    }
    call.needs_grad.assign(call.operands.size(), false);
    for (int64_t operand : IntsAttribute(instruction, "diff")) call.needs_grad[operand] = true;
    return rule->flops(call);
  }

  void Add(const Instruction& instruction, int64_t repeats) {
    OpFlops flops;
    bool is_backward = false;
    switch (instruction.kind) {
      case InstructionKind::kRecord:
        records_[instruction.results.back()] = &instruction;
        flops = ByRow(instruction);
        break;
      case InstructionKind::kVjp: {
        const auto record = records_.find(TensorArgument(instruction.args, 0));
        if (record != records_.end()) flops = ByRow(*record->second);
        is_backward = true;
        break;
      }
      case InstructionKind::kCall:
      case InstructionKind::kUpdate: {
        const auto* const kernel = std::ranges::find(kKernels, instruction.op, &Kernel::op);
        const bool is_kernel = kernel != std::end(kKernels);
        flops = is_kernel ? kernel->flops(program_, instruction) : ByRow(instruction);
        is_backward = is_kernel && kernel->is_backward;
        break;
      }
      default:
        return;
    }
    const double count = is_backward ? flops.backward : flops.forward;
    if (count > 0) totals_[flops.kind] += static_cast<double>(repeats) * count;
  }

  const Program& program_;
  std::map<ValueId, const Instruction*> records_;  // by tape
  FlopTotals totals_;
};

}  // namespace

double TotalOf(const FlopTotals& flops) {
  return std::accumulate(flops.begin(), flops.end(), 0.0,
                         [](double sum, const auto& entry) { return sum + entry.second; });
}

absl::StatusOr<FlopTotals> CountFlops(const Program& program, const std::string& section) {
  const Section* found = program.FindSection(section);
  if (found == nullptr) return NotFound("the program has no section ", section);
  FlopCounter counter(program);
  counter.Walk(found->body, 1);
  return counter.totals();
}

}  // namespace autosp
