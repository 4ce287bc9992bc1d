#include "client/doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"
#include "common/tcp.h"

namespace autosp {
namespace {

using ::testing::HasSubstr;

// A machine to which nothing is missing.
DoctorFacts Healthy() {
  DoctorFacts facts;
  facts.shared_memory_bytes = int64_t{8} << 30;
  facts.shared_memory_free_bytes = int64_t{8} << 30;
  facts.open_files_limit = 65536;
  facts.is_clock_synchronized = true;
  facts.programs = {{"autosp-rank", std::string("1.2.3")}, {"autosp-agent", std::string("1.2.3")}};
  facts.nvidia_driver = "580.1";
  facts.gpus = std::string("[{\"name\":\"H100\"}]");
  facts.nccl_version = "2.27.3";
  facts.clocks = {{.whose = "coordinator", .ahead_seconds = 0.02, .uncertainty_seconds = 0.001},
                  {.whose = "node a", .ahead_seconds = -0.5, .uncertainty_seconds = 0.1}};
  facts.listens = {{.flag = "--rank-ports 7100-7107", .num_wanted = 8, .num_free = 8}};
  facts.server = "host:7070";
  facts.nodes_ready = 3;
  return facts;
}

Finding Find(const DoctorFacts& facts, absl::string_view subject) {
  const std::vector<Finding> findings = JudgeMachine(facts, "1.2.3");
  const auto found = std::ranges::find(findings, subject, &Finding::subject);
  EXPECT_NE(found, findings.end()) << subject;
  return found == findings.end() ? Finding{} : *found;
}

TEST(DoctorTest, OpenFilesAreCountedInRanks) {
  EXPECT_EQ(Find(Healthy(), "open files").text,
            "at most 65536 per process, enough for as many ranks as a node can have");
}

TEST(DoctorTest, AHealthyMachineNeedsNothing) {
  for (const Finding& each : JudgeMachine(Healthy(), "1.2.3")) {
    EXPECT_EQ(each.verdict, Health::kOk) << each.subject << ": " << each.text;
    EXPECT_EQ(each.remedy, "") << each.subject;
    EXPECT_NE(each.text, "") << each.subject;
  }
}

TEST(DoctorTest, NamesWhatIsMissing) {
  const struct {
    std::string subject;
    std::function<void(DoctorFacts&)> damage;
    Health verdict;
    std::string text;
    std::string remedy;
  } cases[] = {
      {"shared memory", [](DoctorFacts& f) { f.shared_memory_free_bytes = 64 << 20; },
       Health::kProblem, "64.0 MiB of 8.00 GiB free", "--shm-size"},
      {"shared memory", [](DoctorFacts& f) { f.shared_memory_free_bytes = 512 << 20; },
       Health::kWarning, "512 MiB of 8.00 GiB", "remount"},
      {"shared memory",
       [](DoctorFacts& f) { f.shared_memory_bytes = absl::NotFoundError("/dev/shm: no such"); },
       Health::kProblem, "/dev/shm: no such", "tmpfs"},
      {"open files", [](DoctorFacts& f) { f.open_files_limit = 1024; }, Health::kWarning,
       "at most 1024 per process, enough for some 240 ranks", "ulimit -Hn 4096"},
      {"clock", [](DoctorFacts& f) { f.is_clock_synchronized = false; }, Health::kWarning,
       "not synchronized", "chrony"},
      {"clock", [](DoctorFacts& f) { f.is_clock_synchronized.reset(); }, Health::kNote,
       "does not say", ""},
      {"autosp-rank",
       [](DoctorFacts& f) { f.programs[0].version = absl::NotFoundError("libgrpc.so.29"); },
       Health::kProblem, "libgrpc.so.29", "libraries"},
      {"autosp-rank", [](DoctorFacts& f) { f.programs[0].version = std::string("1.2.2"); },
       Health::kWarning, "1.2.2", "this is 1.2.3"},
      {"GPUs", [](DoctorFacts& f) { f.nvidia_driver = ""; }, Health::kNote, "no NVIDIA driver", ""},
      {"GPUs", [](DoctorFacts& f) { f.gpus = absl::UnimplementedError("built without CUDA"); },
       Health::kWarning, "driver 580.1, but built without CUDA", "docs/gpu.md"},
      {"NCCL", [](DoctorFacts& f) { f.nccl_version = ""; }, Health::kWarning,
       "finds no libnccl.so.2", "LD_LIBRARY_PATH"},
      {"NCCL", [](DoctorFacts& f) { f.nccl_version = f.nvidia_driver = ""; }, Health::kNote,
       "finds no libnccl.so.2", ""},
      {"clock of coordinator", [](DoctorFacts& f) { f.clocks[0].ahead_seconds = 1.1; },
       Health::kWarning, "1.1 s ahead of that of this machine, give or take 0.001 s", "chrony"},
      {"clock of node a", [](DoctorFacts& f) { f.clocks[1].ahead_seconds = -30; }, Health::kWarning,
       "30 s behind that of the coordinator", "chrony"},
      {"clock of node a",
       [](DoctorFacts& f) {
         f.clocks[1] = {.whose = "node a", .ahead_seconds = 2, .uncertainty_seconds = 1.5};
       },
       Health::kOk, "2 s ahead", ""},
      {"--rank-ports 7100-7107",
       [](DoctorFacts& f) {
         f.listens[0].num_free = 7;
         f.listens[0].error = absl::AlreadyExistsError("port 7103 is in use");
       },
       Health::kWarning, "7 of 8 ports can be listened on; port 7103 is in use", "other ports"},
      {"--rank-ports 7100-7107", [](DoctorFacts& f) { f.listens[0].num_free = 0; },
       Health::kProblem, "0 of 8 ports", "other ports"},
      {"coordinator", [](DoctorFacts& f) { f.nodes_ready = absl::UnavailableError("refused"); },
       Health::kNote, "host:7070: refused", "AUTOSP_SERVER"},
      {"coordinator", [](DoctorFacts& f) { f.nodes_ready = 0; }, Health::kWarning,
       "0 nodes are ready", "autosp-agent"},
  };
  for (const auto& c : cases) {
    DoctorFacts facts = Healthy();
    c.damage(facts);
    const Finding finding = Find(facts, c.subject);
    EXPECT_EQ(finding.verdict, c.verdict) << c.subject << ": " << finding.text;
    EXPECT_THAT(finding.text, HasSubstr(c.text));
    EXPECT_THAT(finding.remedy, HasSubstr(c.remedy)) << c.subject;
  }
}

TEST(DoctorTest, TriesToListen) {
  const absl::StatusOr<TcpListener> taken = ListenTcp("127.0.0.1", {});
  ASSERT_TRUE(taken.ok()) << taken.status();
  const std::string in_use = absl::StrCat("127.0.0.1:", taken->port);
  const auto both = TryToListen({.listen = in_use, .rank_ports = absl::StrCat(taken->port)});
  ASSERT_TRUE(both.ok()) << both.status();
  ASSERT_EQ(both->size(), 2U);
  for (const ListenFact& each : *both) {
    EXPECT_EQ(each.num_free, 0) << each.flag;
    EXPECT_THAT(std::string(each.error.message()), HasSubstr(absl::StrCat(taken->port)));
  }
  const auto free = TryToListen({.listen = "127.0.0.1:0"});
  ASSERT_TRUE(free.ok()) << free.status();
  EXPECT_EQ(free->front().num_free, 1);
  EXPECT_EQ(TryToListen({})->size(), 0U);
  EXPECT_FALSE(TryToListen({.listen = "nothing"}).ok());
  EXPECT_FALSE(TryToListen({.rank_ports = "1-60000"}).ok());
}

TEST(DoctorTest, LooksAtThisMachine) {
  const DoctorFacts facts = ExamineMachine("/nonexistent");
  EXPECT_GT(facts.open_files_limit, 0);
  ASSERT_EQ(facts.programs.size(), 4U);
  for (const ProgramFact& program : facts.programs) {
    EXPECT_THAT(std::string(program.version.status().message()), HasSubstr("/nonexistent/"));
  }
}

}  // namespace
}  // namespace autosp
