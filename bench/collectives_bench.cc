// Throughput of a collective between processes, over shared memory on this machine or over TCP.
//
//   collectives_bench --world-size 2 --kind all_to_all --json
//   collectives_bench --addresses 10.0.0.1:7000,10.0.0.2:7000 --rank 0 --json     # on each host
//
// Measures as bench/peers/all_to_all_gloo.py does, and prints the same JSON: a size is the bytes of
// each rank's input buffer; each call follows a barrier; the slowest rank's median counts;
// throughput is the bytes that a rank receives from its peers, divided by the time of the call.

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "worker/collectives/network_collectives.h"
#include "worker/collectives/shared_memory_collectives.h"

namespace autosp {
namespace {

constexpr int64_t kSizesBytes[] = {64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20};
constexpr double kMinSecondsPerSize = 1.0;
constexpr int kMinIterations = 5;

struct Options {
  int world_size = 2;
  std::string kind = "all_to_all";
  int64_t chunk_bytes = SharedMemoryOptions().chunk_bytes;
  int64_t chunks_per_ring = SharedMemoryOptions().chunks_per_ring;
  std::vector<std::string> addresses;  // of all ranks, over TCP; empty: shared memory
  int rank = 0;                        // over TCP: the one that this process is
  bool json = false;
};

void Require(const absl::Status& status) { AUTOSP_CHECK(status.ok(), status.ToString()); }

double MedianSeconds(Collectives& end, const CollectiveCall& call, int iterations) {
  std::vector<double> seconds;
  for (int i = 0; i < iterations; ++i) {
    Require(end.Barrier());
    const auto start = std::chrono::steady_clock::now();
    Require(end.Run(call));
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + iterations / 2, seconds.end());
  double slowest = seconds[iterations / 2];
  const auto buffer = absl::MakeSpan(reinterpret_cast<std::byte*>(&slowest), sizeof(slowest));
  Require(end.AllReduce(buffer, buffer, DType::kF64, ReduceOp::kMax));
  return slowest;
}

nlohmann::json MeasureSize(Collectives& end, CollectiveKind kind, int64_t size_bytes) {
  std::vector<std::byte> send(size_bytes, std::byte{1});
  std::vector<std::byte> recv(kind == CollectiveKind::kAllGather       ? size_bytes * end.size()
                              : kind == CollectiveKind::kReduceScatter ? size_bytes / end.size()
                                                                       : size_bytes);
  CollectiveCall call{.kind = kind, .send = send, .recv = absl::MakeSpan(recv)};
  if (kind == CollectiveKind::kBroadcast) call.send = {};
  const double estimate = MedianSeconds(end, call, kMinIterations);
  const int iterations =
      std::clamp(static_cast<int>(kMinSecondsPerSize / estimate), kMinIterations, 1000);
  const double seconds = MedianSeconds(end, call, iterations);
  const auto received = static_cast<double>(BytesReceived(kind, size_bytes, end.size()));
  return {{"size_bytes", size_bytes},
          {"iterations", iterations},
          {"seconds_median", seconds},
          {"bytes_per_second", received / seconds}};
}

// Over TCP ranks are started by hand: until the others listen, there is nobody to meet.
absl::StatusOr<std::unique_ptr<Collectives>> OpenTcp(const ProcessGroup& group,
                                                     const Options& options) {
  TcpRendezvousOptions rendezvous{
      .attempt = {.job_id = "bench", .generation = 1, .secret = "bench"}, .rank = options.rank};
  for (size_t rank = 0; rank < options.addresses.size(); ++rank) {
    rendezvous.endpoints.push_back({options.addresses[rank], absl::StrCat("host-", rank)});
  }
  ASSIGN_OR_RETURN(const HostPort own, ParseHostPort(options.addresses[options.rank]));
  ASSIGN_OR_RETURN(TcpListener listener,
                   ListenTcp(own.host, {.first = own.port, .last = own.port}));
  std::this_thread::sleep_for(std::chrono::seconds(1));
  TcpRendezvous meeting(std::move(listener.fds), rendezvous);
  return OpenNetworkCollectives(group, options.rank, meeting, {.shm_prefix = "/autosp-bench"});
}

absl::StatusOr<std::unique_ptr<Collectives>> OpenEnd(int rank, const Options& options,
                                                     const std::string& prefix) {
  ProcessGroup group{.name = "bench:0", .ranks = {}};
  for (int peer = 0; peer < options.world_size; ++peer) group.ranks.push_back(peer);
  if (!options.addresses.empty()) return OpenTcp(group, options);
  return OpenSharedMemoryCollectives(group, rank,
                                     {.name_prefix = prefix,
                                      .generation = 1,
                                      .chunk_bytes = options.chunk_bytes,
                                      .chunks_per_ring = options.chunks_per_ring});
}

void RunRank(int rank, const Options& options, CollectiveKind kind, const std::string& prefix) {
  const auto end = OpenEnd(rank, options, prefix);
  Require(end.status());
  nlohmann::json rows = nlohmann::json::array();
  for (const int64_t size_bytes : kSizesBytes) rows.push_back(MeasureSize(**end, kind, size_bytes));
  if (rank != 0) return;
  const std::string transport = options.addresses.empty() ? "shared_memory" : "tcp";
  if (options.json) {
    double load_average = 0;
    getloadavg(&load_average, 1);
    const nlohmann::json result = {{"implementation", absl::StrCat(transport, "_", options.kind)},
                                   {"world_size", options.world_size},
                                   {"threads", 1},
                                   {"load_average", load_average},
                                   {"sizes", rows}};
    std::puts(result.dump().c_str());
    return;
  }
  for (const auto& row : rows) {
    std::printf("%8ld KiB  %10.0f us  %6.2f GB/s\n", row["size_bytes"].get<long>() / 1024,
                row["seconds_median"].get<double>() * 1e6,
                row["bytes_per_second"].get<double>() / 1e9);
  }
}

// Ranks are forked before anything else runs in this process.
int RunAll(const Options& options, CollectiveKind kind) {
  if (!options.addresses.empty()) {
    RunRank(options.rank, options, kind, "");
    return 0;
  }
  const std::string prefix = absl::StrCat("/autosp-bench-", getpid());
  std::vector<pid_t> pids;
  for (int rank = 0; rank < options.world_size; ++rank) {
    const pid_t pid = fork();
    if (pid == 0) {
      RunRank(rank, options, kind, prefix);
      std::fflush(stdout);
      _exit(0);
    }
    pids.push_back(pid);
  }
  bool is_ok = true;
  for (const pid_t pid : pids) {
    int status = 0;
    waitpid(pid, &status, 0);
    is_ok &= WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
  UnlinkSharedMemory(prefix);
  return is_ok ? 0 : 1;
}

}  // namespace
}  // namespace autosp

int main(int argc, char** argv) {
  autosp::Options options;
  CLI::App app("Measures a collective.");
  app.add_option("--world-size", options.world_size, "ranks")->check(CLI::Range(1, 64));
  app.add_option("--kind", options.kind, "all_to_all, all_gather, all_reduce, ...");
  app.add_option("--chunk-bytes", options.chunk_bytes, "of the rings; a multiple of 64")
      ->check(CLI::Range(64, 1 << 30));
  app.add_option("--chunks-per-ring", options.chunks_per_ring, "of the rings");
  app.add_option("--addresses", options.addresses, "of all ranks, host:port, over TCP")
      ->delimiter(',');
  app.add_option("--rank", options.rank, "over TCP: which one this process is");
  app.add_flag("--json", options.json, "print one line of JSON");
  CLI11_PARSE(app, argc, argv);
  if (!options.addresses.empty()) options.world_size = static_cast<int>(options.addresses.size());
  if (options.rank < 0 || options.rank >= options.world_size) {
    std::fprintf(stderr, "--rank: %d is not one of %d\n", options.rank, options.world_size);
    return 2;
  }
  const auto kind = autosp::CollectiveKindFromName(options.kind);
  if (!kind.has_value() || *kind == autosp::CollectiveKind::kBarrier) {
    std::fprintf(stderr, "--kind: '%s' is not a collective that moves data\n",
                 options.kind.c_str());
    return 2;
  }
  return autosp::RunAll(options, *kind);
}
