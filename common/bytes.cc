#include "common/bytes.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

struct Unit {
  absl::string_view name;
  int64_t bytes;
};
constexpr Unit kBinaryUnits[] = {
    {"PiB", int64_t{1} << 50}, {"TiB", int64_t{1} << 40}, {"GiB", int64_t{1} << 30},
    {"MiB", int64_t{1} << 20}, {"KiB", int64_t{1} << 10}, {"B", 1},
};
constexpr Unit kDecimalUnits[] = {
    {"PB", 1'000'000'000'000'000},
    {"TB", 1'000'000'000'000},
    {"GB", 1'000'000'000},
    {"MB", 1'000'000},
    {"kB", 1'000},
    {"KB", 1'000},
};

absl::Status BadBytes(absl::string_view text, absl::string_view rule) {
  return InvalidArgument("\"", text, "\" is not an amount of bytes: ", rule,
                         "; write for example 16GiB, 1.5 MB or 4096");
}

absl::StatusOr<int64_t> FindUnit(absl::string_view text, absl::string_view name) {
  if (name.empty()) return 1;
  for (const Unit& unit : kBinaryUnits) {
    if (unit.name == name) return unit.bytes;
  }
  for (const Unit& unit : kDecimalUnits) {
    if (unit.name == name) return unit.bytes;
  }
  return BadBytes(text, absl::StrCat("unknown unit \"", name, "\""));
}

}  // namespace

absl::StatusOr<int64_t> ParseBytes(absl::string_view text) {
  const absl::string_view trimmed = absl::StripAsciiWhitespace(text);
  const size_t unit_begin = std::min(trimmed.find_first_not_of("0123456789."), trimmed.size());
  const absl::string_view number = trimmed.substr(0, unit_begin);
  const absl::string_view name = absl::StripLeadingAsciiWhitespace(trimmed.substr(unit_begin));

  const size_t point = std::min(number.find('.'), number.size());
  const absl::string_view fraction = number.substr(std::min(point + 1, number.size()));
  const std::string digits = absl::StrCat(number.substr(0, point), fraction);
  int64_t value = 0;
  if (point == 0 || (point < number.size() && fraction.empty()) ||
      fraction.find('.') != absl::string_view::npos) {
    return BadBytes(text, "it does not start with a number");
  }
  // Leading zeros cost no value but make the scale of a fraction.
  constexpr size_t kMaxDigits = 19;
  if (digits.size() > kMaxDigits || !absl::SimpleAtoi(digits, &value)) {
    return BadBytes(text, "it has too many digits");
  }

  ASSIGN_OR_RETURN(const int64_t unit, FindUnit(text, name));
  // With at most 19 digits neither product comes near 128 bits.
  __int128 scale = 1;
  for (size_t i = 0; i < fraction.size(); ++i) scale *= 10;
  const __int128 bytes = (static_cast<__int128>(value) * unit + scale / 2) / scale;
  if (bytes > std::numeric_limits<int64_t>::max()) return BadBytes(text, "it is above 8 EiB");
  return static_cast<int64_t>(bytes);
}

std::string FormatBytes(int64_t bytes) {
  const double magnitude = std::abs(static_cast<double>(bytes));
  for (const Unit& unit : kBinaryUnits) {
    if (unit.bytes == 1 || magnitude < static_cast<double>(unit.bytes)) continue;
    const double value = static_cast<double>(bytes) / static_cast<double>(unit.bytes);
    const int decimals = std::abs(value) < 9.995 ? 2 : std::abs(value) < 99.95 ? 1 : 0;
    return absl::StrFormat("%.*f %s", decimals, value, unit.name);
  }
  return absl::StrCat(bytes, " B");
}

std::string FormatBytesExactly(int64_t bytes) {
  if (bytes == 0) return "0B";
  const Unit* largest = nullptr;
  const auto consider = [&](const Unit& unit) {
    const bool is_larger = largest == nullptr || unit.bytes > largest->bytes;
    if (is_larger && bytes % unit.bytes == 0) largest = &unit;
  };
  for (const Unit& unit : kBinaryUnits) consider(unit);
  for (const Unit& unit : kDecimalUnits) consider(unit);
  return absl::StrCat(bytes / largest->bytes, largest->name);
}

}  // namespace autosp
