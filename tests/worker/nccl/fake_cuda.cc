#include "tests/worker/nccl/fake_cuda.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

// FNV-1a: good enough to see a change.
uint64_t Digest(absl::Span<const std::byte> bytes) {
  uint64_t digest = 14695981039346656037u;
  for (const std::byte byte : bytes) {
    digest = (digest ^ static_cast<uint64_t>(byte)) * 1099511628211u;
  }
  return digest;
}

}  // namespace

std::vector<std::string> FakeCuda::Violations() const {
  const Lock lock(mutex_);
  return violations_;
}

std::vector<std::string> FakeCuda::Leaks() const {
  const Lock lock(mutex_);
  std::vector<std::string> leaks;
  if (!streams_.empty()) leaks.push_back(absl::StrCat(streams_.size(), " streams"));
  if (!events_.empty()) leaks.push_back(absl::StrCat(events_.size(), " events"));
  for (const auto& [address, memory] : memory_) leaks.push_back(memory.kind + " memory");
  return leaks;
}

void FakeCuda::AddViolation(std::string text) {
  const Lock lock(mutex_);
  violations_.push_back(std::move(text));
}

void FakeCuda::FailOnce(const std::string& call, int num_good) {
  const Lock lock(mutex_);
  failures_[call] = num_good;
}

// Also the injected failure of the call.
absl::Status FakeCuda::Check(const char* call) {
  const auto found = failures_.find(call);
  if (found == failures_.end() || found->second-- > 0) return absl::OkStatus();
  failures_.erase(found);
  return Internal(call, ": injected");
}

absl::Status FakeCuda::Wrong(std::string text) {
  violations_.push_back(text);
  return Internal(text);
}

absl::StatusOr<std::shared_ptr<FakeCuda::Stream>> FakeCuda::Find(CudaStream stream,
                                                                 const char* call) {
  RETURN_IF_ERROR(Check(call));
  if (stream == nullptr) return nullptr;
  const auto found = streams_.find(stream);
  if (found == streams_.end()) return Wrong(absl::StrCat(call, " on a stream that is no more"));
  return found->second;
}

absl::StatusOr<FakeCuda::MarkPtr*> FakeCuda::FindEvent(CudaEvent event, const char* call) {
  RETURN_IF_ERROR(Check(call));
  const auto found = events_.find(event);
  if (found == events_.end()) return Wrong(absl::StrCat(call, " on an event that is no more"));
  return &found->second;
}

void FakeCuda::Push(Stream& stream, Task task) {
  for (const auto& read : task.reads) task.digests.push_back(Digest(read));
  stream.tasks.push_back(std::move(task));
}

bool FakeCuda::WasChanged(const Task& task) const {
  for (size_t i = 0; checks_reads_ && i < task.reads.size(); ++i) {
    if (Digest(task.reads[i]) != task.digests[i]) return true;
  }
  return false;
}

// One task at a time, without the lock: it may wait for other ranks, or for other streams.
void FakeCuda::RunFirst(Lock& lock, Stream& stream) {
  const Task task = std::move(stream.tasks.front());
  stream.tasks.pop_front();
  stream.is_running = true;
  lock.unlock();
  const bool is_void = task.is_void != nullptr && task.is_void();
  const bool was_changed = !is_void && WasChanged(task);
  if (!is_void && task.work != nullptr) task.work();
  lock.lock();
  stream.is_running = false;
  if (was_changed) {
    violations_.push_back(task.what + ": what it sends was changed between its start and its end");
  }
  if (task.mark != nullptr) task.mark->is_done = true;
  changed_.notify_all();
}

void FakeCuda::Drive(Lock& lock, const std::shared_ptr<Stream>& stream, const MarkPtr& mark) {
  if (stream == nullptr) return;
  while (mark != nullptr ? !mark->is_done : stream->is_running || !stream->tasks.empty()) {
    if (stream->is_running) {
      changed_.wait(lock);
    } else {
      RunFirst(lock, *stream);
    }
  }
}

absl::Status FakeCuda::Enqueue(CudaStream stream, const std::string& what,
                               std::vector<absl::Span<const std::byte>> reads,
                               std::function<void()> work, std::function<bool()> is_void) {
  {
    const Lock lock(mutex_);
    ASSIGN_OR_RETURN(const auto found, Find(stream, "Enqueue"));
    if (found != nullptr) {
      Push(*found, {.what = what,
                    .work = std::move(work),
                    .reads = std::move(reads),
                    .is_void = std::move(is_void)});
      return absl::OkStatus();
    }
  }
  work();
  return absl::OkStatus();
}

int FakeCuda::DeviceOf(CudaStream stream) const {
  const Lock lock(mutex_);
  const auto found = streams_.find(stream);
  return found == streams_.end() ? -1 : found->second->device;
}

int FakeCuda::CurrentDevice() const {
  const Lock lock(mutex_);
  const auto found = devices_.find(std::this_thread::get_id());
  return found == devices_.end() ? 0 : found->second;
}

int64_t FakeCuda::NumQueued(CudaStream stream) const {
  const Lock lock(mutex_);
  const auto found = streams_.find(stream);
  return found == streams_.end() ? 0 : static_cast<int64_t>(found->second->tasks.size());
}

absl::Status FakeCuda::SetDevice(int device) {
  const Lock lock(mutex_);
  RETURN_IF_ERROR(Check("SetDevice"));
  if (device < 0 || device >= num_devices_) return Internal("SetDevice: no device ", device);
  devices_[std::this_thread::get_id()] = device;
  return absl::OkStatus();
}

