#include "compiler/checker/layout_table.h"

namespace autosp::checker {

LayoutId LayoutTable::Of(const IndexLayout& layout) {
  const auto [found, is_new] =
      ids_.try_emplace(layout, LayoutId{static_cast<int32_t>(layouts_.size())});
  if (is_new) layouts_.push_back(layout);
  return found->second;
}

}  // namespace autosp::checker
