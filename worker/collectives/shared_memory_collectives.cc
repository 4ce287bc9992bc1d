#include "worker/collectives/shared_memory_collectives.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "worker/collectives/pid_watcher.h"
#include "worker/collectives/segment.h"

namespace autosp {
namespace {

constexpr char kSharedMemoryDirectory[] = "/dev/shm";
constexpr absl::Duration kPollInterval = absl::Milliseconds(1);

// FNV-1a over the name and the ranks: members that disagree about the group notice.
uint64_t GroupDigest(const ProcessGroup& group) {
  uint64_t digest = 0xcbf29ce484222325;
  const std::string text = absl::StrCat(group.name, "|", absl::StrJoin(group.ranks, ","));
  for (const char c : text) digest = (digest ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return digest;
}

std::string SegmentName(const ProcessGroup& group, const SharedMemoryOptions& options) {
  return absl::StrCat(options.name_prefix, "-", group.name);
}

// A mapping of the whole segment, for as long as the object lives.
class Mapping {
 public:
  Mapping(std::byte* memory, int64_t bytes) : memory_(memory), bytes_(bytes) {}
  Mapping(Mapping&& other) noexcept
      : memory_(std::exchange(other.memory_, nullptr)), bytes_(other.bytes_) {}
  Mapping& operator=(Mapping&&) = delete;
  ~Mapping() {
    if (memory_ != nullptr) munmap(memory_, bytes_);
  }
  std::byte* memory() const { return memory_; }

 private:
  std::byte* memory_;
  int64_t bytes_;
};

class MappedSegment final : public Segment {
 public:
  MappedSegment(Mapping mapping, const SegmentGeometry& geometry)
      : Segment(mapping.memory(), geometry), mapping_(std::move(mapping)) {}

 private:
  Mapping mapping_;
};

absl::StatusOr<Mapping> Map(int fd, int64_t bytes, const std::string& name) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) {
    return absl::ErrnoToStatus(errno,
                               absl::StrCat("shared memory ", name, ": map of ", bytes, " bytes"));
  }
  return Mapping(static_cast<std::byte*>(memory), bytes);
}

// Takes the pages now: a rank must not get SIGBUS in the middle of a step.
absl::Status Reserve(int fd, int64_t bytes, const std::string& name) {
  int error = EINTR;
  while (error == EINTR) error = posix_fallocate(fd, 0, bytes);
  if (error == 0) return absl::OkStatus();
  struct statvfs space = {};
  fstatvfs(fd, &space);
  return absl::ResourceExhaustedError(absl::StrCat(
      "shared memory ", name, ": needs ", bytes, " bytes, ",
      static_cast<int64_t>(space.f_bavail) * static_cast<int64_t>(space.f_frsize), " are free in ",
      kSharedMemoryDirectory, " (", std::strerror(error), "); enlarge it"));
}

absl::StatusOr<std::shared_ptr<Segment>> Create(const ProcessGroup& group,
                                                const SharedMemoryOptions& options) {
  const std::string name = SegmentName(group, options);
  const UniqueFd fd(shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600));
  if (fd.get() < 0) {
    return absl::ErrnoToStatus(
        errno,
        absl::StrCat("shared memory ", name, ": create; the prefix must be new for each attempt"));
  }
  const int64_t min_chunks = MinChunksInStream(group.size());
  const SegmentGeometry geometry = {
      .group_size = group.size(),
      .chunk_bytes = options.chunk_bytes,
      .chunks_per_ring = std::max(options.chunks_per_ring, min_chunks)};
  const int64_t bytes = geometry.TotalBytes();
  const absl::Status reserved = Reserve(fd.get(), bytes, name);
  auto mapping = reserved.ok() ? Map(fd.get(), bytes, name) : reserved;
  if (!mapping.ok()) {
    shm_unlink(name.c_str());
    return mapping.status();
  }
  auto segment = std::make_shared<MappedSegment>(*std::move(mapping), geometry);
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
  const UniqueFd fd(shm_open(name.c_str(), O_RDWR | O_CLOEXEC, 0600));
  if (fd.get() < 0) return absl::ErrnoToStatus(errno, absl::StrCat("shared memory ", name));
  struct stat status = {};
  if (fstat(fd.get(), &status) != 0 || status.st_size < static_cast<off_t>(sizeof(SegmentHeader))) {
    return absl::NotFoundError("not sized yet");
  }
  ASSIGN_OR_RETURN(Mapping mapping, Map(fd.get(), status.st_size, name));
  const auto& header = *reinterpret_cast<const SegmentHeader*>(mapping.memory());
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
      status.st_size < geometry.TotalBytes()) {
    return absl::FailedPreconditionError(absl::StrCat("shared memory ", name,
                                                      " is of another group than ", group.name,
                                                      " [", absl::StrJoin(group.ranks, ", "), "]"));
  }
  return std::make_shared<MappedSegment>(std::move(mapping), geometry);
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
    shm_unlink(SegmentName(group, options).c_str());
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
      shm_unlink(SegmentName(group, options).c_str());
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

void UnlinkSharedMemory(absl::string_view name_prefix) {
  DIR* directory = opendir(kSharedMemoryDirectory);
  if (directory == nullptr) return;
  const std::string begin = absl::StrCat(absl::StripPrefix(name_prefix, "/"), "-");
  while (const dirent* entry = readdir(directory)) {
    if (absl::StartsWith(entry->d_name, begin))
      shm_unlink(absl::StrCat("/", entry->d_name).c_str());
  }
  closedir(directory);
}

}  // namespace autosp
