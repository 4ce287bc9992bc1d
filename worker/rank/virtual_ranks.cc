#include "worker/rank/virtual_ranks.h"

#include <ATen/Parallel.h>

#include <map>
#include <thread>
#include <utility>

#include "common/status_macros.h"
#include "worker/collectives/in_process_collectives.h"

namespace autosp {

absl::StatusOr<std::unique_ptr<VirtualWorld>> VirtualWorld::Create(
    const Program& program, WeightSource* weights, const MakeFeeder& make_feeder,
    const VirtualRankOptions& options) {
  auto ranks = std::unique_ptr<VirtualWorld>(new VirtualWorld(options));
  if (options.gpu != nullptr && options.wrap_group == nullptr) {
    ranks->options_.wrap_group = [gpu = options.gpu](int64_t, std::unique_ptr<Collectives> group) {
      return ShareGpu(*gpu, std::move(group));
    };
  }
  for (int64_t rank = 0; rank < program.mesh.world_size(); ++rank) {
    ranks->ranks_.push_back(std::make_unique<VirtualRank>(options.device_budget_bytes));
    if (make_feeder == nullptr) continue;
    ASSIGN_OR_RETURN(ranks->ranks_.back()->feeder, make_feeder(rank));
  }
  RETURN_IF_ERROR(ranks->OpenAllGroups(program));
  RETURN_IF_ERROR(ranks->ForEach([&](int64_t rank) -> absl::Status {
    RETURN_IF_ERROR(ranks->CreateExecutor(program, rank));
    return ranks->ranks_[rank]->executor->LoadPersistents(weights);
  }));
  return ranks;
}

// The ends of a group are made together, when its first member asks.
absl::Status VirtualWorld::OpenAllGroups(const Program& program) {
  const InProcessOptions options{.ring = {.timeout = options_.timeout, .spin_rounds = 20}};
  std::map<std::string, std::vector<std::unique_ptr<Collectives>>> ends;
  for (int64_t rank = 0; rank < world_size(); ++rank) {
    const auto open = [&](const ProcessGroup& group,
                          int index) -> absl::StatusOr<std::unique_ptr<Collectives>> {
      auto& all = ends[group.name];
      if (all.empty()) all = MakeInProcessCollectives(group, options);
      return std::move(all[index]);
    };
    ASSIGN_OR_RETURN(ranks_[rank]->groups, OpenGroups(program, rank, open));
  }
  if (options_.wrap_group == nullptr) return absl::OkStatus();
  return ForEach([&](int64_t rank) {
    return ranks_[rank]->groups->WrapAll([&](std::unique_ptr<Collectives> group) {
      return options_.wrap_group(rank, std::move(group));
    });
  });
}

// Ends of a group may wait for each other when they close, as those of processes do.
VirtualWorld::~VirtualWorld() {
  if (options_.wrap_group == nullptr) return;
  ForEach([&](int64_t rank) {
    ranks_[rank]->executor.reset();
    ranks_[rank]->groups.reset();
    return absl::OkStatus();
  }).IgnoreError();
}

absl::Status VirtualWorld::CreateExecutor(const Program& program, int64_t rank) {
  VirtualRank& own = *ranks_[rank];
  ASSIGN_OR_RETURN(own.executor,
                   Executor::Create(program, {.place = CoordinateOf(program.mesh, rank),
                                              .compute = ComputeDeviceOf(options_.gpu),
                                              .collectives = own.groups.get(),
                                              .feeder = own.feeder.get(),
                                              .device = &own.device,
                                              .pinned_host = &own.pinned_host,
                                              .communication = &own.communication,
                                              .gpu = options_.gpu}));
  return absl::OkStatus();
}

absl::Status VirtualWorld::ForEach(const std::function<absl::Status(int64_t rank)>& body) {
  std::vector<absl::Status> statuses(ranks_.size());
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < world_size(); ++rank) {
    threads.emplace_back([&, rank] {
      // A setting of each thread; all would take all cores otherwise.
      at::set_num_threads(options_.num_threads);
      if (options_.gpu != nullptr) options_.gpu->Enter();
      statuses[rank] = WithContext(body(rank), "rank ", rank);
      if (!statuses[rank].ok()) ranks_[rank]->groups->Abort(statuses[rank].message());
    });
  }
  for (std::thread& thread : threads) thread.join();
  absl::Status echo;
  for (const absl::Status& status : statuses) {
    if (status.ok()) continue;
    if (!IsPeerLost(status)) return status;
    echo = status;
  }
  return echo;
}

absl::StatusOr<std::vector<SectionResult>> VirtualWorld::Run(absl::string_view section) {
  std::vector<SectionResult> results(ranks_.size());
  RETURN_IF_ERROR(ForEach([&](int64_t rank) -> absl::Status {
    ASSIGN_OR_RETURN(results[rank],
                     executor(rank).Run(std::string_view(section.data(), section.size())));
    return absl::OkStatus();
  }));
  return results;
}

absl::Status VirtualWorld::SetScalar(absl::string_view name, float value) {
  for (int64_t rank = 0; rank < world_size(); ++rank) {
    RETURN_IF_ERROR(executor(rank).SetScalar({name.data(), name.size()}, value));
  }
  return absl::OkStatus();
}

}  // namespace autosp
