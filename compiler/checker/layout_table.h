// Layouts by number: a proof meets few of them, and compares and copies them for every term.
#pragma once

#include <cstdint>
#include <deque>

#include "absl/container/flat_hash_map.h"
#include "compiler/checker/index_layout.h"

namespace autosp::checker {

struct LayoutId {
  int32_t index = -1;
  friend auto operator<=>(LayoutId, LayoutId) = default;
};

// Numbers are given in the order in which layouts are met. Not safe for several threads.
class LayoutTable {
 public:
  // Equal layouts have equal numbers.
  LayoutId Of(const IndexLayout& layout);
  const IndexLayout& at(LayoutId id) const { return layouts_[id.index]; }

 private:
  std::deque<IndexLayout> layouts_;  // what `at` returned stays where it is
  absl::flat_hash_map<IndexLayout, LayoutId> ids_;
};

}  // namespace autosp::checker
