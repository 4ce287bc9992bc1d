// The groups of one rank that its program communicates in.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "compiler/program/program.h"
#include "worker/collectives/collectives.h"
#include "worker/executor/environment.h"

namespace autosp {

// The sets of mesh axes along which the program has collectives, without axes of size 1; in the
// order of first use, which is the same on every rank.
absl::StatusOr<std::vector<AxisList>> CommunicationAxes(const Program& program);

// Groups that are open, by axes. Not thread-safe but for Abort.
class RankGroups final : public CollectiveProvider {
 public:
  explicit RankGroups(const Mesh& mesh) : mesh_(mesh) {}

  // `axes` as CommunicationAxes gives them.
  void Add(const AxisList& axes, std::unique_ptr<Collectives> group);
  absl::StatusOr<Collectives*> Group(const AxisList& axes) override;
  absl::Status Synchronize() override;
  // Puts each group into one that communicates by other means and keeps it, in the order of their
  // adding. After an error none is left, so that peers that wait for this rank hear of it.
  using WrapGroup = std::function<absl::StatusOr<std::unique_ptr<Collectives>>(
      std::unique_ptr<Collectives> group)>;
  absl::Status WrapAll(const WrapGroup& wrap);
  // Tells the peers in all groups. Requires: no group is added any more.
  void Abort(absl::string_view reason);

 private:
  struct Entry {
    AxisList axes;
    std::unique_ptr<Collectives> group;
  };
  Mesh mesh_;
  std::vector<Entry> entries_;
};

// Opens every group of the rank; `open` opens one.
using OpenGroup = std::function<absl::StatusOr<std::unique_ptr<Collectives>>(
    const ProcessGroup& group, int index)>;
absl::StatusOr<std::unique_ptr<RankGroups>> OpenGroups(const Program& program, int64_t rank,
                                                       const OpenGroup& open);

}  // namespace autosp
