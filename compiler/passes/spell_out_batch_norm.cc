#include "compiler/passes/spell_out_batch_norm.h"

#include <algorithm>
#include <utility>

#include "compiler/import/running_statistics.h"
#include "compiler/ir/argument_access.h"

namespace autosp {
namespace {

constexpr std::string_view kBatchNorm = "aten.batch_norm.default";

// (input, weight, bias, running_mean, running_var, training, momentum, eps, ...) of
// x [N, C, places...]
class BatchNormSpeller {
 public:
  BatchNormSpeller(GraphRewriter& rewriter, const Node& node) : rewriter_(rewriter), node_(node) {
    const TensorType& type = graph().type(Tensor(0));
    full_ = ContiguousOf(type.dtype == DType::kF64 ? DType::kF64 : DType::kF32, type.sizes);
    of_channels_ = full_;
    for (int64_t dim = 0; dim < full_.rank(); ++dim) {
      if (dim == 1) continue;
      of_channels_.sizes[dim] = SymInt(1);
      dims_.emplace_back(dim);
      num_averaged_ *= full_.sizes[dim].value;
    }
    of_channels_ = Contiguous(of_channels_);
  }

  bool IsOfBatch() const { return FlagArgument(node_.args, 5).value_or(false); }
  // Of one number there is no variance.
  bool HasVariance() const { return num_averaged_ > 1; }

  bool IsOverRoots(const GraphFactors& factors) const {
    const FactorDims dims = factors.Of(Tensor(0));
    return std::ranges::any_of(dims_, [&](const SymInt& dim) {
      return std::ranges::any_of(
          dims[dim.value], [&](FactorVar factor) { return factors.table.IsPartOfRoot(factor); });
    });
  }

  void Replace() {
    const ValueId x = CastTo(node_, Tensor(0), full_.dtype, rewriter_);
    const bool is_of_batch = IsOfBatch();
    const ValueId mean = is_of_batch ? MeanOf(x) : OfChannels(Tensor(3));
    const ValueId centered = Op("aten.sub.Tensor", {x, mean, SymInt(1)}, full_);
    const ValueId variance =
        is_of_batch ? MeanOf(Op("aten.square.default", {centered}, full_)) : OfChannels(Tensor(4));
    const double eps = NumberArgument(node_.args, 7).value_or(0);
    const ValueId scale =
        Op("aten.rsqrt.default", {Op("aten.add.Tensor", {variance, eps, SymInt(1)}, of_channels_)},
           of_channels_);
    ValueId result = Op("aten.mul.Tensor", {centered, scale}, full_);
    if (Tensor(1).valid()) result = Op("aten.mul.Tensor", {result, OfChannels(Tensor(1))}, full_);
    if (Tensor(2).valid()) {
      result = Op("aten.add.Tensor", {result, OfChannels(Tensor(2)), SymInt(1)}, full_);
    }
    rewriter_.Replace(node_.outputs[0],
                      CastTo(node_, result, graph().type(node_.outputs[0]).dtype, rewriter_));
    if (node_.op != kBatchNormWithStatistics) return;
    GiveStatistic(1, mean);
    GiveStatistic(2, scale);
    Blend(3, mean, 1);
    const auto count = static_cast<double>(num_averaged_);
    Blend(4, variance, count / (count - 1));
  }

 private:
  const Graph& graph() const { return rewriter_.graph(); }
  ValueId Tensor(size_t arg) const { return TensorArgument(node_.args, arg); }
  ValueId Op(std::string_view op, std::vector<Argument> args, const TensorType& type) {
    return rewriter_.EmitOne(node_, op, std::move(args), type);
  }
  ValueId MeanOf(ValueId of) {
    return Op("aten.mean.dim", {of, dims_, true, None{}}, of_channels_);
  }
  // [C] -> [1, C, 1, ...]
  ValueId OfChannels(ValueId value) {
    return Op("aten.reshape.default",
              {CastTo(node_, value, full_.dtype, rewriter_), IntList(of_channels_.sizes)},
              of_channels_);
  }

  // [1, C, 1, ...] -> [C], for result `index` of the node. No gradient flows into it.
  ValueId Statistic(size_t index, ValueId value) {
    const TensorType type = Contiguous(graph().type(node_.outputs[index]));
    const TensorType flat = ContiguousOf(full_.dtype, type.sizes);
    const ValueId kept = Op("aten.detach.default", {value}, of_channels_);
    const ValueId given = Op("aten.reshape.default", {kept, IntList(type.sizes)}, flat);
    return CastTo(node_, given, type.dtype, rewriter_);
  }
  void GiveStatistic(size_t index, ValueId value) {
    rewriter_.Replace(node_.outputs[index], Statistic(index, value));
  }
  // What was given, for result `index`, moved towards `value` times `factor`.
  void Blend(size_t index, ValueId value, double factor) {
    const double momentum = NumberArgument(node_.args, 6).value_or(0);
    const TensorType type = Contiguous(graph().type(node_.outputs[index]));
    const ValueId old = Op("aten.mul.Tensor", {Tensor(index), 1 - momentum}, type);
    const ValueId now =
        Op("aten.add.Tensor", {old, Statistic(index, value), momentum * factor}, type);
    rewriter_.Replace(node_.outputs[index], now);
  }

  GraphRewriter& rewriter_;
  const Node& node_;
  TensorType full_;
  TensorType of_channels_;
  IntList dims_;  // that statistics are taken over
  int64_t num_averaged_ = 1;
};

}  // namespace

bool IsBatchNorm(const Node& node) {
  return node.op == kBatchNorm || node.op == kBatchNormWithStatistics;
}

bool SpellOutBatchNorm(GraphRewriter& rewriter, const Node& node, const GraphFactors& factors) {
  BatchNormSpeller speller(rewriter, node);
  const bool is_spelled_out = speller.IsOfBatch()
                                  ? speller.HasVariance() && speller.IsOverRoots(factors)
                                  : node.op == kBatchNorm;
  if (is_spelled_out) speller.Replace();
  return is_spelled_out;
}

}  // namespace autosp
