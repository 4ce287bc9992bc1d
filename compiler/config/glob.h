// Shell-like patterns, over names and over files.
#pragma once

#include "absl/strings/string_view.h"

namespace autosp {

// `*` matches any run of characters, '.' and '/' included; `?` one character; `[abc]`, `[a-z]` and
// `[!a]` one of a set. A backslash takes the next character literally. Linear in practice: a `*`
// backtracks only to the last `*`.
bool GlobMatch(absl::string_view pattern, absl::string_view name);

}  // namespace autosp
