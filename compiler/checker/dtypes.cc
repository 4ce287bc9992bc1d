// What dtype PyTorch gives the result of an op, from its documentation of type promotion. What an
// op means says nothing of dtypes where it is a sum, a scaling or its operand itself.
#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "compiler/checker/interpreter.h"

namespace autosp::checker {
namespace {

enum class Rule : uint8_t {
  kPromoted,  // of all inputs
  kFraction,  // likewise, and floating
  kTruth,
  kFirst,   // that of the first tensor
  kSecond,  // that of the second: the first is added to a product
  kSummed,  // what is asked for; else of the first tensor, where integers add up in 64 bits
  kMean,    // what is asked for; else of the first tensor
};

using Rules = std::map<std::string_view, Rule>;

Rules Arithmetic() {
  Rules rules = {
      {"aten.cat.default", Rule::kPromoted},
      {"aten.mean.default", Rule::kMean},
      {"aten.mean.dim", Rule::kMean},
      {"aten.sum.default", Rule::kSummed},
      {"aten.sum.dim_IntList", Rule::kSummed},
      {"aten.cumsum.default", Rule::kSummed},
      {"aten.div.Tensor", Rule::kFraction},
      {"aten.addmm.default", Rule::kSecond},
      {"aten.pow.Tensor_Scalar", Rule::kPromoted},
      {"aten.pow.Tensor_Tensor", Rule::kPromoted},
  };
  for (std::string_view op :
       {"aten.add.Tensor", "aten.sub.Tensor", "aten.mul.Tensor", "aten.rsub.Scalar",
        "aten.rsub.Tensor", "aten.maximum.default", "aten.minimum.default", "aten.addcmul.default",
        "aten.remainder.Scalar", "aten.remainder.Tensor", "aten.fmod.Scalar", "aten.fmod.Tensor",
        "aten.where.self", "aten.where.Scalar", "aten.where.ScalarOther", "aten.where.ScalarSelf",
        "aten.__and__.Tensor", "aten.__or__.Tensor", "aten.__xor__.Tensor"}) {
    rules[op] = Rule::kPromoted;
  }
  return rules;
}

Rules Functions() {
  Rules rules;
  for (std::string_view op :
       {"aten.exp.default", "aten.log.default", "aten.sqrt.default", "aten.rsqrt.default",
        "aten.reciprocal.default", "aten.sigmoid.default", "aten.tanh.default", "aten.sin.default",
        "aten.cos.default", "aten.erf.default", "aten.expm1.default", "aten.log1p.default"}) {
    rules[op] = Rule::kFraction;
  }
  for (std::string_view op : {"aten.neg.default",        "aten.abs.default",
                              "aten.relu.default",       "aten.clone.default",
                              "aten.detach.default",     "aten.masked_fill.Scalar",
                              "aten.masked_fill.Tensor", "aten.constant_pad_nd.default",
                              "aten.gather.default",     "aten.index_select.default",
                              "aten.flip.default",       "aten.roll.default",
                              "aten.embedding.default",  "aten.linear.default",
                              "aten.mm.default",         "aten.bmm.default",
                              "aten.matmul.default",     "aten.silu.default",
                              "aten.gelu.default",       "aten.native_layer_norm.default",
                              "aten.topk.default",       "aten.sort.default",
                              "aten.index.Tensor",       "autosp.dropout",
                              "autosp.fft_c2c",          "autosp.fft_c2r",
                              "autosp.fft_r2c"}) {
    rules[op] = Rule::kFirst;
  }
  for (std::string_view op :
       {"aten.eq.Tensor", "aten.eq.Scalar", "aten.ne.Tensor", "aten.ne.Scalar", "aten.lt.Tensor",
        "aten.lt.Scalar", "aten.le.Tensor", "aten.le.Scalar", "aten.gt.Tensor", "aten.gt.Scalar",
        "aten.ge.Tensor", "aten.ge.Scalar", "aten.logical_and.default", "aten.logical_or.default",
        "aten.logical_not.default", "aten.logical_xor.default", "aten.isnan.default",
        "aten.isinf.default"}) {
    rules[op] = Rule::kTruth;
  }
  return rules;
}

const Rules& All() {
  static const auto& rules = *new Rules([] {
    Rules all = Arithmetic();
    all.merge(Functions());
    return all;
  }());
  return rules;
}

int CategoryOf(DType dtype) { return dtype == DType::kBool ? 0 : IsFloating(dtype) ? 2 : 1; }

// Tensors with dimensions come first, then those without, then numbers: what comes later counts
// where it is of a higher category (truth values, integers, fractions).
class Promotion {
 public:
  enum Level : uint8_t { kTensor, kZeroDim, kNumber };

  void Add(Level level, DType dtype) {
    types_[level] = types_[level] ? PromoteTypes(*types_[level], dtype) : dtype;
  }
  std::optional<DType> Result() const {
    std::optional<DType> result;
    for (const std::optional<DType>& type : types_) {
      if (!type) continue;
      const bool counts = !result || CategoryOf(*type) > CategoryOf(*result);
      if (counts) result = result ? PromoteTypes(*result, *type) : *type;
    }
    return result;
  }

