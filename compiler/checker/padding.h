// What padded positions of a value are known to hold.
//
// Padding must not reach a sum, unless it is zero there, and a product with zero is zero only if
// the other factor is a number. So the checker follows: a constant, a sign, a number, a number or
// minus infinity, no number, or nothing known (perhaps not a number). That valid positions hold
// numbers is assumed.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/checker/placed_dims.h"
#include "compiler/ir/dtype.h"

namespace autosp::checker {

struct PadState {
  enum class Kind : uint8_t {
    kConstant,
    kPositive,
    kBeyond,  // an index of the padding itself: not below the number of valid positions
    kNonNegative,
    kFinite,
    kValid,     // of an operand that is not padded: what valid positions read too
    kOpen,      // made with constants of which some may be infinite: a number if what is read is
    kLike,      // a number where valid positions have one
    kBelow,     // a number or minus infinity: of a mask that is to be hidden by exp
    kAlike,     // the same, and minus infinity where valid positions are: of a mask of keys
    kNoNumber,  // infinite or not a number
    kUnknown
  };
  Kind kind = Kind::kUnknown;
  double constant = 0;  // kConstant

  static PadState Constant(double value) { return {Kind::kConstant, value}; }
  static PadState Zero() { return Constant(0); }
  static PadState Finite() { return {Kind::kFinite, 0}; }
  static PadState Valid() { return {Kind::kValid, 0}; }
  static PadState Open() { return {Kind::kOpen, 0}; }
  static PadState Unknown() { return {}; }
  bool is_zero() const { return kind == Kind::kConstant && constant == 0; }
  bool is_finite() const;
  bool is_open() const;       // numbers where valid positions have some, if they read them
  bool is_below() const;      // a number or minus infinity
  bool is_no_number() const;  // is known to be none
  bool is_positive() const;
  bool is_non_negative() const;
  bool is_nonzero() const;
  bool is_divisor() const;  // may be divided by: not zero, or a divisor of valid positions too
  friend bool operator==(const PadState&, const PadState&) = default;
};
using PadMap = std::map<PadKey, PadState>;  // absent: unknown

// Of a value of these dimensions and pads, where `key` is padded.
PadState PadIn(const PadMap& pads, const PlacedDims& dims, const PadKey& key);
// The padding of the result of an op that works position by position; `operands` are its tensors
// and numbers in order. Ops that are not in the table: a number from numbers is a number.
PadState PadOfElementwise(std::string_view op, const std::vector<PadState>& operands);
// The padding of the gradient of an operand: zero if `grad` is and the derivative is a number.
PadState PadOfDerivative(std::string_view op, const std::vector<PadState>& operands,
                         const PadState& grad);
// Whether the op makes of padding what it makes of valid positions: a number, or none of either.
bool IsSoftmaxAlike(std::string_view op, const PadState& x);
// Of a cast: constants that `to` does not hold are rounded, and truth values are 0 or 1.
PadState PadOfCast(const PadState& operand, DType to);
// a + b, position by position.
PadState PadOfSum(const PadState& a, const PadState& b);
// What holds one or the other.
PadState PadOfEither(const PadState& a, const PadState& b);
// Of ops that pick, place or add up elements of their operands (gather, scatter, topk, cumsum), and
// can so give minus infinity, but nothing worse, where an operand has it.
bool PicksElements(std::string_view op);
// The sum or the maximum over any number of ranks, each of which holds `each`.
PadState PadOfAllRanks(const PadState& each);

std::string ToText(const PadState& state);  // "0", "a number", "anything"

}  // namespace autosp::checker
