#include "compiler/ir/size_guard.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/common/status_matchers.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;

// x is [s0, s1, 16], and batch.ids is [s0, 2 * s1].
std::optional<SymInt> SizeOf(const std::vector<std::string>& path, int64_t dim) {
  if (dim == SizeGuard::kSymbol) {
    return path[0] == "s1" ? std::optional(SymInt(0, SymExpr::Symbol("s1"))) : std::nullopt;
  }
  if (path == std::vector<std::string>{"x"}) {
    if (dim == 2) return SymInt(16);
    return SymInt(0, SymExpr::Symbol(absl::StrCat("s", dim)));
  }
  if (path == std::vector<std::string>{"batch", "ids"} && dim == 1) {
    return SymInt(0, *SymExpr::Parse("2*s1"));
  }
  if (path == std::vector<std::string>{"flat_args", "0"}) return SymInt(5);
  return std::nullopt;
}

absl::StatusOr<bool> Holds(std::string_view text, int64_t s0 = 4, int64_t s1 = 48) {
  return SizeGuard::Parse(text, SizeOf).Holds({{"s0", s0}, {"s1", s1}});
}

// As Python computes them.
TEST(SizeGuardTest, ComputesAsPythonDoes) {
  for (const char* text : {
           "L['x'].size()[0] == 4",
           "(L['x'].size()[1] % 2) == 0",
           "L['batch']['ids'].size()[1] == 2*L['x'].size()[1]",
           "L['flat_args'][0].size()[0] == 5",
           "math.trunc(0.25*torch.sym_float(L['x'].size()[1])) == 12",
           "math.trunc(torch.sym_float(L['x'].size()[1]) ** 0.5) == 6",
           "math.ceil((((-1)*torch.sym_float(L['x'].size()[1])) / (-1.0))) == 48",
           "(((-1)*L['x'].size()[1]) % 8) <= 0",
           "(-7) // 2 == -4 and 7 // (-2) == -4 and (-7) % 3 == 2 and 7 % (-3) == -2",
           "-7.5 // 2 == -4.0 and -7.5 % 2 == 0.5",
           "7 / 2 == 3.5 and 2 ** 10 == 1024 and -2 ** 2 == -4 and 2 ** -1 == 0.5",
           "1 + 2 * 3 == 7 and (1 + 2) * 3 == 9 and 8 - 3 - 2 == 3 and 2 ** 3 ** 2 == 512",
           "1 < 2 < 3 and not 1 < 3 < 2",
           "torch.sym_max(1, L['x'].size()[0] // 8) == 1 and torch.sym_min(3, 2.5) == 2.5",
           "L['x'].size()[2] == 1 or L['x'].size()[0]*L['x'].size()[2] == 64",
           "L['x'].size()[0] == 4 or 1 // 0 == 1",
           "not (L['x'].size()[0] != 4 and 1 // 0 == 1)",
           "torch.sym_ite(1 < 2, 3, 4) == 3 and abs(-3) == 3 and abs(-2.5) == 2.5",
           "L['batch'].ids.size()[1] == 2*L['x'].size()[1]",
           "(L['x'].size()[0] & (-1) + L['x'].size()[0]) == 0 and 6 & 3 != 3 and -1 & 6 == 6",
           "6 | 3 ^ 1 & 3 == 6 | (3 ^ (1 & 3)) and 1 << 2 + 1 == 8 and -9 >> 1 == -5",
           "5 >> 100 == 0 and 0 < 1 << 62",
           "0 ** 0 == 1 and (-1) ** 1000000007 == -1 and 1 ** 9000000000000000000 == 1",
       }) {
    EXPECT_THAT(Holds(text), IsOkAndHolds(true)) << text;
    EXPECT_THAT(Holds(absl::StrCat("not (", text, ")")), IsOkAndHolds(false)) << text;
  }
}

