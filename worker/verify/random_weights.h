// Weights for a model whose archive came without any: random, the same for every program.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "compiler/program/program.h"
#include "worker/executor/weight_source.h"

namespace autosp {

// For the random numbers of one tensor. The same on every machine, as std::hash would not be.
uint64_t SeedOfName(uint64_t seed, const std::string& name);

// Thread-safe: the values depend on seed and name alone, and are made anew for each call.
class RandomWeights final : public WeightSource {
 public:
  // The parameters and buffers that `program` has. What has bytes in `archive` (constants, such as
  // rotary frequencies) comes from there.
  RandomWeights(const Program& program, std::unique_ptr<WeightSource> archive, uint64_t seed);

  absl::StatusOr<at::Tensor> Load(const std::string& name) override;

 private:
  struct Type {
    DType dtype = DType::kF32;
    std::vector<int64_t> sizes;
  };

  std::map<std::string, Type> types_;
  std::unique_ptr<WeightSource> archive_;
  uint64_t seed_;
};

}  // namespace autosp
