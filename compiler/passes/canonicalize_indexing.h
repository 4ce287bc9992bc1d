// The part of canonicalize that deals with ops made of places: each becomes look-ups and
// comparisons of ranges, which have rules.
#pragma once

#include "compiler/passes/canonicalize_losses.h"

namespace autosp {

// By op.
const RewriteTable& IndexingRewrites();
const RewriteTable& WindowRewrites();  // canonicalize_windows.cc

}  // namespace autosp
