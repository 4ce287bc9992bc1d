#include "tests/random_graphs/example_values.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "worker/data/sample_order.h"
#include "worker/executor/torch_types.h"

namespace autosp {
namespace {

constexpr DimRole kB = DimRole::kBatch;
constexpr DimRole kS = DimRole::kSequence;
constexpr DimRole kO = DimRole::kOther;

at::Generator GeneratorOf(uint64_t seed, const std::string& name) {
  uint64_t hash = seed;
  for (const char character : name) hash = HashOf(hash, static_cast<unsigned char>(character));
  return at::make_generator<at::CPUGeneratorImpl>(hash);
}

std::vector<int64_t> SizesOf(const TensorType& type) {
  std::vector<int64_t> sizes;
  for (const SymInt& size : type.sizes) sizes.push_back(size.value);
  return sizes;
}

bool IsSequenceFirst(const std::string& name) { return name.ends_with("_sb"); }

// [B, S]
at::Tensor RowsOf(const std::string& name, int64_t batch, int64_t seq_len, at::Generator random) {
  const auto integers = [&](int64_t limit, std::vector<int64_t> sizes) {
    return at::randint(limit, sizes, random, at::kLong);
  };
  if (name.starts_with("labels")) {
    const at::Tensor labels = integers(kVocabulary, {batch, seq_len});
    // The end of a row has none, as an answer that is shorter has; a few are missing inside.
    const at::Tensor lengths = integers(seq_len, {batch, 1}) + 2;
    const at::Tensor is_missing = at::arange(seq_len).unsqueeze(0) >= lengths;
    // PyTorch's mean over no label at all is no number.
    const at::Tensor is_hole =
        (integers(5, {batch, seq_len}) == 0).logical_and(at::arange(seq_len) != 1);
    return at::where(is_missing.logical_or(is_hole), labels.new_full({}, kIgnoreIndex), labels);
  }
  if (name.starts_with("documents")) return (integers(4, {batch, seq_len}) == 0).cumsum(1);
  if (name.starts_with("mask")) {
    // Every row has a key that may be attended to.
    return (at::arange(seq_len).unsqueeze(0) <= integers(seq_len, {batch, 1})).to(at::kLong);
  }
  return integers(kVocabulary, {batch, seq_len});
}

}  // namespace

InputFeed FeedOf(const GraphInput& input) {
  InputFeed feed;
  if (input.name.starts_with("labels")) feed.source = InputSource::kNextTokens;
  if (input.name.starts_with("documents")) feed.source = InputSource::kZeros;
  if (input.name.starts_with("mask")) feed.source = InputSource::kOnes;
  if (input.name.starts_with("features")) feed = {InputSource::kZeros, {kB, kS, kO}};
  if (IsSequenceFirst(input.name)) std::swap(feed.dims[0], feed.dims[1]);
  return feed;
}

NamedTensors ExampleInputs(const Graph& graph, uint64_t seed) {
  NamedTensors inputs;
  for (const GraphInput& input : graph.inputs) {
    if (input.kind != InputKind::kUser) continue;
    const TensorType& type = graph.type(input.value);
    const std::vector<int64_t> sizes = SizesOf(type);
    const at::Generator random = GeneratorOf(seed, input.name);
    at::Tensor& tensor = inputs[input.name];
    if (IsFloating(type.dtype)) {
      tensor = at::empty(sizes, at::kFloat).normal_(0, 1, random);
    } else if (IsSequenceFirst(input.name)) {
      tensor = RowsOf(input.name, sizes[1], sizes[0], random).t().contiguous();
    } else {
      tensor = RowsOf(input.name, sizes[0], sizes[1], random);
    }
  }
  return inputs;
}

NamedTensors ExampleWeights(const Graph& graph, uint64_t seed) {
  NamedTensors weights;
  for (const GraphInput& input : graph.inputs) {
    if (input.kind == InputKind::kUser) continue;
    const std::vector<int64_t> sizes = SizesOf(graph.type(input.value));
    // Matrices keep the size of what they are applied to; vectors are biases and scales.
    int64_t fan_in = 1;
    for (size_t dim = 1; dim < sizes.size(); ++dim) fan_in *= sizes[dim];
    const bool is_table = input.name.find("embed") != std::string::npos;
    const bool is_vector = sizes.size() < 2;
    const bool is_scale = is_vector && !input.name.ends_with("bias");
    // A table that is the head too must not be sure of every token: a gradient of one less a
    // probability of nearly one is rounding alone.
    double deviation = 1.0 / std::sqrt(static_cast<double>(fan_in));
    if (is_table) deviation *= 1.5;
    if (is_vector) deviation = 0.3;
    weights[input.name] = at::empty(sizes, at::kFloat)
                              .normal_(is_scale ? 1 : 0, deviation, GeneratorOf(seed, input.name));
  }
  return weights;
}

}  // namespace autosp
