// The program: one explicit, ordered list of instructions that every rank executes.
//
// It is what the compiler emits, what people read, what the simulator walks, what the checker
// proves and what ranks run; its text is its canonical form and its digest names a plan. The list
// is the same for every rank: what differs between ranks is named (`rank.ulysses` in offsets, group
// members of a collective, the shard that a feed reads).
//
//   program "llama" {
//     mesh accum=1 dp=1 ring=1 ulysses=2
//     factor batch = 2
//     factor seq = 511
//     param %w "lm_head.weight" : f32[256, 64]
//     state %m "adamw.exp_avg:lm_head.weight" init=zeros : f32[256, 64]
//     scalar %lr "learning_rate" : f32[]
//     section step {
//       %ids = feed "input_ids" {pad=0} : i64[batch@accum+dp, seq@ulysses] ; forward
//       %x = call aten.embedding.default(%w, %ids, -1, false, false) : f32[batch@dp, seq@ulysses,
//       64] %y, %t = record aten.silu.default(%x) {diff=[0], saves=[%x]} : f32[...], tape %q2 =
//       start all_to_all(%q) {axes="ulysses", split=1, concat=2} : f32[...] wait(%q2) %v = alias
//       aten.transpose.int(%x, 1, 2) : f32[...]{strides=64,1,2048} %dx = vjp(%t, %dy) {saved=[%x]}
//       : f32[...] accumulate(%gw, %dw) free(%x, %y) for accum 4 { ... } update autosp.adamw_(%w,
//       %gw, %m, %v2, %lr, %step) {beta1=0.9} output "loss"(%loss)
//     }
//   }
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "compiler/ir/argument.h"
#include "compiler/ir/dtype.h"
#include "compiler/ir/graph.h"
#include "compiler/program/mesh.h"

