// Every kind of collective against a naive oracle, for all implementations, group sizes, types and
// message sizes. Chunks are small here, so that messages take many of them. NCCL and the staging of
// device memory run on doubles of CUDA and NCCL, which complain of whatever the real ones would
// hang or crash on.

#include "worker/collectives/collectives.h"

#include <unistd.h>

#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/collectives/network_fixture.h"
#include "tests/worker/nccl/fake_gpus.h"
#include "worker/collectives/in_process_collectives.h"
#include "worker/collectives/network_collectives.h"
#include "worker/collectives/shared_memory_collectives.h"

namespace autosp {
namespace {

using Bytes = std::vector<std::byte>;

constexpr int64_t kChunkBytes = 64;
constexpr int64_t kSizes[] = {0, 1, 2, 3, 5, 7, 16, 33, 257, 1000};
constexpr DType kDTypes[] = {DType::kBool, DType::kU8,  DType::kI8,   DType::kI16, DType::kI32,
                             DType::kI64,  DType::kF16, DType::kBF16, DType::kF32, DType::kF64};

// Tcp: each rank on a node of its own. Mixed: two neighbours share a node. Strewn: nodes of several
// sizes, whose ranks are not neighbours.
enum class Implementation { kInProcess, kSharedMemory, kTcp, kMixed, kStrewn, kNccl, kStaged };

std::string NameOf(Implementation implementation) {
  switch (implementation) {
    case Implementation::kInProcess:
      return "InProcess";
    case Implementation::kSharedMemory:
      return "SharedMemory";
    case Implementation::kTcp:
      return "Tcp";
    case Implementation::kMixed:
      return "Mixed";
    case Implementation::kStrewn:
      return "Strewn";
    case Implementation::kNccl:
      return "Nccl";
    case Implementation::kStaged:
      return "Staged";
  }
  return "";
}

// Small integers, which every type holds exactly, and whose sums over four ranks too.
int ValueAt(int rank, int64_t index) { return static_cast<int>((index * 7 + rank * 5) % 29); }

uint16_t HalfBits(DType dtype, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if (dtype == DType::kBF16) return static_cast<uint16_t>(bits >> 16);
  if (value == 0) return 0;
  return static_cast<uint16_t>(((bits >> 13) & 0x3ff) | (((bits >> 23) - 112) << 10));
}

template <typename T>
void StoreAs(T value, std::byte* to) {
  std::memcpy(to, &value, sizeof(T));
}

void Store(DType dtype, int value, std::byte* to) {
  switch (dtype) {
    case DType::kBool:
      return StoreAs<uint8_t>(value % 2, to);
    case DType::kU8:
      return StoreAs<uint8_t>(value, to);
    case DType::kI8:
      return StoreAs<int8_t>(value, to);
    case DType::kI16:
      return StoreAs<int16_t>(value, to);
    case DType::kI32:
      return StoreAs<int32_t>(value, to);
    case DType::kI64:
      return StoreAs<int64_t>(value, to);
    case DType::kF16:
    case DType::kBF16:
      return StoreAs<uint16_t>(HalfBits(dtype, value), to);
    case DType::kF32:
      return StoreAs<float>(value, to);
    case DType::kF64:
      return StoreAs<double>(value, to);
  }
}

// `values(index)` for each element.
Bytes Encode(DType dtype, int64_t num_elements, const std::function<int(int64_t)>& values) {
  Bytes bytes(num_elements * SizeOf(dtype));
  for (int64_t i = 0; i < num_elements; ++i) {
    Store(dtype, values(i), bytes.data() + i * SizeOf(dtype));
  }
  return bytes;
}

Bytes Input(DType dtype, int64_t num_elements, int rank) {
  return Encode(dtype, num_elements, [rank](int64_t i) { return ValueAt(rank, i); });
}

Bytes Slice(const Bytes& bytes, int64_t begin, int64_t count) {
  return Bytes(bytes.begin() + begin, bytes.begin() + begin + count);
}

// What `rank` must hold after the call.
Bytes Oracle(const CollectiveCall& call, int64_t num_elements, int group_size, int rank) {
  const int64_t block = num_elements / group_size;
  const int64_t block_bytes = block * SizeOf(call.dtype);
  Bytes expected;
  const auto append = [&expected](const Bytes& bytes) {
    expected.insert(expected.end(), bytes.begin(), bytes.end());
  };
  const auto reduced = [&](int64_t i) {
    int result = ValueAt(0, i);
    for (int r = 1; r < group_size; ++r) {
      const int value = ValueAt(r, i);
      if (call.dtype == DType::kBool) {
        result = result % 2 | value % 2;
      } else {
        result = call.reduce == ReduceOp::kSum ? result + value : std::max(result, value);
      }
    }
    return result;
  };
  switch (call.kind) {
    case CollectiveKind::kAllToAll:
      for (int r = 0; r < group_size; ++r) {
        append(Slice(Input(call.dtype, num_elements, r), rank * block_bytes, block_bytes));
      }
      break;
    case CollectiveKind::kAllGather:
      for (int r = 0; r < group_size; ++r) append(Input(call.dtype, num_elements, r));
      break;
    case CollectiveKind::kReduceScatter:
      append(Encode(call.dtype, block, [&](int64_t i) { return reduced(rank * block + i); }));
      break;
    case CollectiveKind::kAllReduce:
      append(Encode(call.dtype, num_elements, reduced));
      break;
    case CollectiveKind::kSendRecv:
      append(Input(call.dtype, num_elements,
                   ((rank - call.shift) % group_size + group_size) % group_size));
      break;
    case CollectiveKind::kBroadcast:
      append(Input(call.dtype, num_elements, call.root));
      break;
    case CollectiveKind::kBarrier:
      break;
  }
  return expected;
}

class CollectivesTest : public testing::TestWithParam<std::tuple<Implementation, int>> {
 protected:
  int size() const { return std::get<1>(GetParam()); }

