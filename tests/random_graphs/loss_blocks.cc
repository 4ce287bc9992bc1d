#include "tests/random_graphs/example_values.h"
#include "tests/random_graphs/graph_maker.h"

namespace autosp {
namespace {

ValueId Logits(GraphMaker& m, ValueId x) {
  return m.Linear(m.choices.OneIn(2) ? m.Norm(x) : x, kVocabulary, "head");
}

ValueId CrossEntropyOf(GraphMaker& m, ValueId logits, ValueId labels) {
  const ValueId rows = m.choices.OneIn(2)
                           ? m.Reshape(logits, {-1, kVocabulary})
                           : m.sketch.Call("aten.flatten.using_ints", {logits, Int(0), Int(1)});
  const ValueId flat = m.Reshape(labels, {-1});
  const double smoothing = m.choices.OneIn(4) ? 0.1 : 0.0;
  return m.sketch.Call(
      "aten.cross_entropy_loss.default",
      {rows, flat, None{}, Int(m.choices.OneIn(4) ? 2 : 1), Int(kIgnoreIndex), smoothing});
}

ValueId CrossEntropy(GraphMaker& m, ValueId x) {
  return CrossEntropyOf(m, Logits(m, x), m.Rows("labels"));
}

// Token t is held against label t + 1.
ValueId ShiftedByPad(GraphMaker& m, ValueId x) {
  const ValueId longer = m.sketch.Call(
      "aten.pad.default",
      {m.Rows("labels"), Ints({0, 1}), std::string("constant"), static_cast<double>(kIgnoreIndex)});
  return CrossEntropyOf(m, Logits(m, x), m.Slice(longer, 1, 1, INT64_MAX));
}

ValueId ShiftedBySlices(GraphMaker& m, ValueId x) {
  const ValueId logits = m.Slice(Logits(m, x), 1, 0, -1);
  return CrossEntropyOf(m, m.sketch.Call("aten.contiguous.default", {logits}),
                        m.Slice(m.Rows("labels"), 1, 1, INT64_MAX));
}

// [B, V, S] against [B, S].
ValueId ClassesSecond(GraphMaker& m, ValueId x) {
  return m.sketch.Call("aten.cross_entropy_loss.default",
                       {m.Transpose(Logits(m, x), 1, 2), m.Rows("labels")});
}

ValueId MaskedTokenLoss(GraphMaker& m, ValueId x) {
  const ValueId flat = m.Reshape(Logits(m, x), {-1, kVocabulary});
  const ValueId each = m.sketch.Call("aten.cross_entropy_loss.default",
                                     {flat, m.Reshape(m.Rows("labels"), {-1}), None{}, Int(0)});
  const ValueId weights = m.Float(m.Reshape(m.Rows("mask"), {-1}));
  const ValueId sum = m.sketch.Call("aten.sum.default", {m.Mul(each, weights)});
  return m.sketch.Call("aten.div.Tensor", {sum, m.sketch.Call("aten.sum.default", {weights})});
}

// The sum of the losses of chunks of tokens, which may end inside of sequences.
ValueId ChunkedLoss(GraphMaker& m, ValueId x) {
  const Argument count = Int(m.choices.Of<int64_t>({2, 3}));
  const ValueId rows = m.Reshape(m.choices.OneIn(2) ? m.Norm(x) : x, {-1, m.sizes.hidden()});
  const std::vector<ValueId> parts = m.sketch.CallForAll("aten.chunk.default", {rows, count});
  const std::vector<ValueId> labels =
      m.sketch.CallForAll("aten.chunk.default", {m.Reshape(m.Rows("labels"), {-1}), count});
  const ValueId head = m.Weight("head.weight", {kVocabulary, m.sizes.hidden()});
  ValueId sum;
  for (size_t i = 0; i < parts.size(); ++i) {
    const ValueId logits = m.sketch.Call("aten.linear.default", {parts[i], head});
    const ValueId loss = m.sketch.Call("aten.cross_entropy_loss.default",
                                       {logits, labels[i], None{}, Int(2), Int(kIgnoreIndex)});
    sum = sum.valid() ? m.Add(sum, loss) : loss;
  }
  return m.Mul(sum, 0.1);
}

ValueId SquaredError(GraphMaker& m, ValueId x) {
  const ValueId guess = m.sketch.Call("aten.squeeze.dim", {m.Linear(x, 1, "guess"), Int(-1)});
  const ValueId target = m.Mul(m.Float(m.Rows("ids")), 0.1);
  return m.sketch.Call(m.choices.Of<std::string>({"aten.mse_loss.default", "aten.l1_loss.default",
                                                  "aten.smooth_l1_loss.default"}),
                       {guess, target});
}

ValueId Mean(GraphMaker& m, ValueId x) {
  const ValueId squares = m.sketch.Call("aten.pow.Tensor_Scalar", {x, Int(2)});
  return m.sketch.Call("aten.mean.default", {squares});
}

// The class of a sequence, from one of its tokens or from all.
ValueId SequenceClass(GraphMaker& m, ValueId x) {
  const ValueId pooled = m.choices.OneIn(2) ? m.sketch.Call("aten.select.int", {x, Int(1), Int(0)})
                                            : m.sketch.Call("aten.mean.dim", {x, Ints({1})});
  const ValueId ids = m.sketch.Call("aten.select.int", {m.Rows("ids"), Int(1), Int(0)});
  return m.sketch.Call("aten.cross_entropy_loss.default", {Logits(m, pooled), ids});
}

// A loss, and one more of all activations.
ValueId WithAuxiliary(GraphMaker& m, ValueId x) {
  return m.Add(CrossEntropy(m, x), m.Mul(Mean(m, x), 0.1));
}

}  // namespace

const std::vector<NamedBlock>& Losses() {
  static const auto& losses = *new std::vector<NamedBlock>{
      {"cross_entropy", CrossEntropy},        {"shifted_by_pad", ShiftedByPad},
      {"shifted_by_slices", ShiftedBySlices}, {"classes_second", ClassesSecond},
      {"masked_token_loss", MaskedTokenLoss}, {"chunked_loss", ChunkedLoss},
      {"squared_error", SquaredError},        {"mean", Mean},
      {"sequence_class", SequenceClass},      {"with_auxiliary", WithAuxiliary},
  };
  return losses;
}

}  // namespace autosp
