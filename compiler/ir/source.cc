#include "compiler/ir/source.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace autosp {

Source::Source(std::string module, std::string location) {
  if (module.empty() && location.empty()) return;
  text_ = std::make_shared<const Text>(Text{std::move(module), std::move(location)});
}

const Source::Text& Source::text() const {
  static const Text& nothing = *new Text();
  return text_ == nullptr ? nothing : *text_;
}

std::string Source::Where() const {
  return absl::StrCat(module().empty() ? "" : " in ", module(), location().empty() ? "" : " at ",
                      location());
}

bool operator==(const Source& a, const Source& b) {
  return a.text_ == b.text_ || a.text() == b.text();
}

}  // namespace autosp