namespace autosp {

struct FactorId {
  int32_t index = -1;
  bool valid() const { return index >= 0; }
  friend auto operator<=>(FactorId, FactorId) = default;
};

// The map from (shard, local index) to global index of a sharded factor.
enum class Layout : uint8_t {
  kContiguous,  // shard i holds [i * L, (i + 1) * L), L = ceil(size / shards); the tail is padding
  // Balances causal ring attention. On a mesh of R = ring and U = ulysses, L is the least even
  // number with R * U * L >= size, and the R * U * L elements are 2R blocks. Ring member r holds
  // blocks r and 2R - 1 - r, one after the other, and ulysses member u the u-th part of length L of
  // these. Split over ring alone the shard is both blocks whole, so that the padded size does not
  // depend on the axes. Where R is 1, and on axes that do not begin with ring, shards are
  // contiguous.
  kZigzag,
};

// A named factor of dimensions: batch, sequence, heads, ... `size` counts valid global elements.
struct Factor {
  std::string name;
  int64_t size = 1;
  Layout layout = Layout::kContiguous;
};

// One factor of one dimension of a value, major first.
struct DimFactor {
  FactorId factor = {};  // invalid: an anonymous factor of `size`
  int64_t size = 1;      // of an anonymous factor
  AxisList axes = {};    // the mesh axes that split it; empty: whole
  bool padded = false;   // whole but with its padding kept, as a collective leaves it:
                         // `pad(seq@ulysses)` prints the axes whose shards were put together
  friend bool operator==(const DimFactor&, const DimFactor&) = default;
};
using ProgramDim = absl::InlinedVector<DimFactor, 1>;  // empty: a dimension of size 1

// What a value holds on the axes that split none of its dims.
enum class Reduction : uint8_t { kSum, kMax };
struct Partial {
  AxisList axes;  // empty: not partial; the value is replicated over every axis that is not named
  Reduction reduction = Reduction::kSum;
  friend bool operator==(const Partial&, const Partial&) = default;
};

enum class Account : uint8_t { kDevice, kPinnedHost, kCommunication, kDisk };
std::string_view AccountName(Account account);  // "device", "pinned_host", "communication", "disk"

// base + sum of coefficient * variable. Variables: "rank.dp", "rank.ring", "rank.ulysses" (place on
// the axis), or the variable of an enclosing `for`.
struct LinearExpr {
  int64_t base = 0;
  std::vector<std::pair<std::string, int64_t>> terms;
  bool is_const() const { return terms.empty(); }
  friend bool operator==(const LinearExpr&, const LinearExpr&) = default;
};

struct StorageId {
  int32_t index = -1;
  friend auto operator<=>(StorageId, StorageId) = default;
};

struct ProgramValue {
  std::string name;
  bool is_tape = false;  // the record of one taped op; holds no tensor unless `opaque`
  DType dtype = DType::kF32;
  std::vector<ProgramDim> dims;
  Partial partial;
  // Local layout in memory, in elements. `strides` empty: contiguous. An alias shares the storage
  // of its operand; every other result owns a new one.
  std::vector<int64_t> strides;
  LinearExpr offset;
  StorageId storage;
  Account account = Account::kDevice;
};

enum class InstructionKind : uint8_t {
  kFeed,        // one graph input of the current micro-step, read at the placement of its type
  kCall,        // an op without a tape; never writes to operands
  kRecord,      // an op whose derivative is wanted: results, then a tape
  kVjp,         // (tape, grad of each result or none) -> grad of each operand listed in `diff`
  kAlias,       // a view: as_strided(storage of the operand, sizes, strides, offset)
  kCopy,        // contiguous copy, or a move between accounts; may change dtype
  kAccumulate,  // dst += src, dst first; dst may be of a wider dtype
  kUpdate,      // an op that writes to its first operand(s): optimizer steps, in-place matmul
  kStart,       // begins a collective; results may not be read before the wait
  kWait,
  kFree,    // ends the life of values; a storage goes with its last value
  kFor,     // repeats the body `count` times with a loop variable
  kOutput,  // names a value that the host reads after the section: loss, grad_norm, ...
};
std::string_view InstructionKindName(InstructionKind kind);

enum class Phase : uint8_t { kForward, kBackward, kReduce, kOptimizer };
std::string_view PhaseName(Phase phase);

using AttributeMap = std::map<std::string, Argument, std::less<>>;  // printed in key order

struct Instruction {
  InstructionKind kind = InstructionKind::kCall;
  // call, record, alias, update: ATen name with overload, or "autosp.name" for ops of our own.
  // start: "all_to_all", "all_gather", "reduce_scatter", "all_reduce", "send_recv", "broadcast".
  // feed, output: the name that the user knows. for: the loop variable.
  std::string op;
  std::vector<Argument> args;  // in schema order, as in a graph
  std::vector<ValueId> results;
  AttributeMap attributes;
  Phase phase = Phase::kForward;
  int64_t workspace_bytes = 0;    // what the kernel allocates and frees itself, at its peak
  std::vector<Instruction> body;  // for
  Source source;
};

// The update that gives a buffer its value for the next step.
inline constexpr std::string_view kWriteBuffer = "aten.copy_.default";

enum class StateInit : uint8_t { kZeros, kCopyOfParameter };

// A value that lives from launch to the end of the job.
enum class PersistentKind : uint8_t {
  kParam,   // loaded from weights, written by the optimizer, saved
  kBuffer,  // loaded from weights; some are written by the step, and these are saved
  kState,   // made by the rank: moments, fp32 masters, gradient accumulators
  kScalar,  // a number on the device that the host writes before each step: learning rate, step
};
struct Persistent {
  ValueId value;
  PersistentKind kind = PersistentKind::kParam;
  std::string name;                  // state dict name, or "adamw.exp_avg:<parameter>"
  std::vector<std::string> aliases;  // other state dict names of the same parameter (tied)
  StateInit init = StateInit::kZeros;
  std::string init_from;  // kCopyOfParameter: the parameter's name
};

struct Section {
  std::string name;  // "step": one optimizer step; "eval": loss of one batch, no gradients
  std::vector<Instruction> body;
};

struct Program {
  std::string name;
  Mesh mesh;
  std::vector<Factor> factors;
  std::vector<ProgramValue> values;
  int32_t num_storages = 0;
  std::vector<Persistent> persistents;
  std::vector<Section> sections;

