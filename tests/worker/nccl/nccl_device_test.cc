// The real CUDA and NCCL do what the doubles stand for: every kind of collective on device memory,
// against the collectives between threads. Needs a GPU, and says so where there is none.

#include <functional>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/collectives/in_process_collectives.h"
#include "worker/cuda/real_cuda_api.h"
#include "worker/cuda/staged_collectives.h"
#include "worker/nccl/nccl_collectives.h"
#include "worker/nccl/real_nccl_api.h"

namespace autosp {
namespace {

using Floats = std::vector<float>;
using GroupOr = absl::StatusOr<std::unique_ptr<Collectives>>;

constexpr int64_t kElementsPerRank = 1 << 16;

CudaStream NullStream() { return nullptr; }

// Device memory of the calling thread's device.
class DeviceFloats {
 public:
  explicit DeviceFloats(const Floats& values) : size_(values.size()) {
    memory_ = RealCudaApi().AllocateDevice(Bytes() + 1).value();
    EXPECT_TRUE(RealCudaApi().CopyAsync(memory_, values.data(), Bytes(), nullptr).ok());
    EXPECT_TRUE(RealCudaApi().SynchronizeStream(nullptr).ok());
  }
  DeviceFloats(const DeviceFloats&) = delete;
  DeviceFloats& operator=(const DeviceFloats&) = delete;
  ~DeviceFloats() { EXPECT_TRUE(RealCudaApi().FreeDevice(memory_).ok()); }

  absl::Span<std::byte> span() const {
    return {static_cast<std::byte*>(memory_), static_cast<size_t>(Bytes())};
  }
  Floats Download() const {
    Floats values(size_);
    EXPECT_TRUE(RealCudaApi().CopyAsync(values.data(), memory_, Bytes(), nullptr).ok());
    EXPECT_TRUE(RealCudaApi().SynchronizeStream(nullptr).ok());
    return values;
  }

 private:
  int64_t Bytes() const { return static_cast<int64_t>(size_ * sizeof(float)); }

  size_t size_;
  void* memory_ = nullptr;
};

// Small integers, whose sums are exact in any order.
Floats Input(int rank, int64_t count) {
  Floats values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<float>((i * 7 + rank * 5) % 29);
  return values;
}

struct Sizes {
  int64_t send = 0;
  int64_t recv = 0;
};

Sizes SizesOf(CollectiveKind kind, int num_ranks) {
  const int64_t all = kElementsPerRank * num_ranks;
  switch (kind) {
    case CollectiveKind::kAllGather:
      return {kElementsPerRank, all};
    case CollectiveKind::kReduceScatter:
      return {all, kElementsPerRank};
    case CollectiveKind::kBroadcast:
      return {0, all};
    case CollectiveKind::kBarrier:
      return {0, 0};
    default:
      return {all, all};
  }
}

// The same call on the device and on the host.
void CheckKind(Collectives& device_group, Collectives& host_group, CollectiveKind kind) {
  const Sizes sizes = SizesOf(kind, host_group.size());
  Floats send = Input(host_group.rank(), sizes.send);
  Floats recv = Input(host_group.rank(), sizes.recv);
  const DeviceFloats device_send(send);
  const DeviceFloats device_recv(recv);
  CollectiveCall call{.kind = kind};
  call.send = device_send.span();
  call.recv = device_recv.span();
  const absl::Status on_device = device_group.Run(call);
  ASSERT_TRUE(on_device.ok()) << on_device;
  const absl::Status complete = device_group.Synchronize();
  ASSERT_TRUE(complete.ok()) << complete;
  call.send = {reinterpret_cast<const std::byte*>(send.data()), call.send.size()};
  call.recv = {reinterpret_cast<std::byte*>(recv.data()), call.recv.size()};
  ASSERT_TRUE(host_group.Run(call).ok());
  EXPECT_EQ(device_recv.Download(), recv) << KindName(kind) << " on rank " << host_group.rank();
  EXPECT_EQ(device_group.counters().of(kind).bytes_received,
            host_group.counters().of(kind).bytes_received);
}

class NcclDeviceTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto count = RealCudaApi().DeviceCount();
    ASSERT_TRUE(count.ok()) << count.status();
    num_devices_ = *count;
    if (num_devices_ == 0) GTEST_SKIP() << "this machine has no GPU that the driver serves";
  }

  // `open` puts a group between threads into the one under test, on the rank's thread.
  void CheckAllKinds(int num_ranks, const std::function<int(int rank)>& device_of,
                     const std::function<GroupOr(int device, std::unique_ptr<Collectives>)>& open) {
    ProcessGroup group{.name = "world:0", .ranks = {}};
    for (int rank = 0; rank < num_ranks; ++rank) group.ranks.push_back(rank);
    auto inner = MakeInProcessCollectives(group);
    auto oracle = MakeInProcessCollectives(group);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < num_ranks; ++rank) {
      threads.emplace_back([&, rank] {
        ASSERT_TRUE(RealCudaApi().SetDevice(device_of(rank)).ok());
        const GroupOr opened = open(device_of(rank), std::move(inner[rank]));
        ASSERT_TRUE(opened.ok()) << opened.status();
        for (const CollectiveKind kind : kAllCollectiveKinds) {
          CheckKind(**opened, *oracle[rank], kind);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  static GroupOr OpenNccl(int device, std::unique_ptr<Collectives> control) {
    auto opened = NcclDevice::Open(RealCudaApi(), RealNcclApi(), device, NullStream);
    if (!opened.ok()) return opened.status();
    return NcclCollectives::Open(*std::move(opened), std::move(control));
  }

  int num_devices_ = 0;
};

TEST_F(NcclDeviceTest, OneRankGoesThroughNccl) {
  CheckAllKinds(
      1, [](int) { return 0; }, OpenNccl);
}

TEST_F(NcclDeviceTest, RanksOnDevicesOfTheirOwnGoThroughNccl) {
  if (num_devices_ < 2) GTEST_SKIP() << "needs two GPUs; NCCL refuses two ranks on one";
  CheckAllKinds(
      num_devices_, [](int rank) { return rank; }, OpenNccl);
}

TEST_F(NcclDeviceTest, RanksThatShareADeviceAreStaged) {
  CheckAllKinds(
      4, [](int) { return 0; },
      [](int device, std::unique_ptr<Collectives> host) -> GroupOr {
        return std::make_unique<StagedCollectives>(RealCudaApi(), device, NullStream,
                                                   std::move(host));
      });
}

TEST_F(NcclDeviceTest, NcclRefusesTwoRanksOnOneDevice) {
  const ProcessGroup group{.name = "world:0", .ranks = {0, 1}};
  auto controls = MakeInProcessCollectives(group);
  std::vector<std::thread> threads;
  for (auto& control : controls) {
    threads.emplace_back([&control] {
      const GroupOr opened = OpenNccl(0, std::move(control));
      EXPECT_FALSE(opened.ok());
      EXPECT_THAT(std::string(opened.status().message()),
                  testing::HasSubstr("NCCL communicator of group world:0"));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(NcclDeviceTest, AnAbortedGroupFailsItsCalls) {
  auto controls = MakeInProcessCollectives({.name = "world:0", .ranks = {0}});
  const GroupOr opened = OpenNccl(0, std::move(controls[0]));
  ASSERT_TRUE(opened.ok()) << opened.status();
  ASSERT_TRUE((*opened)->Barrier().ok());
  (*opened)->Abort("it was stopped");
  const absl::Status status = (*opened)->Barrier();
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("it was stopped"));
}

}  // namespace
}  // namespace autosp