  ProcessGroup Group() const {
    ProcessGroup group{.name = "test:0", .ranks = {}};
    for (int rank = 0; rank < size(); ++rank) group.ranks.push_back(rank);
    return group;
  }

  // Opens the end of one rank; called by all, each in a thread of its own.
  using OpenEnd = std::function<absl::StatusOr<std::unique_ptr<Collectives>>(int rank)>;

  OpenEnd MakeOpener() {
    static int num_groups = 0;
    const std::string prefix = absl::StrCat("/autosp-test-", getpid(), "-", num_groups++);
    const RingOptions ring{.timeout = absl::Seconds(20), .spin_rounds = 10};
    const Implementation implementation = std::get<0>(GetParam());
    const bool on_gpus =
        implementation == Implementation::kNccl || implementation == Implementation::kStaged;
    if (implementation == Implementation::kInProcess || on_gpus) {
      auto ends = std::make_shared<std::vector<std::unique_ptr<Collectives>>>(
          MakeInProcessCollectives(Group(), {.chunk_bytes = kChunkBytes, .ring = ring}));
      return [=, this](int rank) -> absl::StatusOr<std::unique_ptr<Collectives>> {
        std::unique_ptr<Collectives> end = std::move((*ends)[rank]);
        if (implementation == Implementation::kNccl) return gpus_.OpenNccl(rank, std::move(end));
        if (implementation == Implementation::kStaged) return gpus_.Stage(rank, std::move(end));
        return end;
      };
    }
    if (implementation == Implementation::kSharedMemory) {
      return [=, this](int rank) {
        return OpenSharedMemoryCollectives(
            Group(), rank,
            {.name_prefix = prefix, .generation = 7, .ring = ring, .chunk_bytes = kChunkBytes});
      };
    }
    std::vector<std::string> nodes;
    for (int rank = 0; rank < size(); ++rank) {
      const int strewn = rank * rank % 3;
      nodes.push_back(absl::StrCat("node-", implementation == Implementation::kTcp     ? rank
                                            : implementation == Implementation::kMixed ? rank / 2
                                                                                       : strewn));
    }
    auto network = std::make_shared<FakeNetwork>(nodes);
    return [=, this](int rank) {
      const auto rendezvous = network->MakeRendezvous(rank);
      return OpenNetworkCollectives(
          Group(), rank, *rendezvous,
          {.shm_prefix = prefix,
           .stream = {.timeout = absl::Seconds(20), .chunk_bytes = kChunkBytes}});
    };
  }