// As assertions in a graph have them.
TEST(SizeGuardTest, ReadsSrepr) {
  const std::string s1 = "Symbol('s1', positive=True, integer=True)";
  for (const std::string& text : {
           absl::StrCat("Equality(Mod(", s1, ", Integer(3)), Integer(0))"),
           absl::StrCat("Unequality(Add(", s1, ", Integer(1), Integer(-1)), Integer(47))"),
           absl::StrCat("And(LessThan(", s1, ", Integer(48)), GreaterThan(", s1, ", Integer(48)))"),
           absl::StrCat("Or(StrictLessThan(", s1, ", Integer(48)), StrictGreaterThan(Mul(", s1,
                        ", Integer(2)), Integer(95)))"),
           absl::StrCat("Equality(BitwiseFn_bitwise_and(", s1, ", Integer(31)), Integer(16))"),
           absl::StrCat("Not(Equality(FloorDiv(", s1,
                        ", Integer(5)), Max(Integer(8), Integer(7))))"),
       }) {
    EXPECT_THAT(Holds(text), IsOkAndHolds(true)) << text;
  }
  const SizeGuard guard =
      SizeGuard::Parse(absl::StrCat("Equality(Mod(", s1, ", Integer(3)), Integer(0))"), SizeOf);
  EXPECT_THAT(guard.Holds({{"s1", 64}}), IsOkAndHolds(false));
  EXPECT_EQ(guard.ToString(), "Equality(Mod(s1, Integer(3)), Integer(0))");
  EXPECT_EQ(guard.SizesToString({{"s1", 64}}), "s1 is 64");
  EXPECT_THAT(Holds("Equality(Symbol('u0'), Integer(0))").status().message(),
              HasSubstr("u0 is of no input"));
}

TEST(SizeGuardTest, FollowsTheSizes) {
  EXPECT_THAT(Holds("(L['x'].size()[1] % 2) == 0", 4, 37), IsOkAndHolds(false));
  EXPECT_THAT(Holds("math.trunc(0.1*torch.sym_float(L['x'].size()[1])) == 4", 4, 64),
              IsOkAndHolds(false));
  const SizeGuard guard = SizeGuard::Parse("L['x'].size()[1] == 96", SizeOf)
                              .Substitute({{"s1", *SymExpr::Parse("3*n")}});
  EXPECT_THAT(guard.Holds({{"n", 32}}), IsOkAndHolds(true));
  EXPECT_THAT(guard.Holds({{"n", 31}}), IsOkAndHolds(false));
}

TEST(SizeGuardTest, SaysWhatItIsAbout) {
  const SizeGuard guard =
      SizeGuard::Parse("(L['batch']['ids'].size()[1] % L['x'].size()[2]) == 0", SizeOf);
  EXPECT_EQ(guard.ToString(), "(batch.ids.shape[1] % x.shape[2]) == 0");
  EXPECT_EQ(guard.SizesToString({{"s1", 37}}), "batch.ids.shape[1] is 74, x.shape[2] is 16");
  EXPECT_EQ(SizeGuard::Parse("L['ids'][0].size()[1] < 8", SizeOf).ToString(),
            "ids[0].shape[1] < 8");
  EXPECT_EQ(SizeGuard::Parse("L['text'].a.ids.size()[1] < 8", SizeOf).ToString(),
            "text.a.ids.shape[1] < 8");
  EXPECT_EQ(SizeGuard::Parse(std::string(1000, '1'), SizeOf).ToString().size(), 203u);
}

TEST(SizeGuardTest, SaysWhatItCannotRead) {
  const std::string deep(5000, '(');
  const std::string many = absl::StrCat(std::string(300, '('), "1", std::string(300, ')'));
  for (const auto& [text, message] : std::vector<std::pair<std::string, std::string>>{
           {"", "expected"},
           {"L['y'].size()[0] == 1", "L['y'].size()[0] is of no input"},
           {"L['x'].stride()[0] == 1", "expected '['"},
           {"L['batch'].", "expected a name"},
           {"L['batch'].y.size()[0] == 1", "L['batch'].y.size()[0] is of no input"},
           {"1.5 & 1 == 1", "bits of a number with a fraction"},
           {"1 << -1 == 1", "shifts by a negative number"},
           {"1 << 63 > 0", "past 64 bits"},
           {"3 << 62 > 0", "past 64 bits"},
           {"L['x'].size()[0", "expected ']'"},
           {"L['x", "expected ']'"},
           {"1 < 2 3", "expected the end of the relation"},
           {"os.system(1)", "function os.system of 1 operands is not known"},
           {"1 == 1 // 0", "divides by zero"},
           {"1 == 1.5 / 0", "divides by zero"},
           {"0 ** -1 == 1", "divides by zero"},
           {"9223372036854775807 + 1 > 0", "past 64 bits"},
           {"(-9223372036854775807 - 1) // -1 > 0", "past 64 bits"},
           {"2 ** 64 > 0", "past 64 bits"},
           {"int(1e300) > 0", "past 64 bits"},
           {"int(1e300 * 1e300 * 0) > 0", "past 64 bits"},
           {deep, "at most 4096 are read"},
           {many, "nests too deeply"},
           {std::string(4000, '-'), "nests too deeply"},
       }) {
    EXPECT_THAT(Holds(text).status().message(), HasSubstr(message)) << text.substr(0, 60);
    EXPECT_FALSE(Holds(text).ok()) << text.substr(0, 60);
  }
}

}  // namespace
}  // namespace autosp
