#include "tests/worker/executor/virtual_ranks.h"

#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/collectives/in_process_collectives.h"
#include "worker/executor/shard.h"
#include "worker/executor/torch_types.h"

namespace autosp {

absl::StatusOr<at::Tensor> MapFeeder::Feed(const FeedRequest& request) {
  const auto found = whole_.find(request.name);
  if (found == whole_.end()) {
    return NotFound("nothing feeds '", std::string(request.name), "'");
  }
  const auto* pad = std::get_if<SymInt>(&request.pad);
  ASSIGN_OR_RETURN(const at::Tensor shard,
                   TakeShard(request.program, request.value, {request.place, request.micro_step},
                             found->second, pad ? static_cast<double>(pad->value) : 0));
  return shard.clone();
}

absl::StatusOr<at::Tensor> MapWeights::Load(const std::string& name) {
  const auto found = whole_.find(name);
  if (found == whole_.end()) return NotFound("no weights for '", name, "'");
  return found->second;
}

// The groups of one rank.
class RankGroups final : public CollectiveProvider {
 public:
  absl::StatusOr<Collectives*> Group(const AxisList& axes) override {
    const auto found = groups.find(axes);
    if (found == groups.end()) return NotFound("no group along ", AxisListName(axes));
    return found->second.get();
  }
  std::map<AxisList, std::unique_ptr<Collectives>> groups;
};

struct VirtualRanks::Rank {
  RankGroups groups;
  MemoryAccount device{"device"};
  MemoryAccount communication{"communication"};
  std::unique_ptr<Executor> executor;
};

VirtualRanks::~VirtualRanks() = default;
Executor& VirtualRanks::executor(int rank) { return *ranks_[rank]->executor; }
MemoryAccount& VirtualRanks::device_memory(int rank) { return ranks_[rank]->device; }

absl::StatusOr<std::unique_ptr<VirtualRanks>> VirtualRanks::Create(const Program& program,
                                                                   const NamedTensors& weights,
                                                                   int64_t budget_bytes) {
  InstallCountingAllocator();
  auto ranks = std::unique_ptr<VirtualRanks>(new VirtualRanks);
  const int64_t world_size = program.mesh.world_size();
  for (int64_t i = 0; i < world_size; ++i) ranks->ranks_.push_back(std::make_unique<Rank>());
  for (const AxisList& axes : DeviceAxisSets()) {
    if (program.mesh.size(axes) == 1) continue;
    for (int64_t rank = 0; rank < world_size; ++rank) {
      const ProcessGroup group = MeshGroup(program.mesh, axes, rank);
      if (group.ranks[0] != rank) continue;
      auto ends = MakeInProcessCollectives(group);
      for (size_t i = 0; i < ends.size(); ++i) {
        ranks->ranks_[group.ranks[i]]->groups.groups[axes] = std::move(ends[i]);
      }
    }
  }
  for (int64_t i = 0; i < world_size; ++i) {
    Rank& rank = *ranks->ranks_[i];
    rank.device.set_budget_bytes(budget_bytes);
    ExecutorEnvironment environment;
    environment.place = CoordinateOf(program.mesh, i);
    environment.collectives = &rank.groups;
    environment.feeder = &ranks->feeder_;
    environment.device = &rank.device;
    environment.communication = &rank.communication;
    ASSIGN_OR_RETURN(rank.executor, Executor::Create(program, environment));
    MapWeights source(weights);
    RETURN_IF_ERROR(rank.executor->LoadPersistents(&source));
  }
  return ranks;
}

absl::Status VirtualRanks::ForEachRank(const std::function<absl::Status(Rank&)>& body) {
  if (size() == 1) return body(*ranks_[0]);
  std::vector<absl::Status> statuses(ranks_.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    threads.emplace_back([&, i] {
      // Ranks share the processor; nested threads of each would only get in each other's way.
      at::set_num_threads(1);
      statuses[i] = body(*ranks_[i]);
      if (statuses[i].ok()) return;
      for (const auto& [axes, group] : ranks_[i]->groups.groups) {
        group->Abort(std::string(statuses[i].message()));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  // An abort of a peer is the consequence of the error that is of interest.
  const auto is_cause = [](const absl::Status& status) {
    return !status.ok() && !absl::IsAborted(status) && !absl::IsUnavailable(status);
  };
  const auto cause = std::ranges::find_if(statuses, is_cause);
  if (cause != statuses.end()) return *cause;
  for (const absl::Status& status : statuses) RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

absl::Status VirtualRanks::SetScalar(std::string_view name, float value) {
  for (const auto& rank : ranks_) RETURN_IF_ERROR(rank->executor->SetScalar(name, value));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<SectionResult>> VirtualRanks::Run(std::string_view section,
                                                             NamedTensors feeds) {
  feeds_ = std::move(feeds);
  std::map<const Rank*, SectionResult> by_rank;
  for (const auto& rank : ranks_) by_rank[rank.get()];
  RETURN_IF_ERROR(ForEachRank([&](Rank& rank) -> absl::Status {
    ASSIGN_OR_RETURN(by_rank.at(&rank), rank.executor->Run(section));
    return absl::OkStatus();
  }));
  std::vector<SectionResult> results;
  for (const auto& rank : ranks_) results.push_back(std::move(by_rank.at(rank.get())));
  return results;
}

absl::StatusOr<at::Tensor> VirtualRanks::Whole(std::string_view name) {
  const Program& program = executor(0).program();
  const auto found = std::ranges::find(program.persistents, name, &Persistent::name);
  if (found == program.persistents.end())
    return NotFound("no persistent '", std::string(name), "'");
  const ProgramValue& value = program.value(found->value);
  at::Tensor whole = at::zeros(GlobalSizes(program, value), ToScalarType(value.dtype));
  for (int i = 0; i < size(); ++i) {
    ASSIGN_OR_RETURN(const at::Tensor local, executor(i).Get(name));
    PutShard(program, value, {CoordinateOf(program.mesh, i), 0}, local, whole);
  }
  return whole;
}

}  // namespace autosp
