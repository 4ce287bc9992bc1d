#include "compiler/passes/size_forms.h"

#include <cmath>
#include <numbers>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace autosp {
namespace {

using Form = std::pair<double, std::string>;

// The value itself, or its inverse.
std::optional<std::string> Match(double value, const std::vector<Form>& forms) {
  for (const auto& [number, words] : forms) {
    if (IsNear(value, number)) return words;
    if (!IsNear(value, 1 / number)) continue;
    return words.find(' ') == std::string::npos ? absl::StrCat("1 / ", words)
                                                : absl::StrCat("1 / (", words, ")");
  }
  return std::nullopt;
}

bool IsPowerOfTen(double value) {
  const double exponent = std::log10(value);
  return std::abs(exponent - std::round(exponent)) < 1e-9;
}

}  // namespace

bool IsNear(double a, double b) { return std::abs(a - b) <= 1e-9 * std::abs(b); }

bool IsRound(double value) { return IsNear(value, 0.25) || IsNear(value, 4) || IsPlain(value); }

bool IsPlain(double value) { return IsNear(value, 0.5) || IsNear(value, 2) || IsPowerOfTen(value); }

std::optional<std::string> FormOf(double value, int64_t size) {
  const auto n = static_cast<double>(size);
  std::vector<Form> forms = {{n, absl::StrCat(size)},
                             {std::sqrt(n), absl::StrCat("sqrt(", size, ")")}};
  if (size >= 8) forms.emplace_back(std::log(n), absl::StrCat("log(", size, ")"));
  if (size >= 8) forms.emplace_back(n / (n - 1), absl::StrCat(size, " / ", size - 1));
  // Of a power of two it is a whole number, which may be anything.
  if (const double log = std::log2(n); size >= 8 && log != std::floor(log)) {
    forms.emplace_back(log, absl::StrCat("log2(", size, ")"));
  }
  return Match(value, forms);
}

std::optional<std::string> WideFormOf(double value, int64_t size) {
  const auto n = static_cast<double>(size);
  std::vector<Form> forms = {{n, absl::StrCat(size)}, {n - 1, absl::StrCat(size, " - 1")}};
  if (size < 2) return std::nullopt;
  if (size < 4) return Match(value, forms);
  forms.emplace_back(std::floor(n / 2), absl::StrCat(size, " // 2"));
  forms.emplace_back(n + 1, absl::StrCat(size, " + 1"));
  forms.emplace_back(n * (n - 1) / 2, absl::StrCat(size, " * ", size - 1, " / 2"));
  forms.emplace_back(n * (n - 1), absl::StrCat(size, " * ", size - 1));
  forms.emplace_back(n * (n + 1) / 2, absl::StrCat(size, " * ", size + 1, " / 2"));
  forms.emplace_back(n * n, absl::StrCat(size, " * ", size));
  if (const std::optional<std::string> form = Match(value, forms)) return form;
  forms.clear();
  for (const int64_t count : {size, size - 1}) {
    const auto number = static_cast<double>(count);
    forms.emplace_back(number / 2, absl::StrCat(count, " / 2"));
    forms.emplace_back(number / std::numbers::pi, absl::StrCat(count, " / pi"));
    forms.emplace_back(number / (2 * std::numbers::pi), absl::StrCat(count, " / (2 * pi)"));
    forms.emplace_back(2 * number / std::numbers::pi, absl::StrCat("2 * ", count, " / pi"));
  }
  if (const std::optional<std::string> form = Match(value, forms)) return form;
  return FormOf(value, size);
}

bool IsOfOrder(double value, int64_t size) {
  const double number = std::abs(value);
  if (size < 8 || number != std::floor(number) || number < 3) return false;
  return 8 * number >= static_cast<double>(size) && number <= 4 * static_cast<double>(size);
}

}  // namespace autosp
