// Emits attention: the kernel is named in the program, so that its memory and its derivative are
// known.
#include <cmath>
#include <limits>

#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/ir/argument_access.h"
#include "compiler/lowering/block_attention.h"
#include "compiler/lowering/forward_lowering.h"

namespace autosp {
namespace {

constexpr std::string_view kCpuFlash = "aten._scaled_dot_product_flash_attention_for_cpu.default";

}  // namespace

bool ForwardLowering::IsAttention(const Node& node) const {
  return node.op == kSdpa || node.op == kMaskedAttention;
}

// The main tokens; of a sequence that the model cuts elsewhere, all tokens of each of its pieces.
bool ForwardLowering::AreTokens(const FactorDim& dim) const {
  return dim.size() >= seq_run_.size() &&
         std::equal(seq_run_.begin(), seq_run_.end(), dim.begin()) &&
         std::ranges::find(dim, batch_) == dim.end();
}

// Whether attention may run on blocks of keys, each member of a ring holding one: every query and
// key is a token of the sequence, each row has all of them (and is not one of as many rows that
// tokens stand for, too), and the mask, if any, is known by its indices.
bool ForwardLowering::IsBlockable(const Node& node) const {
  if (!IsAttention(node) || seq_run_.empty()) return false;
  if (node.op == kSdpa && !IsNone(node.args[3])) return false;
  FactorDim tokens;
  for (size_t arg : {0, 1, 2}) {
    const FactorDims dims = Dims(std::get<ValueId>(node.args[arg]));
    if (dims.size() < 3 || dims.size() > 4 || !AreTokens(dims[dims.size() - 2])) return false;
    // A key of a whole piece stands for other tokens than a query.
    if (arg == 0) tokens = dims[dims.size() - 2];
    if (dims[dims.size() - 2] != tokens) return false;
    if (HoldsPart({dims.begin(), dims.end() - 2}, seq_run_)) return false;
  }
  return true;
}

absl::Status ForwardLowering::CheckAttention(const Node& node,
                                             const std::vector<ValueId>& operands) const {
  if (node.op == kSdpa && NumberArgument(node.args, 4).value_or(0) > 0) {
    return Unimplemented("dropout_p = ", NumberArgument(node.args, 4).value_or(0),
                         " is not supported yet; set the attention dropout of the model to 0");
  }
  const size_t rank = builder_.value(operands[0]).dims.size();
  if (rank != 3 && rank != 4) {
    return Unimplemented("attention on ", rank,
                         " dimensions is not supported; use [batch, heads, tokens, head_dim]");
  }
  return absl::OkStatus();
}

absl::StatusOr<ValueId> ForwardLowering::EmitAttention(size_t node_index,
                                                       const std::vector<ValueId>& operands,
                                                       const Placement& placement) {
  const Node& node = in_.graph.nodes[node_index];
  RETURN_IF_ERROR(CheckAttention(node, operands));
  std::vector<ValueId> qkv(operands.begin(), operands.begin() + 3);
  const bool is_batched = builder_.value(qkv[0]).dims.size() == 4;
  for (ValueId& each : qkv) {
    if (builder_.Shape(each).strides.back() != 1) each = builder_.Copy(each);
    if (is_batched) continue;
    std::vector<ProgramDim> dims = builder_.value(each).dims;
    dims.insert(dims.begin(), ProgramDim{});
    each = builder_.View(each, dims);
  }
  std::vector<ValueId> all = operands;
  // Kernels know masks of two dimensions and of four.
  if (all.size() > 3 && is_batched && node.op == kSdpa && builder_.value(all[3]).dims.size() == 3) {
    std::vector<ProgramDim> dims = builder_.value(all[3]).dims;
    dims.insert(dims.begin(), ProgramDim{});
    all[3] = builder_.View(all[3], dims);
  }
  if (!is_batched && all.size() > 3 && builder_.value(all[3]).dims.size() == 3) {
    std::vector<ProgramDim> dims = builder_.value(all[3]).dims;
    dims.insert(dims.begin(), ProgramDim{});
    all[3] = builder_.View(all[3], dims);
  }
  // Blocks of tokens that attend within themselves are split as a batch is, also over a ring.
  const bool in_ring = attends_in_ring_ && IsBlockable(node) &&
                       (placement.run == seq_run_ || !placement.ring_run.empty());
  // Blocks bring heads of two sizes to one a tile at a time, the kernel for all at once needs them
  // whole. The choice does not depend on the mesh, so that the plan can be proved.
  const bool has_two_sizes = LastSize(qkv[0]) != LastSize(qkv[2]);
  const bool in_blocks =
      in_ring || node.op == kMaskedAttention || (has_two_sizes && IsBlockable(node));
  const ValueId out =
      in_blocks ? EmitBlockAttention(node, qkv, all, in_ring) : EmitFlashAttention(node, qkv, all);
  if (is_batched) return out;
  std::vector<ProgramDim> dims = builder_.value(out).dims;
  dims.erase(dims.begin());
  return builder_.View(out, dims);
}

int64_t ForwardLowering::LastSize(ValueId value) const { return builder_.LocalSizes(value).back(); }

// Zeros behind each head, up to the size of those of `like`: they change no dot product, and make
// columns of zeros in the result.
ValueId ForwardLowering::PadHeads(ValueId value, ValueId like) {
  const int64_t added = LastSize(like) - LastSize(value);
  if (added <= 0) return value;
  ProgramValue type = builder_.Like(value);
  type.dims.back() = builder_.value(like).dims.back();
  type.strides.clear();
  return builder_.Call("aten.constant_pad_nd.default",
                       {value, IntList{SymInt(0), SymInt(added)}, SymInt(0)}, std::move(type));
}

// The kernel knows one size of heads: shorter ones are padded, and the result is cut.
ValueId ForwardLowering::EmitFlashAttention(const Node& node, std::vector<ValueId> qkv,
                                            const std::vector<ValueId>& operands) {
  Argument scale = node.args.size() > 6 ? node.args[6] : Argument{None{}};
  const ProgramDim value_dim = builder_.value(qkv[2]).dims.back();
  const bool has_two_sizes = LastSize(qkv[0]) != LastSize(qkv[2]);
  if (has_two_sizes) {
    if (IsNone(scale)) scale = 1.0 / std::sqrt(static_cast<double>(LastSize(qkv[0])));
    const ValueId query = qkv[0];
    for (size_t i : {0, 1}) qkv[i] = PadHeads(qkv[i], qkv[2]);
    qkv[2] = PadHeads(qkv[2], query);
  }
  Argument mask = None{};
  if (operands.size() > 3) {
    ValueId bias = operands[3];
    if (builder_.value(bias).dtype == DType::kBool) {
      ProgramValue type = builder_.Like(bias);
      type.dtype = DType::kF32;
      bias = builder_.Call("aten.where.Scalar",
                           {bias, 0.0, -std::numeric_limits<double>::infinity()}, type);
    }
    mask = builder_.Cast(bias, builder_.value(qkv[0]).dtype);
  }
  ProgramValue out_type = builder_.Like(qkv[0]);
  const Sizes sizes = builder_.program().LocalSizes(out_type);
  // The kernel lays its result out as the query.
  out_type.strides = ElementwiseStrides(sizes, {builder_.Shape(qkv[0])});
  ProgramValue lse_type = builder_.Typed(DType::kF32, out_type.dims);
  lse_type.dims.pop_back();
  lse_type.strides = {sizes[1] * sizes[2], 1, sizes[1]};
  const ValueId out = builder_.Define("o", std::move(out_type));
  const ValueId lse = builder_.Define("lse", std::move(lse_type));
  stopped_.insert(lse);
  builder_.Append(InstructionKind::kCall, std::string(kCpuFlash),
                  {qkv[0], qkv[1], qkv[2], 0.0, node.args[5], mask, scale}, {out, lse});
  return has_two_sizes ? builder_.Slice(out, 3, value_dim, {.base = 0, .terms = {}}) : out;
}

// Arguments of the graph's op: q, k, v, q_docs, k_docs, causal, window, scale.
ValueId ForwardLowering::EmitBlockAttention(const Node& node, const std::vector<ValueId>& qkv,
                                            const std::vector<ValueId>& operands, bool in_ring) {
  const bool is_masked = node.op == kMaskedAttention;
  const double head_dim = static_cast<double>(builder_.LocalSizes(qkv[0]).back());
  std::vector<Argument> args = {qkv[0], qkv[1], qkv[2], None{}, None{}};
  size_t next = 3;
  for (size_t arg : {3, 4}) {
    if (is_masked && !IsNone(node.args[arg])) args[arg] = operands[next++];
  }
  const double scale =
      NumberArgument(node.args, is_masked ? 7 : 6).value_or(1.0 / std::sqrt(head_dim));
  const Argument window = is_masked ? node.args[6] : Argument(SymInt(0));
  ProgramValue out_type = builder_.Like(qkv[0]);
  out_type.dims.back() = builder_.value(qkv[2]).dims.back();
  ProgramValue lse_type = builder_.Typed(DType::kF32, out_type.dims);
  lse_type.dims.pop_back();
  const ValueId out = builder_.Define("o", std::move(out_type));
  const ValueId lse = builder_.Define("lse", std::move(lse_type));
  stopped_.insert(lse);
  const FactorDims query_dims = Dims(std::get<ValueId>(node.args[0]));
  const FactorDim& all_tokens = query_dims[query_dims.size() - 2];
  const DimFactor tokens = RunFactor(in_ring ? seq_run_ : all_tokens);
  Instruction& instruction = builder_.Append(InstructionKind::kCall, std::string(kBlockAttention),
                                             std::move(args), {out, lse});
  instruction.attributes = {{"axes", std::string(in_ring ? AxisName(Axis::kRing) : "")},
                            {"causal", node.args[5]},
                            {"factor", builder_.program().factors[tokens.factor.index].name},
                            {"scale", scale},
                            {"window", window}};
  const int64_t piece = in_ring ? Size(all_tokens) / Size(seq_run_) : 1;
  if (piece > 1) instruction.attributes["piece"] = SymInt(piece);
  if (in_ring && in_.ring_exchange == RingExchange::kAllGather) {
    instruction.attributes[std::string(kKeysGathered)] = true;
  }
  return out;
}

}  // namespace autosp
