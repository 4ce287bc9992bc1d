// No wrong program passes: every mutant of a set of real programs is refused.
#include <algorithm>
#include <iostream>
#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "compiler/checker/check_program.h"
#include "gtest/gtest.h"
#include "tests/compiler/checker/mutations.h"
#include "tests/compiler/checker/zoo_jobs.h"

namespace autosp {
namespace {

struct Subject {
  const char* model;
  int64_t batch;
  int64_t seq_len;
  Mesh mesh;
  MemoryChoice memory = {};
};

constexpr Subject kSubjects[] = {
    {"llama", 4, 64, {1, 1, 1, 2}},
    {"llama", 4, 63, {1, 1, 1, 4}},
    {"llama", 4, 63, {2, 1, 1, 2}},
    {"llama", 4, 64, {1, 2, 1, 2}},
    {"gpt2", 4, 64, {1, 2, 1, 2}},
    {"gpt2", 4, 63, {1, 1, 1, 4}},
    {"bert", 4, 64, {1, 1, 1, 2}},
    {"bert", 4, 63, {2, 2, 1, 2}},
    {"llama_bf16", 4, 63, {1, 1, 1, 2}},
    {"cases/mean_pool", 4, 16, {1, 1, 1, 4}},
    {"cases/max_pool", 2, 13, {1, 1, 1, 2}},
    {"cases/causal_conv", 4, 16, {1, 2, 1, 2}},
    {"cases/conv_over_time", 4, 16, {1, 1, 1, 2}},
    {"cases/conv_cut_to_length", 2, 13, {1, 1, 2, 1}},
    {"cases/shift_by_one", 2, 13, {1, 1, 1, 4}},
    {"cases/roll", 4, 16, {1, 1, 2, 1}},
    {"cases/softmax_over_sequence", 2, 13, {1, 1, 1, 4}},
    {"cases/no_grad_copy", 4, 16, {1, 1, 1, 2}},
    {"cases/shared_keys", 4, 16, {1, 2, 1, 2}},
    {"llama", 4, 63, {1, 1, 3, 1}},
    {"llama", 4, 64, {1, 2, 2, 2}},
    {"llama_bf16", 4, 64, {2, 1, 2, 1}},
    {"gpt2_dropout", 4, 63, {1, 1, 2, 1}},
    {"bert", 4, 64, {1, 1, 2, 1}},
    {"cases/packed", 4, 16, {1, 1, 2, 2}},
    {"cases/window", 4, 24, {1, 1, 4, 1}},
    {"cases/cumsum_mixer", 2, 13, {1, 1, 2, 1}},
    {"cases/weighted_smoothing", 2, 13, {1, 1, 1, 2}},
    {"cases/loss_none", 4, 16, {1, 1, 2, 1}},
    {"cases/sorted_tokens", 4, 16, {1, 2, 1, 2}},
    {"cases/mixture_of_experts", 2, 13, {1, 1, 1, 2}},
    {"cases/sorted_experts", 2, 13, {1, 1, 2, 1}},
    {"qwen3_moe", 4, 63, {1, 1, 1, 2}},
    {"cases/einsum_attention", 4, 16, {1, 1, 1, 2}},
    {"cases/other_norms", 2, 13, {1, 1, 1, 2}},
    {"cases/in_place_forms", 2, 13, {1, 1, 2, 1}},
    {"cases/moving_average", 4, 16, {1, 1, 1, 2}},
    {"cases/moving_average", 4, 16, {2, 1, 1, 2}},
    {"cases/batch_norms", 2, 13, {1, 1, 1, 2}},
    {"cases/buffer_views", 4, 16, {1, 2, 1, 2}},
    {"llama", 4, 64, {1, 1, 1, 2}, {Recompute::kFull, Tiling::kAll}},
    {"gpt2", 4, 64, {2, 1, 1, 2}, {Recompute::kSelective, Tiling::kAll}},
    {"bert", 4, 64, {1, 1, 2, 1}, {Recompute::kNone, Tiling::kAll}},
    {"llama", 4, 64, {1, 2, 1, 2}, {.zero_stage = 1}},
    {"llama", 4, 63, {2, 1, 1, 2}, {.zero_stage = 2}},
    {"llama", 4, 64, {1, 2, 1, 2}, {.zero_stage = 3}},
    {"llama_bf16", 4, 64, {1, 1, 2, 1}, {.zero_stage = 1}},
    {"gpt2", 4, 63, {2, 1, 1, 2}, {.zero_stage = 3}},
    {"llama", 4, 64, {2, 1, 1, 2}, {Recompute::kFull, Tiling::kAll, Offload::kNone, 3}},
    {"llama", 4, 63, {1, 1, 2, 2}, {.ring_exchange = RingExchange::kAllGather}},
    {"llama_bf16", 4, 64, {1, 1, 3, 1}, {.ring_exchange = RingExchange::kAllGather}},
    {"cases/packed", 2, 13, {1, 2, 2, 1}, {.ring_exchange = RingExchange::kAllGather}},
};
// Of each kind and program.
constexpr size_t kMaxMutants = 8;

struct Count {
  int64_t caught = 0;
  int64_t equivalent = 0;
};

// Starts of collectives in another order, on every rank alike: the same program, if neither reads
// what the other or anything between them makes.
bool IsOtherOrder(const Program& program, const Site& site) {
  const std::vector<Instruction>& body = BodyOf(const_cast<Program&>(program), site);
  std::vector<ValueId> made;
  for (size_t i = site.index; i < body.size(); ++i) {
    const bool is_next = i > site.index && body[i].kind == InstructionKind::kStart;
    if (is_next) {
      return std::ranges::none_of(ReadsOf(body[i]),
                                  [&](ValueId id) { return std::ranges::count(made, id) > 0; });
    }
    made.insert(made.end(), body[i].results.begin(), body[i].results.end());
    const bool writes =
        body[i].kind == InstructionKind::kAccumulate || body[i].kind == InstructionKind::kUpdate;
    if (writes) made.push_back(OperandsOf(body[i])[0]);
  }
  return false;
}

// The value at `site` was zeroed before, and nothing was added since.
bool IsStillZero(const Program& program, const Site& site) {
  const std::vector<Instruction>& body = BodyOf(const_cast<Program&>(program), site);
  const ValueId target = OperandsOf(body[site.index])[0];
  for (size_t i = site.index; i-- > 0;) {
    const std::vector<ValueId> operands = OperandsOf(body[i]);
    const bool writes =
        body[i].kind == InstructionKind::kAccumulate || body[i].kind == InstructionKind::kUpdate;
    if (!writes || operands[0] != target) continue;
    return body[i].op == "aten.zero_.default";
  }
  return false;
}

// Whether the first operand says which positions of a shard are valid.
bool MasksPadding(const Program& program, const Instruction& where) {
  const Instruction* made = DefinerOf(program, OperandsOf(where)[0]);
  while (made != nullptr && made->kind == InstructionKind::kAlias) {
    made = DefinerOf(program, OperandsOf(*made)[0]);
  }
  if (made == nullptr || made->op != "aten.lt.Scalar") return false;
  const Instruction* indices = DefinerOf(program, OperandsOf(*made)[0]);
  return indices != nullptr && indices->op == "autosp.shard_indices";
}

// Only the padding of a dimension is filled with another number, or what is a divisor there (1).
bool IsFill(const Program& program, const Site& site) {
  const Instruction& pad = At(program, site);
  const bool fills_divisor = pad.op == "aten.where.ScalarOther" && pad.args.size() == 3 &&
                             pad.args[2] == Argument(1.0) && MasksPadding(program, pad);
  if (fills_divisor) return true;
  if (pad.op != "aten.constant_pad_nd.default" && pad.op != "autosp.to_shards") return false;
  for (const ProgramDim& dim : program.value(pad.results[0]).dims) {
    if (std::ranges::any_of(dim, &DimFactor::padded)) return true;
  }
  return false;
}

// The only flag of a constant asks for pinned memory, which changes no number.
bool IsConstant(const Program& program, const Site& site) {
  const std::string& op = At(program, site).op;
  return op == "aten.zeros_like.default" || op == "aten.ones.default";
}

// What is made at `site` is only freed, or read by what is itself only freed.
bool IsUnread(const Program& program, const Site& site) {
  if (At(program, site).results.empty()) return false;
  for (const Site& other : SitesOf(program)) {
    const Instruction& reader = At(program, other);
    if (reader.kind == InstructionKind::kFree) continue;
    for (ValueId id : ReadsOf(reader)) {
      const bool reads = std::ranges::count(At(program, site).results, id) > 0;
      if (reads && !IsUnread(program, other)) return false;
    }
  }
  return true;
}

// Only renamed: what changed names is read by nothing, or saved for a derivative together, which
// gets each as it was saved.
bool IsRenaming(const Program& program, const Site& site) {
  std::vector<ValueId> renamed;
  for (ValueId id : At(program, site).results) {
    const auto same = [&](ValueId other) { return other != id && SameType(program, id, other); };
    if (std::ranges::any_of(At(program, site).results, same)) renamed.push_back(id);
  }
  for (const Site& other : SitesOf(program)) {
    const Instruction& reader = At(program, other);
    if (reader.kind == InstructionKind::kFree) continue;
    for (ValueId id : OperandsOf(reader)) {
      if (std::ranges::count(renamed, id) > 0) return false;
    }
    const ValueList saved = ValuesAttribute(reader, "saved");
    const auto is_saved = [&](ValueId id) { return std::ranges::count(saved, id) > 0; };
    if (std::ranges::any_of(renamed, is_saved) != std::ranges::all_of(renamed, is_saved)) {
      return false;
    }
  }
  return true;
}

// Whether the text shows by itself that the mutant computes the same.
bool IsEquivalent(std::string_view mutation, const Program& program, const Site& site) {
  if (mutation == "swap two collectives") return IsOtherOrder(program, site);
  if (mutation == "zero what is kept") return IsStillZero(program, site);
  if (mutation == "other number") return IsFill(program, site) || IsUnread(program, site);
  if (mutation == "flip a flag") return IsFill(program, site) || IsConstant(program, site);
  if (mutation == "swap results") return IsRenaming(program, site);
  // Without a ring every layout is contiguous, and no op of some programs asks for more.
  if (mutation == "other layout of a factor") return program.mesh.ring == 1;
  return mutation == "other input" && IsUnread(program, site);
}

// Up to kMaxMutants of one kind, of instructions in an order that is the same each time.
void CheckMutants(const Subject& subject, const Program& program, const Program& one,
                  const Mutation& mutation, Count* count) {
  std::vector<Site> sites = SitesOf(program);
  std::mt19937 order(1);
  std::ranges::shuffle(sites, order);
  size_t num_mutants = 0;
  for (const Site& site : sites) {
    if (num_mutants == kMaxMutants) return;
    const std::optional<Program> mutant = mutation.apply(program, site);
    if (!mutant) continue;
    ++num_mutants;
    if (!CheckEquivalent(*mutant, one).ok()) {
      ++count->caught;
    } else if (IsEquivalent(mutation.name, program, site)) {
      ++count->equivalent;
    } else {
      ADD_FAILURE() << subject.model << " " << mutation.name << ": "
                    << PrintInstruction(program, At(program, site)) << " became "
                    << PrintInstruction(*mutant, At(*mutant, site));
    }
  }
}

TEST(MutationTest, EveryMutantIsRefused) {
  std::map<std::string_view, Count> counts;
  for (const Subject& subject : kSubjects) {
    const auto model = ImportZoo(subject.model);
    ASSERT_TRUE(model.ok()) << model.status();
    const JobSpec job = ZooJob(*model, subject.batch, subject.seq_len);
    const auto one = CompileForMesh(*model, job, Mesh{}, nullptr);
    JobSpec smaller = job;
    smaller.memory.recompute = subject.memory.recompute;
    smaller.memory.tiling = subject.memory.tiling;
    smaller.parallelism.zero = subject.memory.zero_stage;
    smaller.parallelism.ring_exchange = subject.memory.ring_exchange;
    const auto lowered = CompileForMesh(*model, smaller, subject.mesh, nullptr);
    ASSERT_TRUE(one.ok() && lowered.ok()) << one.status() << lowered.status();
    const Program& program = lowered->program;
    const auto proof = CheckEquivalent(program, one->program);
    ASSERT_TRUE(proof.ok()) << subject.model << ": " << proof.status();
    for (const Mutation& mutation : AllMutations()) {
      CheckMutants(subject, program, one->program, mutation, &counts[mutation.name]);
    }
  }
  for (const Mutation& mutation : AllMutations()) {
    const Count& count = counts[mutation.name];
    EXPECT_GT(count.caught, 0) << mutation.name << " breaks nothing";
    std::cout << mutation.name << ": " << count.caught << " caught, " << count.equivalent
              << " equivalent\n";
  }
}

}  // namespace
}  // namespace autosp
