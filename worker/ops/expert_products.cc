// Products of rows with the matrices of their experts (compiler/rules/expert_products.h). Rows are
// put in the order of their experts, so that each matrix is read once.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_assert_async.h>
#include <ATen/ops/_grouped_mm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/sort.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/ops/own_op.h"

namespace autosp {
namespace {

// Which row comes where if rows are sorted by expert.
struct ExpertOrder {
  at::Tensor rows;  // i64 [R]
  at::Tensor ends;  // i32 [E]: how many rows have an expert or one before it
};

// CPUs say which expert is none. GPUs stop, as they do at other look-ups: to wait for each check
// would cost more than the product.
absl::Status CheckRange(const std::string& op, const at::Tensor& sorted, int64_t num_experts) {
  if (sorted.numel() == 0) return absl::OkStatus();
  const at::Tensor first = sorted[0];
  const at::Tensor last = sorted[-1];
  if (!sorted.is_cpu()) {
    at::_assert_async((first >= 0).logical_and(last < num_experts));
    return absl::OkStatus();
  }
  const auto low = first.item<int64_t>();
  const auto high = last.item<int64_t>();
  if (low >= 0 && high < num_experts) return absl::OkStatus();
  return InvalidArgument(op, ": a row names expert ", low < 0 ? low : high, ", but there are ",
                         num_experts, ", from 0 on; let the router choose among those");
}

absl::StatusOr<ExpertOrder> OrderByExpert(const std::string& op, const at::Tensor& experts,
                                          int64_t num_experts) {
  auto [sorted, rows] = at::sort(experts.reshape({-1}), /*stable=*/true, 0, /*descending=*/false);
  RETURN_IF_ERROR(CheckRange(op, sorted, num_experts));
  const at::Tensor numbers = at::arange(num_experts, sorted.options());
  return ExpertOrder{std::move(rows),
                     at::searchsorted(sorted, numbers, /*out_int32=*/true, /*right=*/true)};
}

// Rows of x [..., K] in an order, [R, K]. Tokens that stand for several rows each, which are a view
// that repeats them, are not copied first.
at::Tensor RowsInOrder(const at::Tensor& x, const at::Tensor& order) {
  const int64_t width = x.size(-1);
  const int64_t repeated = x.dim() - 2;
  if (repeated >= 0 && x.size(repeated) > 1 && x.stride(repeated) == 0) {
    const at::Tensor tokens = x.select(repeated, 0).reshape({-1, width});
    return tokens.index_select(0, order.floor_divide(x.size(repeated)));
  }
  return x.reshape({-1, width}).index_select(0, order);
}

// Rows and columns that the grouped kernel of GPUs takes: of bf16, in steps of 16 bytes.
bool FitsGroupedKernel(const at::Tensor& a, const at::Tensor& b) {
  constexpr int64_t kElements = 8;
  if (!a.is_cuda() || a.scalar_type() != at::kBFloat16) return false;
  for (const at::Tensor* each : {&a, &b}) {
    int64_t unit = 0;
    for (int64_t dim = 0; dim < each->dim(); ++dim) {
      if (each->stride(dim) == 1) ++unit;
      if (each->stride(dim) != 1 && each->stride(dim) % kElements != 0) return false;
      if (each->size(dim) == 0) return false;
    }
    if (unit != 1 || each->storage_offset() % kElements != 0) return false;
  }
  return true;
}

std::vector<int64_t> OnHost(const at::Tensor& ends) {
  const at::Tensor host = ends.to(at::kLong).cpu();
  const auto* data = host.const_data_ptr<int64_t>();
  return {data, data + host.numel()};
}

// Rows [R, K] in the order of experts, times the matrix [K, N] of each.
at::Tensor GroupedProduct(const at::Tensor& rows, const at::Tensor& weight,
                          const at::Tensor& ends) {
  if (FitsGroupedKernel(rows, weight)) return at::_grouped_mm(rows, weight, ends);
  at::Tensor result = at::empty({rows.size(0), weight.size(2)}, rows.options());
  int64_t begin = 0;
  int64_t expert = 0;
  for (const int64_t end : OnHost(ends)) {
    if (end > begin) {
      at::Tensor part = result.narrow(0, begin, end - begin);
      at::mm_out(part, rows.narrow(0, begin, end - begin), weight[expert]);
    }
    begin = end;
    ++expert;
  }
  return result;
}

// Of each expert its rows, transposed, times their gradients: [E, K, N]. One without rows has
// zeros.
at::Tensor GroupedWeightGrad(const at::Tensor& rows, const at::Tensor& grad,
                             const at::Tensor& ends) {
  if (FitsGroupedKernel(rows, grad)) return at::_grouped_mm(rows.t(), grad, ends);
  at::Tensor result = at::empty({ends.size(0), rows.size(1), grad.size(1)}, rows.options());
  int64_t begin = 0;
  int64_t expert = 0;
  for (const int64_t end : OnHost(ends)) {
    at::Tensor part = result[expert];
    if (end > begin) {
      at::mm_out(part, rows.narrow(0, begin, end - begin).t(), grad.narrow(0, begin, end - begin));
    } else {
      part.zero_();
    }
    begin = end;
    ++expert;
  }
  return result;
}

}  // namespace

// (x, weight, experts) -> y[r] = x[r] times weight[experts[r]]
absl::StatusOr<OwnOp> MakeExpertMm(const OwnOpContext& context) {
  const Instruction& instruction = context.instruction;
  RETURN_IF_ERROR(CheckArity(instruction, 3, 1));
  return [op = instruction.op](const OwnCall& call) -> absl::Status {
    const at::Tensor& x = call.args[0][0];
    const at::Tensor& weight = call.args[1][0];
    ASSIGN_OR_RETURN(const ExpertOrder order, OrderByExpert(op, call.args[2][0], weight.size(0)));
    const at::Tensor sorted = GroupedProduct(RowsInOrder(x, order.rows), weight, order.ends);
    std::vector<int64_t> sizes = x.sizes().vec();
    sizes.back() = weight.size(2);
    at::Tensor result = at::empty(sizes, x.options());
    result.view({-1, weight.size(2)}).index_copy_(0, order.rows, sorted);
    call.results = {std::move(result)};
    return absl::OkStatus();
  };
}

// (grad, x, experts, E, transposed) -> dw[e] = the sum of outer(x[r], grad[r]) over the rows r of
// expert e, or of outer(grad[r], x[r])
absl::StatusOr<OwnOp> MakeExpertMmWeightGrad(const OwnOpContext& context) {
  const Instruction& instruction = context.instruction;
  RETURN_IF_ERROR(CheckArity(instruction, 5, 1));
  ASSIGN_OR_RETURN(const int64_t num_experts, IntArgument(instruction, 3));
  const auto* transposed = std::get_if<bool>(&instruction.args[4]);
  if (transposed == nullptr) return InvalidArgument(instruction.op, ": argument 4 is no boolean");
  return [op = instruction.op, num_experts,
          is_transposed = *transposed](const OwnCall& call) -> absl::Status {
    ASSIGN_OR_RETURN(const ExpertOrder order, OrderByExpert(op, call.args[2][0], num_experts));
    const at::Tensor grad = RowsInOrder(call.args[0][0], order.rows);
    const at::Tensor rows = RowsInOrder(call.args[1][0], order.rows);
    call.results = {is_transposed ? GroupedWeightGrad(grad, rows, order.ends)
                                  : GroupedWeightGrad(rows, grad, order.ends)};
    return absl::OkStatus();
  };
}

}  // namespace autosp
