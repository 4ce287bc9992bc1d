// Attention over blocks of keys: around a ring, and where a mask leaves most pairs out.
//
// While lowering, one instruction stands for all of it:
//
//   %o, %lse = call autosp.block_attention(%q, %k, %v, %q_docs, %k_docs)
//                  {axes="ring", causal=true, factor="seq", scale=0.125, window=0}
//
// q [B, N, S/R, H]; k, v [B, K, S/R, H], consecutive query heads share a kv head; docs [B, S] or
// none: a query attends to keys of its own document. Its adjoint and its expansion are explicit:
// member r of a ring of R attends first to its own keys, then to those of r - 1, r - 2, ..., which
// travel from neighbour to neighbour while it computes. Partial results are merged by their
// log-sum-exp in fp32 (Liu, Zaharia, Abbeel: Ring Attention with Blockwise Transformers, 2023). The
// sequence is laid out in zigzag, so that every hop of causal attention is the same work for all.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "compiler/lowering/program_builder.h"
#include "compiler/program/attention_workspace.h"

namespace autosp {

inline constexpr std::string_view kBlockAttention = "autosp.block_attention";

// With {gathered=true} there is one hop for all: keys and values of all members are put together
// before it, in the order of the members (context parallelism by all_gather). In the backward they
// are gathered once more, and the gradients of the whole are summed and split in fp32. That is one
// call where there were R - 1, and (R - 1) / R of the gradients' bytes, but nothing hides it, and
// the keys and values of all take memory.
inline constexpr std::string_view kKeysGathered = "gathered";

// Replaces each instruction above in `body` by the hops of its ring.
void ExpandBlockAttention(ProgramBuilder& builder, std::vector<Instruction>& body);

// Whether an instruction of the backward is the derivative of attention, or of one hop of it.
bool IsAttentionDerivative(const Instruction& instruction);

bool KeysAreGathered(const Instruction& attention);

// Appends the travel of keys and values around the ring of `attention`. `attend` appends the work
// of a hop on the keys and values at hand; the exchange for the next hop runs meanwhile.
using AttendHop = std::function<void(int64_t hop, ValueId key, ValueId value)>;
void ForEachHop(ProgramBuilder& builder, const Instruction& attention, const AttendHop& attend);

// What the ops allocate for one hop.
AttentionShape HopShape(const Program& program, const Instruction& attention);

// What one member holds, [B, K, S/R, H], of all members: [B, K, S, H], with its padding.
ProgramValue GatheredOverRing(const ProgramBuilder& builder, ValueId value);
// Appends the way back: of such values, partial sums over the ring, the part of each member.
std::vector<ValueId> ScatterOverRing(ProgramBuilder& builder, const std::vector<ValueId>& values);

// Appends one hop of a ring for all `values`: what the neighbour holds, in results of their types.
// The caller appends the wait.
std::vector<ValueId> StartHop(ProgramBuilder& builder, const std::vector<ValueId>& values);

}  // namespace autosp
