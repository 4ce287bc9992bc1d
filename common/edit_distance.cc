#include "common/edit_distance.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace autosp {

int EditDistance(absl::string_view a, absl::string_view b) {
  // Three rows of the usual table: swaps of neighbours look two rows back.
  std::vector<int> before(b.size() + 1);
  std::vector<int> above(b.size() + 1);
  std::vector<int> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    before.swap(above);
    above.swap(row);
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int substitution = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, substitution});
      const bool is_swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (is_swap) row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row[b.size()];
}

std::optional<std::string> NearestName(absl::string_view text,
                                       const std::vector<std::string>& candidates) {
  const std::string lower = absl::AsciiStrToLower(text);
  std::optional<std::string> nearest;
  int limit = std::max<int>(1, static_cast<int>(text.size()) / 3);
  for (const std::string& candidate : candidates) {
    const int distance = EditDistance(lower, absl::AsciiStrToLower(candidate));
    if (distance > limit) continue;
    nearest = candidate;
    limit = distance - 1;  // Only a nearer one replaces it.
  }
  return nearest;
}

std::string SuggestName(absl::string_view text, const std::vector<std::string>& candidates) {
  if (const auto nearest = NearestName(text, candidates)) {
    return absl::StrCat("; did you mean \"", *nearest, "\"?");
  }
  return candidates.empty() ? "" : absl::StrCat("; known are ", absl::StrJoin(candidates, ", "));
}

}  // namespace autosp
