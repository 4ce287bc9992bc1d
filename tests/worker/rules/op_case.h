// One op on one set of arguments: a graph of this node alone, with the factors that its rule finds,
// and the real op to hold them against.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compiler/ir/graph.h"
#include "compiler/rules/factor_roles.h"
#include "compiler/rules/op_rule.h"
#include "tests/worker/rules/argument_sets.h"
#include "tests/worker/rules/random_operand.h"

namespace autosp {

using Tensors = std::vector<at::Tensor>;

class OpCase {
 public:
  // Runs the op and infers its factors. An op without a rule has no rule() here. Errors:
  // Unimplemented where the op takes no such operands; what the rule says.
  static absl::StatusOr<OpCase> Make(const ArgumentSet& set, const CaseVariant& variant);

  const OpRule& rule() const { return *rule_; }
  const CaseVariant& variant() const { return variant_; }
  const Graph& graph() const { return graph_; }
  const Node& node() const { return graph_.nodes[0]; }
  const GraphFactors& factors() const { return factors_; }
  const FactorTable& table() const { return factors_.table; }
  const FactorRoles& roles() const { return roles_; }
  const Tensors& operands() const { return operands_; }
  const Tensors& results() const { return results_; }
  FactorDims OperandDims(size_t i) const { return factors_.Of(OperandsOf(node())[i]); }
  FactorDims ResultDims(size_t i) const { return factors_.Of(node().outputs[i]); }
  // Operands on which some result depends in a differentiable way.
  const std::vector<int>& differentiable() const { return differentiable_; }
  // Random gradients of the results that depend so on an operand in `diff`; others are undefined.
  Tensors RandomGradients(const std::vector<int>& diff) const;
  int64_t LargestBytes() const;  // of one floating operand or result
  // "aten.sum.dim_IntList(f32[4, 6], [1]) as bf16, transposed", for messages.
  std::string Describe() const;

  // Whether shards of the factor may be computed apart, by how many, and on what.
  std::vector<FactorVar> SplitFactors() const;
  int64_t NumParts(FactorVar factor) const;  // the least prime factor of its size
  Tensors OperandParts(FactorVar factor, int64_t part) const;
  // Of a tensor with these dims; the whole tensor where none holds the factor.
  at::Tensor PartOf(const at::Tensor& tensor, const FactorDims& dims, FactorVar factor,
                    int64_t part) const;
  static bool Holds(const FactorDims& dims, FactorVar factor);

  // The op on other operands of the same number; sizes in its arguments become `result_sizes`.
  absl::StatusOr<Tensors> Run(const Tensors& operands, at::IntArrayRef result_sizes) const;

  // Bytes that the op allocates beside its results, at its peak.
  absl::StatusOr<int64_t> MeasureWorkspace() const;

  struct Derivative {
    std::vector<int> diff;  // operands that need gradients
    std::vector<SavedTensor> saves;
    bool is_opaque = false;  // the tape may keep what is neither operand nor result
  };
  // Everything that a tape can be given.
  Derivative FullDerivative() const;

  struct Measured {
    Tensors gradients = {};       // of `diff`; undefined: zero
    int64_t kept_bytes = 0;       // by the tape
    int64_t workspace_bytes = 0;  // beside the gradients, at the peak of the derivative
  };
  // Runs the op on a tape, and its derivative for `grads` of the results.
  absl::StatusOr<Measured> Differentiate(const Derivative& derivative, const Tensors& operands,
                                         at::IntArrayRef result_sizes, const Tensors& grads) const;

 private:
  absl::Status RunWhole();
  absl::Status FindDifferentiable();

  const OpRule* rule_ = nullptr;
  std::string text_;
  CaseVariant variant_;
  Graph graph_;
  GraphFactors factors_;
  FactorRoles roles_;
  Tensors operands_;
  Tensors results_;
  std::vector<int> differentiable_;
  std::map<int, std::vector<bool>> has_gradient_;  // by operand, then by result
};

}  // namespace autosp
