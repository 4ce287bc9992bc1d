#include "tests/worker/rules/argument_sets.h"

#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/argument_text.h"
#include "compiler/ir/text_cursor.h"
#include "compiler/ir/type_text.h"

namespace autosp {
namespace {

// `>0` or `<7` behind a type.
absl::Status ReadRange(TextCursor& cursor, OperandSpec* operand) {
  if (cursor.ConsumeText(">0")) {
    operand->range = ValueRange::kPositive;
  } else if (cursor.Consume('<')) {
    operand->range = ValueRange::kIndex;
    ASSIGN_OR_RETURN(operand->below, cursor.Integer());
  }
  return absl::OkStatus();
}

// Takes the types out of a line, and leaves %0, %1, ... in their places.
absl::StatusOr<std::string> TakeOperands(const std::string& line,
                                         std::vector<OperandSpec>* operands) {
  std::string rest;
  for (size_t i = 0; i < line.size();) {
    size_t end = i;
    while (end < line.size() && absl::ascii_isalnum(line[end])) ++end;
    const std::string word = line.substr(i, end - i);
    const bool is_type = end < line.size() && line[end] == '[' && DTypeFromName(word).has_value();
    if (!is_type) {
      end = std::max(end, i + 1);
      rest += line.substr(i, end - i);
      i = end;
      continue;
    }
    const std::string from_here = line.substr(i);
    TextCursor cursor(from_here);
    OperandSpec operand;
    ASSIGN_OR_RETURN(operand.type, ParseTensorType(cursor));
    RETURN_IF_ERROR(ReadRange(cursor, &operand));
    absl::StrAppend(&rest, "%", operands->size());
    operands->push_back(std::move(operand));
    i = cursor.AtEnd() ? line.size() : i + cursor.position();
  }
  return rest;
}

absl::StatusOr<ValueId> OperandByNumber(std::string_view name) {
  ValueId id;
  if (!absl::SimpleAtoi(Absl(name), &id.index)) return InvalidArgument("an operand is a type");
  return id;
}

absl::StatusOr<ArgumentSet> ReadArguments(const std::string& text) {
  ArgumentSet set{.op = {}, .text = text, .args = {}, .operands = {}};
  ASSIGN_OR_RETURN(const std::string arguments, TakeOperands(text, &set.operands));
  TextCursor cursor(arguments);
  while (!cursor.AtEnd()) {
    if (!set.args.empty()) RETURN_IF_ERROR(cursor.Expect(','));
    ASSIGN_OR_RETURN(Argument argument, ParseArgument(cursor, OperandByNumber));
    set.args.push_back(std::move(argument));
  }
  return set;
}

absl::Status ReadLine(const std::string& line, ArgumentSets* sets) {
  const std::pair<std::string, std::string> sides = absl::StrSplit(line, absl::MaxSplits(" : ", 1));
  if (sides.second.empty()) return InvalidArgument("expected OP [OP ...] : ARGUMENTS");
  ASSIGN_OR_RETURN(ArgumentSet set, ReadArguments(sides.second));
  for (absl::string_view op : absl::StrSplit(sides.first, ' ', absl::SkipEmpty())) {
    set.op = std::string(op);
    (*sets)[set.op].push_back(set);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ArgumentSets> ReadArgumentSets(std::string_view text) {
  ArgumentSets sets;
  int line_number = 0;
  for (absl::string_view line : absl::StrSplit(Absl(text), '\n')) {
    ++line_number;
    if (line.empty() || line[0] == '#') continue;
    RETURN_IF_ERROR(WithContext(ReadLine(std::string(line), &sets), "line ", line_number));
  }
  return sets;
}

}  // namespace autosp