  const ProgramValue& value(ValueId id) const { return values[id.index]; }
  ProgramValue& value(ValueId id) { return values[id.index]; }
  const Section* FindSection(std::string_view name) const;
  // Buffers that the step writes: `update aten.copy_.default(%buffer, %new, false)`.
  std::vector<const Persistent*> WrittenBuffers() const;

  // With the padding of all shards; the size itself where nothing splits the factor.
  int64_t PaddedSize(const DimFactor& factor) const;
  int64_t LocalSize(const DimFactor& factor) const;  // PaddedSize / shards; padded: PaddedSize
  int64_t LocalSize(const ProgramDim& dim) const;    // product
  std::vector<int64_t> LocalSizes(const ProgramValue& value) const;
  std::vector<int64_t> LocalStrides(const ProgramValue& value) const;  // never empty for rank > 0
  int64_t LocalNumel(const ProgramValue& value) const;
  int64_t LocalBytes(const ProgramValue& value) const;  // numel x dtype size

  // Adds a value with a storage of its own; a taken name gets a suffix.
  ValueId AddValue(ProgramValue value);
  // Adds a value that shares the storage of `of`.
  ValueId AddAlias(ProgramValue value, ValueId of);
};

// Typed access to attributes; error names the instruction and the key.
absl::StatusOr<int64_t> IntAttribute(const Instruction& instruction, std::string_view key);
absl::StatusOr<double> FloatAttribute(const Instruction& instruction, std::string_view key);
absl::StatusOr<std::string> StringAttribute(const Instruction& instruction, std::string_view key);
absl::StatusOr<AxisList> AxesAttribute(const Instruction& instruction);  // "axes"
// A list of values or ints; empty where the key is absent.
ValueList ValuesAttribute(const Instruction& instruction, std::string_view key);
std::vector<int64_t> IntsAttribute(const Instruction& instruction, std::string_view key);

// Calls `visit(ValueId&)` for each value that arguments and attributes name, saved ones too; not
// for results, nor for what is in a body.
template <typename Visit>
void ForEachValue(Instruction& instruction, Visit visit) {
  for (Argument& argument : instruction.args) ForEachValue(argument, visit);
  for (auto& [key, argument] : instruction.attributes) ForEachValue(argument, visit);
}

// The tensor operands in order (args only), and every value read including attributes.
std::vector<ValueId> OperandsOf(const Instruction& instruction);
std::vector<ValueId> ReadsOf(const Instruction& instruction);
// Also what the body of a loop reads; of its own values too.
std::vector<ValueId> AllReadsOf(const Instruction& instruction);

// Other operands in arguments and attributes.
void ReplaceOperands(const std::map<ValueId, ValueId>& replacements, Instruction& instruction);
// The same in bodies of loops too. A view then lies in the memory of what it is now a view of.
void ReplaceReads(Program& program, const std::map<ValueId, ValueId>& replacements,
                  Instruction& instruction);

// Makes a record the call that it records.
void DropTape(Instruction& record);
// The same instruction once more, and its body, with results of their own, which are added to
// `renamed`. Operands that are in `renamed` are replaced.
Instruction CloneInstruction(Program& program, const Instruction& instruction,
                             std::string_view suffix, std::map<ValueId, ValueId>& renamed);

std::string PrintProgram(const Program& program);
absl::StatusOr<Program> ParseProgram(std::string_view text);
// "%12 = call aten.mul.Tensor(%10, %11)", for messages.
std::string PrintInstruction(const Program& program, const Instruction& instruction);
std::string ProgramDigest(const Program& program);  // sha256 of PrintProgram, hex

}  // namespace autosp
