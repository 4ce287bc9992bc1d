#include "compiler/lowering/block_attention.h"

#include <limits>
#include <string>

#include "absl/strings/match.h"

namespace autosp {
namespace {

int64_t RingSize(const Program& program, const Instruction& attention) {
  const auto axes = attention.attributes.find("axes");
  const bool is_ring = std::get<std::string>(axes->second) == AxisName(Axis::kRing);
  return is_ring ? program.mesh.ring : 1;
}

// The dimension of tokens in keys and values.
constexpr int64_t kTokenDim = 2;

// Starts a collective of keys and values over the ring, and waits for it.
void Exchange(ProgramBuilder& builder, std::string kind, const std::vector<ValueId>& values,
              const std::vector<ValueId>& results, AttributeMap attributes) {
  attributes["axes"] = std::string(AxisName(Axis::kRing));
  attributes["dim"] = IntList(values.size(), SymInt(kTokenDim));
  builder.Append(InstructionKind::kStart, std::move(kind), {values.begin(), values.end()}, results)
      .attributes = std::move(attributes);
  builder.Append(InstructionKind::kWait, "", {results.begin(), results.end()}, {});
}

IntList ToIntList(const Sizes& sizes) { return {sizes.begin(), sizes.end()}; }

void Expand(ProgramBuilder& builder, const Instruction& attention) {
  const ValueId out = attention.results[0];
  const ValueId lse = attention.results[1];
  const DType dtype = builder.value(out).dtype;
  // The running result is fp32; in fp32 it is the result.
  ValueId running = out;
  if (dtype != DType::kF32) {
    ProgramValue type = builder.Like(out);
    type.dtype = DType::kF32;
    running = builder.Define("acc", std::move(type));
  }
  builder.Append(InstructionKind::kCall, "aten.zeros.default",
                 {ToIntList(builder.LocalSizes(out)), DType::kF32, None{}, None{}, None{}},
                 {running});
  builder.Append(InstructionKind::kCall, "aten.full.default",
                 {ToIntList(builder.LocalSizes(lse)), -std::numeric_limits<double>::infinity(),
                  DType::kF32, None{}, None{}, None{}},
                 {lse});
  const int64_t workspace_bytes = AttendBlockWorkspace(HopShape(builder.program(), attention));
  ForEachHop(builder, attention, [&](int64_t hop, ValueId key, ValueId value) {
    builder.Update("autosp.attend_block_",
                   {running, lse, attention.args[0], key, value, attention.args[3],
                    attention.args[4], SymInt(hop)},
                   attention.attributes);
    builder.body().back().workspace_bytes = workspace_bytes;
  });
  if (running == out) return;
  builder.Append(InstructionKind::kCall, "aten.to.dtype", {running, dtype, false, false, None{}},
                 {out});
}

}  // namespace

AttentionShape HopShape(const Program& program, const Instruction& attention) {
  const auto sizes = [&](size_t arg) {
    return program.LocalSizes(program.value(std::get<ValueId>(attention.args[arg])));
  };
  const Sizes query = sizes(0);
  const Sizes key = sizes(1);
  const int64_t blocks = KeysAreGathered(attention) ? program.mesh.ring : 1;
  return {.batch = query[0],
          .num_heads = query[1],
          .num_kv_heads = key[1],
          .q_len = query[2],
          .k_len = key[2] * blocks,
          .qk_head_dim = query[3],
          .v_head_dim = sizes(2)[3],
          .element_bytes = SizeOf(program.value(std::get<ValueId>(attention.args[0])).dtype),
          .causal = std::get<bool>(attention.attributes.at("causal")),
          .window = std::get<SymInt>(attention.attributes.at("window")).value,
          .has_docs = !IsNone(attention.args[3]) || !IsNone(attention.args[4])};
}

std::vector<ValueId> StartHop(ProgramBuilder& builder, const std::vector<ValueId>& values) {
  std::vector<Argument> args;
  std::vector<ValueId> received;
  for (ValueId value : values) {
    args.emplace_back(value);
    received.push_back(builder.Define("hop", builder.Like(value)));
  }
  builder.Append(InstructionKind::kStart, "send_recv", std::move(args), received).attributes = {
      {"axes", std::string(AxisName(Axis::kRing))}, {"shift", SymInt(1)}};
  return received;
}

bool IsAttentionDerivative(const Instruction& instruction) {
  return instruction.op == "autosp.attend_block_backward_" ||
         (absl::StrContains(instruction.op, "scaled_dot_product") &&
          absl::StrContains(instruction.op, "_backward"));
}

bool KeysAreGathered(const Instruction& attention) {
  return attention.attributes.contains(kKeysGathered);
}

ProgramValue GatheredOverRing(const ProgramBuilder& builder, ValueId value) {
  ProgramValue type = builder.Like(value);
  type.dims[kTokenDim].front().padded = true;
  type.strides.clear();
  return type;
}

std::vector<ValueId> ScatterOverRing(ProgramBuilder& builder, const std::vector<ValueId>& values) {
  std::vector<ValueId> parts;
  for (ValueId value : values) {
    ProgramValue type = builder.Like(value);
    type.dims[kTokenDim].front().padded = false;
    type.strides.clear();
    type.partial.axes = Without(type.partial.axes, {Axis::kRing});
    parts.push_back(builder.Define("part", std::move(type)));
  }
  Exchange(builder, "reduce_scatter", values, parts, {{"reduction", std::string("sum")}});
  return parts;
}

void ForEachHop(ProgramBuilder& builder, const Instruction& attention, const AttendHop& attend) {
  const int64_t ring = RingSize(builder.program(), attention);
  std::vector<ValueId> held = {std::get<ValueId>(attention.args[1]),
                               std::get<ValueId>(attention.args[2])};
  if (KeysAreGathered(attention)) {
    std::vector<ValueId> whole;
    for (ValueId value : held)
      whole.push_back(builder.Define("all", GatheredOverRing(builder, value)));
    Exchange(builder, "all_gather", held, whole, {});
    return attend(0, whole[0], whole[1]);
  }
  for (int64_t hop = 0; hop < ring; ++hop) {
    const bool is_last = hop + 1 == ring;
    std::vector<ValueId> next;
    if (!is_last) next = StartHop(builder, held);
    attend(hop, held[0], held[1]);
    if (is_last) break;
    builder.Append(InstructionKind::kWait, "", {next[0], next[1]}, {});
    held = next;
  }
}

void ExpandBlockAttention(ProgramBuilder& builder, std::vector<Instruction>& body) {
  std::vector<Instruction> expanded;
  std::vector<Instruction>* outer = builder.SetBody(&expanded);
  for (Instruction& instruction : body) {
    if (instruction.op != kBlockAttention) {
      expanded.push_back(std::move(instruction));
      continue;
    }
    const Phase phase = builder.SetPhase(instruction.phase);
    Source source = builder.SetSource(instruction.source);
    Expand(builder, instruction);
    builder.SetSource(std::move(source));
    builder.SetPhase(phase);
  }
  builder.SetBody(outer);
  body = std::move(expanded);
}

}  // namespace autosp
