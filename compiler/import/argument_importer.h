// Arguments of a call: from names and tags of the archive to values in schema order.
#pragma once

#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/import/exported_program.h"
#include "compiler/import/op_schemas.h"
#include "compiler/ir/argument.h"

namespace autosp {

// How names of the archive are looked up where a call stands.
struct NameResolver {
  std::function<absl::StatusOr<ValueId>(const std::string&)> tensor;
  std::function<absl::StatusOr<SymInt>(const std::string&)> sym_int;
  std::function<absl::StatusOr<SymFloat>(const std::string&)> sym_float;
};

// All parameters of the schema in its order: given ones by position or name, the rest by default.
absl::StatusOr<std::vector<Argument>> ImportArguments(
    const OpSchema& schema, const std::vector<exported::NamedArgument>& inputs,
    const NameResolver& resolver);

}  // namespace autosp
