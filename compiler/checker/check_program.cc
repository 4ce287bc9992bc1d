#include "compiler/checker/check_program.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/checker/interpreter.h"
#include "compiler/checker/lifetimes.h"

namespace autosp {
namespace {

// What is kept must be the same, under the same names, from the same beginnings.
absl::Status ComparePersistents(const Program& program, const Program& one_device) {
  // A model may have a buffer that is called as a number of the step is.
  const auto key_of = [](const Persistent& each) {
    return std::pair(each.kind == PersistentKind::kScalar, each.name);
  };
  std::map<std::pair<bool, std::string>, const Persistent*> expected;
  for (const Persistent& each : one_device.persistents) expected[key_of(each)] = &each;
  if (program.persistents.size() != one_device.persistents.size()) {
    return FailedPrecondition("the program keeps ", program.persistents.size(),
                              " values, the one-device program ", one_device.persistents.size());
  }
  for (const Persistent& each : program.persistents) {
    const auto found = expected.find(key_of(each));
    const bool same =
        found != expected.end() && found->second->kind == each.kind &&
        found->second->init == each.init && found->second->init_from == each.init_from &&
        found->second->aliases == each.aliases &&
        one_device.value(found->second->value).dtype == program.value(each.value).dtype;
    if (!same) {
      return FailedPrecondition("%", program.value(each.value).name, " (", each.name,
                                ") is not what the one-device program keeps by that name");
    }
  }
  return absl::OkStatus();
}

using Results = std::map<std::string, checker::Tensor>;

// Of all that is known of its values, these are what is kept.
absl::StatusOr<Results> ResultsOf(const Program& one_device, checker::ExpressionTable& table) {
  checker::Interpreter interpreter(one_device, table);
  RETURN_IF_ERROR(WithContext(interpreter.Run(), "one-device program"));
  return interpreter.results();
}

absl::Status CompareResults(const checker::Interpreter& actual, const Results& expected,
                            const checker::ExpressionTable& table) {
  for (const auto& [name, meaning] : expected) {
    const auto found = actual.results().find(name);
    if (found == actual.results().end()) {
      return FailedPrecondition(name, " is missing: the one-device program has it");
    }
    if (found->second == meaning) continue;
    return FailedPrecondition(name, " differs from the one-device program: it is ",
                              table.Describe(found->second), " and should be ",
                              table.Describe(meaning));
  }
  if (actual.results().size() == expected.size()) return absl::OkStatus();
  return FailedPrecondition("the program has outputs that the one-device program has not");
}

}  // namespace

absl::Status CheckProgram(const Program& program) {
  RETURN_IF_ERROR(checker::CheckLifetimes(program));
  checker::ExpressionTable table;
  return checker::Interpreter(program, table).Run();
}

absl::StatusOr<Proof> CheckEquivalent(const Program& program, const Program& one_device) {
  if (!(one_device.mesh == Mesh{})) {
    return InvalidArgument("the one-device program must be for one rank and one micro-step");
  }
  RETURN_IF_ERROR(checker::CheckLifetimes(program));
  RETURN_IF_ERROR(ComparePersistents(program, one_device));
  checker::ExpressionTable table;
  ASSIGN_OR_RETURN(const Results expected, ResultsOf(one_device, table));
  checker::Interpreter actual(program, table);
  RETURN_IF_ERROR(actual.Run());
  RETURN_IF_ERROR(CompareResults(actual, expected, table));
  return Proof{.num_values = actual.num_values(),
               .num_collectives = actual.num_collectives(),
               .num_results = static_cast<int64_t>(actual.results().size())};
}

}  // namespace autosp
