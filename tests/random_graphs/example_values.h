// What the inputs and parameters of a random graph hold. It follows from their names and types and
// a seed, so that the text of a graph is all that a run needs.
#pragma once

#include <cstdint>

#include "compiler/config/job_spec.h"
#include "compiler/ir/graph.h"
#include "worker/verify/batch_feeder.h"

namespace autosp {

inline constexpr int64_t kVocabulary = 11;  // of ids and labels
inline constexpr int64_t kIgnoreIndex = -100;

// By the name up to the first digit: "ids" [B, S], "labels" [B, S] some of them to be ignored,
// "documents" [B, S] rising, "mask" [B, S] ones before zeros, "features" [B, S, F]; those with
// "_sb" have the sequence first.
InputFeed FeedOf(const GraphInput& input);

NamedTensors ExampleInputs(const Graph& graph, uint64_t seed);
// Sized so that activations stay near one.
NamedTensors ExampleWeights(const Graph& graph, uint64_t seed);

}  // namespace autosp
