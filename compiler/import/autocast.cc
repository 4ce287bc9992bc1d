#include "compiler/import/autocast.h"

#include <algorithm>
#include <iterator>

#include "common/errors.h"
#include "compiler/ir/text_cursor.h"

namespace autosp {
namespace {

// Sorted lists of "name.overload" without the "aten." in front.
constexpr std::string_view kCpuLower[] = {
    "_addmm_activation.default",
    "_convolution.deprecated",
    "_native_multi_head_attention.default",
    "addbmm.default",
    "addmm.default",
    "baddbmm.default",
    "bmm.default",
    "conv1d.default",
    "conv1d.padding",
    "conv2d.default",
    "conv2d.padding",
    "conv3d.default",
    "conv3d.padding",
    "conv_tbc.default",
    "conv_transpose1d.default",
    "conv_transpose2d.input",
    "conv_transpose3d.input",
    "linalg_vecdot.default",
    "linear.default",
    "matmul.default",
    "mm.default",
    "prelu.default",
    "scaled_dot_product_attention.default",
};
constexpr std::string_view kCpuFloat32[] = {
    "_grid_sampler_2d_cpu_fallback.default",
    "_lu_with_info.default",
    "adaptive_avg_pool3d.default",
    "adaptive_max_pool3d.default",
    "avg_pool3d.default",
    "binary_cross_entropy.default",
    "binary_cross_entropy_with_logits.default",
    "cdist.default",
    "cholesky_inverse.default",
    "cholesky_solve.default",
    "cosine_embedding_loss.default",
    "cross_entropy_loss.default",
    "ctc_loss.IntList",
    "ctc_loss.Tensor",
    "fractional_max_pool2d.default",
    "fractional_max_pool3d.default",
    "geqrf.default",
    "grid_sampler.default",
    "grid_sampler_2d.default",
    "grid_sampler_3d.default",
    "hinge_embedding_loss.default",
    "huber_loss.default",
    "inverse.default",
    "kl_div.default",
    "l1_loss.default",
    "linalg_cholesky.default",
    "linalg_cholesky_ex.default",
    "linalg_householder_product.default",
    "linalg_inv.default",
    "linalg_inv_ex.default",
    "linalg_matrix_sqrth.default",
    "linalg_solve.default",
    "linalg_tensorinv.default",
    "linalg_tensorsolve.default",
    "lu_solve.default",
    "margin_ranking_loss.default",
    "max_pool3d.default",
    "max_unpool2d.default",
    "max_unpool3d.default",
    "mse_loss.default",
    "multi_margin_loss.default",
    "multilabel_margin_loss.default",
    "multilabel_margin_loss_forward.default",
    "nanquantile.default",
    "nanquantile.scalar",
    "nll_loss.default",
    "nll_loss2d.default",
    "orgqr.default",
    "ormqr.default",
    "pinverse.default",
    "poisson_nll_loss.default",
    "polar.default",
    "prod.default",
    "prod.dim_int",
    "quantile.default",
    "quantile.scalar",
    "reflection_pad1d.default",
    "reflection_pad2d.default",
    "replication_pad1d.default",
    "replication_pad2d.default",
    "replication_pad3d.default",
    "smooth_l1_loss.default",
    "soft_margin_loss.default",
    "svd.default",
    "trace.default",
    "triangular_solve.default",
    "triplet_margin_loss.default",
};
constexpr std::string_view kCpuPromote[] = {
    "cat.default",
    "index_copy.default",
    "stack.default",
};

constexpr std::string_view kCudaLower[] = {
    "_convolution.default",
    "_convolution.deprecated",
    "_scaled_dot_product_flash_attention.default",
    "addbmm.default",
    "addmm.default",
    "addmv.default",
    "addr.default",
    "baddbmm.default",
    "bmm.default",
    "chain_matmul.default",
    "conv1d.default",
    "conv2d.default",
    "conv3d.default",
    "conv_tbc.default",
    "conv_transpose1d.default",
    "conv_transpose2d.input",
    "conv_transpose3d.input",
    "convolution.default",
    "einsum.default",
    "gru_cell.default",
    "linalg_multi_dot.default",
    "linalg_vecdot.default",
    "linear.default",
    "lstm_cell.default",
    "matmul.default",
    "mm.default",
    "mv.default",
    "prelu.default",
    "rnn_relu_cell.default",
    "rnn_tanh_cell.default",
    "scaled_dot_product_attention.default",
};
constexpr std::string_view kCudaFloat32[] = {
    "_upsample_bicubic2d_aa.default",
    "_upsample_bilinear2d_aa.default",
    "_upsample_nearest_exact1d.default",
    "_upsample_nearest_exact2d.default",
    "_upsample_nearest_exact3d.default",
    "acos.default",
    "asin.default",
    "binary_cross_entropy_with_logits.default",
    "cdist.default",
    "cosh.default",
    "cosine_embedding_loss.default",
    "cosine_similarity.default",
    "dist.default",
    "erfinv.default",
    "exp.default",
    "expm1.default",
    "frobenius_norm.dim",
    "group_norm.default",
    "hinge_embedding_loss.default",
    "huber_loss.default",
    "kl_div.default",
    "l1_loss.default",
    "layer_norm.default",
    "linalg_matrix_sqrth.default",
    "log.default",
    "log10.default",
    "log1p.default",
    "log2.default",
    "logsumexp.default",
    "margin_ranking_loss.default",
    "mse_loss.default",
    "multi_margin_loss.default",
    "multilabel_margin_loss.default",
    "native_layer_norm.default",
    "nll_loss.default",
    "nll_loss2d.default",
    "norm.Scalar",
    "norm.ScalarOpt_dim",
    "nuclear_norm.default",
    "nuclear_norm.dim",
    "pdist.default",
    "poisson_nll_loss.default",
    "pow.Scalar",
    "pow.Tensor_Scalar",
    "pow.Tensor_Tensor",
    "reciprocal.default",
    "renorm.default",
    "rms_norm.default",
    "rsqrt.default",
    "sinh.default",
    "smooth_l1_loss.default",
    "soft_margin_loss.default",
    "softplus.default",
    "tan.default",
    "triplet_margin_loss.default",
    "upsample_bicubic2d.default",
    "upsample_bilinear2d.default",
    "upsample_linear1d.default",
    "upsample_nearest1d.default",
    "upsample_nearest2d.default",
    "upsample_nearest3d.default",
    "upsample_trilinear3d.default",
};
constexpr std::string_view kCudaFloat32Result[] = {
    "cumprod.default",
    "cumsum.default",
    "linalg_matrix_norm.default",
    "linalg_matrix_norm.str_ord",
    "linalg_vector_norm.default",
    "log_softmax.int",
    "prod.default",
    "prod.dim_int",
    "softmax.int",
    "sum.default",
    "sum.dim_IntList",
};
constexpr std::string_view kCudaPromote[] = {
    "addcdiv.default",     "addcmul.default",   "atan2.default",        "bilinear.default",
    "cross.default",       "dot.default",       "grid_sampler.default", "index_put.default",
    "scatter_add.default", "tensordot.default", "vdot.default",
};

// Ops without a policy that are products, each of which autocast casts: of all that they are given,
// and of what the cells of recurrent layers are given beside their state.
constexpr std::string_view kProducts[] = {
    "chain_matmul.default",  "einsum.default",           "inner.default",
    "linalg_matmul.default", "linalg_multi_dot.default", "tensordot.default",
};
constexpr std::string_view kCells[] = {
    "gru_cell.default",
    "lstm_cell.default",
    "rnn_relu_cell.default",
    "rnn_tanh_cell.default",
};
// Its result is float32 of logits in any type.
constexpr std::string_view kCrossEntropy = "aten.cross_entropy_loss.default";

static_assert(std::ranges::is_sorted(kProducts) && std::ranges::is_sorted(kCells));
static_assert(std::ranges::is_sorted(kCpuLower) && std::ranges::is_sorted(kCpuFloat32) &&
              std::ranges::is_sorted(kCpuPromote) && std::ranges::is_sorted(kCudaLower) &&
              std::ranges::is_sorted(kCudaFloat32) && std::ranges::is_sorted(kCudaFloat32Result) &&
              std::ranges::is_sorted(kCudaPromote));

template <size_t kSize>
bool Contains(const std::string_view (&list)[kSize], std::string_view op) {
  return std::ranges::binary_search(list, op);
}

// As ATen: double precision and integers are left alone.
bool IsEligible(DType dtype) { return IsFloating(dtype) && dtype != DType::kF64; }

constexpr std::string_view kNamespace = "aten.";

template <size_t kSize>
bool ContainsAten(const std::string_view (&list)[kSize], std::string_view op) {
  return op.starts_with(kNamespace) && Contains(list, op.substr(kNamespace.size()));
}

}  // namespace

CastPolicy AutocastPolicy(std::string_view device, std::string_view op) {
  if (op.starts_with("autosp.fft_")) return CastPolicy::kFloat32;
  if (!op.starts_with(kNamespace)) return CastPolicy::kNone;
  op.remove_prefix(kNamespace.size());
  if (device == "cpu") {
    if (Contains(kCpuLower, op)) return CastPolicy::kLowerPrecision;
    if (Contains(kCpuFloat32, op)) return CastPolicy::kFloat32;
    if (Contains(kCpuPromote, op)) return CastPolicy::kPromote;
    return CastPolicy::kNone;
  }
  if (Contains(kCudaLower, op)) return CastPolicy::kLowerPrecision;
  if (Contains(kCudaFloat32, op)) return CastPolicy::kFloat32;
  if (Contains(kCudaFloat32Result, op)) return CastPolicy::kFloat32Result;
  if (Contains(kCudaPromote, op)) return CastPolicy::kPromote;
  return CastPolicy::kNone;
}

ValueId AutocastRegion::Cast(ValueId value, DType to, const NodeContext& context,
                             GraphBuilder& builder) {
  const DType from = builder.type(value).dtype;
  if (!IsEligible(from) || from == to) return value;
  // ATen caches the casts of leaves alone: float32 parameters, to the region's type.
  const bool is_cached = caches_parameters_ && builder.IsInput(value) &&
                         builder.requires_grad(value) && from == DType::kF32 && to == dtype_;
  if (!is_cached) return builder.EmitCast(value, to, context);
  const auto known = cached_.find(value);
  if (known != cached_.end()) return known->second;
  const ValueId cast = builder.EmitCast(value, to, context);
  cached_.emplace(value, cast);
  return cast;
}

void AutocastRegion::CastAll(DType to, const NodeContext& context, GraphBuilder& builder,
                             Argument& argument) {
  ForEachValue(argument, [&](ValueId& id) { id = Cast(id, to, context, builder); });
}

absl::Status AutocastRegion::CastOperands(const OpSchema& schema, std::optional<DType> stated,
                                          const NodeContext& context, GraphBuilder& builder,
                                          std::vector<Argument>& args) {
  if (!is_enabled_) return absl::OkStatus();
  const CastPolicy policy = AutocastPolicy(device_, schema.name);
  if (policy == CastPolicy::kNone) return CastForParts(schema, stated, context, builder, args);
  bool has_eligible = false;
  bool has_float32 = false;
  for (const Argument& argument : args) {
    ForEachValue(argument, [&](ValueId id) {
      has_eligible |= IsEligible(builder.type(id).dtype);
      has_float32 |= builder.type(id).dtype == DType::kF32;
    });
  }
  if (policy == CastPolicy::kFloat32Result) {
    for (size_t i = 0; has_eligible && i < args.size(); ++i) {
      if (schema.parameters[i].name == "dtype" && IsNone(args[i])) args[i] = DType::kF32;
    }
    return absl::OkStatus();
  }
  DType to = dtype_;
  if (policy == CastPolicy::kFloat32) to = DType::kF32;
  if (policy == CastPolicy::kPromote && has_float32) to = DType::kF32;
  for (Argument& argument : args) CastAll(to, context, builder, argument);
  return absl::OkStatus();
}

absl::Status AutocastRegion::CastForParts(const OpSchema& schema, std::optional<DType> stated,
                                          const NodeContext& context, GraphBuilder& builder,
                                          std::vector<Argument>& args) {
  if (ContainsAten(kCells, schema.name)) {
    constexpr size_t kState = 1;  // gates are added to it in its own type
    for (size_t i = 0; i < args.size(); ++i) {
      if (i != kState) CastAll(dtype_, context, builder, args[i]);
    }
    return absl::OkStatus();
  }
  bool has_eligible = false;
  bool is_explained = !stated || !IsEligible(*stated) || schema.name == kCrossEntropy;
  const bool is_product = ContainsAten(kProducts, schema.name);
  for (const Argument& argument : args) {
    is_explained |= std::holds_alternative<DType>(argument);
    ForEachValue(argument, [&](ValueId id) {
      const DType dtype = builder.type(id).dtype;
      has_eligible |= IsEligible(dtype);
      is_explained |= dtype == stated && !is_product;
    });
  }
  if (is_explained || !has_eligible) return absl::OkStatus();
  // Wider operands lose nothing; narrower ones are those of a product, or of one among other steps.
  if (*stated != DType::kF32 && !is_product) {
    return Unimplemented("autocast makes the result ", Absl(DTypeName(*stated)),
                         ", though no operand is: it casts within the op, which is not supported; "
                         "call it where autocast is disabled, or on operands of that type");
  }
  for (Argument& argument : args) CastAll(*stated, context, builder, argument);
  return absl::OkStatus();
}

}  // namespace autosp
