#include "worker/verify/random_weights.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <utility>

#include "absl/strings/match.h"
#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/data/sample_order.h"
#include "worker/executor/shard.h"
#include "worker/executor/torch_types.h"

namespace autosp {
namespace {

// As models are initialised: small enough that no activation overflows.
constexpr double kDeviation = 0.05;

// Vectors that are no bias scale a norm, whose weights lie around one.
double MeanOf(const std::string& name, const std::vector<int64_t>& sizes) {
  return sizes.size() == 1 && !absl::EndsWith(name, "bias") ? 1.0 : 0.0;
}

}  // namespace

uint64_t SeedOfName(uint64_t seed, const std::string& name) {
  uint64_t hash = seed;
  for (const char character : name) hash = HashOf(hash, static_cast<unsigned char>(character));
  return hash;
}

RandomWeights::RandomWeights(const Program& program, std::unique_ptr<WeightSource> archive,
                             uint64_t seed)
    : archive_(std::move(archive)), seed_(seed) {
  for (const Persistent& persistent : program.persistents) {
    if (persistent.kind != PersistentKind::kParam && persistent.kind != PersistentKind::kBuffer) {
      continue;
    }
    const ProgramValue& value = program.value(persistent.value);
    types_[persistent.name] = {.dtype = value.dtype, .sizes = GlobalSizes(program, value)};
  }
}

absl::StatusOr<at::Tensor> RandomWeights::Load(const std::string& name) {
  absl::StatusOr<at::Tensor> from_archive = archive_->Load(name);
  if (!absl::IsNotFound(from_archive.status())) return from_archive;
  const auto found = types_.find(name);
  if (found == types_.end()) return NotFound("weights: the program has no ", name);
  const Type& type = found->second;
  at::Tensor tensor;
  RETURN_IF_ERROR(CatchTorch([&] {
    if (!IsFloating(type.dtype)) {
      tensor = at::zeros(type.sizes, ToScalarType(type.dtype));
      return absl::OkStatus();
    }
    // In fp32 always, so that programs of other types begin at the same numbers, rounded.
    tensor = at::empty(type.sizes, at::kFloat);
    tensor.normal_(MeanOf(name, type.sizes), kDeviation,
                   at::make_generator<at::CPUGeneratorImpl>(SeedOfName(seed_, name)));
    return absl::OkStatus();
  }));
  return tensor;
}

}  // namespace autosp
