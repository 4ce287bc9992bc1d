#include "compiler/planner/plan_search.h"

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/bytes.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "compiler/analysis/program_flops.h"
#include "compiler/lowering/select_kernels.h"
#include "compiler/planner/estimate_mesh.h"
#include "compiler/rules/op_rule.h"

namespace autosp {
namespace {

constexpr int64_t kMaxZeroStage = 3;

// Micro-batch sizes to try for this dp, largest first: fewest micro-steps.
std::vector<int64_t> MicroBatches(const JobSpec& job, int64_t dp) {
  const int64_t per_rank = job.training.global_batch_size / dp;
  if (job.training.micro_batch_size) {
    if (per_rank % *job.training.micro_batch_size != 0) return {};
    return {*job.training.micro_batch_size};
  }
  std::vector<int64_t> sizes;
  for (int64_t micro = per_rank; micro >= 1; --micro) {
    if (per_rank % micro == 0) sizes.push_back(micro);
  }
  return sizes;
}

int64_t Budget(const JobSpec& job, const ClusterSpec& cluster) {
  if (job.memory.device_budget_bytes) return *job.memory.device_budget_bytes;
  int64_t smallest = INT64_MAX;
  for (const NodeSpec& node : cluster.nodes) {
    smallest = std::min(smallest, node.device_memory_bytes);
  }
  return smallest;
}

// Host memory for what one rank moves out of its device; unset where it is not known.
std::optional<int64_t> HostBudget(const ClusterSpec& cluster) {
  std::optional<int64_t> smallest;
  for (const NodeSpec& node : cluster.nodes) {
    if (!node.host_memory_bytes) return std::nullopt;
    const int64_t part = *node.host_memory_bytes / node.devices;
    smallest = std::min(smallest.value_or(part), part);
  }
  return smallest;
}

// From the fastest to the smallest: each gives up more than the one before. Tiles of the loss cost
// nothing, but sums are in another order then, which nobody is asked to accept without need.
// A ring's keys are passed on before anything is made again.
std::vector<MemoryChoice> MemoryChoices(const JobSpec& job, bool knows_host,
                                        RingExchange ring_exchange) {
  const MemorySpec& memory = job.memory;
  constexpr MemoryChoice kChoices[] = {{Recompute::kNone, Tiling::kNone},
                                       {Recompute::kNone, Tiling::kLoss},
                                       {Recompute::kSelective, Tiling::kLoss},
                                       {Recompute::kSelective, Tiling::kAll},
                                       {Recompute::kFull, Tiling::kAll},
                                       {Recompute::kFull, Tiling::kAll, Offload::kActivations},
                                       {Recompute::kFull, Tiling::kAll, Offload::kEveryLayer},
                                       {.recompute = Recompute::kFull,
                                        .tiling = Tiling::kAll,
                                        .offload = Offload::kEveryLayer,
                                        .fine_cuts = true}};
  std::vector<MemoryChoice> choices;
  for (MemoryChoice choice : kChoices) {
    if (memory.recompute != Recompute::kAuto) choice.recompute = memory.recompute;
    if (memory.tiling != Tiling::kAuto) choice.tiling = memory.tiling;
    if (memory.offload != Offload::kAuto) choice.offload = memory.offload;
    if (memory.offload == Offload::kAuto && !knows_host) choice.offload = Offload::kNone;
    choice.fine_cuts = choice.fine_cuts && choice.offload == Offload::kEveryLayer;
    choice.ring_exchange = ring_exchange;
    if (choices.empty()) choices.push_back(choice);
    if (job.parallelism.ring_exchange == RingExchange::kAuto) {
      choice.ring_exchange = RingExchange::kSendRecv;
    }
    if (choices.back() != choice) choices.push_back(choice);
  }
  return choices;
}

absl::StatusOr<Candidate> Evaluate(const PreparedJob& prepared, const ClusterSpec& cluster,
                                   const Mesh& mesh, const MemoryChoice& memory) {
  Candidate candidate;
  candidate.mesh = mesh;
  candidate.memory = memory;
  ASSIGN_OR_RETURN(candidate.lowered, LowerForMesh(prepared, mesh, memory));
  if (cluster.has_gpus()) SelectCudaKernels(candidate.lowered.program, cluster.kind());
  ASSIGN_OR_RETURN(candidate.prediction, SimulateSection(candidate.lowered.program, "step",
                                                         LibraryBytes(cluster.kind())));
  candidate.peak_bytes = candidate.prediction.memory[Account::kDevice].peak_bytes;
  return candidate;
}

// Whether the heads of every attention can be split so many ways: otherwise every rank would
// compute all of one.
bool SplitsHeads(const Graph& graph, int64_t ulysses) {
  return std::ranges::all_of(graph.nodes, [&](const Node& node) {
    if (node.op != kSdpa && node.op != kMaskedAttention) return true;
    const TensorType& query = graph.type(std::get<ValueId>(node.args[0]));
    return query.rank() < 3 || query.sizes[query.rank() - 3].value % ulysses == 0;
  });
}

struct RatedMesh {
  Mesh mesh;
  bool splits_heads = false;  // of every attention
  MeshEstimate estimate;
};

// The best first: those that split every attention, by the time that ranks wait for exchanges. Of
// equal ones a small ring comes first, as its attention needs no hops.
std::vector<RatedMesh> InOrder(const Graph& graph, const JobSpec& job, const ClusterSpec& cluster,
                               const std::vector<Mesh>& meshes) {
  std::vector<RatedMesh> rated;
  for (const Mesh& mesh : meshes) {
    rated.push_back(
        {mesh, SplitsHeads(graph, mesh.ulysses), EstimateMesh(graph, job, cluster, mesh)});
  }
  std::ranges::stable_sort(rated, {}, [](const RatedMesh& each) {
    return std::tuple(!each.splits_heads, each.estimate.seconds);
  });
  return rated;
}

class PlanSearch {
 public:
  PlanSearch(const PreparedJob& prepared, const JobSpec& job, const ClusterSpec& cluster)
      : prepared_(prepared),
        job_(job),
        cluster_(cluster),
        budget_bytes_(Budget(job, cluster)),
        host_bytes_(HostBudget(cluster)) {}

