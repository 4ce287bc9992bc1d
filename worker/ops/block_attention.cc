#include "worker/ops/block_attention.h"

#include <ATen/ops/empty.h>

#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/ops/shard_indices.h"

namespace autosp {
namespace {

std::string Sizes(const at::Tensor& tensor) {
  return "[" + absl::StrJoin(tensor.sizes(), ", ") + "]";
}

absl::Status CheckLastStride(std::string_view name, const at::Tensor& tensor) {
  if (tensor.size(-1) <= 1 || tensor.stride(-1) == 1) return absl::OkStatus();
  return InvalidArgument(std::string(name), " has stride ", tensor.stride(-1),
                         " in its last dimension; rows must be contiguous");
}

// Fills the mask of a masked tile, and which of its rows have a key.
void BuildMask(const AttentionRule& rule, absl::Span<const int64_t> queries,
               absl::Span<const int64_t> keys, AttentionCall& call) {
  const AttentionTile& tile = call.tile;
  call.mask = at::empty({1, 1, tile.q_size, tile.k_size}, at::kFloat);
  call.row_has_keys.assign(static_cast<size_t>(tile.q_size), 0);
  float* out = call.mask.mutable_data_ptr<float>();
  for (int64_t i = 0; i < tile.q_size; ++i) {
    const int64_t q = queries[tile.q_begin + i];
    for (int64_t j = 0; j < tile.k_size; ++j) {
      const bool is_allowed = rule.Allows(q, keys[tile.k_begin + j]);
      *out++ = is_allowed ? 0.0F : -std::numeric_limits<float>::infinity();
      call.row_has_keys[i] |= static_cast<uint8_t>(is_allowed);
    }
  }
}

// Of one batch element.
absl::Span<const int64_t> DocsOf(const at::Tensor& docs, int64_t batch) {
  if (!docs.defined()) return {};
  const int64_t row = docs.size(0) == 1 ? 0 : batch * docs.stride(0);
  return absl::MakeConstSpan(docs.const_data_ptr<int64_t>() + row,
                             static_cast<size_t>(docs.size(1)));
}

absl::StatusOr<AxisList> AxesOf(const Instruction& instruction) {
  ASSIGN_OR_RETURN(const std::string text, StringAttribute(instruction, "axes"));
  if (text.empty()) return AxisList();
  return AxesAttribute(instruction);
}

absl::StatusOr<bool> BoolAttribute(const Instruction& instruction, std::string_view key) {
  const auto found = instruction.attributes.find(key);
  const bool* value = nullptr;
  if (found != instruction.attributes.end()) value = std::get_if<bool>(&found->second);
  if (value != nullptr) return *value;
  return InvalidArgument(instruction.op, ": attribute ", std::string(key),
                         " must be true or false");
}

}  // namespace

AttentionDocs AttentionDocs::Of(const OwnCall& call, size_t first) {
  const auto tensor = [&](size_t arg) {
    return call.args[arg].empty() ? at::Tensor() : call.args[arg][0].cpu();
  };
  return {tensor(first), tensor(first + 1)};
}

at::Tensor AttentionPart::Of(const at::Tensor& tensor) const {
  std::vector<int64_t> sizes = {batch_count, head_count, token_count};
  if (tensor.dim() == 4) sizes.push_back(tensor.size(3));
  const int64_t offset = tensor.storage_offset() + batch_begin * tensor.stride(0) +
                         head_begin * tensor.stride(1) + token_begin * tensor.stride(2);
  return tensor.as_strided(sizes, tensor.strides(), offset);
}

void ForEachSlice(const AttentionCall& call, const AttentionShape& shape,
                  const AttentionSlice& slice, SliceFn run) {
  const AttentionTile& tile = call.tile;
  const int64_t end = call.batch_begin + call.batch_count;
  for (int64_t batch = call.batch_begin; batch < end; batch += slice.batches) {
    const int64_t batches = std::min(slice.batches, end - batch);
    for (int64_t head = 0; head < shape.num_kv_heads; head += slice.kv_heads) {
      const int64_t heads = std::min(slice.kv_heads, shape.num_kv_heads - head);
      run({batch, batches, head * shape.group(), heads * shape.group(), tile.q_begin, tile.q_size},
          {batch, batches, head, heads, tile.k_begin, tile.k_size});
    }
  }
}

at::Tensor KernelOperand(const at::Tensor& tensor, int64_t columns) {
  const int64_t own_columns = tensor.size(3);
  const at::ScalarType dtype = tensor.is_cuda() ? tensor.scalar_type() : at::kFloat;
  if (tensor.scalar_type() == dtype && own_columns == columns) return tensor;
  const at::Tensor copy = at::empty({tensor.size(0), tensor.size(2), tensor.size(1), columns},
                                    tensor.options().dtype(dtype))
                              .transpose(1, 2);
  copy.narrow(3, 0, own_columns).copy_(tensor);
  if (own_columns < columns) copy.narrow(3, own_columns, columns - own_columns).zero_();
  return copy;
}

std::optional<at::Tensor> MaskOn(const at::Tensor& query, const AttentionCall& call) {
  if (!call.mask.defined()) return std::nullopt;
  return call.mask.to(query.device());
}

at::Tensor RowsWithKeysOn(const at::Tensor& query, const AttentionCall& call) {
  if (call.row_has_keys.empty()) return {};
  const at::Tensor rows = at::empty({static_cast<int64_t>(call.row_has_keys.size())}, at::kByte);
  std::ranges::copy(call.row_has_keys, rows.mutable_data_ptr<uint8_t>());
  return rows.to(query.device()).to(at::kBool);
}

BlockAttention::BlockAttention(const OwnOpContext& context)
    : program_(context.program), instruction_(context.instruction), place_(context.place) {}

absl::StatusOr<BlockAttention> BlockAttention::Make(const OwnOpContext& context) {
  const Argument& hop = context.instruction.args.back();
  if (!std::holds_alternative<SymInt>(hop) && !std::holds_alternative<std::string>(hop)) {
    return InvalidArgument("hop must be an integer or the variable of a loop");
  }
  BlockAttention attention(context);
  ASSIGN_OR_RETURN(attention.q_factor_, attention.FactorOf("factor"));
  attention.k_factor_ = attention.q_factor_;
  if (context.instruction.attributes.contains("kv_factor")) {
    ASSIGN_OR_RETURN(attention.k_factor_, attention.FactorOf("kv_factor"));
  }
  if (context.instruction.attributes.contains("piece")) {
    ASSIGN_OR_RETURN(attention.piece_, IntAttribute(context.instruction, "piece"));
    if (attention.piece_ < 1)
      return InvalidArgument("piece (", attention.piece_, ") must be positive");
  }
  if (context.instruction.attributes.contains("gathered")) {
    ASSIGN_OR_RETURN(attention.is_gathered_, BoolAttribute(context.instruction, "gathered"));
  }
  ASSIGN_OR_RETURN(attention.rule_.causal, BoolAttribute(context.instruction, "causal"));
  ASSIGN_OR_RETURN(attention.rule_.window, IntAttribute(context.instruction, "window"));
  if (attention.rule_.window < 0) {
    return InvalidArgument("window (", attention.rule_.window, ") must be 0 for none, or positive");
  }
  ASSIGN_OR_RETURN(attention.scale_, FloatAttribute(context.instruction, "scale"));
  if (context.instruction.attributes.contains("kernel")) {
    ASSIGN_OR_RETURN(const std::string name, StringAttribute(context.instruction, "kernel"));
    ASSIGN_OR_RETURN(attention.gpu_kernel_, ParseGpuKernel(name), context.instruction.op);
  }
  return attention;
}

absl::StatusOr<DimFactor> BlockAttention::FactorOf(std::string_view attribute) const {
  ASSIGN_OR_RETURN(const std::string name, StringAttribute(instruction_, attribute));
  const auto found = std::ranges::find(program_.factors, name, &Factor::name);
  if (found == program_.factors.end()) {
    return InvalidArgument(std::string(attribute), " '", name,
                           "' is not one of the program's factors");
  }
  DimFactor factor;
  factor.factor = FactorId{static_cast<int32_t>(found - program_.factors.begin())};
  ASSIGN_OR_RETURN(factor.axes, AxesOf(instruction_));
  return factor;
}

absl::StatusOr<AttentionShape> BlockAttention::ShapeOf(const at::Tensor& q, const at::Tensor& k,
                                                       const at::Tensor& v,
                                                       const AttentionDocs& docs) const {
  const bool fits = q.dim() == 4 && k.dim() == 4 && v.dim() == 4 && k.size(0) == q.size(0) &&
                    v.size(0) == q.size(0) && k.size(1) == v.size(1) && k.size(2) == v.size(2) &&
                    k.size(3) == q.size(3) && k.size(1) > 0 && q.size(1) % k.size(1) == 0;
  if (!fits) {
    return InvalidArgument("q ", Sizes(q), ", k ", Sizes(k), " and v ", Sizes(v),
                           " must be [B, N, Sq, H], [B, K, Sk, H] and [B, K, Sk, Hv], N a multiple "
                           "of K");
  }
  const at::ScalarType dtype = q.scalar_type();
  const bool is_known = dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf;
  if (!is_known || k.scalar_type() != dtype || v.scalar_type() != dtype) {
    return InvalidArgument("q, k and v must be of one dtype, f32, bf16 or f16");
  }
  for (const auto& [name, tensor] : {std::pair{"q", &q}, {"k", &k}, {"v", &v}}) {
    RETURN_IF_ERROR(CheckLastStride(name, *tensor));
  }
  AttentionShape shape;
  shape.batch = q.size(0);
  shape.num_heads = q.size(1);
  shape.num_kv_heads = k.size(1);
  shape.q_len = q.size(2);
  shape.k_len = k.size(2);
  shape.qk_head_dim = q.size(3);
  shape.v_head_dim = v.size(3);
  shape.element_bytes = static_cast<int64_t>(q.element_size());
  shape.causal = rule_.causal;
  shape.window = rule_.window;
  shape.has_docs = docs.defined();
  shape.num_threads = at::get_num_threads();
  shape.on_gpu = RunsOnGpu(q);
  RETURN_IF_ERROR(CheckDocs(shape, q_factor_, docs.q));
  RETURN_IF_ERROR(CheckDocs(shape, k_factor_, docs.k));
  return shape;
}

absl::Status BlockAttention::CheckDocs(const AttentionShape& shape, const DimFactor& factor,
                                       const at::Tensor& docs) const {
  if (!docs.defined()) return absl::OkStatus();
  const int64_t num_tokens = NumTokens(factor);
  const bool fits = docs.dim() == 2 && (docs.size(0) == shape.batch || docs.size(0) == 1) &&
                    docs.size(1) >= num_tokens;
  if (!fits) {
    return InvalidArgument("docs ", Sizes(docs), " must be [", shape.batch, " or 1, at least ",
                           num_tokens, "]: a document for each token of the whole sequence");
  }
  if (docs.scalar_type() != at::kLong) return InvalidArgument("docs must be i64");
  return CheckLastStride("docs", docs);
}

absl::StatusOr<BlockAttention::Tokens> BlockAttention::TokensOf(
    const DimFactor& factor, absl::Span<const MeshCoordinate> places, int64_t length,
    std::string_view what) const {
  Tokens tokens;
  if (factor.axes.empty()) {
    for (int64_t i = 0; i < length; ++i) tokens.global.push_back(i);
  } else {
    for (const MeshCoordinate& place : places) {
      for (const int64_t index : GlobalIndices(program_, factor, {place, 0})) {
        for (int64_t i = 0; i < piece_; ++i) tokens.global.push_back(index * piece_ + i);
      }
    }
  }
  if (static_cast<int64_t>(tokens.global.size()) != length) {
    return InvalidArgument("there are ", length, " ", std::string(what), ", and the ",
                           places.size() == 1 ? "shard" : "shards", " of ",
                           program_.factors[factor.factor.index].name,
                           places.size() == 1 ? " has " : " have ", tokens.global.size());
  }
  const int64_t size = NumTokens(factor);
  for (int64_t& index : tokens.global) index = index < size ? index : -1;
  tokens.runs = RunsOf(tokens.global, size);
  return tokens;
}

int64_t BlockAttention::NumTokens(const DimFactor& factor) const {
  return program_.factors[factor.factor.index].size * piece_;
}

absl::StatusOr<BlockAttention::Hop*> BlockAttention::FindHop(const AttentionShape& shape,
                                                             int64_t hop) {
  const int64_t num_hops = is_gathered_ ? 1 : NumMembers();
  if (hop < 0 || hop >= num_hops) {
    return InvalidArgument("hop (", hop, ") must be less than the number of hops, ", num_hops);
  }
  const auto found = hops_.find(hop);
  if (found != hops_.end() &&
      static_cast<int64_t>(found->second.queries.global.size()) == shape.q_len &&
      static_cast<int64_t>(found->second.keys.global.size()) == shape.k_len) {
    return &found->second;
  }
  Hop& made = hops_[hop] = Hop();
  ASSIGN_OR_RETURN(made.queries, TokensOf(q_factor_, {place_}, shape.q_len, "queries"));
  ASSIGN_OR_RETURN(made.keys, KeysAt(hop, shape.k_len));
  return &made;
}

int64_t BlockAttention::NumMembers() const {
  const bool over_ring = std::ranges::find(q_factor_.axes, Axis::kRing) != q_factor_.axes.end();
  return over_ring ? program_.mesh.ring : 1;
}

absl::StatusOr<BlockAttention::Tokens> BlockAttention::KeysAt(int64_t hop, int64_t length) const {
  std::vector<MeshCoordinate> senders;
  if (is_gathered_) {
    for (int64_t member = 0; member < NumMembers(); ++member) {
      senders.push_back(place_);
      senders.back().ring = member;
    }
  } else {
    senders.push_back(place_);
    senders.back().ring = (place_.ring - hop + program_.mesh.ring) % program_.mesh.ring;
  }
  return TokensOf(k_factor_, senders, length, "keys");
}

AttentionInputs BlockAttention::InputsOf(const AttentionShape& shape, const AttentionTile& tile,
                                         const at::Tensor& q, const at::Tensor& k,
                                         const at::Tensor& v,
                                         const std::optional<at::Tensor>& mask) const {
  AttentionInputs inputs = {.q = KernelOperand(q, shape.head_dim()),
                            .k = KernelOperand(k, shape.head_dim()),
                            .v = KernelOperand(v, shape.head_dim()),
                            .causal = tile.kind == TileKind::kCausal,
                            .mask = mask,
                            .scale = scale_};
  if (tile.kind == TileKind::kBand) inputs.band = {tile.before, tile.after};
  return inputs;
}

AttentionKernel BlockAttention::KernelOf(const AttentionInputs& inputs) const {
  if (!RunsOnGpu(inputs.q)) return SelectAttentionKernel(inputs);
  const int64_t queries = inputs.q.size(2);
  const int64_t keys = inputs.k.size(2);
  const bool has_few = std::min(queries, keys) < kGpuMinTokens;
  if (inputs.mask.has_value() || has_few) return AttentionKernel::kProducts;
  const bool fits_cudnn = !inputs.band.has_value() && FitsCudnn(queries, keys);
  return fits_cudnn ? *gpu_kernel_ : AttentionKernel::kFlash;
}

std::vector<AttentionTile> BlockAttention::Plan(const Hop& hop, AttentionRule rule, bool on_gpu) {
  const int64_t max_rows = AttentionMaxRows(rule.window, on_gpu);
  if (on_gpu) rule.band_rows = max_rows;
  const std::vector<AttentionTile> tiles =
      CutTiles(PlanTiles(hop.queries.runs, hop.keys.runs, rule), max_rows, AttentionSide(on_gpu));
  return on_gpu ? CutFewTokens(tiles, kGpuMinTokens, kMaxProductsTokens) : tiles;
}

absl::Status BlockAttention::ForEachCall(const AttentionShape& shape, int64_t hop_index,
                                         const AttentionDocs& docs,
                                         absl::FunctionRef<void(const AttentionCall&)> run) {
  ASSIGN_OR_RETURN(Hop* const hop, FindHop(shape, hop_index));
  const auto run_tiles = [&](const std::vector<AttentionTile>& tiles, const AttentionRule& rule,
                             int64_t batch_begin, int64_t batch_count) {
    for (const AttentionTile& tile : tiles) {
      AttentionCall call = {.tile = tile, .batch_begin = batch_begin, .batch_count = batch_count};
      if (tile.kind == TileKind::kMasked) {
        BuildMask(rule, hop->queries.global, hop->keys.global, call);
      }
      run(call);
    }
  };
  if (!docs.defined()) {
    if (!hop->is_planned) hop->tiles = Plan(*hop, rule_, shape.on_gpu);
    hop->is_planned = true;
    run_tiles(hop->tiles, rule_, 0, shape.batch);
    return absl::OkStatus();
  }
  for (int64_t batch = 0; batch < shape.batch; ++batch) {
    AttentionRule rule = rule_;
    rule.q_docs = DocsOf(docs.q, batch);
    rule.k_docs = DocsOf(docs.k, batch);
    run_tiles(Plan(*hop, rule, shape.on_gpu), rule, batch, 1);
  }
  return absl::OkStatus();
}

}  // namespace autosp
