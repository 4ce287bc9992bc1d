#include "tests/worker/executor/virtual_ranks.h"

#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/executor/shard.h"
#include "worker/executor/torch_types.h"

namespace autosp {

absl::StatusOr<at::Tensor> MapWeights::Load(const std::string& name) {
  const auto found = whole_.find(name);
  if (found == whole_.end()) return NotFound("no weights for '", name, "'");
  return found->second;
}

absl::StatusOr<std::unique_ptr<VirtualRanks>> VirtualRanks::Create(const Program& program,
                                                                   const NamedTensors& weights,
                                                                   VirtualRankOptions options) {
  InstallCountingAllocator();
  auto ranks = std::unique_ptr<VirtualRanks>(new VirtualRanks);
  const auto make_feeder = [&ranks](int64_t) -> absl::StatusOr<std::unique_ptr<Feeder>> {
    return std::make_unique<BatchFeeder>(ranks->feeds_);
  };
  MapWeights source(weights);
  // Several ranks share the processor; threads of each would only get in each other's way.
  const bool is_one = program.mesh.world_size() == 1;
  options.num_threads = is_one ? at::get_num_threads() : 1;
  ASSIGN_OR_RETURN(ranks->world_, VirtualWorld::Create(program, &source, make_feeder, options));
  return ranks;
}

absl::Status VirtualRanks::SetScalar(std::string_view name, float value) {
  return world_->SetScalar({name.data(), name.size()}, value);
}

absl::StatusOr<std::vector<SectionResult>> VirtualRanks::Run(std::string_view section,
                                                             NamedTensors feeds) {
  *feeds_ = std::move(feeds);
  return world_->Run({section.data(), section.size()});
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
