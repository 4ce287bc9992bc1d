#include "worker/rank/rank_groups.h"

#include <algorithm>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

AxisList WithoutTrivialAxes(const AxisList& axes, const Mesh& mesh) {
  AxisList kept;
  for (const Axis axis : axes) {
    if (axis != Axis::kAccum && mesh.size(axis) > 1) kept.push_back(axis);
  }
  return kept;
}

bool Communicates(const Instruction& instruction) {
  const bool in_place =
      instruction.kind == InstructionKind::kUpdate &&
      (instruction.op == "autosp.all_reduce_" || instruction.op == "autosp.all_gather_");
  return in_place || instruction.kind == InstructionKind::kStart;
}

absl::Status Collect(const std::vector<Instruction>& body, const Mesh& mesh,
                     std::vector<AxisList>& found) {
  for (const Instruction& instruction : body) {
    RETURN_IF_ERROR(Collect(instruction.body, mesh, found));
    if (!Communicates(instruction)) continue;
    ASSIGN_OR_RETURN(const AxisList all, AxesAttribute(instruction));
    AxisList axes = WithoutTrivialAxes(all, mesh);
    const bool is_new = std::find(found.begin(), found.end(), axes) == found.end();
    if (!axes.empty() && is_new) found.push_back(std::move(axes));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<AxisList>> CommunicationAxes(const Program& program) {
  std::vector<AxisList> found;
  for (const Section& section : program.sections) {
    RETURN_IF_ERROR(Collect(section.body, program.mesh, found));
  }
  return found;
}

void RankGroups::Add(const AxisList& axes, std::unique_ptr<Collectives> group) {
  entries_.push_back({axes, std::move(group)});
}

absl::StatusOr<Collectives*> RankGroups::Group(const AxisList& axes) {
  const AxisList wanted = WithoutTrivialAxes(axes, mesh_);
  for (const Entry& entry : entries_) {
    if (entry.axes == wanted) return entry.group.get();
  }
  return absl::InternalError(absl::StrCat("no group is open along ", AxisListName(axes)));
}

absl::Status RankGroups::Synchronize() {
  for (const Entry& entry : entries_) RETURN_IF_ERROR(entry.group->Synchronize());
  return absl::OkStatus();
}

absl::Status RankGroups::WrapAll(const WrapGroup& wrap) {
  for (Entry& entry : entries_) {
    auto wrapped = wrap(std::move(entry.group));
    if (!wrapped.ok()) {
      entries_.clear();
      return wrapped.status();
    }
    entry.group = *std::move(wrapped);
  }
  return absl::OkStatus();
}

void RankGroups::Abort(absl::string_view reason) {
  for (const Entry& entry : entries_) entry.group->Abort(reason);
}

absl::StatusOr<std::unique_ptr<RankGroups>> OpenGroups(const Program& program, int64_t rank,
                                                       const OpenGroup& open) {
  ASSIGN_OR_RETURN(const std::vector<AxisList> all_axes, CommunicationAxes(program));
  auto groups = std::make_unique<RankGroups>(program.mesh);
  for (const AxisList& axes : all_axes) {
    const ProcessGroup group = MeshGroup(program.mesh, axes, rank);
    ASSIGN_OR_RETURN(auto opened, open(group, group.IndexOf(rank)));
    groups->Add(axes, std::move(opened));
  }
  return groups;
}

}  // namespace autosp
