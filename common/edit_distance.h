// "Did you mean": the known name nearest to one that is not known.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace autosp {

// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`.
int EditDistance(absl::string_view a, absl::string_view b);

// The candidate nearest to `text`, the first of equals; none when all are too far to be a slip of
// the keyboard (more than a third of the letters, at least one).
std::optional<std::string> NearestName(absl::string_view text,
                                       const std::vector<std::string>& candidates);

// "; did you mean \"seq_len\"?", or "; known are a, b, c" when nothing is near. For the end of an
// error about an unknown name. Candidates are listed in the order given.
std::string SuggestName(absl::string_view text, const std::vector<std::string>& candidates);

}  // namespace autosp
