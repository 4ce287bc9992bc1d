#include "tests/random_graphs/graph_maker.h"

#include <ATen/ops/ones.h>

#include "tests/random_graphs/example_values.h"

namespace autosp {

ValueId GraphMaker::Rows(const std::string& name) {
  return sketch.Input(name, at::ones({sizes.batch, sizes.seq_len}, at::kLong));
}

ValueId GraphMaker::Weight(const std::string& name, const std::vector<int64_t>& sizes) {
  const std::string ending = name.substr(name.rfind('.'));
  std::vector<ValueId> alike;
  for (const Named& weight : weights_) {
    if (weight.sizes == sizes && weight.ending == ending) alike.push_back(weight.value);
  }
  if (!alike.empty() && choices.OneIn(8)) return choices.Of(alike);
  const ValueId value = sketch.Parameter(name, sizes, /*is_trained=*/!choices.OneIn(10));
  weights_.push_back({value, sizes, ending});
  return value;
}

ValueId GraphMaker::Linear(ValueId x, int64_t out, const std::string& name) {
  const int64_t in = sketch.Size(x, sketch.Rank(x) - 1);
  Argument bias = None{};
  if (choices.OneIn(2)) bias = Weight(name + ".bias", {out});
  return sketch.Call("aten.linear.default", {x, Weight(name + ".weight", {out, in}), bias});
}

ValueId GraphMaker::Norm(ValueId x) {
  const int64_t size = sketch.Size(x, sketch.Rank(x) - 1);
  const ValueId weight = Weight("norm.weight", {size});
  switch (choices.Below(3)) {
    case 0:
      return sketch.Call("aten.layer_norm.default",
                         {x, Ints({size}), weight, Weight("norm.bias", {size}), 1e-5, false});
    case 1:
      return sketch.Call("aten.rms_norm.default", {x, Ints({size}), weight, 1e-5});
    default: {
      const ValueId squares = sketch.Call("aten.pow.Tensor_Scalar", {x, Int(2)});
      const ValueId mean = sketch.Call("aten.mean.dim", {squares, Ints({-1}), true});
      const ValueId inverse =
          sketch.Call("aten.rsqrt.default", {sketch.Call("aten.add.Tensor", {mean, 1e-5})});
      return Mul(Mul(x, inverse), weight);
    }
  }
}

}  // namespace autosp
