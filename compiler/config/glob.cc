#include "compiler/config/glob.h"

#include <cstddef>

namespace autosp {
namespace {

// One element of a pattern other than `*`: how much of it was used, and whether it takes `c`.
struct ElementMatch {
  size_t pattern_chars;
  bool matches;
};

// A set that has no end is an ordinary '['.
ElementMatch MatchSet(absl::string_view pattern, char c) {
  size_t i = 1;
  const bool is_negated = i < pattern.size() && (pattern[i] == '!' || pattern[i] == '^');
  if (is_negated) ++i;
  const size_t first = i;
  bool is_in_set = false;
  for (; i < pattern.size() && (pattern[i] != ']' || i == first); ++i) {
    if (i + 2 < pattern.size() && pattern[i + 1] == '-' && pattern[i + 2] != ']') {
      is_in_set = is_in_set || (pattern[i] <= c && c <= pattern[i + 2]);
      i += 2;
    } else {
      is_in_set = is_in_set || pattern[i] == c;
    }
  }
  if (i >= pattern.size()) return {1, c == '['};
  return {i + 1, is_in_set != is_negated};
}

ElementMatch MatchElement(absl::string_view pattern, char c) {
  switch (pattern[0]) {
    case '?':
      return {1, true};
    case '[':
      return MatchSet(pattern, c);
    case '\\':
      if (pattern.size() > 1) return {2, pattern[1] == c};
      return {1, c == '\\'};
    default:
      return {1, pattern[0] == c};
  }
}

}  // namespace

bool GlobMatch(absl::string_view pattern, absl::string_view name) {
  // Where the last `*` was, and how far it has been stretched so far.
  size_t star = absl::string_view::npos;
  size_t star_name = 0;
  size_t p = 0;
  size_t n = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_name = n;
      continue;
    }
    if (p < pattern.size()) {
      const ElementMatch element = MatchElement(pattern.substr(p), name[n]);
      if (element.matches) {
        p += element.pattern_chars;
        ++n;
        continue;
      }
    }
    if (star == absl::string_view::npos) return false;
    p = star + 1;
    n = ++star_name;
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace autosp
