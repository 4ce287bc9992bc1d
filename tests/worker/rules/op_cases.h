// The cases of one row, for the tests of rules: all argument sets, element types and layouts.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "tests/worker/rules/op_case.h"

namespace autosp {

// op_arguments.txt. A failure of the running test where it cannot be read.
const ArgumentSets& AllArguments();
// opaque_arguments.txt, likewise.
const ArgumentSets& OpaqueArguments();

// Of rows that are tried here.
std::vector<std::string> AllOps();

// Several ops by the time there is a program, or as it runs: what those keep and allocate is not
// said of them, and not predicted.
bool IsComposite(std::string_view op);

// All cases of an op that it takes. It must take those of the table as they are, and as bf16: else
// the running test fails.
std::vector<OpCase> CasesOf(const std::string& op);

class OpCasesTest : public testing::TestWithParam<std::string> {
 protected:
  const std::string& op() const { return GetParam(); }
  std::vector<OpCase> cases_ = CasesOf(GetParam());
};

// "aten_mul_Tensor".
std::string OpTestName(const testing::TestParamInfo<std::string>& info);

}  // namespace autosp
