// The checker's own description of ops: what each dimension of operands and results is to the op.
//
// Dimensions that run over the same index carry the same label, as in an einsum. The role of a
// label says what happens where the index is split over ranks:
//
//   linear   x[t, k] w[n, k] -> y[t, n]      t, n parallel; k summed: each rank has a partial sum
//   softmax  x[i, j] -> y[i, j]              i parallel; j whole: it may not be split
//
// This table is written from ATen's documentation alone and shares nothing with compiler/rules:
// where the two differ, one is wrong, and the plan is refused.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "compiler/checker/placed_dims.h"
#include "compiler/program/program.h"

namespace autosp::checker {

enum class Role : uint8_t { kParallel, kSum, kMax, kWhole };

// In which operands an op is linear: a partial sum may pass through those.
enum class Linear : uint8_t { kNo, kFirst, kEach, kJointly };

struct OpShape {
  static constexpr int kNone = -1;         // a dimension of size 1 that is stretched or new
  std::vector<std::vector<int>> operands;  // by tensor operand, by dimension: a label
  std::vector<std::vector<int>> results;   // likewise
  std::vector<Role> roles;                 // by label
  Linear linear = Linear::kNo;
  bool is_elementwise = false;       // padding follows position by position
  bool keeps_zero = false;           // zero operands give zero results
  bool keeps_zero_of_first = false;  // a zero first operand does, where it holds the position
  bool gives_non_negative = false;   // of numbers
  int masked = kNone;                // a label whose padding the op itself takes for zeros
  // Of the first result: positive of numbers, or where the first operand is.
  bool gives_positive = false;
  bool keeps_positive = false;
  // Of equal numbers it gives no number: a norm without an epsilon divides by their spread.
  bool needs_spread = false;

  int NewLabel(Role role) {
    roles.push_back(role);
    return static_cast<int>(roles.size()) - 1;
  }
};

// An instruction with its tensor operands placed.
struct OpCall {
  const Program& program;
  const Instruction& instruction;
  std::vector<PlacedDims> operands;  // in the order of OperandsOf
  std::vector<PlacedDims> results;   // as stated

  // 0 where there is no such operand.
  int64_t rank(size_t operand) const {
    return operand < operands.size() ? static_cast<int64_t>(operands[operand].size()) : 0;
  }
  std::optional<int64_t> Int(size_t arg) const;
  std::optional<double> Number(size_t arg) const;
  bool Flag(size_t arg) const;
  std::vector<int64_t> Ints(size_t arg) const;
  bool HasTensor(size_t arg) const;
  // Negative dims count from the end; all dims where the argument is absent or empty.
  std::vector<int64_t> Dims(size_t arg, int64_t rank) const;
};

// nullopt: the checker does not know the op.
std::optional<absl::Status> DescribeOp(const OpCall& call, OpShape* shape);
// Consecutive query heads share a key head, so a key head stands for its group: [heads, copies].
// False: they are no groups, or a tensor is not [b, heads, tokens, e].
bool GroupHeads(const PlacedDims& query, PlacedDims* key);
// How many leading arguments work position by position: tensors and numbers. 0: not elementwise.
int NumInputs(std::string_view op);

// The families (op_table_*.cc), tried in turn; false: another family has it.
bool DescribeElementwise(const OpCall& call, OpShape* shape, absl::Status* status);
bool DescribeReduction(const OpCall& call, OpShape* shape, absl::Status* status);
bool DescribeProduct(const OpCall& call, OpShape* shape, absl::Status* status);
bool DescribeIndexing(const OpCall& call, OpShape* shape, absl::Status* status);
bool DescribeWindow(const OpCall& call, OpShape* shape, absl::Status* status);  // windows.cc

// Whether a token of the result depends on neighbours in a way that windows.cc describes.
bool IsWindowOp(std::string_view op);

}  // namespace autosp::checker