  absl::StatusOr<Candidate> Choose(const std::vector<RatedMesh>& meshes) {
    std::optional<Candidate> best;
    for (const RatedMesh& rated : meshes) {
      if (best && best->lowered.num_gathered_attentions == 0) break;
      std::optional<Candidate> candidate = Fit(rated);
      if (!candidate) continue;
      const int64_t gathered = candidate->lowered.num_gathered_attentions;
      if (!best || gathered < best->lowered.num_gathered_attentions) best = std::move(candidate);
    }
    if (!best) best = FitNearest();
    if (!best) return NoneFits();
    if (auto faster = KeepAttention(*best)) return *std::move(faster);
    return *std::move(best);
  }

 private:
  // The best plan of a mesh that fits. A mesh that is too small is given up after two programs: the
  // first, and the one that needs the least; or where that one fills the host, when the others do
  // not fit.
  std::optional<Candidate> Fit(const RatedMesh& rated) {
    const Mesh& mesh = rated.mesh;
    const std::vector<int64_t> micro_batches = MicroBatches(job_, mesh.dp);
    if (micro_batches.empty()) return std::nullopt;
    const std::vector<MemoryChoice> choices = Choices(rated.estimate.ring_exchange);
    MemoryChoice first = choices.front();
    first.zero_stage = LowestStage();
    MemoryChoice last = choices.back();
    last.zero_stage = HighestStage(mesh);
    if (auto candidate = Try(mesh, micro_batches.front(), first)) return candidate;
    std::optional<Candidate> least = Try(mesh, micro_batches.back(), last);
    // Where it is the host that has no room, those before it are tried.
    for (size_t i = choices.size() - 1; i-- > 0 && !least && FitsDevice();) {
      last = choices[i];
      last.zero_stage = HighestStage(mesh);
      least = Try(mesh, micro_batches.back(), last);
    }
    if (!least) return std::nullopt;
    // Parts of what lasts cost less than making values again.
    for (int64_t stage = LowestStage(); stage <= HighestStage(mesh); ++stage) {
      first.zero_stage = stage;
      if (auto candidate = TryMicroBatches(mesh, micro_batches, first)) return candidate;
    }
    for (MemoryChoice choice : choices) {
      choice.zero_stage = HighestStage(mesh);
      std::optional<Candidate> candidate = TryMicroBatches(mesh, micro_batches, choice);
      if (!candidate) continue;
      const int64_t micro_batch = MicroBatchOf(candidate->mesh);
      for (choice.zero_stage = LowestStage(); choice.zero_stage < HighestStage(mesh);
           ++choice.zero_stage) {
        if (auto lower = Try(mesh, micro_batch, choice)) return lower;
      }
      return candidate;
    }
    return least;
  }

  // Whether something was rejected for the host alone.
  bool FitsDevice() const { return smallest_ && smallest_->peak_bytes <= budget_bytes_; }

