// The signatures of ATen ops: parameter order, types, defaults and which arguments alias results.
//
// An archive omits arguments that have their default value and passes some by name, so an import
// needs the signatures; they come from a checked-in table (aten_schemas.inc) and not from libtorch,
// which the compiler does not link.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/ir/argument.h"

namespace autosp {

enum class SchemaType : uint8_t {
  kTensor,
  kInt,  // int and SymInt
  kFloat,
  kBool,
  kString,
  kScalar,  // int, float or bool
  kScalarType,
  kLayout,
  kDevice,
  kMemoryFormat,
  kGenerator,
};

struct SchemaParameter {
  std::string name;
  SchemaType type = SchemaType::kTensor;
  bool is_list = false;
  bool is_optional = false;            // None is allowed
  bool has_optional_elements = false;  // Tensor?[]
  bool is_keyword_only = false;
  std::optional<Argument> default_value;  // none: the argument must be given
  // Aliasing as in "Tensor(a!) self": a result with the same letter may share its storage.
  std::string alias;
  bool is_written = false;
};

struct SchemaReturn {
  SchemaType type = SchemaType::kTensor;
  bool is_list = false;
  std::string alias;
};

struct OpSchema {
  std::string name;  // "aten.linear.default"
  std::vector<SchemaParameter> parameters;
  std::vector<SchemaReturn> returns;

  // The parameter that the op writes to; null for a functional op.
  const SchemaParameter* written() const;
};

// Reads one signature as ATen prints it, without the namespace:
// "linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor".
absl::StatusOr<OpSchema> ParseOpSchema(std::string_view text);

// Null if the op is not in the table. `name` is "aten.linear.default".
const OpSchema* FindOpSchema(std::string_view name);

// The op that returns what `schema` writes to its last argument: that of "aten.div.Tensor" for
// "aten.div.out(self, other, out)". Null for an op of another form.
const OpSchema* FindReturningForm(const OpSchema& schema);

// The name without namespace and overload: "aten.linear.default" -> "linear".
std::string_view OpBaseName(std::string_view op);

// Overloads in the table whose name is `op`'s without its overload, for messages.
std::vector<std::string> SimilarOps(std::string_view name);

}  // namespace autosp
