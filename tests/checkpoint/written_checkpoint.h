// Checkpoints as ranks write them, without ranks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/manifest.h"

namespace autosp {

// A tensor of a checkpoint. Its bytes are little endian and contiguous.
struct WholeTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape = {};
  std::vector<std::byte> bytes = {};
};

// `count` numbers that start at `first`, by 1.
WholeTensor F32Tensor(const std::string& name, std::vector<int64_t> shape, float first);

// Writes the files of `num_files` ranks and a manifest with the state dict into `folder`, and
// returns the manifest. Tensor i is cut along its dimension i, modulo how many it has.
CheckpointManifest WriteCheckpoint(const std::string& folder, int64_t num_files,
                                   const std::vector<WholeTensor>& tensors,
                                   CheckpointManifest manifest = {});

}  // namespace autosp
