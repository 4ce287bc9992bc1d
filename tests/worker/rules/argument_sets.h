// Reads op_arguments.txt: for each op, the arguments that its rule is tried on.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/ir/graph.h"

namespace autosp {

// What the elements of an operand may be.
enum class ValueRange : uint8_t { kAny, kPositive, kIndex };

struct OperandSpec {
  TensorType type;
  ValueRange range = ValueRange::kAny;
  int64_t below = 0;  // kIndex
};

// One line. Operands have the ids 0, 1, ... in `args`.
struct ArgumentSet {
  std::string op;
  std::string text;
  std::vector<Argument> args;
  std::vector<OperandSpec> operands;
};

// By op. Errors name the line.
using ArgumentSets = std::map<std::string, std::vector<ArgumentSet>, std::less<>>;
absl::StatusOr<ArgumentSets> ReadArgumentSets(std::string_view text);

}  // namespace autosp
