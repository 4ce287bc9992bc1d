// Where the rank's inputs come from. The executor asks once for each input and micro-step.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "compiler/ir/argument.h"
#include "compiler/program/program.h"

namespace autosp {

struct FeedRequest {
  std::string_view name;  // as the user knows the input: "input_ids"
  const Program& program;
  const ProgramValue& value;    // its dims say which factor is sharded by which axes
  const MeshCoordinate& place;  // of this rank
  int64_t micro_step = 0;       // the loop variable "accum"; 0 outside of such a loop
  Argument pad;  // the literal that fills the tail of a padded shard; None: not padded
};

// Thread-compatible: each executor calls its own feeder from its own thread.
class Feeder {
 public:
  virtual ~Feeder() = default;

  // The local shard: the dtype of the value and `program.LocalSizes(value)`. Memory of the result
  // is best allocated by ATen within the call, so that it is charged to the rank.
  virtual absl::StatusOr<at::Tensor> Feed(const FeedRequest& request) = 0;
};

}  // namespace autosp
