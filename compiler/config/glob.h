// Shell-like patterns, over names and over files.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace autosp {

// `*` matches any run of characters, '.' and '/' included; `?` one character; `[abc]`, `[a-z]` and
// `[!a]` one of a set. A backslash takes the next character literally. The work is at most the
// product of the two lengths.
bool GlobMatch(absl::string_view pattern, absl::string_view name);

// Whether `pattern` has any of the above.
bool HasGlob(absl::string_view pattern);

// The regular files that `pattern` matches, sorted. Here `*`, `?` and sets stay inside one path
// component, and a component `**` stands for any number of folders, none included. Names that begin
// with a dot are matched only by a pattern that does too; links to folders are not followed by
// `**`. A pattern that is the name of an existing file is that file, whatever characters it has.
absl::StatusOr<std::vector<std::string>> ExpandFileGlob(const std::string& pattern);

}  // namespace autosp
