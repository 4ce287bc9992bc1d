#include "worker/collectives/shared_memory_collectives.h"

#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "common/clock.h"
#include "common/status_macros.h"
#include "worker/collectives/group_digest.h"
#include "worker/collectives/pid_watcher.h"
#include "worker/collectives/segment.h"

namespace autosp {
namespace {

constexpr absl::Duration kPollInterval = absl::Milliseconds(1);

std::string SegmentName(const ProcessGroup& group, const SharedMemoryOptions& options) {
  return absl::StrCat(options.name_prefix, "-", group.name);
}

class MappedSegment final : public Segment {
 public:
  MappedSegment(SharedMemory memory, const SegmentGeometry& geometry)
      : Segment(memory.memory(), geometry), memory_(std::move(memory)) {}

 private:
  SharedMemory memory_;
};

absl::StatusOr<std::shared_ptr<Segment>> Create(const ProcessGroup& group,
                                                const SharedMemoryOptions& options) {
  const int64_t min_chunks = MinChunksInStream(group.size());
  const SegmentGeometry geometry = {
      .group_size = group.size(),
      .chunk_bytes = options.chunk_bytes,
      .chunks_per_ring = std::max(options.chunks_per_ring, min_chunks)};
  ASSIGN_OR_RETURN(SharedMemory memory,
                   SharedMemory::Create(SegmentName(group, options), geometry.TotalBytes()));
  auto segment = std::make_shared<MappedSegment>(std::move(memory), geometry);
  SegmentHeader& header = segment->header();
  header.generation = options.generation;
  header.group_digest = GroupDigest(group);
  header.group_size = geometry.group_size;
  header.chunk_bytes = geometry.chunk_bytes;
  header.chunks_per_ring = geometry.chunks_per_ring;
  header.magic.store(kSegmentMagic, std::memory_order_release);
  return segment;
}

// What there is to see so far: the segment, nothing yet (NotFound), or a reason to give up.
absl::StatusOr<std::shared_ptr<Segment>> TryAttach(const ProcessGroup& group,
                                                   const SharedMemoryOptions& options) {
  const std::string name = SegmentName(group, options);
  ASSIGN_OR_RETURN(SharedMemory memory, SharedMemory::Attach(name));
  if (memory.bytes() < static_cast<int64_t>(sizeof(SegmentHeader))) {
    return absl::NotFoundError("not sized yet");
  }
  const auto& header = *reinterpret_cast<const SegmentHeader*>(memory.memory());
  // The creator writes the magic number last: what is read before it may still be zero.
  if (header.magic.load(std::memory_order_acquire) != kSegmentMagic) {
    return absl::NotFoundError("not written yet");
  }
  if (header.generation != options.generation) {
    return absl::FailedPreconditionError(
        absl::StrCat("shared memory ", name, " is of generation ", header.generation,
                     ", this rank is of generation ", options.generation, "; it may not join"));
  }
  const SegmentGeometry geometry = {.group_size = header.group_size,
                                    .chunk_bytes = header.chunk_bytes,
                                    .chunks_per_ring = header.chunks_per_ring};
  if (header.group_digest != GroupDigest(group) || geometry.group_size != group.size() ||
      memory.bytes() < geometry.TotalBytes()) {
    return absl::FailedPreconditionError(absl::StrCat("shared memory ", name,
                                                      " is of another group than ", group.name,
                                                      " [", absl::StrJoin(group.ranks, ", "), "]"));
  }
  return std::make_shared<MappedSegment>(std::move(memory), geometry);
}

absl::StatusOr<std::shared_ptr<Segment>> Attach(const ProcessGroup& group,
                                                const SharedMemoryOptions& options,
                                                absl::Duration deadline) {
  while (true) {
    absl::StatusOr<std::shared_ptr<Segment>> segment = TryAttach(group, options);
    if (!absl::IsNotFound(segment.status())) return segment;
    if (Clock::Real().Steady() > deadline) {
      return MarkPeerLost(absl::DeadlineExceededError(
          absl::StrCat("group ", group.name, ": rank ", group.ranks[0], " did not come up within ",
                       absl::FormatDuration(options.rendezvous_timeout))));
    }
    absl::SleepFor(kPollInterval);
  }
}

absl::Status ClaimSlot(const ProcessGroup& group, int rank, const SharedMemoryOptions& options,
                       Segment& segment) {
  RankSlot& slot = segment.slot(rank);
  slot.pid.store(static_cast<int32_t>(getpid()));
  SlotState expected = SlotState::kAbsent;
  if (!slot.state.compare_exchange_strong(expected, SlotState::kAttached)) {
    return absl::AlreadyExistsError(absl::StrCat("group ", group.name, ": rank ", group.ranks[rank],
                                                 " is attached already, by another process"));
  }
  if (segment.header().num_attached.fetch_add(1) + 1 == group.size()) {
    UnlinkSharedMemoryName(SegmentName(group, options));
  }
  return absl::OkStatus();
}

absl::Status AwaitMembers(const ProcessGroup& group, const SharedMemoryOptions& options,
                          const Segment& segment, absl::Duration deadline) {
  while (segment.header().num_attached.load() < group.size()) {
    if (Clock::Real().Steady() > deadline) {
      std::vector<int64_t> missing;
      for (int rank = 0; rank < group.size(); ++rank) {
        if (segment.slot(rank).state.load() == SlotState::kAbsent) {
          missing.push_back(group.ranks[rank]);
        }
      }
      UnlinkSharedMemoryName(SegmentName(group, options));
      return MarkPeerLost(absl::DeadlineExceededError(absl::StrCat(
          "group ", group.name, ": rank ", absl::StrJoin(missing, ", "), " did not come up within ",
          absl::FormatDuration(options.rendezvous_timeout))));
    }
    absl::SleepFor(kPollInterval);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Collectives>> OpenSharedMemoryCollectives(
    const ProcessGroup& group, int rank, const SharedMemoryOptions& options) {
  if (group.size() == 1) {
    return std::make_unique<RingCollectives>(group, rank, nullptr, nullptr, options.ring);
  }
  const absl::Duration deadline = Clock::Real().Steady() + options.rendezvous_timeout;
  std::shared_ptr<Segment> segment;
  if (rank == 0) {
    ASSIGN_OR_RETURN(segment, Create(group, options));
  } else {
    ASSIGN_OR_RETURN(segment, Attach(group, options, deadline));
  }
  RETURN_IF_ERROR(ClaimSlot(group, rank, options, *segment));
  RETURN_IF_ERROR(AwaitMembers(group, options, *segment, deadline));
  std::vector<int64_t> pids;
  for (int peer = 0; peer < group.size(); ++peer) {
    pids.push_back(peer == rank ? 0 : segment->slot(peer).pid.load());
  }
  return std::make_unique<RingCollectives>(group, rank, std::move(segment),
                                           std::make_unique<PidWatcher>(pids), options.ring);
}

}  // namespace autosp
