#include "compiler/lowering/tile_body.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <string_view>

#include "common/check.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

constexpr std::string_view kSequence = "seq";
constexpr int64_t kMostTokens = 2048;  // of a tile

bool IsTiled(const ProgramValue& value) {
  return Contains(ShardAxes(value), Axis::kTile) || Contains(value.partial.axes, Axis::kTile);
}

// Dense strides for other sizes, the dimensions in memory in the same order.
Strides DenseLike(const StridedShape& shape, const Sizes& sizes) {
  std::vector<size_t> order(sizes.size());  // innermost first
  std::iota(order.rbegin(), order.rend(), 0);
  std::ranges::stable_sort(order, {}, [&](size_t dim) { return shape.strides[dim]; });
  Strides strides(sizes.size());
  int64_t next = 1;
  for (size_t dim : order) {
    strides[dim] = next;
    next *= std::max<int64_t>(sizes[dim], 1);
  }
  return strides;
}

// A divisor of `size` that is at least `wanted`, and at most twice that; 1 where there is none.
int64_t DivisorNear(int64_t size, int64_t wanted) {
  for (int64_t divisor = std::max<int64_t>(wanted, 2); divisor <= 2 * wanted; ++divisor) {
    if (size % divisor == 0) return divisor;
  }
  return 1;
}

// Tiles of a zigzag shard have an even length, as its halves have; and padding is no more than what
// tiles of this length need.
bool FitsLayout(const Program& program, const TiledFactor& factor, int64_t tiles) {
  const Factor& whole = program.factors[factor.factor.index];
  const int64_t shards = program.mesh.size(factor.axes) * tiles;
  int64_t needed = (whole.size + shards - 1) / shards;
  if (whole.layout == Layout::kZigzag) {
    // Whole, it is in its own order, and not in that of shards.
    if (factor.axes.empty() || factor.axes.front() != Axis::kRing) return false;
    needed = (needed + 1) / 2 * 2;
  }
  return needed == factor.local_size / tiles;
}

// Where a slice begins. What of it depends on the rank is in the offset alone, behind what the
// operand's has.
LinearExpr StartOf(const Program& program, const Instruction& slice, int64_t dim) {
  LinearExpr start{.base = std::get<SymInt>(slice.args[2]).value, .terms = {}};
  const ProgramValue& operand = program.value(OperandsOf(slice)[0]);
  const int64_t stride = program.LocalStrides(operand)[dim];
  const auto& terms = program.value(slice.results[0]).offset.terms;
  for (size_t i = operand.offset.terms.size(); i < terms.size(); ++i) {
    start.terms.emplace_back(terms[i].first, terms[i].second / stride);
  }
  return start;
}

}  // namespace

std::optional<TiledFactor> SequenceOf(const Program& program, ValueId value) {
  for (const ProgramDim& dim : program.value(value).dims) {
    for (const DimFactor& each : dim) {
      const bool is_seq =
          each.factor.valid() && program.factors[each.factor.index].name == kSequence;
      if (is_seq) return TiledFactor{each.factor, each.axes, program.LocalSize(each)};
    }
  }
  return std::nullopt;
}

bool IsOfTokens(const Instruction& instruction) {
  static const auto& kOps =
      *new std::set<std::string, std::less<>>{"aten.linear.default",
                                              "aten.matmul.default",
                                              "aten.addmm.default",
                                              "aten.layer_norm.default",
                                              "aten.native_layer_norm.default",
                                              "aten.rms_norm.default",
                                              "aten.zeros.default",
                                              "aten.mean.dim",
                                              "aten.cat.default",
                                              "autosp.cross_entropy",
                                              "autosp.cross_entropy_sum",
                                              "autosp.cross_entropy_backward_",
                                              "autosp.matmul_accumulate_",
                                              "autosp.dropout",
                                              "autosp.uniform",
                                              "autosp.expert_mm",
                                              "autosp.expert_mm_weight_grad",
                                              "aten.sum.default",
                                              "aten.sum.dim_IntList",
                                              "aten.view.default",
                                              "aten.alias.default",
                                              "aten.permute.default",
                                              "aten.slice.Tensor",
                                              "aten.select.int",
                                              "aten.expand.default"};
  switch (instruction.kind) {
    case InstructionKind::kVjp:  // of an op that was found to be one
    case InstructionKind::kCopy:
    case InstructionKind::kAccumulate:
      return true;
    case InstructionKind::kCall:
    case InstructionKind::kRecord:
    case InstructionKind::kAlias:
    case InstructionKind::kUpdate:
      break;
    default:
      return false;
  }
  if (kOps.contains(instruction.op)) return true;
  if (instruction.op == "aten.flip.default") return false;  // laid out as elementwise ops are
  const OpRule* rule = FindOpRule(instruction.op);
  return rule != nullptr && rule->layout == ResultLayout::kElementwise;
}

