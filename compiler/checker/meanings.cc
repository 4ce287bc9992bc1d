// The meaning of calls: what is linear goes into the normal form, any other op makes a node.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "compiler/checker/interpreter.h"
#include "compiler/ir/argument_text.h"

namespace autosp::checker {

namespace {

// That of a half type says which, since rounding to it again leaves what there was.
std::string CastKey(DType from, DType to) {
  std::string key = absl::StrCat("cast ", std::string(DTypeName(to)));
  if (IsHalf(from)) absl::StrAppend(&key, " of ", std::string(DTypeName(from)));
  return key;
}

}  // namespace

std::string Interpreter::KeyOf(const OpCall& call, size_t result) const {
  const Instruction& instruction = call.instruction;
  std::string key = instruction.op;
  const auto operand_name = [](ValueId) { return std::string(); };
  for (const Argument& argument : instruction.args) {
    key += " ";
    PrintArgument(argument, operand_name, &key);
  }
  for (const auto& [name, argument] : instruction.attributes) {
    if (name == "diff" || name == "saves" || name == "opaque") continue;
    absl::StrAppend(&key, " ", name, "=");
    PrintArgument(argument, operand_name, &key);
  }
  if (result < instruction.results.size()) {
    absl::StrAppend(&key, " ",
                    std::string(DTypeName(program_.value(instruction.results[result]).dtype)));
  }
  if (result > 0) absl::StrAppend(&key, " #", result);
  return key;
}

bool Interpreter::IsTrue(const Tensor& tensor) const { return table_.IsFull(tensor, 1); }

std::vector<Tensor> Interpreter::MeaningOf(const OpCall& call,
                                           const std::vector<const ValueState*>& operands) {
  Tensor known;
  if (LinearMeaning(call, operands, &known) || ReductionMeaning(call, operands, &known) ||
      ProductMeaning(call, operands, &known) || MaskMeaning(call, operands, &known)) {
    return {known};
  }
  if (IsWindowOp(call.instruction.op)) return {WindowMeaning(call, operands)};
  if (call.instruction.op.starts_with("aten._scaled_dot_product_flash_attention_for_cpu")) {
    return FlashMeaning(call, operands);
  }
  if (call.instruction.op == "autosp.sdpa" || call.instruction.op == "autosp.sdpa_backward") {
    return SdpaMeaning(call, operands);
  }
  std::vector<NodeId> nodes;
  for (const ValueState* operand : operands) nodes.push_back(table_.Intern(operand->meaning));
  std::vector<Tensor> results;
  for (size_t i = 0; i < call.results.size(); ++i) {
    results.push_back(table_.Node(KeyOf(call, i), nodes, LogicalShape(call.results[i])));
  }
  return results;
}

// Each term by itself: what a sum in another type adds up.
Tensor Interpreter::CastTerms(const Tensor& tensor, DType from, DType to) {
  if (from == to || !IsFloating(from) || !IsFloating(to)) return tensor;
  std::vector<Tensor> terms;
  for (const Term& term : tensor.terms) {
    const NodeId base = table_.Node(CastKey(from, to), {term.base}, {}).terms[0].base;
    terms.push_back({tensor.shape, {{term.coefficient, base, term.layout}}});
  }
  return table_.Sum(terms, tensor.shape);
}

// What a half type was before it was widened, if all terms were.
std::optional<Tensor> Interpreter::BeforeWidening(const Tensor& tensor, DType from, DType to) {
  if (!IsHalf(to) || IsHalf(from)) return std::nullopt;
  std::vector<Tensor> terms;
  for (const Term& term : tensor.terms) {
    const std::optional<NodeId> base = table_.OperandOf(term.base, CastKey(to, from));
    if (!base) return std::nullopt;
    terms.push_back({tensor.shape, {{term.coefficient, *base, term.layout}}});
  }
  return table_.Sum(terms, tensor.shape);
}

// Between floating types a cast is linear, rounding aside: of a sum over dimensions, as of the
// heads that share a key, it is the sum of casts. A sum of several terms is cast as one. A sum of
// halves in fp32 that is rounded is the sum in the half type, which has it so within one op.
Tensor Interpreter::Cast(const Tensor& tensor, DType from, DType to) {
  if (from == to || tensor.is_zero()) return tensor;
  if (const std::optional<Tensor> before = BeforeWidening(tensor, from, to)) return *before;
  const std::string key = CastKey(from, to);
  if (!IsFloating(from) || !IsFloating(to) || tensor.terms.size() > 1) {
    return table_.Node(key, {table_.Intern(tensor)}, tensor.shape);
  }
  Tensor result = tensor;
  result.terms[0].base = table_.Node(key, {tensor.terms[0].base}, {}).terms[0].base;
  return result;
}

// Sums, differences, products with numbers, and casts.
bool Interpreter::LinearMeaning(const OpCall& call, const std::vector<const ValueState*>& operands,
                                Tensor* result) {
  const std::string& op = call.instruction.op;
  const Shape shape = LogicalShape(call.results[0]);
  // A boolean's sum is no sum of booleans.
  const DType dtype = program_.value(call.instruction.results[0]).dtype;
  if (dtype == DType::kBool || operands.empty()) return false;
  const std::optional<double> number = call.Number(1);
  if (op == "aten.add.Tensor" || op == "aten.sub.Tensor") {
    const double alpha = call.Number(2).value_or(1) * (op == "aten.sub.Tensor" ? -1 : 1);
    const std::vector<ValueId> ids = OperandsOf(call.instruction);
    const auto widened = [&](size_t i) {
      const Tensor& meaning = operands[i]->meaning;
      const DType from = program_.value(ids[i]).dtype;
      if (from == dtype) return table_.Expand(meaning, shape);
      return table_.Expand(CastTerms(meaning, from, dtype), shape);
    };
    const Tensor a = widened(0);
    if (operands.size() == 2) {
      *result = table_.Add(a, widened(1), alpha);
      return true;
    }
    if (!number || !call.HasTensor(0)) return false;
    *result = table_.Add(a, table_.Full(shape, *number), alpha);
    return true;
  }
  if (op == "aten.neg.default") {
    *result = table_.Scale(operands[0]->meaning, -1);
  } else if (op == "aten.mul.Tensor" && operands.size() == 1 && number) {
    *result = table_.Scale(operands[0]->meaning, *number);
  } else if (op == "aten.div.Tensor" && operands.size() == 1 && number && *number != 0) {
    *result = table_.Scale(operands[0]->meaning, 1 / *number);
  } else if (op == "aten.clone.default" || op == "aten.detach.default") {
    *result = operands[0]->meaning;
  } else if (op == "aten.to.dtype" && call.instruction.args.size() > 1 &&
             call.instruction.args[1] == Argument(dtype)) {
    const DType from = program_.value(OperandsOf(call.instruction)[0]).dtype;
    *result = Cast(operands[0]->meaning, from, dtype);
  } else if (op == "aten.constant_pad_nd.default" && call.Number(2).value_or(0) == 0) {
    return PadMeaning(call.Ints(1), operands[0]->meaning, result);
  } else {
    return false;
  }
  return true;
}

// Zeros around a tensor; `amounts` are (before, after) from the last dimension on. What takes away
// is no embedding.
bool Interpreter::PadMeaning(const std::vector<int64_t>& amounts, const Tensor& tensor,
                             Tensor* result) {
  const bool adds = std::ranges::all_of(amounts, [](int64_t amount) { return amount >= 0; });
  if (!adds || amounts.size() > 2 * tensor.shape.size()) return false;
  *result = tensor;
  for (size_t i = 0; i + 1 < amounts.size(); i += 2) {
    const int64_t dim = static_cast<int64_t>(tensor.shape.size() - 1 - i / 2);
    const int64_t size = tensor.shape[dim] + amounts[i] + amounts[i + 1];
    *result = table_.Embed(*result, dim, amounts[i], 1, size);
  }
  return true;
}

bool Interpreter::ReductionMeaning(const OpCall& call,
                                   const std::vector<const ValueState*>& operands, Tensor* result) {
  const std::string& op = call.instruction.op;
  const bool is_sum = op == "aten.sum.default" || op == "aten.sum.dim_IntList";
  const bool is_mean = op == "aten.mean.default" || op == "aten.mean.dim";
  if (!is_sum && !is_mean) return false;
  // Narrower integers wrap around, and half types do not hold all integers: their sum is another.
  const DType dtype = program_.value(call.instruction.results[0]).dtype;
  const DType from = program_.value(OperandsOf(call.instruction)[0]).dtype;
  if (!IsFloating(dtype) && dtype != DType::kI64) return false;
  if (!IsFloating(from) && IsHalf(dtype)) return false;
  const bool has_dims = op == "aten.sum.dim_IntList" || op == "aten.mean.dim";
  const size_t dims_arg = has_dims ? 1 : call.instruction.args.size();
  std::vector<int64_t> dims = call.Dims(dims_arg, call.rank(0));
  std::ranges::sort(dims, std::greater<>());
  *result = CastTerms(operands[0]->meaning, from, dtype);
  int64_t count = 1;
  for (int64_t dim : dims) {
    count *= result->shape[dim];
    *result = table_.SumOver(*result, dim);
  }
  if (is_mean) *result = table_.Scale(*result, 1 / static_cast<double>(count));
  *result = table_.Reshape(*result, LogicalShape(call.results[0]));
  return true;
}

// a [m, k] x b [k, n], as one node whatever leading dimensions a had.
Tensor Interpreter::Product(const Tensor& a, const Tensor& b, const Shape& shape, DType dtype) {
  const int64_t inner = b.shape[0];
  const int64_t rows = NumElements(a.shape) / std::max<int64_t>(inner, 1);
  const Tensor flat = table_.Reshape(a, {rows, inner});
  const std::string key = absl::StrCat("product ", std::string(DTypeName(dtype)));
  const Tensor product =
      table_.Node(key, {table_.Intern(flat), table_.Intern(b)}, {rows, b.shape[1]});
  return table_.Reshape(product, shape);
}

bool Interpreter::ProductMeaning(const OpCall& call, const std::vector<const ValueState*>& operands,
                                 Tensor* result) {
  const std::string& op = call.instruction.op;
  const Shape shape = LogicalShape(call.results[0]);
  const DType dtype = program_.value(call.instruction.results[0]).dtype;
  if (op == "aten.linear.default") {
    const Tensor weight = table_.Permute(operands[1]->meaning, {1, 0});
    *result = Product(operands[0]->meaning, weight, shape, dtype);
    if (operands.size() > 2) {
      *result = table_.Add(*result, table_.Expand(operands[2]->meaning, shape), 1);
    }
    return true;
  }
  if (op == "aten.addmm.default") {
    const bool is_plain = call.Number(3).value_or(1) == 1 && call.Number(4).value_or(1) == 1;
    if (!is_plain) return false;
    *result = table_.Add(Product(operands[1]->meaning, operands[2]->meaning, shape, dtype),
                         table_.Expand(operands[0]->meaning, shape), 1);
    return true;
  }
  const bool is_matmul = op == "aten.matmul.default" || op == "aten.mm.default";
  if (!is_matmul || call.rank(1) != 2) return false;
  *result = Product(operands[0]->meaning, operands[1]->meaning, shape, dtype);
  return true;
}

// Masks of padding: every valid index is below the number of valid indices.
bool Interpreter::MaskMeaning(const OpCall& call, const std::vector<const ValueState*>& operands,
                              Tensor* result) {
  const std::string& op = call.instruction.op;
  if (op == "aten.lt.Scalar" && call.rank(0) == 1) {
    const Shape shape = LogicalShape(call.results[0]);
    if (!(operands[0]->meaning == table_.Node("indices", {}, shape))) return false;
    if (call.Number(1) != static_cast<double>(shape[0])) return false;
    *result = table_.Full(shape, 1);
    return true;
  }
  if (op == "aten.where.ScalarOther" && operands.size() == 2 && IsTrue(operands[0]->meaning)) {
    *result = table_.Expand(operands[1]->meaning, LogicalShape(call.results[0]));
    return true;
  }
  return false;
}

}  // namespace autosp::checker
