// Attention on blocks of keys, in as many hops as the ring has members.
//
// At a hop a rank reads the keys of the member `hop` places before it: they must have travelled
// that far (ValueState::rotation). What hops add to is nothing that may be read before all have
// added, each once (ValueState::hops). Then it has the meaning of attention on all keys; the
// gradients of keys and values are read when they are home again.
#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "compiler/checker/interpreter.h"

namespace autosp::checker {

// One hop, as its instruction states it: what it writes, what it reads, documents, the hop.
struct Interpreter::Block {
  bool is_backward = false;
  std::vector<ValueId> written;  // out, logsumexp; or the gradients of query, key and value
  std::vector<ValueId> read;     // in the order of AttentionMeaning
  size_t num_docs = 0;           // the last of `read`
  std::string rule;
  PlacedDim tokens;
  PlacedDim key_tokens;  // the same, or those of all members of the ring
  int64_t num_tokens = 0;
  bool is_gathered = false;  // one hop has the keys of all members
  int64_t num_hops = 1;
  int64_t hop = 0;

  size_t query() const { return is_backward ? 1 : 0; }  // of `read`
  bool IsKey(size_t i) const { return i == query() + 1 || i == query() + 2; }
};

absl::Status Interpreter::ReadBlock(const Instruction& instruction, Block* block) const {
  block->is_backward = instruction.op == "autosp.attend_block_backward_";
  const size_t num_written = block->is_backward ? 3 : 2;
  const size_t docs = block->is_backward ? 9 : 5;
  if (instruction.args.size() != docs + 3) {
    return Refuse(instruction, absl::StrCat("a block has ", docs + 3, " operands"));
  }
  std::string docs_text;
  for (size_t arg = 0; arg < docs + 2; ++arg) {
    const auto* id = std::get_if<ValueId>(&instruction.args[arg]);
    if (id == nullptr && arg < docs) return Refuse(instruction, "only documents may be left out");
    if (id == nullptr) continue;
    (arg < num_written ? block->written : block->read).push_back(*id);
    if (arg < docs) continue;
    ++block->num_docs;
    docs_text += arg == docs ? " of queries" : " of keys";
  }
  ASSIGN_OR_RETURN(const std::string axes, StringAttribute(instruction, "axes"));
  ASSIGN_OR_RETURN(const std::string name, StringAttribute(instruction, "factor"));
  ASSIGN_OR_RETURN(const double scale, FloatAttribute(instruction, "scale"));
  ASSIGN_OR_RETURN(const int64_t window, IntAttribute(instruction, "window"));
  const auto causal = instruction.attributes.find("causal");
  const auto factor = std::ranges::find(program_.factors, name, &Factor::name);
  const bool is_ring = axes == AxisName(Axis::kRing);
  const auto gathered = instruction.attributes.find("gathered");
  block->is_gathered = gathered != instruction.attributes.end();
  // How many tokens stand for one of the factor. Which kernel computes it does not change what it
  // computes.
  const bool has_pieces = instruction.attributes.contains("piece");
  const int64_t piece = has_pieces ? IntAttribute(instruction, "piece").value_or(0) : 1;
  const size_t num_known = 5 + (block->is_gathered ? 1 : 0) + (has_pieces ? 1 : 0) +
                           instruction.attributes.count("kernel");
  const bool is_known = causal != instruction.attributes.end() &&
                        std::holds_alternative<bool>(causal->second) &&
                        (!block->is_gathered || (is_ring && gathered->second == Argument(true))) &&
                        instruction.attributes.size() == num_known && (is_ring || axes.empty()) &&
                        piece > 0 && factor != program_.factors.end();
  if (!is_known) return NotProven(instruction, "attributes that the checker does not know");
  block->rule = absl::StrCat(AttentionRule(std::get<bool>(causal->second), scale, window),
                             docs_text.empty() ? "" : " documents", docs_text);
  DimFactor tokens;
  tokens.factor = FactorId{static_cast<int32_t>(factor - program_.factors.begin())};
  if (is_ring) tokens.axes = {Axis::kRing};
  ProgramDim dim = {tokens};
  if (has_pieces) dim.push_back({.factor = {}, .size = piece});
  block->tokens = Place(program_, dim);
  block->num_hops = block->is_gathered ? 1 : program_.mesh.size(tokens.axes);
  dim.front().padded = block->is_gathered;
  block->key_tokens = Place(program_, dim);
  block->num_tokens = factor->size * piece;
  const OpCall call{program_, instruction, {}, {}};
  block->hop = call.Int(docs + 2).value_or(-1);
  if (block->hop >= 0 && block->hop < block->num_hops) return absl::OkStatus();
  return Refuse(instruction, absl::StrCat("of ", block->num_hops, " hops it has none"));
}

// Tokens are split over the ring alone, heads by group, and documents lie whole on every rank.
absl::Status Interpreter::CheckBlockDims(const Instruction& instruction, const Block& block,
                                         const std::vector<const ValueState*>& read) {
  const PlacedDims& query = read[block.query()]->dims;
  PlacedDims key = read[block.query() + 1]->dims;
  PlacedDims value = read[block.query() + 2]->dims;
  const bool is_grouped = GroupHeads(query, &key) && GroupHeads(query, &value);
  if (!is_grouped || !IsWhole(query[3]) || !IsWhole(value[3])) {
    return Refuse(instruction, "the heads of keys and values are not groups of those of queries");
  }
  const PlacedDims expected = {query[0], query[1], block.tokens, query[3]};
  const PlacedDims keys = {query[0], query[1], block.key_tokens, query[3]};
  const PlacedDims values = {query[0], query[1], block.key_tokens, value[3]};
  const PlacedDims out = {query[0], query[1], block.tokens, value[3]};
  const PlacedDims lse = {query[0], query[1], block.tokens};
  bool fits = query == expected && key == keys && value == values;
  if (block.is_backward) {
    fits = fits && read[0]->dims == out && read[4]->dims == out && read[5]->dims == lse &&
           state(block.written[0]).dims == query && state(block.written[1]).dims == read[2]->dims &&
           state(block.written[2]).dims == read[3]->dims;
  } else {
    fits = fits && state(block.written[0]).dims == out && state(block.written[1]).dims == lse;
  }
  for (size_t i = read.size() - block.num_docs; i < read.size(); ++i) {
    const PlacedDims& docs = read[i]->dims;
    fits = fits && docs.size() == 2 && (docs[0].empty() || docs[0] == query[0]) &&
           IsWhole(docs[1]) && LogicalSize(docs[1]) == block.num_tokens;
  }
  if (fits) return absl::OkStatus();
  return Refuse(instruction,
                absl::StrCat("its operands are not split as tokens ", ToText({block.tokens}),
                             " and heads ", ToText({query[1]})));
}

// What is read is where the hop says, is no part of a sum but for the gradient, in which the
// backward is linear, and a number in its padding: what is computed there is thrown away, or
// multiplied by zero.
absl::Status Interpreter::CheckBlockOperand(const Instruction& instruction, const Block& block,
                                            size_t index) {
  const ValueId id = block.read[index];
  ASSIGN_OR_RETURN(const ValueState* operand, ReadAnywhere(instruction, id));
  RETURN_IF_ERROR(CheckComplete(instruction, id));
  const int64_t rotation = block.IsKey(index) ? block.hop : 0;
  if (operand->rotation != rotation) {
    return Refuse(instruction,
                  absl::StrCat("%", NameOf(id), " is ", operand->rotation,
                               " members from home on the ring, and is read as if ", rotation));
  }
  const bool is_linear = block.is_backward && index == 0;
  if (!is_linear && !operand->partial.empty()) {
    return Refuse(instruction, absl::StrCat("%", NameOf(id), " is a partial sum over ",
                                            AxisListName(operand->partial)));
  }
  // Documents are whole, and the logsumexp of padding is not looked at.
  const bool is_looked_at = index < block.query() + 4 && index + block.num_docs < block.read.size();
  for (const PadKey& key : PadKeys(operand->dims)) {
    const auto found = operand->pads.find(key);
    const bool is_number = found != operand->pads.end() && found->second.is_finite();
    if (is_number || !is_looked_at) continue;
    return Refuse(instruction,
                  absl::StrCat("the padding of %", NameOf(id), " may hold what is no number"));
  }
  return absl::OkStatus();
}

// Hops add also where a rank has padding.
absl::Status Interpreter::CheckHopStart(const Instruction& instruction, ValueId id,
                                        double start) const {
  const ValueState& value = states_[id.index];
  if (!table_.IsFull(value.meaning, start)) {
    return Refuse(instruction, absl::StrCat("%", NameOf(id), " does not begin as ", start));
  }
  for (const PadKey& key : PadKeys(value.dims)) {
    const auto pad = value.pads.find(key);
    if (pad != value.pads.end() && pad->second == PadState::Constant(start)) continue;
    return Refuse(instruction,
                  absl::StrCat("the padding of %", NameOf(id), " does not begin as ", start));
  }
  return absl::OkStatus();
}

absl::Status Interpreter::AddHop(const Instruction& instruction, const Block& block, size_t index,
                                 const std::vector<const ValueState*>& read,
                                 const std::vector<Tensor>& meanings) {
  const ValueId id = block.written[index];
  const bool is_lse = !block.is_backward && index == 1;
  ValueState next = state(id);
  // The node tells the attention and, of its results, which.
  const NodeId attention = meanings[index].terms[0].base;
  const double start = is_lse ? -std::numeric_limits<double>::infinity() : 0;
  if (next.hops.empty()) RETURN_IF_ERROR(CheckHopStart(instruction, id, start));
  if (!next.hops.empty() && next.attention != attention) {
    return Refuse(instruction, absl::StrCat("%", NameOf(id), " has hops of other attention"));
  }
  if (std::ranges::count(next.hops, block.hop) > 0) {
    return Refuse(instruction, absl::StrCat("%", NameOf(id), " has hop ", block.hop, " already"));
  }
  const int64_t rotation = block.is_backward && index > 0 ? block.hop : 0;
  if (next.rotation != rotation) {
    return Refuse(instruction,
                  absl::StrCat("%", NameOf(id), " is ", next.rotation, " members from home on the ",
                               "ring, the keys ", rotation));
  }
  AxisList partial = block.is_backward ? read[0]->partial : AxisList{};
  // Each member adds what its own queries give to the gradients of all keys.
  if (block.is_backward && block.is_gathered && index > 0) {
    partial = Plus(partial, {Axis::kRing});
  }
  if (next.partial != partial) {
    return Refuse(instruction, absl::StrCat("%", NameOf(id), " is a partial sum over [",
                                            AxisListName(next.partial), "], what is added over [",
                                            AxisListName(partial), "]"));
  }
  next.attention = attention;
  next.hops.push_back(block.hop);
  std::ranges::sort(next.hops);
  if (static_cast<int64_t>(next.hops.size()) == block.num_hops) {
    next.hops.clear();
    next.meaning = meanings[index];
    const std::vector<PadKey> tokens = PadKeys({block.tokens, block.key_tokens});
    for (const PadKey& key : PadKeys(next.dims)) {
      const bool is_token = std::ranges::count(tokens, key) > 0;
      next.pads[key] = is_token ? PadState::Constant(start) : PadState::Finite();
    }
  }
  return Overwrite(instruction, id, std::move(next));
}

absl::Status Interpreter::UpdateAttendBlock(const Instruction& instruction) {
  Block block;
  RETURN_IF_ERROR(ReadBlock(instruction, &block));
  std::vector<const ValueState*> read;
  for (size_t i = 0; i < block.read.size(); ++i) {
    RETURN_IF_ERROR(CheckBlockOperand(instruction, block, i));
    read.push_back(&state(block.read[i]));
  }
  for (ValueId id : block.written) {
    RETURN_IF_ERROR(ReadAnywhere(instruction, id).status());
    const StorageId storage = program_.value(id).storage;
    const auto shares = [&](ValueId other) {
      return other != id && program_.value(other).storage == storage;
    };
    const bool is_own = !state(id).parent.valid() && std::ranges::none_of(block.read, shares) &&
                        std::ranges::none_of(block.written, shares) &&
                        std::ranges::count(block.written, id) == 1 &&
                        std::ranges::count(block.read, id) == 0;
    if (!is_own || program_.value(id).dtype != DType::kF32) {
      return Refuse(instruction,
                    absl::StrCat("%", NameOf(id), " must be fp32 in memory of its own"));
    }
  }
  RETURN_IF_ERROR(CheckBlockDims(instruction, block, read));
  const std::vector<Tensor> meanings =
      AttentionMeaning(block.is_backward, block.rule, MeaningsOf(read));
  if (!block.is_backward && state(block.written[0]).hops != state(block.written[1]).hops) {
    return Refuse(instruction, "the result and its logsumexp have different hops so far");
  }
  for (size_t i = 0; i < block.written.size(); ++i) {
    RETURN_IF_ERROR(AddHop(instruction, block, i, read, meanings));
  }
  return absl::OkStatus();
}

// Only a hop may touch what lacks hops.
absl::Status Interpreter::CheckComplete(const Instruction& instruction, ValueId id) const {
  const ValueState& value = states_[id.index];
  if (value.hops.empty()) return absl::OkStatus();
  return Refuse(instruction, absl::StrCat("%", NameOf(id), " has ", value.hops.size(), " of ",
                                          program_.mesh.ring, " hops, and may not be read"));
}

// Only attention may read what is on its way around the ring.
absl::Status Interpreter::CheckAtHome(const Instruction& instruction, ValueId id) const {
  const ValueState& value = states_[id.index];
  if (value.rotation == 0) return absl::OkStatus();
  return Refuse(instruction,
                absl::StrCat("%", NameOf(id), " holds the shards of the ring's members ",
                             value.rotation, " places before, and is for attention only"));
}

}  // namespace autosp::checker