bool MayReduceTokens(const Instruction& instruction) {
  return instruction.kind == InstructionKind::kVjp ||
         instruction.kind == InstructionKind::kAccumulate || instruction.op == "aten.sum.default" ||
         instruction.op == "aten.sum.dim_IntList" ||
         instruction.op == "autosp.expert_mm_weight_grad" ||
         instruction.op.starts_with("autosp.cross_entropy");
}

bool IsProduct(const Instruction& instruction) {
  return instruction.op == "aten.linear.default" || instruction.op == "aten.matmul.default" ||
         instruction.op == "aten.addmm.default" || instruction.op == "autosp.expert_mm";
}

ValueId RowsOf(const Instruction& product) {
  return OperandsOf(product)[product.op == "aten.addmm.default" ? 1 : 0];
}

int64_t ChooseTiles(const Program& program, const TiledFactor& factor, int64_t wanted) {
  if (wanted <= 1) return 1;
  wanted = std::max(wanted, (factor.local_size + kMostTokens - 1) / kMostTokens);
  const int64_t tiles = DivisorNear(factor.local_size, wanted);
  return FitsLayout(program, factor, tiles) ? tiles : 1;
}

bool HasFactor(const ProgramValue& value, FactorId factor) {
  return std::ranges::any_of(value.dims, [&](const ProgramDim& dim) {
    return std::ranges::any_of(dim, [&](const DimFactor& each) { return each.factor == factor; });
  });
}

bool IsTileable(const ProgramValue& value, const TiledFactor& factor) {
  int count = 0;
  for (const ProgramDim& dim : value.dims) {
    for (const DimFactor& each : dim) {
      if (each.factor != factor.factor) continue;
      if (each.padded || each.axes != factor.axes) return false;
      ++count;
    }
  }
  return count <= 1;
}

std::vector<ProgramDim> TileBody::TileDims(std::vector<ProgramDim> dims) const {
  for (ProgramDim& dim : dims) {
    for (DimFactor& each : dim) {
      if (each.factor == factor_.factor) each.axes.push_back(Axis::kTile);
    }
  }
  return dims;
}

std::vector<ProgramDim> TileBody::Isolated(const std::vector<ProgramDim>& dims, size_t* dim) const {
  std::vector<ProgramDim> result;
  for (const ProgramDim& each : dims) {
    const auto found = std::ranges::find(each, factor_.factor, &DimFactor::factor);
    if (found == each.end()) {
      result.push_back(each);
      continue;
    }
    const ProgramDim outer(each.begin(), found);
    if (builder_.program().LocalSize(outer) > 1) result.push_back(outer);
    *dim = result.size();
    result.emplace_back(builder_.program().LocalSize(outer) > 1 ? found : each.begin(), each.end());
  }
  return result;
}

// The place of the tile in what lies outside of the loop.
ValueId TileBody::SliceOfWhole(ValueId whole) {
  const std::vector<ProgramDim> dims = builder_.value(whole).dims;
  size_t dim = 0;
  const std::vector<ProgramDim> isolated = Isolated(dims, &dim);
  const std::vector<ProgramDim> tile = TileDims(isolated);
  const ValueId view = builder_.View(whole, isolated);
  const int64_t length = builder_.program().LocalSize(tile[dim]);
  return builder_.Slice(view, static_cast<int64_t>(dim), tile[dim],
                        {.base = 0, .terms = {{std::string(AxisName(Axis::kTile)), length}}});
}

ValueId TileBody::OnTile(ValueId value) {
  const auto found = tiles_.find(value);
  if (found != tiles_.end()) return found->second;
  if (!HasFactor(builder_.value(value), factor_.factor)) return value;
  ValueId tile = builder_.View(SliceOfWhole(value), TileDims(builder_.value(value).dims));
  // Kernels get what they got: between sequences of a batch, a tile has gaps.
  if (IsContiguous(builder_.Shape(value))) tile = builder_.Contiguous(tile);
  tiles_[value] = tile;
  return tile;
}

