// A CUDA runtime of threads and queues, which runs as late as it may.
//
// Work on a stream is queued, and runs only when somebody has to wait for it: the host in a
// synchronisation, or the null stream on an event. So who reads a result without waiting reads what
// was there before. The null stream runs at once, as CPU tensors compute. A queued read remembers
// what it was to read; when that has changed until it runs, somebody wrote to a buffer that was not
// his. All that is wrong is collected, with the name of the call.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/types/span.h"
#include "worker/cuda/cuda_api.h"

namespace autosp {

class FakeCuda final : public CudaApi {
 public:
  explicit FakeCuda(int num_devices = 8) : num_devices_(num_devices) {}

  // What was wrong so far, and what was not freed. Empty at the end of a good test.
  std::vector<std::string> Violations() const;
  std::vector<std::string> Leaks() const;
  void AddViolation(std::string text);

  // The call of this name ("CreateStream") fails once, after `num_good` good ones.
  void FailOnce(const std::string& call, int num_good = 0);

  // For tests that compute on a queue too, where what is sent is written after it was queued.
  void AllowLateWrites() { checks_reads_ = false; }

  // Queues `work`, which reads `reads`. At once on the null stream. Nothing of it happens when
  // `is_void` says so by then: what an aborted communicator had queued.
  absl::Status Enqueue(CudaStream stream, const std::string& what,
                       std::vector<absl::Span<const std::byte>> reads, std::function<void()> work,
                       std::function<bool()> is_void = nullptr);
  // -1 where the stream does not exist.
  int DeviceOf(CudaStream stream) const;
  int CurrentDevice() const;
  int64_t NumQueued(CudaStream stream) const;

  absl::StatusOr<int> DeviceCount() override { return num_devices_; }
  absl::StatusOr<CudaVersions> Versions() override { return CudaVersions{}; }
  absl::Status SetDevice(int device) override;
  absl::StatusOr<CudaMemoryInfo> MemoryInfo() override { return CudaMemoryInfo{}; }
  absl::StatusOr<CudaStream> CreateStream() override;
  absl::Status DestroyStream(CudaStream stream) override;
  absl::Status SynchronizeStream(CudaStream stream) override;
  absl::Status WaitEvent(CudaStream stream, CudaEvent event) override;
  absl::StatusOr<CudaEvent> CreateEvent() override;
  absl::Status DestroyEvent(CudaEvent event) override;
  absl::Status RecordEvent(CudaEvent event, CudaStream stream) override;
  absl::StatusOr<bool> QueryEvent(CudaEvent event) override;
  absl::Status SynchronizeEvent(CudaEvent event) override;
  absl::Status CopyAsync(void* to, const void* from, int64_t bytes, CudaStream stream) override;
  absl::StatusOr<void*> AllocateDevice(int64_t bytes) override;
  absl::Status FreeDevice(void* memory) override;
  absl::StatusOr<void*> AllocateHost(int64_t bytes) override;
  absl::Status FreeHost(void* memory) override;

 private:
  struct Stream;
  // One record of an event: done when the stream gets there.
  struct Mark {
    std::shared_ptr<Stream> stream;
    bool is_done = false;
  };
  using MarkPtr = std::shared_ptr<Mark>;
  struct Task {
    std::string what;
    std::function<void()> work;
    std::vector<absl::Span<const std::byte>> reads = {};
    std::vector<uint64_t> digests = {};
    std::function<bool()> is_void = nullptr;
    MarkPtr mark = nullptr;  // set after the work
  };
  struct Stream {
    int device = 0;
    std::deque<Task> tasks = {};
    bool is_running = false;  // some thread runs a task
  };
  struct Memory {
    std::unique_ptr<std::byte[]> bytes;
    std::string kind;
  };
  using Lock = std::unique_lock<std::mutex>;

  absl::Status Check(const char* call);
  absl::Status Wrong(std::string text);
  absl::StatusOr<std::shared_ptr<Stream>> Find(CudaStream stream, const char* call);
  absl::StatusOr<MarkPtr*> FindEvent(CudaEvent event, const char* call);
  void Push(Stream& stream, Task task);
  // Runs the stream until `mark` is done, or all of it.
  void Drive(Lock& lock, const std::shared_ptr<Stream>& stream, const MarkPtr& mark);
  bool WasChanged(const Task& task) const;
  void RunFirst(Lock& lock, Stream& stream);
  absl::StatusOr<void*> Allocate(const char* kind, int64_t bytes);
  absl::Status Free(const char* kind, void* memory);
  void* NewHandle() { return reinterpret_cast<void*>(++num_handles_); }

  const int num_devices_;
  bool checks_reads_ = true;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  uintptr_t num_handles_ = 0;  // never used twice, so that a stale one is known
  std::map<void*, std::shared_ptr<Stream>> streams_;
  std::map<void*, MarkPtr> events_;
  std::map<void*, Memory> memory_;
  std::map<std::thread::id, int> devices_;
  std::map<std::string, int> failures_;
  std::vector<std::string> violations_;
};

}  // namespace autosp
