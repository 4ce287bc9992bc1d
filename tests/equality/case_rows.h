// The cases that the compiler must get right, each a row: what shows it, and how it ends. From this
// list docs/cases.md is made, and a test holds it to the tests that it names.
#pragma once

#include <string>
#include <vector>

namespace autosp {

enum class CaseOutcome { kEqual, kRefused };

// A test that shows a row besides the cases: TEST(suite, name) in a .cc, `def name` in a .py.
struct NamedTest {
  std::string file;  // under tests/
  std::string suite;
  std::string name;
  std::string shows;
};

struct CaseRow {
  int number;
  std::string what;
  CaseOutcome outcome;
  std::vector<std::string> cases = {};  // folders of tests/zoo/cases
  std::vector<NamedTest> tests = {};
  std::vector<std::string> refused = {};  // archives under tests/, each refused by name
  std::vector<std::string> warned = {};   // archives whose plan is another program, with a warning
  std::string open = "";                  // what of the row is not shown or not there, a sentence
};

inline constexpr int kNumCaseRows = 39;

// In the order of their numbers.
const std::vector<CaseRow>& CaseRows();

}  // namespace autosp
