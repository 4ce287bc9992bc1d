#include "client/doctor.h"

#include <dlfcn.h>
#include <sys/statvfs.h>
#include <sys/timex.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "common/bytes.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/process_setup.h"
#include "common/program_output.h"
#include "common/status_macros.h"
#include "common/tcp.h"

namespace autosp {
namespace {

constexpr char kSharedMemory[] = "/dev/shm";
constexpr char kDriverFile[] = "/proc/driver/nvidia/version";
constexpr int64_t kMaxFileBytes = 1 << 16;
constexpr size_t kMaxOutputBytes = 1 << 16;
// What container runtimes give by default is too little for several ranks.
constexpr int64_t kLeastSharedMemory = int64_t{64} << 20;
constexpr int64_t kGoodSharedMemory = int64_t{1} << 30;
// An agent has three for each of its ranks: both ends of what it reads a log with, and the call in
// which the rank reports. A rank has two for each other one that it exchanges with in a group.
constexpr int64_t kFilesPerRank = 4;
constexpr int64_t kOtherFiles = 64;
// Times of logs are compared, and a job's history has those of the coordinator.
constexpr double kMaxClockSeconds = 1;
// Of a node: as many ranks, and as many of their ports.
constexpr int64_t kMaxDevices = 1024;
constexpr int64_t kGoodOpenFiles = 4096;
constexpr absl::string_view kPrograms[] = {"autosp-coordinator", "autosp-agent", "autosp-rank",
                                           "autosp-verify"};

absl::StatusOr<std::string> OutputOf(const std::string& program, const std::string& argument) {
  ASSIGN_OR_RETURN(const ProgramOutput output, RunForOutput({program, argument}, kMaxOutputBytes));
  const std::string text(absl::StripAsciiWhitespace(output.text));
  if (output.exit.ok()) return text;
  return FailedPrecondition(text.empty() ? absl::StrCat("it ", output.exit.ToString()) : text);
}

// "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build ..."
std::string DriverVersion() {
  const absl::StatusOr<std::string> text = ReadFile(kDriverFile, kMaxFileBytes);
  if (!text.ok()) return "";
  for (const absl::string_view word : absl::StrSplit(*text, absl::ByAnyChar(" \n\t"))) {
    const bool is_version =
        word.find('.') != word.npos && std::ranges::all_of(word, [](unsigned char c) {
          return absl::ascii_isdigit(c) || c == '.';
        });
    if (is_version) return std::string(word);
  }
  return "unknown";
}

// "2.27.3" of 22703, as ncclGetVersion has it.
std::string NcclVersion() {
  void* const library = dlopen("libnccl.so.2", RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) return "";
  using GetVersion = int (*)(int*);
  const auto get_version = reinterpret_cast<GetVersion>(dlsym(library, "ncclGetVersion"));
  int code = 0;
  if (get_version == nullptr || get_version(&code) != 0) return "unknown";
  return absl::StrCat(code / 10000, ".", code / 100 % 100, ".", code % 100);
}

Finding JudgeSharedMemory(const DoctorFacts& facts) {
  Finding finding{.subject = "shared memory"};
  if (!facts.shared_memory_bytes.ok()) {
    finding.verdict = Health::kProblem;
    finding.text = std::string(facts.shared_memory_bytes.status().message());
    finding.remedy = "mount a tmpfs at /dev/shm";
    return finding;
  }
  const int64_t size = *facts.shared_memory_bytes;
  finding.text = absl::StrCat(FormatBytes(facts.shared_memory_free_bytes), " of ",
                              FormatBytes(size), " free in ", kSharedMemory);
  if (facts.shared_memory_free_bytes >= kGoodSharedMemory) return finding;
  finding.verdict =
      facts.shared_memory_free_bytes <= kLeastSharedMemory ? Health::kProblem : Health::kWarning;
  finding.remedy =
      "ranks of one node exchange through it: mount -o remount,size=8G /dev/shm, or --shm-size of "
      "the container";
  return finding;
}

// "some 240 ranks"; past what a node can have the number says nothing.
std::string RanksWithFiles(int64_t open_files_limit) {
  const int64_t num_ranks = std::max<int64_t>(0, (open_files_limit - kOtherFiles) / kFilesPerRank);
  if (num_ranks >= kMaxDevices) return "as many ranks as a node can have";
  return absl::StrCat("some ", num_ranks, " ranks");
}

Finding JudgeOpenFiles(const DoctorFacts& facts) {
  Finding finding{
      .subject = "open files",
      .text = absl::StrCat("at most ", facts.open_files_limit, " per process, enough for ",
                           RanksWithFiles(facts.open_files_limit))};
  if (facts.open_files_limit >= kGoodOpenFiles) return finding;
  finding.verdict = Health::kWarning;
  finding.remedy =
      absl::StrCat("our programs take what the hard limit allows; raise it: ulimit -Hn ",
                   kGoodOpenFiles, " as root, or LimitNOFILE= of the unit");
  return finding;
}

Finding JudgeClock(const DoctorFacts& facts) {
  Finding finding{.subject = "clock", .text = "synchronized"};
  if (!facts.is_clock_synchronized) {
    finding.verdict = Health::kNote;
    finding.text = "the kernel does not say whether it is synchronized";
  } else if (!*facts.is_clock_synchronized) {
    finding.verdict = Health::kWarning;
    finding.text = "not synchronized";
    finding.remedy = "run chrony or systemd-timesyncd: times of logs of several nodes are compared";
  }
  return finding;
}

Finding JudgeProgram(const ProgramFact& program, absl::string_view own_version) {
  Finding finding{.subject = program.name};
  if (!program.version.ok()) {
    finding.verdict = Health::kProblem;
    finding.text = std::string(program.version.status().message());
    finding.remedy = "install it beside autosp-cli, with the libraries that it names";
    return finding;
  }
  finding.text = *program.version;
  if (*program.version == own_version) return finding;
  finding.verdict = Health::kWarning;
  finding.remedy = absl::StrCat("this is ", own_version, "; install one version of all programs");
  return finding;
}

Finding JudgeGpus(const DoctorFacts& facts) {
  Finding finding{
      .subject = "GPUs", .verdict = Health::kNote, .text = "no NVIDIA driver is loaded"};
  if (facts.nvidia_driver.empty()) return finding;
  if (facts.gpus.ok()) {
    finding.verdict = Health::kOk;
    finding.text = absl::StrCat("driver ", facts.nvidia_driver, ": ", *facts.gpus);
    return finding;
  }
  finding.verdict = Health::kWarning;
  finding.text =
      absl::StrCat("driver ", facts.nvidia_driver, ", but ", facts.gpus.status().message());
  finding.remedy = "docs/gpu.md says how ranks are built for GPUs";
  return finding;
}

Finding JudgeNccl(const DoctorFacts& facts) {
  Finding finding{.subject = "NCCL", .text = facts.nccl_version};
  if (!facts.nccl_version.empty()) return finding;
  finding.text = "the loader finds no libnccl.so.2";
  finding.verdict = facts.nvidia_driver.empty() ? Health::kNote : Health::kWarning;
  if (!facts.nvidia_driver.empty()) {
    finding.remedy = "ranks on GPUs need it: install it, or name its folder in LD_LIBRARY_PATH";
  }
  return finding;
}

Finding JudgeClockOf(const ClockFact& clock) {
  Finding finding{.subject = absl::StrCat("clock of ", clock.whose)};
  const double size = std::abs(clock.ahead_seconds);
  finding.text = absl::StrFormat("%.3g s %s that of %s, give or take %.2g s", size,
                                 clock.ahead_seconds < 0 ? "behind" : "ahead of",
                                 clock.whose == "coordinator" ? "this machine" : "the coordinator",
                                 clock.uncertainty_seconds);
  // What a slow network alone may explain is no reason to warn.
  if (size - clock.uncertainty_seconds <= kMaxClockSeconds) return finding;
  finding.verdict = Health::kWarning;
  finding.remedy = "set the clocks by chrony or systemd-timesyncd on both machines";
  return finding;
}

Finding JudgeListen(const ListenFact& listen) {
  Finding finding{.subject = listen.flag};
  finding.text = absl::StrCat(listen.num_free, " of ", listen.num_wanted,
                              listen.num_wanted == 1 ? " port" : " ports", " can be listened on");
  if (listen.num_free == listen.num_wanted) return finding;
  finding.verdict = listen.num_free == 0 ? Health::kProblem : Health::kWarning;
  absl::StrAppend(&finding.text, "; ", listen.error.message());
  finding.remedy =
      "end what uses them (an agent that runs does), or give autosp-agent other ports or another "
      "address";
  return finding;
}

Finding JudgeServer(const DoctorFacts& facts) {
  Finding finding{.subject = "coordinator"};
  if (facts.nodes_ready.ok()) {
    finding.text = absl::StrCat(facts.server, " answers; ", *facts.nodes_ready, " nodes are ready");
    if (*facts.nodes_ready > 0) return finding;
    finding.verdict = Health::kWarning;
    finding.remedy = "start autosp-agent --coordinator on the nodes";
    return finding;
  }
  // Not everybody has one: `run` and `plan` need none.
  finding.verdict = Health::kNote;
  finding.text = absl::StrCat(facts.server, ": ", facts.nodes_ready.status().message());
  finding.remedy = "name yours with --server or AUTOSP_SERVER";
  return finding;
}

}  // namespace

absl::string_view HealthName(Health verdict) {
  switch (verdict) {
    case Health::kOk:
      return "ok";
    case Health::kNote:
      return "note";
    case Health::kWarning:
      return "warning";
    case Health::kProblem:
      return "problem";
  }
  return "";
}

DoctorFacts ExamineMachine(const std::string& program_folder) {
  DoctorFacts facts;
  struct statvfs space = {};
  if (statvfs(kSharedMemory, &space) == 0) {
    facts.shared_memory_bytes = static_cast<int64_t>(space.f_blocks * space.f_frsize);
    facts.shared_memory_free_bytes = static_cast<int64_t>(space.f_bavail * space.f_frsize);
  } else {
    facts.shared_memory_bytes = ErrnoError(errno, kSharedMemory);
  }
  facts.open_files_limit = MaxOpenFiles();
  timex clock = {};
  const int state = adjtimex(&clock);
  if (state >= 0) facts.is_clock_synchronized = state != TIME_ERROR;
  for (const absl::string_view name : kPrograms) {
    const std::string path = JoinPath(program_folder, name);
    facts.programs.push_back({std::string(name), OutputOf(path, "--version")});
  }
  facts.nvidia_driver = DriverVersion();
  if (!facts.nvidia_driver.empty()) {
    facts.gpus = OutputOf(JoinPath(program_folder, "autosp-rank"), "--list-gpus");
  }
  facts.nccl_version = NcclVersion();
  return facts;
}

nlohmann::json ToJson(const std::vector<Finding>& findings) {
  nlohmann::json list = nlohmann::json::array();
  for (const Finding& each : findings) {
    list.push_back({{"subject", each.subject},
                    {"verdict", std::string(HealthName(each.verdict))},
                    {"text", each.text},
                    {"remedy", each.remedy}});
  }
  return list;
}

absl::StatusOr<std::vector<ListenFact>> TryToListen(const ListenOptions& options) {
  std::vector<ListenFact> facts;
  std::string host = "0.0.0.0";
  if (!options.listen.empty()) {
    ASSIGN_OR_RETURN(const HostPort address, ParseHostPort(options.listen), "--listen");
    host = address.host;
    ListenFact fact{.flag = absl::StrCat("--listen ", options.listen)};
    fact.error = ListenTcp(host, {.first = address.port, .last = address.port}).status();
    fact.num_free = fact.error.ok() ? 1 : 0;
    facts.push_back(std::move(fact));
  }
  if (options.rank_ports.empty()) return facts;
  ASSIGN_OR_RETURN(const PortRange ports, ParsePortRange(options.rank_ports), "--rank-ports");
  const int num_wanted = ports.last - ports.first + 1;
  if (num_wanted > kMaxDevices) {
    return InvalidArgument("--rank-ports: ", num_wanted, " ports are more than the ", kMaxDevices,
                           " that a node can have devices; give a shorter range");
  }
  ListenFact fact{.flag = absl::StrCat("--rank-ports ", options.rank_ports),
                  .num_wanted = num_wanted};
  for (int port = ports.first; port <= ports.last; ++port) {
    const absl::Status status = ListenTcp(host, {.first = port, .last = port}).status();
    if (status.ok()) ++fact.num_free;
    if (fact.error.ok()) fact.error = status;
  }
  facts.push_back(std::move(fact));
  return facts;
}

std::vector<Finding> JudgeMachine(const DoctorFacts& facts, absl::string_view own_version) {
  std::vector<Finding> findings = {JudgeSharedMemory(facts), JudgeOpenFiles(facts),
                                   JudgeClock(facts)};
  for (const ProgramFact& program : facts.programs) {
    findings.push_back(JudgeProgram(program, own_version));
  }
  findings.push_back(JudgeGpus(facts));
  findings.push_back(JudgeNccl(facts));
  findings.push_back(JudgeServer(facts));
  for (const ClockFact& clock : facts.clocks) findings.push_back(JudgeClockOf(clock));
  for (const ListenFact& listen : facts.listens) findings.push_back(JudgeListen(listen));
  return findings;
}

}  // namespace autosp
