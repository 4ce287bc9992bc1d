// The text of types and arguments, which graphs and programs share.
//
//   f32[2, 32{s38}, 64]{strides=2048,64,1}    a type; sizes may carry an expression
//   %x  none  3  3{s0 - 1}  0.5  true  "sum"  f32  !strided  [1, 2]  [%a, none]    arguments
//   []  values[]  floats[]  bools[]            empty lists, which must keep their kind
//   0.5{s38}                                   a float that came from a size
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "compiler/ir/argument.h"
#include "compiler/ir/text_cursor.h"

namespace autosp {

void PrintSymInt(const SymInt& value, std::string* out);
absl::StatusOr<SymInt> ParseSymInt(TextCursor& cursor);

// `name` gives what to print after '%'.
void PrintArgument(const Argument& argument, const std::function<std::string(ValueId)>& name,
                   std::string* out);

// `resolve` finds a value by the name after '%', or says why it cannot.
using ResolveValue = std::function<absl::StatusOr<ValueId>(std::string_view name)>;
absl::StatusOr<Argument> ParseArgument(TextCursor& cursor, const ResolveValue& resolve);

}  // namespace autosp