  // What gives up most is not the smallest for every model: where attention is computed whole,
  // tiles and segments save nothing and keep what they put together. So before a job is refused,
  // the mesh that came closest is tried with every choice.
  std::optional<Candidate> FitNearest() {
    if (!smallest_) return std::nullopt;
    const Mesh mesh = smallest_->mesh;
    const int64_t micro_batch = MicroBatchOf(mesh);
    for (MemoryChoice choice : Choices(smallest_->memory.ring_exchange)) {
      choice.zero_stage = HighestStage(mesh);
      if (auto candidate = Try(mesh, micro_batch, choice)) return candidate;
    }
    return std::nullopt;
  }

  // Of a long sequence attention is nearly all of the work, and making it again costs more than to
  // bring what it gave to the host and back: the first grows with the square of the length, the
  // second with the length. A plan that fits and is estimated to be faster than `chosen`.
  std::optional<Candidate> KeepAttention(const Candidate& chosen) {
    const bool may_keep = job_.memory.recompute == Recompute::kAuto && host_bytes_.has_value() &&
                          chosen.memory.recompute == Recompute::kFull &&
                          job_.memory.offload != Offload::kNone;
    if (!may_keep) return std::nullopt;
    const std::optional<double> seconds = SecondsOf(chosen);
    if (!seconds) return std::nullopt;
    const int64_t micro_batch = MicroBatchOf(chosen.mesh);
    for (const Offload offload : {Offload::kActivations, Offload::kEveryLayer}) {
      if (job_.memory.offload != Offload::kAuto && job_.memory.offload != offload) continue;
      MemoryChoice choice = chosen.memory;
      choice.recompute = Recompute::kSelective;
      choice.fine_cuts = false;
      choice.offload = offload;
      std::optional<Candidate> kept = Try(chosen.mesh, micro_batch, choice);
      if (!kept) {
        choice.zero_stage = HighestStage(chosen.mesh);
        kept = Try(chosen.mesh, micro_batch, choice);
      }
      if (kept && SecondsOf(*kept) < seconds) return kept;
    }
    return std::nullopt;
  }

  // Of computing, and of copies to the host and back, which nothing hides. Unset where nobody knows
  // what the device can do.
  std::optional<double> SecondsOf(const Candidate& candidate) const {
    constexpr double kReachedPart = 0.5;         // of the peak
    constexpr double kHostBytesPerSecond = 6e9;  // of memory that is not pinned, one way
    const std::optional<double> peak = PeakFlops(cluster_.kind());
    if (!peak) return std::nullopt;
    const Program& program = candidate.lowered.program;
    const absl::StatusOr<FlopTotals> flops = CountFlops(program, "step");
    if (!flops.ok()) return std::nullopt;
    const double host_bytes =
        static_cast<double>(HostCopyBytes(program, program.FindSection("step")->body));
    return TotalOf(*flops) / (*peak * kReachedPart) + host_bytes / kHostBytesPerSecond;
  }

  // Of one run, both ways.
  static int64_t HostCopyBytes(const Program& program, const std::vector<Instruction>& body) {
    int64_t bytes = 0;
    for (const Instruction& instruction : body) {
      if (instruction.kind == InstructionKind::kFor) {
        const absl::StatusOr<int64_t> count = IntAttribute(instruction, "count");
        bytes += count.value_or(1) * HostCopyBytes(program, instruction.body);
      }
      if (instruction.kind != InstructionKind::kCopy) continue;
      const ProgramValue& from = program.value(OperandsOf(instruction)[0]);
      const ProgramValue& to = program.value(instruction.results[0]);
      if (from.account != to.account) bytes += program.LocalBytes(to);
    }
    return bytes;
  }

  std::vector<MemoryChoice> Choices(RingExchange ring_exchange) const {
    return MemoryChoices(job_, host_bytes_.has_value(), ring_exchange);
  }

  // Sequences of a dp rank in one micro-step.
  int64_t MicroBatchOf(const Mesh& mesh) const {
    return job_.training.global_batch_size / mesh.dp / mesh.accum;
  }

  int64_t LowestStage() const { return job_.parallelism.zero.value_or(0); }
  // One rank has nobody to share with.
  int64_t HighestStage(const Mesh& mesh) const {
    return job_.parallelism.zero.value_or(mesh.world_size() == 1 ? 0 : kMaxZeroStage);
  }

  // With the fewest micro-steps.
  std::optional<Candidate> TryMicroBatches(const Mesh& mesh,
                                           const std::vector<int64_t>& micro_batches,
                                           const MemoryChoice& choice) {
    for (int64_t micro_batch : micro_batches) {
      if (auto candidate = Try(mesh, micro_batch, choice)) return candidate;
    }
    return std::nullopt;
  }

