// An argument of an op: a value of the graph or program, or a literal.
//
// Arguments stand in the order of the op's ATen schema, so that an executor can push them on a
// stack as they are; `Argument{}` (none) stands for an absent optional.
//
// Text: `%x`, `none`, `3`, `0.5`, `true`, `"sum"`, `f32` (a dtype), `[1, 2]`, `[%a, none, %b]`,
// `!contiguous_format` (an enum of ATen that has no value in a program: layout, memory format,
// device), `3{s0 - 1}` for an integer that the archive computes from symbols, and
// `0.5{pow(s0, -0.5)}` for a float.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "compiler/ir/dtype.h"
#include "compiler/ir/number_expr.h"
#include "compiler/ir/sym_expr.h"

namespace autosp {

// Index of a value in its graph or program.
struct ValueId {
  int32_t index = -1;
  bool valid() const { return index >= 0; }
  friend auto operator<=>(ValueId, ValueId) = default;
};

struct None {
  friend bool operator==(None, None) = default;
};

// An ATen enum that the executor ignores or maps by name: "strided", "cpu", "contiguous_format".
struct EnumName {
  std::string name;
  friend bool operator==(const EnumName&, const EnumName&) = default;
};

// An integer with, where the archive derives it from dynamic sizes, the expression it came from.
struct SymInt {
  int64_t value = 0;
  SymExpr expr;  // empty: a literal
  SymInt() = default;
  SymInt(int64_t v) : value(v) {}  // NOLINT: literals convert freely
  SymInt(int64_t v, SymExpr e) : value(v), expr(std::move(e)) {}
  friend bool operator==(const SymInt&, const SymInt&) = default;
};

using ValueList = std::vector<ValueId>;  // an invalid id stands for None in optional tensor lists
using IntList = std::vector<SymInt>;
using FloatList = std::vector<double>;
using BoolList = std::vector<bool>;

// A float that the archive derives from dynamic sizes (sym_float) carries its expression too.
struct SymFloat {
  double value = 0;
  NumberExpr expr;
  friend bool operator==(const SymFloat&, const SymFloat&) = default;
};

using Argument = std::variant<None, ValueId, ValueList, SymInt, IntList, double, FloatList, bool,
                              BoolList, std::string, DType, EnumName, SymFloat>;

inline bool IsNone(const Argument& a) { return std::holds_alternative<None>(a); }

// Calls `visit(ValueId&)` for each valid value in `argument`, in order.
template <typename Visit>
void ForEachValue(Argument& argument, Visit visit) {
  if (auto* id = std::get_if<ValueId>(&argument)) {
    if (id->valid()) visit(*id);
  } else if (auto* list = std::get_if<ValueList>(&argument)) {
    for (ValueId& id : *list) {
      if (id.valid()) visit(id);
    }
  }
}
template <typename Visit>
void ForEachValue(const Argument& argument, Visit visit) {
  ForEachValue(const_cast<Argument&>(argument), [&](ValueId& id) { visit(std::as_const(id)); });
}

}  // namespace autosp
