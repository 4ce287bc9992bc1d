#include "compiler/checker/padding.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"

namespace autosp::checker {
namespace {

using Kind = PadState::Kind;

bool IsOneOf(std::string_view op, const std::set<std::string_view>& ops) {
  return ops.contains(op);
}

// f(0) = 0
const std::set<std::string_view>& KeepZero() {
  static const auto& ops = *new std::set<std::string_view>{
      "aten.abs.default",        "aten.asin.default",       "aten.asinh.default",
      "aten.atan.default",       "aten.atanh.default",      "aten.celu.default",
      "aten.clone.default",      "aten.detach.default",     "aten.erf.default",
      "aten.expm1.default",      "aten.frac.default",       "aten.gelu.default",
      "aten.hardshrink.default", "aten.leaky_relu.default", "aten.log1p.default",
      "aten.nan_to_num.default", "aten.neg.default",        "aten.relu.default",
      "aten.relu6.default",      "aten.selu.default",       "aten.sign.default",
      "aten.silu.default",       "aten.sin.default",        "aten.sinh.default",
      "aten.softshrink.default", "aten.sqrt.default",       "aten.square.default",
      "aten.deg2rad.default",    "aten.erfinv.default",     "aten.rad2deg.default",
      "aten.sgn.default",        "aten.special_i1.default", "aten.special_i1e.default",
      "aten.tanh.default",       "aten.to.dtype",           "aten.trunc.default",
      "autosp.dropout"};
  return ops;
}

// Numbers only of positive operands, or of operands that are not zero.
const std::set<std::string_view>& NeedPositive() {
  static const auto& ops = *new std::set<std::string_view>{
      "aten.rsqrt.default",       "aten.log.default",     "aten.log2.default",
      "aten.log10.default",       "aten.digamma.default", "aten.lgamma.default",
      "aten.special_entr.default"};
  return ops;
}

// Numbers only of operands in an interval that a sign does not tell.
const std::set<std::string_view>& NeedInterval() {
  static const auto& ops = *new std::set<std::string_view>{
      "aten.acos.default",         "aten.acosh.default",  "aten.asin.default",
      "aten.atanh.default",        "aten.erfinv.default", "aten.logit.default",
      "aten.special_ndtri.default"};
  return ops;
}

// Of a constant in that interval, not at its ends, where derivatives are infinite.
bool IsInInterval(std::string_view op, const PadState& x) {
  if (x.kind != Kind::kConstant) return false;
  if (op == "aten.acosh.default") return x.is_finite() && x.constant > 1;
  if (op == "aten.logit.default" || op == "aten.binary_cross_entropy.default" ||
      op == "aten.special_ndtri.default") {
    return x.constant > 0 && x.constant < 1;
  }
  return std::abs(x.constant) < 1;
}

// Numbers of minus infinity too, as are their derivatives; those of the first set not below zero.
const std::set<std::string_view>& BoundBelow() {
  static const auto& ops = *new std::set<std::string_view>{
      "aten.exp.default", "aten.sigmoid.default", "aten.relu.default"};
  return ops;
}
bool IsBoundBelow(std::string_view op) {
  return IsOneOf(op, BoundBelow()) || op == "aten.tanh.default";
}

// Ops whose derivative does not ask for the values of their operands.
bool IsLinear(std::string_view op) {
  return op == "aten.add.Tensor" || op == "aten.sub.Tensor" || op == "aten.to.dtype" ||
         op == "aten.clone.default" || op.starts_with("aten.where.") ||
         op.starts_with("aten.masked_fill.");
}

// The operand that the op divides by, also in its derivative.
std::optional<size_t> DivisorOf(std::string_view op) {
  if (op == "aten.addcdiv.default") return 2;
  const bool divides = op == "aten.div.Tensor_mode" || op == "aten.floor_divide.default" ||
                       op.starts_with("aten.fmod.") || op.starts_with("aten.remainder.");
  return divides ? std::optional<size_t>(1) : std::nullopt;
}

std::optional<double> Comparison(std::string_view op, double a, double b) {
  if (op.starts_with("aten.ne.")) return a != b;
  if (op.starts_with("aten.eq.")) return a == b;
  if (op.starts_with("aten.lt.")) return a < b;
  if (op.starts_with("aten.le.")) return a <= b;
  if (op.starts_with("aten.gt.")) return a > b;
  if (op.starts_with("aten.ge.")) return a >= b;
  if (op == "aten.__and__.Tensor" || op == "aten.logical_and.default") return a != 0 && b != 0;
  if (op == "aten.__or__.Tensor" || op == "aten.logical_or.default") return a != 0 || b != 0;
  if (op == "aten.mul.Tensor") return a * b;
  return std::nullopt;
}

// A truth value is a number, whatever is compared; no number is equal to an infinity.
std::optional<PadState> OfComparison(std::string_view op, const std::vector<PadState>& operands) {
  const bool is_equal = op.starts_with("aten.eq.");
  const bool is_different = op.starts_with("aten.ne.");
  const bool is_order = op.starts_with("aten.lt.") || op.starts_with("aten.le.") ||
                        op.starts_with("aten.gt.") || op.starts_with("aten.ge.");
  if (!is_equal && !is_different && !is_order) return std::nullopt;
  const bool is_with_infinity = operands.size() == 2 && operands[0].is_finite() &&
                                operands[1].kind == Kind::kConstant &&
                                std::isinf(operands[1].constant);
  if (is_with_infinity && !is_order) return PadState::Constant(is_different ? 1 : 0);
  return PadState{Kind::kNonNegative, 0};
}

// Powers that are numbers only of what is not negative.
bool IsFraction(double exponent) { return exponent != std::floor(exponent); }

// Powers that are numbers of any number, as are their derivatives.
bool IsWholePower(const PadState& exponent) {
  return exponent.kind == Kind::kConstant && exponent.is_finite() && exponent.constant >= 1 &&
         !IsFraction(exponent.constant);
}

// Of what is made of two by choosing or adding: a number from numbers.
PadState Widest(const PadState& a, const PadState& b) {
  if (a.is_finite() && b.is_finite()) return PadState::Finite();
  if (a.kind == Kind::kAlike && b.is_finite()) return a;
  if (b.kind == Kind::kAlike && a.is_finite()) return b;
  return a.is_below() && b.is_below() ? PadState{Kind::kBelow, 0} : PadState::Unknown();
}

// Where the choice is not that of valid positions, padding may choose what they never do.
PadState OfWhere(const std::vector<PadState>& operands) {
  if (operands.size() != 3) return PadState::Unknown();
  const PadState& condition = operands[0];
  if (condition.kind == Kind::kConstant) {
    const PadState& chosen = operands[condition.constant != 0 ? 1 : 2];
    return chosen.is_open() ? PadState::Unknown() : chosen;
  }
  const PadState widest = Widest(operands[1], operands[2]);
  if (!operands[1].is_open() && !operands[2].is_open()) {
    const bool is_alike = condition.kind == Kind::kValid && widest.kind == Kind::kBelow &&
                          operands[1].kind != Kind::kBelow && operands[2].kind != Kind::kBelow;
    return is_alike ? PadState{Kind::kAlike, 0} : widest;
  }
  const bool is_same = condition.kind == Kind::kValid && widest.is_finite();
  if (!is_same) return PadState::Unknown();
  const bool is_like = operands[1].kind == Kind::kLike || operands[2].kind == Kind::kLike;
  return is_like ? PadState{Kind::kLike, 0} : PadState::Open();
}

PadState OfProduct(const PadState& a, const PadState& b) {
  // By a constant: another positive number may be too small for its type, and be 0.
  const auto is_scale = [](const PadState& x) {
    return x.kind == Kind::kConstant && x.is_positive();
  };
  const auto is_below = [](const PadState& x) { return x.is_below() && !x.is_finite(); };
  const bool scales = (is_below(a) && is_scale(b)) || (is_below(b) && is_scale(a));
  if (scales) return {Kind::kBelow, 0};
  if (a.is_no_number() || b.is_no_number()) return {Kind::kNoNumber, 0};
  if (!a.is_finite() || !b.is_finite()) return PadState::Unknown();
  if (a.is_zero() || b.is_zero()) return PadState::Zero();
  if (a.is_positive() && b.is_positive()) return {Kind::kPositive, 0};
  if (a.is_non_negative() && b.is_non_negative()) return {Kind::kNonNegative, 0};
  return PadState::Finite();
}

PadState OfUnary(std::string_view op, const PadState& x) {
  if (op == "aten.nan_to_num.default" && !x.is_finite()) return PadState::Finite();
  const bool is_copy =
      op == "aten.to.dtype" || op == "aten.clone.default" || op == "aten.detach.default";
  if (is_copy && (x.kind == Kind::kBelow || x.kind == Kind::kAlike)) return x;
  if (!x.is_finite() && x.is_below() && IsBoundBelow(op)) {
    return IsOneOf(op, BoundBelow()) ? PadState{Kind::kNonNegative, 0} : PadState::Finite();
  }
  if (!x.is_finite()) return PadState::Unknown();
  if (is_copy || (x.is_zero() && IsOneOf(op, KeepZero()))) return x;
  if (IsOneOf(op, NeedPositive())) {
    if (x.is_zero()) return {Kind::kNoNumber, 0};
    if (!x.is_positive()) return PadState::Unknown();
    return op == "aten.rsqrt.default" ? PadState{Kind::kPositive, 0} : PadState::Finite();
  }
  if (op == "aten.reciprocal.default") {
    if (x.is_zero()) return {Kind::kNoNumber, 0};
    if (x.is_positive()) return {Kind::kPositive, 0};
    return x.is_divisor() ? PadState::Finite() : PadState::Unknown();
  }
  if (op == "aten.sqrt.default" || op == "aten.log1p.default") {
    if (!x.is_non_negative()) return PadState::Unknown();
    return {x.is_positive() ? Kind::kPositive : Kind::kNonNegative, 0};
  }
  if (IsOneOf(op, NeedInterval())) {
    return IsInInterval(op, x) ? PadState::Finite() : PadState::Unknown();
  }
  if (op == "aten.exp.default" || op == "aten.sigmoid.default" || op == "aten.cosh.default") {
    return {Kind::kPositive, 0};
  }
  if (op == "aten.square.default" || op == "aten.abs.default" || op == "aten.relu.default") {
    return {Kind::kNonNegative, 0};
  }
  return PadState::Finite();
}

// A constant that the type may hold as another number. Beyond the largest one it is infinite, near
// zero it is zero; integers wrap around, so that no sign is known.
PadState PadOfRounded(const PadState& x, DType to) {
  if (!IsFloating(to)) return PadState::Finite();
  constexpr double kLargestF16 = 65504;
  constexpr double kLargestBf16 = 3.3895e38;
  constexpr double kLargestF32 = std::numeric_limits<float>::max();
  constexpr double kSmallestF16 = 6e-8;
  constexpr double kSmallestF32 = 1e-37;
  const bool is_f16 = to == DType::kF16;
  const double largest = is_f16 ? kLargestF16 : to == DType::kBF16 ? kLargestBf16 : kLargestF32;
  if (std::abs(x.constant) > largest) return {Kind::kNoNumber, 0};
  const bool vanishes = std::abs(x.constant) < (is_f16 ? kSmallestF16 : kSmallestF32);
  if (!x.is_positive()) return PadState::Finite();
  return {vanishes ? Kind::kNonNegative : Kind::kPositive, 0};
}

}  // namespace

bool PadState::is_finite() const {
  if (kind == Kind::kConstant) return std::isfinite(constant);
  return kind != Kind::kBelow && kind != Kind::kAlike && kind != Kind::kNoNumber &&
         kind != Kind::kUnknown;
}
bool PadState::is_open() const { return kind == Kind::kOpen || kind == Kind::kLike; }
bool PadState::is_below() const {
  const bool is_infinite = kind == Kind::kConstant && std::isinf(constant) && constant < 0;
  return is_finite() || kind == Kind::kBelow || kind == Kind::kAlike || is_infinite;
}
bool PadState::is_no_number() const {
  return kind == Kind::kConstant ? !std::isfinite(constant) : kind == Kind::kNoNumber;
}
bool PadState::is_positive() const {
  return kind == Kind::kPositive || kind == Kind::kBeyond ||
         (kind == Kind::kConstant && constant > 0 && is_finite());
}
bool PadState::is_non_negative() const {
  return is_positive() || is_zero() || kind == Kind::kNonNegative;
}
bool PadState::is_nonzero() const {
  return is_positive() || (kind == Kind::kConstant && constant != 0 && is_finite());
}

bool PadState::is_divisor() const {
  return is_nonzero() || kind == Kind::kValid || kind == Kind::kOpen;
}

PadState PadIn(const PadMap& pads, const PlacedDims& dims, const PadKey& key) {
  const std::vector<PadKey> keys = PadKeys(dims);
  if (std::ranges::count(keys, key) == 0) return PadState::Valid();
  const auto found = pads.find(key);
  return found == pads.end() ? PadState::Unknown() : found->second;
}

namespace {

// A number made of numbers; where constants may be infinite and are the same in all positions, so
// is what is made of them alone.
PadState FromNumbers(const std::vector<PadState>& operands) {
  if (std::ranges::none_of(operands, &PadState::is_open)) return PadState::Finite();
  const bool is_same = std::ranges::all_of(operands, [](const PadState& operand) {
    return operand.kind == Kind::kOpen || operand.kind == Kind::kValid ||
           operand.kind == Kind::kConstant;
  });
  return is_same ? PadState::Open() : PadState{Kind::kLike, 0};
}

}  // namespace

PadState PadOfSum(const PadState& a, const PadState& b) {
  if (a.kind == Kind::kConstant && b.kind == Kind::kConstant) {
    return PadState::Constant(a.constant + b.constant);
  }
  // Minus infinity in the same places, however often.
  if (a.kind == Kind::kAlike && b.kind == Kind::kAlike) return a;
  if (!a.is_finite() || !b.is_finite()) return Widest(a, b);
  if (a.is_zero()) return b;
  if (b.is_zero()) return a;
  if (a.is_non_negative() && b.is_non_negative()) {
    return {a.is_positive() || b.is_positive() ? Kind::kPositive : Kind::kNonNegative, 0};
  }
  return FromNumbers({a, b});
}

PadState PadOfEither(const PadState& a, const PadState& b) {
  if (a == b) return a;
  if (!a.is_finite() || !b.is_finite()) return Widest(a, b);
  if (a.is_positive() && b.is_positive()) return {Kind::kPositive, 0};
  if (a.is_non_negative() && b.is_non_negative()) return {Kind::kNonNegative, 0};
  if (a.kind == Kind::kLike || b.kind == Kind::kLike) return {Kind::kLike, 0};
  if (a.is_open() || b.is_open()) return PadState::Open();
  return PadState::Finite();
}

PadState PadOfAllRanks(const PadState& each) {
  if (!each.is_finite() && each.is_below()) return {Kind::kBelow, 0};
  if (each.is_zero() || !each.is_finite()) return each.is_zero() ? each : PadState::Unknown();
  if (each.is_positive()) return {Kind::kPositive, 0};
  return each.is_non_negative() ? each : PadState::Finite();
}

PadState PadOfCast(const PadState& operand, DType to) {
  if (!operand.is_finite() && operand.is_below() && !IsFloating(to)) {
    return to == DType::kBool ? PadState{Kind::kNonNegative, 0} : PadState::Unknown();
  }
  const PadState x = OfUnary("aten.to.dtype", operand);
  const bool is_index = to == DType::kI32 || to == DType::kI64;
  if (x.kind == Kind::kConstant) {
    // Every type but that of truth values holds whole numbers up to here; longer ones, all labels.
    constexpr double kMaxExact = 127;
    constexpr double kMaxIndex = 2147483647;
    const double whole = std::trunc(x.constant);
    if (to == DType::kBool) return PadState::Constant(x.constant != 0 ? 1 : 0);
    if (is_index && std::abs(whole) <= kMaxIndex) return PadState::Constant(whole);
    if (to == DType::kF64) return x;
    const bool is_exact = whole == x.constant && std::abs(whole) <= kMaxExact;
    if (is_exact && (whole >= 0 || to != DType::kU8)) return x;
    return PadOfRounded(x, to);
  }
  if (x.kind == Kind::kBeyond) return is_index ? x : PadState{Kind::kPositive, 0};
  // Of a fraction below one, nothing may be left.
  const bool may_vanish = x.kind == Kind::kPositive && !IsFloating(to) && to != DType::kBool;
  return may_vanish ? PadState{Kind::kNonNegative, 0} : x;
}

namespace {

// nullopt: as what is elementwise.
std::optional<PadState> OfPower(std::string_view op, const std::vector<PadState>& operands) {
  if (op == "aten.pow.Tensor_Scalar" && operands.size() == 2) {
    const double exponent = operands[1].constant;
    if (exponent == 2) return OfUnary("aten.square.default", operands[0]);
    if (exponent < 0 && !operands[0].is_positive()) return PadState::Unknown();
    if (IsFraction(exponent) && !operands[0].is_non_negative()) return PadState::Unknown();
  }
  // The exponent may be a fraction, or negative.
  if (op == "aten.pow.Tensor_Tensor" && !operands[0].is_positive() &&
      !(operands.size() == 2 && IsWholePower(operands[1]))) {
    return PadState::Unknown();
  }
  // pow(number, x)
  if (op == "aten.pow.Scalar" && operands.size() == 2 && operands[1].is_finite()) {
    return operands[0].is_positive() ? PadState{Kind::kPositive, 0} : PadState::Unknown();
  }
  return std::nullopt;
}

PadState OfElementwise(std::string_view op, const std::vector<PadState>& operands) {
  if (operands.empty()) return PadState::Unknown();
  // Nothing is drawn for padding, which is zero.
  if (op == "autosp.uniform") return PadState::Zero();
  if (op.starts_with("aten.where.")) return OfWhere(operands);
  // masked_fill(x, mask, value): where the mask holds, the value.
  if (op.starts_with("aten.masked_fill.") && operands.size() == 3) {
    return OfWhere({operands[1], operands[2], operands[0]});
  }
  if (operands.size() >= 2 && operands[0].kind == Kind::kConstant &&
      operands[1].kind == Kind::kConstant) {
    const std::optional<double> known = Comparison(op, operands[0].constant, operands[1].constant);
    if (known) return PadState::Constant(*known);
  }
  if (const std::optional<PadState> compared = OfComparison(op, operands)) return *compared;
  if (op == "aten.add.Tensor" && operands.size() == 2) return PadOfSum(operands[0], operands[1]);
  if (op == "aten.sub.Tensor" && operands.size() == 2 && operands[1].is_finite()) {
    return Widest(operands[0], operands[1]);
  }
  // What is taken away from a number, or from minus infinity, is infinite where valid positions
  // have it so.
  if (op == "aten.sub.Tensor" && operands.size() == 2 && operands[1].kind == Kind::kAlike) {
    const bool is_like = operands[0].is_finite() || operands[0].kind == Kind::kAlike;
    return is_like ? PadState{Kind::kLike, 0} : PadState::Unknown();
  }
  if (op == "aten.mul.Tensor" && operands.size() == 2) return OfProduct(operands[0], operands[1]);
  if (op == "aten.div.Tensor" && operands.size() == 2) {
    return OfProduct(operands[0], OfUnary("aten.reciprocal.default", operands[1]));
  }
  // At least a number.
  if (op == "aten.clamp_min.default" && operands.size() == 2 && operands[0].is_below() &&
      operands[1].is_finite()) {
    return operands[1].is_positive() ? PadState{Kind::kPositive, 0} : PadState::Finite();
  }
  // softplus(x, beta, threshold) = log(1 + exp(beta * x)) / beta, and x where beta * x is above the
  // threshold.
  if (op == "aten.softplus.default" && operands[0].is_finite()) {
    const bool is_upright = operands.size() < 2 || operands[1].is_positive();
    const bool is_logarithm = operands.size() < 3 || operands[2].is_non_negative();
    return is_upright && is_logarithm ? PadState{Kind::kPositive, 0} : PadState::Finite();
  }
  // What stands for infinity is a number only if it is given as one.
  if (op == "aten.nan_to_num.default") {
    const bool are_numbers =
        std::all_of(operands.begin() + 1, operands.end(), [](auto& x) { return x.is_finite(); });
    return are_numbers ? OfUnary(op, operands[0]) : PadState::Unknown();
  }
  if (op.starts_with("aten.pow.")) {
    if (const std::optional<PadState> power = OfPower(op, operands)) return *power;
  }
  // x * log(y), which is 0 where x is.
  if (op == "aten.xlogy.Tensor" && operands.size() == 2 && operands[1].is_finite()) {
    if (operands[0].is_zero()) return PadState::Zero();
    if (!operands[1].is_positive()) return PadState::Unknown();
  }
  if (op == "aten.polygamma.default" && !operands[1].is_positive()) return PadState::Unknown();
  // Of probabilities alone: others are refused.
  if (op == "aten.binary_cross_entropy.default" && !IsInInterval(op, operands[0])) {
    return PadState::Unknown();
  }
  const std::optional<size_t> divisor = DivisorOf(op);
  if (divisor && !(*divisor < operands.size() && operands[*divisor].is_divisor())) {
    return PadState::Unknown();
  }
  if (operands.size() == 1) return OfUnary(op, operands[0]);
  if (IsOneOf(op, NeedPositive())) return PadState::Unknown();
  const bool finite = std::ranges::all_of(operands, &PadState::is_finite);
  return finite ? PadState::Finite() : PadState::Unknown();
}

}  // namespace

// What is made of valid numbers alone stands in padding now. What is made with an infinite element
// may be infinite, where no sign says that it is a number.
PadState PadOfElementwise(std::string_view op, const std::vector<PadState>& operands) {
  const PadState pad = OfElementwise(op, operands);
  if (pad.kind != Kind::kValid && pad.kind != Kind::kFinite) return pad;
  const bool are_numbers = op == "aten.nan_to_num.default" || op.starts_with("aten.where.") ||
                           op.starts_with("aten.masked_fill.");
  return are_numbers ? PadState::Finite() : FromNumbers(operands);
}

namespace {

// Whether the derivative is a number where the operands are.
bool IsSmooth(std::string_view op, const std::vector<PadState>& operands) {
  const PadState& x = operands[0];
  const PadState* y = operands.size() > 1 ? &operands[1] : nullptr;
  if (IsOneOf(op, NeedPositive()) || op == "aten.sqrt.default") return x.is_positive();
  if (op == "aten.polygamma.default") return y != nullptr && y->is_positive();
  if (op == "aten.log1p.default") return x.is_non_negative();
  if (op == "aten.reciprocal.default") return x.is_nonzero();
  if (IsOneOf(op, NeedInterval()) || op == "aten.binary_cross_entropy.default") {
    return IsInInterval(op, x);
  }
  if (op == "aten.div.Tensor") return y != nullptr && y->is_divisor();
  if (op == "aten.pow.Tensor_Scalar" && y != nullptr && y->constant < 1) {
    return x.is_positive() || y->is_zero();
  }
  if (op == "aten.pow.Tensor_Scalar" && y != nullptr && IsFraction(y->constant)) {
    return x.is_non_negative();
  }
  if (op == "aten.pow.Scalar") return x.is_positive();
  // The derivative has a logarithm of the base, or of what the other is multiplied with. Of what is
  // the same in all positions, valid ones have it too.
  if (op == "aten.pow.Tensor_Tensor") {
    return x.is_positive() || (x.kind == Kind::kValid && y != nullptr && IsWholePower(*y));
  }
  if (op == "aten.xlogy.Tensor" && y != nullptr) {
    return y->is_positive() || (x.is_zero() && y->kind == Kind::kValid);
  }
  // Angle and length have no direction at zero.
  if (op == "aten.atan2.default" || op == "aten.hypot.default") {
    return x.is_nonzero() || (y != nullptr && y->is_nonzero());
  }
  const std::optional<size_t> divisor = DivisorOf(op);
  return !divisor || (*divisor < operands.size() && operands[*divisor].is_divisor());
}

}  // namespace

// Where all of a row is hidden, its softmax is no number in valid positions either.
bool IsSoftmaxAlike(std::string_view op, const PadState& x) {
  const bool is_softmax = op == "aten._softmax.default" || op == "aten._log_softmax.default";
  return is_softmax && x.kind == Kind::kAlike;
}

PadState PadOfDerivative(std::string_view op, const std::vector<PadState>& operands,
                         const PadState& grad) {
  if (!grad.is_finite() || operands.empty()) return PadState::Unknown();
  const bool is_root = IsOneOf(op, NeedPositive()) || op == "aten.sqrt.default";
  // The derivative is infinite at zero, and infinite times zero is no number.
  if ((is_root || op == "aten.reciprocal.default") && operands[0].is_zero()) {
    return {Kind::kNoNumber, 0};
  }
  const bool is_known = std::ranges::all_of(operands, &PadState::is_finite) || IsLinear(op) ||
                        PicksElements(op) || IsSoftmaxAlike(op, operands[0]) ||
                        (IsBoundBelow(op) && operands[0].is_below());
  if (!is_known || !IsSmooth(op, operands)) return PadState::Unknown();
  return grad.is_zero() ? grad : PadState::Finite();
}

bool PicksElements(std::string_view op) {
  static const auto& ops = *new std::set<std::string_view>{
      "aten.amax.default",   "aten.cat.default",          "aten.cumsum.default",
      "aten.gather.default", "aten.index_select.default", "aten.max.dim",
      "aten.scatter.src",    "aten.scatter.value",        "aten.sort.default",
      "aten.sort.stable",    "aten.sum.dim_IntList",      "aten.topk.default"};
  return IsOneOf(op, ops);
}

std::string ToText(const PadState& state) {
  switch (state.kind) {
    case Kind::kConstant:
      return absl::StrCat(state.constant);
    case Kind::kPositive:
    case Kind::kBeyond:
      return "a positive number";
    case Kind::kNonNegative:
      return "a number that is not negative";
    case Kind::kFinite:
    case Kind::kValid:
    case Kind::kOpen:
    case Kind::kLike:
      return "a number";
    case Kind::kBelow:
    case Kind::kAlike:
      return "a number or minus infinity";
    case Kind::kNoNumber:
      return "no number";
    case Kind::kUnknown:
      return "anything";
  }
  return "anything";
}

}  // namespace autosp::checker