void TileBody::Know(ValueId whole, ValueId value) {
  const auto found = tiles_.find(value);
  if (found != tiles_.end()) tiles_[whole] = found->second;
}

void TileBody::AddCopy(ValueId value) {
  tiles_[value] =
      builder_.Copy(builder_.View(SliceOfWhole(value), TileDims(builder_.value(value).dims)));
}

void TileBody::AddInto(ValueId whole, ValueId value) {
  if (!HasFactor(builder_.value(whole), factor_.factor)) {
    return builder_.Accumulate(whole, tiles_.at(value));
  }
  const ValueId place = SliceOfWhole(whole);
  builder_.Accumulate(place, builder_.View(tiles_.at(value), builder_.value(place).dims));
}

void TileBody::Add(const Instruction& instruction) {
  const Phase phase = builder_.SetPhase(instruction.phase);
  Source source = builder_.SetSource(instruction.source);
  if (instruction.kind == InstructionKind::kAlias) {
    AddAlias(instruction);
  } else {
    AddClone(instruction);
  }
  builder_.SetSource(std::move(source));
  builder_.SetPhase(phase);
}

void TileBody::AddAlias(const Instruction& alias) {
  const ValueId result = alias.results[0];
  const ValueId operand = OnTile(OperandsOf(alias)[0]);
  const std::vector<ProgramDim> dims = TileDims(builder_.value(result).dims);
  ValueId& tile = tiles_[result];
  if (alias.op == "aten.permute.default") {
    std::vector<int64_t> order;
    for (const SymInt& each : std::get<IntList>(alias.args[1])) order.push_back(each.value);
    tile = builder_.Permute(operand, order);
  } else if (alias.op == "aten.slice.Tensor") {
    const int64_t dim = std::get<SymInt>(alias.args[1]).value;
    tile = builder_.Slice(operand, dim, dims[dim], StartOf(builder_.program(), alias, dim),
                          std::get<SymInt>(alias.args[4]).value);
  } else if (alias.op == "aten.select.int") {
    tile = builder_.Select(operand, std::get<SymInt>(alias.args[1]).value,
                           std::get<SymInt>(alias.args[2]).value);
  } else if (alias.op == "aten.expand.default") {
    tile = builder_.Expand(operand, dims);
  } else if (alias.op == "aten.view.default") {
    tile = builder_.View(operand, dims);
  } else {
    AUTOSP_CHECK(alias.op == "aten.alias.default", alias.op);
    ProgramValue type = builder_.Like(operand);
    type.strides = builder_.Shape(operand).strides;
    type.offset = builder_.value(operand).offset;
    tile = builder_.Alias(alias.op, {operand}, operand, std::move(type));
  }
}

ProgramValue TileBody::TileType(const ProgramValue& value, bool sums) const {
  ProgramValue type = value;
  type.dims = TileDims(value.dims);
  const bool is_split = HasFactor(value, factor_.factor);
  if (sums && !is_split && !value.is_tape) {
    type.partial.axes = Union(type.partial.axes, {Axis::kTile});
  }
  const Program& program = builder_.program();
  if (!value.strides.empty()) {
    type.strides = DenseLike({program.LocalSizes(value), value.strides}, program.LocalSizes(type));
  }
  return type;
}

void TileBody::AddClone(const Instruction& instruction) {
  Instruction tile = instruction;
  bool sums = false;  // over tiles, where a result is not split by them
  const auto replace = [&](ValueId& id) {
    const bool is_own =
        std::ranges::count(instruction.results, id) > 0;  // saved by the tape that it makes
    if (is_own) return;
    id = OnTile(id);
    sums = sums || IsTiled(builder_.value(id));
  };
  ForEachValue(tile, replace);
  for (ValueId& result : tile.results) {
    const ValueId whole = result;
    result = builder_.Define("t", TileType(builder_.value(whole), sums));
    tiles_[whole] = result;
  }
  for (auto& [key, argument] : tile.attributes) {
    ForEachValue(argument, [&](ValueId& id) {
      if (std::ranges::count(instruction.results, id) > 0) id = tiles_.at(id);
    });
  }
  if (instruction.op == "aten.zeros.default") {
    const Sizes sizes = builder_.LocalSizes(tile.results[0]);
    tile.args[0] = IntList(sizes.begin(), sizes.end());
  }
  const int64_t tiles = builder_.program().mesh.tile;
  tile.workspace_bytes = (tile.workspace_bytes + tiles - 1) / tiles;
  builder_.body().push_back(std::move(tile));
}

}  // namespace autosp