absl::StatusOr<CudaStream> FakeCuda::CreateStream() {
  const int device = CurrentDevice();
  const Lock lock(mutex_);
  RETURN_IF_ERROR(Check("CreateStream"));
  const CudaStream handle = NewHandle();
  streams_[handle] = std::make_shared<Stream>(Stream{.device = device});
  return handle;
}

absl::Status FakeCuda::DestroyStream(CudaStream stream) {
  const Lock lock(mutex_);
  ASSIGN_OR_RETURN(const auto found, Find(stream, "DestroyStream"));
  if (found == nullptr) return Wrong("DestroyStream of the null stream");
  for (const Task& task : found->tasks) {
    // Marks and waits alone do nothing that anybody could miss.
    if (!task.reads.empty()) violations_.push_back(task.what + ": its stream was destroyed");
  }
  streams_.erase(stream);
  return absl::OkStatus();
}

absl::Status FakeCuda::SynchronizeStream(CudaStream stream) {
  Lock lock(mutex_);
  ASSIGN_OR_RETURN(const auto found, Find(stream, "SynchronizeStream"));
  Drive(lock, found, nullptr);
  return absl::OkStatus();
}

absl::Status FakeCuda::WaitEvent(CudaStream stream, CudaEvent event) {
  Lock lock(mutex_);
  ASSIGN_OR_RETURN(const auto waiter, Find(stream, "WaitEvent"));
  ASSIGN_OR_RETURN(const MarkPtr* const found, FindEvent(event, "WaitEvent"));
  const MarkPtr mark = *found;  // of now: the event may be recorded again
  if (mark == nullptr) return Wrong("WaitEvent on an event that was never recorded");
  if (waiter == nullptr) {
    Drive(lock, mark->stream, mark);
    return absl::OkStatus();
  }
  Push(*waiter, {.what = "WaitEvent", .work = [this, mark] {
                   Lock inner(mutex_);
                   Drive(inner, mark->stream, mark);
                 }});
  return absl::OkStatus();
}

absl::StatusOr<CudaEvent> FakeCuda::CreateEvent() {
  const Lock lock(mutex_);
  RETURN_IF_ERROR(Check("CreateEvent"));
  const CudaEvent handle = NewHandle();
  events_[handle] = nullptr;
  return handle;
}

absl::Status FakeCuda::DestroyEvent(CudaEvent event) {
  const Lock lock(mutex_);
  RETURN_IF_ERROR(FindEvent(event, "DestroyEvent").status());
  events_.erase(event);
  return absl::OkStatus();
}

absl::Status FakeCuda::RecordEvent(CudaEvent event, CudaStream stream) {
  const Lock lock(mutex_);
  ASSIGN_OR_RETURN(const auto recorder, Find(stream, "RecordEvent"));
  ASSIGN_OR_RETURN(MarkPtr* const found, FindEvent(event, "RecordEvent"));
  *found = std::make_shared<Mark>(Mark{.stream = recorder, .is_done = recorder == nullptr});
  if (recorder != nullptr) Push(*recorder, {.what = "RecordEvent", .work = {}, .mark = *found});
  return absl::OkStatus();
}

absl::StatusOr<bool> FakeCuda::QueryEvent(CudaEvent event) {
  const Lock lock(mutex_);
  ASSIGN_OR_RETURN(const MarkPtr* const found, FindEvent(event, "QueryEvent"));
  return *found == nullptr || (*found)->is_done;
}

absl::Status FakeCuda::SynchronizeEvent(CudaEvent event) {
  Lock lock(mutex_);
  ASSIGN_OR_RETURN(const MarkPtr* const found, FindEvent(event, "SynchronizeEvent"));
  const MarkPtr mark = *found;
  if (mark != nullptr) Drive(lock, mark->stream, mark);
  return absl::OkStatus();
}

absl::Status FakeCuda::CopyAsync(void* to, const void* from, int64_t bytes, CudaStream stream) {
  const absl::Span<const std::byte> source(static_cast<const std::byte*>(from), bytes);
  return Enqueue(stream, absl::StrCat("CopyAsync of ", bytes, " bytes"), {source},
                 [to, source] { std::memmove(to, source.data(), source.size()); });
}

absl::StatusOr<void*> FakeCuda::Allocate(const char* kind, int64_t bytes) {
  const Lock lock(mutex_);
  RETURN_IF_ERROR(Check(kind));
  Memory memory{.bytes = std::make_unique<std::byte[]>(bytes), .kind = kind};
  void* const address = memory.bytes.get();
  memory_[address] = std::move(memory);
  return address;
}

absl::Status FakeCuda::Free(const char* kind, void* address) {
  const Lock lock(mutex_);
  const auto found = memory_.find(address);
  if (found == memory_.end() || found->second.kind != kind) {
    return Wrong(absl::StrCat("free of ", kind, " memory that was not allocated"));
  }
  memory_.erase(found);
  return absl::OkStatus();
}

absl::StatusOr<void*> FakeCuda::AllocateDevice(int64_t bytes) { return Allocate("device", bytes); }
absl::Status FakeCuda::FreeDevice(void* memory) { return Free("device", memory); }
absl::StatusOr<void*> FakeCuda::AllocateHost(int64_t bytes) { return Allocate("host", bytes); }
absl::Status FakeCuda::FreeHost(void* memory) { return Free("host", memory); }

}  // namespace autosp