  std::optional<Candidate> Try(Mesh mesh, int64_t micro_batch, const MemoryChoice& memory) {
    mesh.accum = job_.training.global_batch_size / mesh.dp / micro_batch;
    if (std::ranges::count(rejected_, std::pair(mesh, memory)) > 0) return std::nullopt;
    std::optional<Candidate> candidate = EvaluateIfFits(mesh, memory);
    if (!candidate) rejected_.emplace_back(mesh, memory);
    return candidate;
  }

  std::optional<Candidate> EvaluateIfFits(const Mesh& mesh, const MemoryChoice& memory) {
    absl::StatusOr<Candidate> candidate = Evaluate(prepared_, cluster_, mesh, memory);
    if (!candidate.ok()) {
      if (error_.ok()) error_ = candidate.status();
      return std::nullopt;
    }
    const int64_t host_bytes = candidate->prediction.memory[Account::kPinnedHost].peak_bytes;
    const bool fits_host = !host_bytes_ || host_bytes <= *host_bytes_;
    if (candidate->peak_bytes <= budget_bytes_ && fits_host) return *std::move(candidate);
    if (!smallest_ || candidate->peak_bytes < smallest_->peak_bytes) {
      smallest_ = *std::move(candidate);
    }
    return std::nullopt;
  }

  // What a job rules out may be what helps.
  std::string Remedy(const Candidate& smallest) {
    const std::string others =
        absl::StrCat("shorten training.seq_len (", job_.training.seq_len,
                     "), or give more ranks in parallelism (", smallest.mesh.world_size(),
                     ") or memory in memory.device_budget");
    const int64_t micro_batch = MicroBatchOf(smallest.mesh);
    MemoryChoice choice = smallest.memory;
    if (smallest.mesh.world_size() == 1) return others;
    for (choice.zero_stage = HighestStage(smallest.mesh) + 1; choice.zero_stage <= kMaxZeroStage;
         ++choice.zero_stage) {
      const auto fitting = Try(smallest.mesh, micro_batch, choice);
      if (!fitting) continue;
      return absl::StrCat("set parallelism.zero to ", choice.zero_stage, ", which needs ",
                          FormatBytes(fitting->peak_bytes), ", or ", others);
    }
    return others;
  }

  absl::Status NoneFits() {
    if (!smallest_) {
      if (!error_.ok()) return error_;
      return InvalidArgument("training.micro_batch_size (",
                             job_.training.micro_batch_size.value_or(0),
                             ") does not divide the sequences of a dp rank; choose a divisor of ",
                             job_.training.global_batch_size, " / dp");
    }
    const Candidate smallest = *smallest_;
    const AccountPeak& peak = smallest.prediction.memory.at(Account::kDevice);
    if (FitsDevice()) return HostIsFull(smallest);
    return ResourceExhausted("the smallest plan needs ", FormatBytes(smallest.peak_bytes),
                             " per rank (", FormatBytes(peak.persistent_bytes),
                             " of it parameters, gradients and optimizer states), more than the ",
                             FormatBytes(budget_bytes_), " of a device; its peak is in ",
                             peak.peak_instruction, peak.peak_where, ": ", Remedy(smallest));
  }

  absl::Status HostIsFull(const Candidate& smallest) const {
    const int64_t host_bytes = smallest.prediction.memory.at(Account::kPinnedHost).peak_bytes;
    return ResourceExhausted(
        "the smallest plan fits into a device with ", FormatBytes(smallest.peak_bytes),
        ", and needs ", FormatBytes(host_bytes), " of the host for each rank, more than the ",
        FormatBytes(*host_bytes_),
        " that host_memory of the cluster file gives it; shorten training.seq_len (",
        job_.training.seq_len, "), give more ranks in parallelism (", smallest.mesh.world_size(),
        "), or a host with more memory");
  }

  const PreparedJob& prepared_;
  const JobSpec& job_;
  const ClusterSpec& cluster_;
  const int64_t budget_bytes_;
  const std::optional<int64_t> host_bytes_;
  std::vector<std::pair<Mesh, MemoryChoice>> rejected_;
  std::optional<Candidate> smallest_;  // of those that do not fit
  absl::Status error_;                 // the first
};

}  // namespace

absl::StatusOr<Candidate> ChoosePlan(const PreparedJob& prepared, const JobSpec& job,
                                     const ClusterSpec& cluster, const std::vector<Mesh>& meshes) {
  return PlanSearch(prepared, job, cluster).Choose(InOrder(prepared.graph, job, cluster, meshes));
}

}  // namespace autosp
