#include "compiler/config/key_reference.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "compiler/config/config_keys.h"

namespace autosp {
namespace {

// "training.optimizer.lr" is of section "training".
std::string SectionOf(const std::string& path) {
  const size_t dot = path.find_first_of(".[");
  return dot == std::string::npos ? "" : path.substr(0, dot);
}

std::string Cell(const std::string& text) { return absl::StrReplaceAll(text, {{"|", "\\|"}}); }

std::string TableOf(const std::vector<KeyInfo>& infos) {
  std::string text;
  std::string section = "-";  // no section is called so
  for (const KeyInfo& info : infos) {
    if (SectionOf(info.path) != section) {
      section = SectionOf(info.path);
      absl::StrAppend(&text, text.empty() ? "" : "\n", "### ",
                      section.empty() ? "top level" : section,
                      "\n\n| key | value | default | meaning |\n|---|---|---|---|\n");
    }
    std::string default_text = info.default_text;
    if (!default_text.empty() && default_text != "required") {
      default_text = absl::StrCat("`", default_text, "`");
    }
    absl::StrAppend(&text, "| `", info.path, "` | ", Cell(info.type), " | ", Cell(default_text),
                    " | ", Cell(info.doc), " |\n");
  }
  return text;
}

}  // namespace

std::string JobKeyReference() { return TableOf(JobKeys().Describe()); }

std::string ClusterKeyReference() { return TableOf(ClusterKeys().Describe()); }

}  // namespace autosp
