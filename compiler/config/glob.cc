#include "compiler/config/glob.h"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <set>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/status_macros.h"

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

// A mistyped pattern such as "/**" must not walk a whole machine.
constexpr int kMaxVisited = 1'000'000;

namespace fs = std::filesystem;

// Collects the files under one folder that the rest of a pattern matches.
class FileWalker {
 public:
  explicit FileWalker(std::vector<std::string> components) : components_(std::move(components)) {}

  absl::Status Walk(const fs::path& folder, size_t component) {
    if (components_[component] == "**") return WalkDeep(folder, component);
    const bool is_last = component + 1 == components_.size();
    ASSIGN_OR_RETURN(const std::vector<fs::directory_entry> entries, List(folder));
    for (const fs::directory_entry& entry : entries) {
      if (!Matches(components_[component], entry.path().filename().string())) continue;
      std::error_code error;
      if (is_last && entry.is_regular_file(error)) found_.insert(entry.path().string());
      if (!is_last && entry.is_directory(error)) {
        RETURN_IF_ERROR(Walk(entry.path(), component + 1));
      }
    }
    return absl::OkStatus();
  }

  std::vector<std::string> Take() && { return {found_.begin(), found_.end()}; }

 private:
  static bool Matches(const std::string& pattern, const std::string& name) {
    if (name[0] == '.' && pattern[0] != '.') return false;
    return GlobMatch(pattern, name);
  }

  absl::Status WalkDeep(const fs::path& folder, size_t component) {
    // A pattern that ends in `**` means every file below.
    if (component + 1 == components_.size()) components_.push_back("*");
    RETURN_IF_ERROR(Walk(folder, component + 1));
    ASSIGN_OR_RETURN(const std::vector<fs::directory_entry> entries, List(folder));
    for (const fs::directory_entry& entry : entries) {
      std::error_code error;
      const bool is_hidden = entry.path().filename().string()[0] == '.';
      if (is_hidden || entry.is_symlink(error) || !entry.is_directory(error)) continue;
      RETURN_IF_ERROR(WalkDeep(entry.path(), component));
    }
    return absl::OkStatus();
  }

  // Nothing for what is missing or no folder: there the pattern matches nothing.
  absl::StatusOr<std::vector<fs::directory_entry>> List(const fs::path& folder) {
    std::vector<fs::directory_entry> entries;
    std::error_code error;
    for (fs::directory_iterator it(folder, error), end; it != end; it.increment(error)) {
      if (error) break;
      if (++num_visited_ > kMaxVisited) {
        return ResourceExhausted("walks over more than ", kMaxVisited,
                                 " files; name a folder further down");
      }
      entries.push_back(*it);
    }
    if (error && error != std::errc::no_such_file_or_directory &&
        error != std::errc::not_a_directory) {
      return ErrnoError(error.value(), "cannot list " + folder.string());
    }
    return entries;
  }

  std::vector<std::string> components_;
  std::set<std::string> found_;
  int num_visited_ = 0;
};

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

bool HasGlob(absl::string_view pattern) {
  return pattern.find_first_of("*?[\\") != absl::string_view::npos;
}

absl::StatusOr<std::vector<std::string>> ExpandFileGlob(const std::string& pattern) {
  if (FileExists(pattern)) return std::vector<std::string>{pattern};
  if (!HasGlob(pattern)) return std::vector<std::string>{};
  // The folders before the first component with a pattern need no listing.
  std::vector<std::string> components = absl::StrSplit(pattern, '/');
  const auto first = std::find_if(components.begin(), components.end(),
                                  [](const std::string& part) { return HasGlob(part); });
  std::string base = absl::StrJoin(components.begin(), first, "/");
  if (base.empty()) base = pattern[0] == '/' ? "/" : ".";
  std::vector<std::string> rest(first, components.end());
  // "a//b" and "a/b/" have empty components, which say nothing.
  rest.erase(std::remove(rest.begin(), rest.end(), ""), rest.end());
  FileWalker walker(std::move(rest));
  RETURN_IF_ERROR(walker.Walk(base, 0));
  return std::move(walker).Take();
}

}  // namespace autosp
