#include "worker/ops/token_windows.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "common/errors.h"
#include "common/status_macros.h"
#include "worker/ops/shard_indices.h"

namespace autosp {

absl::StatusOr<TokenNeighbors> TokenNeighbors::Make(const OwnOpContext& context, ValueId tokens,
                                                    int64_t dim, Window window) {
  const Program& program = context.program;
  const ProgramValue& value = program.value(tokens);
  if (dim < 0 || dim >= static_cast<int64_t>(value.dims.size())) {
    return InvalidArgument(context.instruction.op, ": dim (", dim, ") must be 0 to ",
                           value.dims.size() - 1, ", as %", value.name, " has dimensions");
  }
  const std::optional<TokenStretches> stretches = TokenStretchesOf(program, value.dims[dim]);
  const int64_t longest = std::max(window.before, window.after);
  if (!stretches || window.before < 0 || window.after < 0 ||
      (stretches->is_split() && longest > stretches->length)) {
    return InvalidArgument(context.instruction.op, ": a window of ", window.before, " before and ",
                           window.after, " behind does not fit the tokens of %", value.name,
                           " in dimension ", dim, "; gather them first");
  }
  TokenNeighbors neighbors;
  neighbors.stretches_ = *stretches;
  neighbors.window_ = window;
  neighbors.dim_ = dim;
  neighbors.global_ = {0};
  neighbors.places_ = {0};
  if (!stretches->is_split()) return neighbors;
  // Of the major factor, of which the others make up whole tokens.
  DimFactor major = value.dims[dim].front();
  const int64_t length = program.LocalSize(major) / stretches->per_shard;
  const int64_t shard = ShardPlace{context.place}.IndexOn(stretches->axes, program.mesh);
  major.padded = true;
  const std::vector<int64_t> indices = GlobalIndices(program, major, {context.place});
  neighbors.global_.assign(stretches->per_shard, 0);
  neighbors.places_.assign(stretches->num_stretches(), 0);
  for (int64_t place = 0; place < stretches->num_stretches(); ++place) {
    const int64_t number = indices[place * length] / length;
    neighbors.places_[number] = place;
    if (place / stretches->per_shard == shard) {
      neighbors.global_[place % stretches->per_shard] = number;
    }
  }
  return neighbors;
}

int64_t TokenNeighbors::NumValid(int64_t begin, int64_t count) const {
  return std::clamp<int64_t>(stretches_.num_valid - begin, 0, count);
}

at::Tensor TokenNeighbors::Edges(const at::Tensor& tokens) const {
  std::vector<at::Tensor> edges;
  for (int64_t stretch = 0; stretch < num_local(); ++stretch) {
    const at::Tensor own = tokens.narrow(dim_, stretch * length(), length());
    edges.push_back(own.narrow(dim_, length() - window_.before, window_.before));
    edges.push_back(own.narrow(dim_, 0, window_.after));
  }
  return at::cat(edges, dim_);
}

at::Tensor TokenNeighbors::Valid(const at::Tensor& tokens, int64_t stretch) const {
  const at::Tensor own = tokens.narrow(dim_, stretch * length(), length());
  const int64_t valid = NumValid(GlobalBegin(stretch), length());
  if (valid == length()) return own;
  at::Tensor zeroed = at::zeros(own.sizes(), own.options());
  zeroed.narrow(dim_, 0, valid).copy_(own.narrow(dim_, 0, valid));
  return zeroed;
}

at::Tensor TokenNeighbors::Extended(const at::Tensor& tokens, const at::Tensor& edges,
                                    int64_t stretch) const {
  std::vector<int64_t> sizes = tokens.sizes().vec();
  sizes[dim_] = window_.before + length() + window_.after;
  at::Tensor extended = at::zeros(sizes, tokens.options());
  const int64_t valid = NumValid(GlobalBegin(stretch), length());
  extended.narrow(dim_, window_.before, valid)
      .copy_(tokens.narrow(dim_, stretch * length(), valid));
  CopyNeighbors(tokens, edges, stretch, extended);
  return extended;
}

void TokenNeighbors::CopyNeighbors(const at::Tensor& tokens, const at::Tensor& edges,
                                   int64_t stretch, const at::Tensor& extended) const {
  const int64_t count = stretches_.num_stretches();
  const int64_t edge = window_.before + window_.after;
  // Whole tokens are their own neighbours around the ends.
  const at::Tensor& from = edges.defined() ? edges : tokens;
  const auto copy = [&](int64_t to, int64_t place, int64_t begin, int64_t wanted) {
    const int64_t valid = NumValid(begin, wanted);
    if (valid == 0) return;
    extended.narrow(dim_, to, valid).copy_(from.narrow(dim_, place, valid));
  };
  const int64_t number = global_[stretch];
  if (window_.before > 0 && (number > 0 || window_.wraps)) {
    const int64_t previous = (number + count - 1) % count;
    const int64_t begin = (previous + 1) * length() - window_.before;
    copy(0, edges.defined() ? places_[previous] * edge : begin, begin, window_.before);
  }
  if (window_.after > 0 && (number + 1 < count || window_.wraps)) {
    const int64_t next = (number + 1) % count;
    copy(window_.before + length(), edges.defined() ? places_[next] * edge + window_.before : 0,
         next * length(), window_.after);
  }
}

at::Tensor TokenNeighbors::Joined(const std::vector<at::Tensor>& parts, double pad) const {
  const at::Tensor joined = parts.size() == 1 ? parts[0].contiguous() : at::cat(parts, dim_);
  for (int64_t stretch = 0; stretch < num_local(); ++stretch) {
    const int64_t valid = NumValid(GlobalBegin(stretch), length());
    if (valid == length()) continue;
    joined.narrow(dim_, stretch * length() + valid, length() - valid).fill_(pad);
  }
  return joined;
}

}  // namespace autosp