 private:
  std::optional<DType> types_[3];
};

std::optional<DType> TypeOfNumber(const Argument& argument) {
  if (std::holds_alternative<bool>(argument)) return DType::kBool;
  if (std::holds_alternative<SymInt>(argument)) return DType::kI64;
  if (std::holds_alternative<double>(argument)) return DType::kF32;
  return std::nullopt;
}

std::optional<DType> Promoted(const OpCall& call) {
  const std::string& op = call.instruction.op;
  const std::vector<ValueId> ids = OperandsOf(call.instruction);
  const size_t condition = op.starts_with("aten.where.") ? 1 : 0;  // says which, not what
  Promotion promotion;
  for (size_t i = condition; i < ids.size(); ++i) {
    promotion.Add(call.operands[i].empty() ? Promotion::kZeroDim : Promotion::kTensor,
                  call.program.value(ids[i]).dtype);
  }
  const auto num_inputs = static_cast<size_t>(NumInputs(op));
  for (size_t arg = 0; arg < num_inputs && arg < call.instruction.args.size(); ++arg) {
    const std::optional<DType> type = TypeOfNumber(call.instruction.args[arg]);
    if (type) promotion.Add(Promotion::kNumber, *type);
  }
  return promotion.Result();
}

// nullopt: not known here.
std::optional<DType> DtypeOf(const OpCall& call) {
  const Instruction& instruction = call.instruction;
  const std::vector<ValueId> ids = OperandsOf(instruction);
  if (instruction.op == "aten.to.dtype") return AskedDtype(instruction);
  const auto rule = All().find(instruction.op);
  if (rule == All().end() || ids.empty()) return std::nullopt;
  const DType first = call.program.value(ids[0]).dtype;
  const std::optional<DType> promoted = Promoted(call);
  switch (rule->second) {
    case Rule::kPromoted:
      return promoted;
    case Rule::kFraction:
      return promoted && IsFloating(*promoted) ? promoted : DType::kF32;
    case Rule::kTruth:
      return DType::kBool;
    case Rule::kFirst:
      return first;
    case Rule::kSecond:
      return ids.size() > 1 ? std::optional(call.program.value(ids[1]).dtype) : std::nullopt;
    case Rule::kSummed:
      return AskedDtype(instruction).value_or(IsFloating(first) ? first : DType::kI64);
    case Rule::kMean:
      return AskedDtype(instruction).value_or(first);
  }
  return std::nullopt;
}

// What results behind the first may be; empty: not known here.
std::vector<DType> DtypesOfOthers(const OpCall& call) {
  const std::string& op = call.instruction.op;
  if (op == "autosp.cross_entropy" || op == "autosp.cross_entropy_sum") return {DType::kF32};
  static const auto& kGivePlaces = *new std::set<std::string_view>{
      "aten.cummax.default", "aten.cummin.default", "aten.kthvalue.default", "aten.max.dim",
      "aten.median.dim",     "aten.min.dim",        "aten.mode.default",     "aten.sort.default",
      "aten.sort.stable",    "aten.topk.default"};
  if (kGivePlaces.contains(op)) return {DType::kI64};
  if (op != "aten.native_layer_norm.default") return {};
  // Statistics of half types are kept in fp32 by some kernels.
  return {DType::kF32, Promoted(call).value_or(DType::kF32)};
}

}  // namespace

std::optional<DType> AskedDtype(const Instruction& instruction) {
  for (const Argument& argument : instruction.args) {
    if (const auto* dtype = std::get_if<DType>(&argument)) return *dtype;
  }
  return std::nullopt;
}

absl::Status Interpreter::RefuseDtype(const Instruction& instruction, ValueId value,
                                      const std::string& why) const {
  return Refuse(instruction,
                absl::StrCat("%", NameOf(value), " is stated as ",
                             std::string(DTypeName(program_.value(value).dtype)), ", but ", why));
}

absl::Status Interpreter::CheckDtype(const OpCall& call) const {
  const Instruction& instruction = call.instruction;
  const std::optional<DType> derived = DtypeOf(call);
  const DType stated = program_.value(instruction.results[0]).dtype;
  const bool is_sum = instruction.op.starts_with("aten.sum.");
  if (is_sum && derived == stated && IsFloating(program_.value(OperandsOf(instruction)[0]).dtype) &&
      !IsFloating(stated)) {
    return NotProven(instruction,
                     "the meaning of a sum does not say that it is rounded to integers");
  }
  if (is_sum && stated == DType::kBool) {
    return NotProven(instruction, "the meaning of a sum does not say that it is a truth value");
  }
  const std::vector<DType> others = DtypesOfOthers(call);
  for (size_t i = 1; !others.empty() && i < call.results.size(); ++i) {
    const ValueId other = instruction.results[i];
    if (std::ranges::count(others, program_.value(other).dtype) > 0) continue;
    return RefuseDtype(instruction, other,
                       absl::StrCat("the op gives ", std::string(DTypeName(others[0]))));
  }
  if (!derived || *derived == stated) return absl::OkStatus();
  return RefuseDtype(instruction, instruction.results[0],
                     absl::StrCat("its operands give ", std::string(DTypeName(*derived))));
}

}  // namespace autosp::checker