  // Runs `body` as each rank, in threads.
  void RunRanks(const std::function<void(Collectives&)>& body) {
    const OpenEnd open = MakeOpener();
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size(); ++rank) {
      threads.emplace_back([&, rank] {
        const auto end = open(rank);
        ASSERT_TRUE(end.ok()) << end.status();
        body(**end);
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_THAT(gpus_.Complaints(), testing::IsEmpty());
  }

  // NCCL has no 16 bit integers.
  bool Reduces(DType dtype) const {
    return std::get<0>(GetParam()) != Implementation::kNccl || dtype != DType::kI16;
  }

  // Buffers of `call` for a rank; returns the input size in elements.
  static int64_t Prepare(CollectiveCall& call, int64_t size_class, const Collectives& end,
                         Bytes& send, Bytes& recv) {
    const bool has_blocks =
        call.kind == CollectiveKind::kAllToAll || call.kind == CollectiveKind::kReduceScatter;
    const int64_t num_elements = has_blocks ? size_class * end.size() : size_class;
    send = Input(call.dtype, num_elements, end.rank());
    int64_t recv_bytes = static_cast<int64_t>(send.size());
    if (call.kind == CollectiveKind::kAllGather) recv_bytes *= end.size();
    if (call.kind == CollectiveKind::kReduceScatter) recv_bytes /= end.size();
    recv.assign(recv_bytes, std::byte{0xee});
    if (call.kind == CollectiveKind::kBroadcast) {
      if (end.rank() == call.root) recv = send;
      send.clear();
    }
    call.send = send;
    call.recv = absl::MakeSpan(recv);
    return num_elements;
  }

  static void CheckOne(Collectives& end, CollectiveCall call, int64_t size_class) {
    Bytes send;
    Bytes recv;
    const int64_t num_elements = Prepare(call, size_class, end, send, recv);
    const absl::Status status = end.Run(call);
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_EQ(recv, Oracle(call, num_elements, end.size(), end.rank()))
        << DescribeCall(call) << " of " << DTypeName(call.dtype) << " on rank " << end.rank();
  }

 private:
  FakeGpus gpus_;
};

TEST_P(CollectivesTest, MovesEveryTypeAndSize) {
  RunRanks([](Collectives& end) {
    for (const DType dtype : kDTypes) {
      for (const int64_t num_elements : kSizes) {
        CheckOne(end, {.kind = CollectiveKind::kAllToAll, .dtype = dtype}, num_elements);
        CheckOne(end, {.kind = CollectiveKind::kAllGather, .dtype = dtype}, num_elements);
        CheckOne(end, {.kind = CollectiveKind::kBroadcast, .dtype = dtype, .root = end.size() - 1},
                 num_elements);
        for (const int shift : {1, -1, 2}) {
          CheckOne(end, {.kind = CollectiveKind::kSendRecv, .dtype = dtype, .shift = shift},
                   num_elements);
        }
      }
    }
  });
}

TEST_P(CollectivesTest, ReducesEveryTypeAndSize) {
  RunRanks([this](Collectives& end) {
    for (const DType dtype : kDTypes) {
      if (!Reduces(dtype)) continue;
      for (const int64_t num_elements : kSizes) {
        for (const ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax}) {
          CheckOne(end, {.kind = CollectiveKind::kReduceScatter, .dtype = dtype, .reduce = op},
                   num_elements);
          CheckOne(end, {.kind = CollectiveKind::kAllReduce, .dtype = dtype, .reduce = op},
                   num_elements);
        }
      }
    }
  });
}

TEST_P(CollectivesTest, AllReduceWorksInPlace) {
  RunRanks([](Collectives& end) {
    for (const int64_t num_elements : kSizes) {
      Bytes buffer = Input(DType::kF32, num_elements, end.rank());
      const CollectiveCall call{
          .kind = CollectiveKind::kAllReduce, .send = buffer, .recv = absl::MakeSpan(buffer)};
      ASSERT_TRUE(end.Run(call).ok());
      ASSERT_EQ(buffer, Oracle(call, num_elements, end.size(), end.rank()));
    }
  });
}

// fp32 addition is not associative: all ranks must have added in the order of ranks.
TEST_P(CollectivesTest, SumsAreTheSameBitsEverywhere) {
  const std::vector<float> terms = {1e8f, 1.0f, -1e8f, 0.5f, 3e7f, -0.25f, -3e7f, 2.0f};
  float expected = terms[0];
  for (int rank = 1; rank < size(); ++rank) expected += terms[rank];
  RunRanks([&](Collectives& end) {
    std::vector<float> values(100, terms[end.rank()]);
    auto buffer = absl::MakeSpan(reinterpret_cast<std::byte*>(values.data()), 400);
    ASSERT_TRUE(end.AllReduce(buffer, buffer, DType::kF32).ok());
    EXPECT_THAT(values, testing::Each(expected));
  });
}

// Started before, waited for in another order: calls complete in start order all the same.
TEST_P(CollectivesTest, ManyCallsMayBeUnderWay) {
  RunRanks([](Collectives& end) {
    constexpr int kNumCalls = 40;
    std::vector<Bytes> sends(kNumCalls);
    std::vector<Bytes> recvs(kNumCalls);
    std::vector<CollectiveCall> calls(kNumCalls);
    std::vector<CollectiveHandle> handles(kNumCalls);
    for (int i = 0; i < kNumCalls; ++i) {
      const CollectiveKind kind = kAllCollectiveKinds[i % kAllCollectiveKinds.size()];
      calls[i] = {.kind = kind, .dtype = DType::kI32};
      const int64_t num_elements = kind == CollectiveKind::kBarrier ? 0 : 10 * i;
      Prepare(calls[i], num_elements, end, sends[i], recvs[i]);
      auto handle = end.Start(calls[i]);
      ASSERT_TRUE(handle.ok()) << handle.status();
      handles[i] = *handle;
    }
    for (int i = kNumCalls - 1; i >= 0; --i) {
      ASSERT_TRUE(end.Wait(handles[i]).ok());
      const CollectiveKind kind = calls[i].kind;
      const bool has_blocks =
          kind == CollectiveKind::kAllToAll || kind == CollectiveKind::kReduceScatter;
      const int64_t size_class = kind == CollectiveKind::kBarrier ? 0 : 10 * i;
      const int64_t num_elements = has_blocks ? size_class * end.size() : size_class;
      EXPECT_EQ(recvs[i], Oracle(calls[i], num_elements, end.size(), end.rank()));
    }
  });
}

TEST_P(CollectivesTest, CountersEqualTheFormula) {
  std::vector<CollectiveCounters> counters(size());
  RunRanks([&](Collectives& end) {
    for (const CollectiveKind kind : kAllCollectiveKinds) {
      CheckOne(end, {.kind = kind, .dtype = DType::kF32},
               kind == CollectiveKind::kBarrier ? 0 : 33);
    }
    counters[end.rank()] = end.counters();
  });
  const int64_t num_peers = size() - 1;
  for (const CollectiveKind kind : kAllCollectiveKinds) {
    int64_t payload = 0;
    int64_t received = 0;
    for (int rank = 0; rank < size(); ++rank) {
      EXPECT_EQ(counters[rank].of(kind).calls, 1);
      payload += counters[rank].of(kind).payload_bytes;
      received += counters[rank].of(kind).bytes_received;
    }
    // The sum over ranks leaves no rounding: what was copied is what the formula says.
    switch (kind) {
      case CollectiveKind::kAllToAll:
      case CollectiveKind::kAllGather:
      case CollectiveKind::kReduceScatter:
        EXPECT_EQ(payload, size() * num_peers * 132);
        EXPECT_EQ(received, payload);
        break;
      case CollectiveKind::kAllReduce:
        EXPECT_EQ(payload, 2 * num_peers * 132);
        EXPECT_EQ(counters[0].of(kind).bytes_received, (2 * num_peers * 132 + size() - 1) / size());
        break;
      case CollectiveKind::kSendRecv:
        EXPECT_EQ(payload, size() == 1 ? 0 : size() * 132);
        EXPECT_EQ(received, payload);
        break;
      case CollectiveKind::kBroadcast:
        EXPECT_EQ(payload, num_peers * 132);
        EXPECT_EQ(received, payload);
        EXPECT_EQ(counters[0].of(kind).bytes_received, 0);
        break;
      case CollectiveKind::kBarrier:
        EXPECT_EQ(payload, 0);
        EXPECT_EQ(received, 0);
        break;
    }
  }
}

TEST_P(CollectivesTest, BarrierHoldsEveryoneBack) {
  std::atomic<int> num_arrived = 0;
  RunRanks([&](Collectives& end) {
    for (int round = 1; round <= 50; ++round) {
      num_arrived.fetch_add(1);
      ASSERT_TRUE(end.Barrier().ok());
      ASSERT_GE(num_arrived.load(), round * end.size());
    }
  });
}

TEST_P(CollectivesTest, RefusesBuffersThatDoNotFit) {
  RunRanks([](Collectives& end) {
    Bytes send(12 * end.size());
    Bytes recv(11);
    EXPECT_EQ(end.AllToAll(send, absl::MakeSpan(recv)).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(end.AllReduce(recv, absl::MakeSpan(recv), DType::kF32).code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(end.Broadcast(absl::MakeSpan(recv), end.size()).code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(end.Wait({.index = 5}).code(), absl::StatusCode::kInvalidArgument);
    // A refused call has not begun: the group is as good as before.
    ASSERT_TRUE(end.Barrier().ok());
  });
}

// A rank may find the segment at any moment of its making.
TEST_P(CollectivesTest, ComesUpOverAndOver) {
  for (int round = 0; round < 100; ++round) {
    RunRanks([](Collectives& end) { ASSERT_TRUE(end.Barrier().ok()); });
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, CollectivesTest,
    testing::Combine(testing::Values(Implementation::kInProcess, Implementation::kSharedMemory,
                                     Implementation::kTcp, Implementation::kMixed,
                                     Implementation::kStrewn, Implementation::kNccl,
                                     Implementation::kStaged),
                     testing::Values(1, 2, 3, 4, 8)),
    [](const auto& info) {
      return absl::StrCat(NameOf(std::get<0>(info.param)), std::get<1>(info.param));
    });

}  // namespace
}  // namespace autosp
