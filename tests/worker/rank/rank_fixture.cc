#include "tests/worker/rank/rank_fixture.h"

#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "compiler/config/job_yaml.h"
#include "compiler/planner/compile_job.h"

namespace autosp {
namespace {

// Lines of a made-up log: bytes with structure, so that a model can learn.
std::string Text(int64_t num_lines) {
  std::string text;
  for (int64_t i = 0; i < num_lines; ++i) {
    absl::StrAppend(&text, "step ", i, ": the quick brown fox counts ", i * i % 97, " of 97\n");
  }
  return text;
}

}  // namespace

RankFixture::RankFixture(int64_t steps) {
  const std::string text_path = dir_.Join("data.txt");
  const absl::Status written = WriteFileAtomically(text_path, Text(400));
  AUTOSP_CHECK(written.ok(), written.ToString());
  job_.name = "fixture";
  job_.model.archives = {absl::StrCat(AUTOSP_SOURCE_DIR, "/tests/zoo/llama/model.pt2")};
  job_.data.files = {text_path};
  job_.data.validation = {.fraction = 0.1, .every_steps = 2, .batches = 2};
  job_.training.seq_len = 48;
  job_.training.global_batch_size = 4;
  job_.training.steps = steps;
  job_.training.optimizer.kind = OptimizerKind::kSgd;
  job_.training.optimizer.lr = 0.5;
  job_.training.clip_grad_norm = 1.0;
  job_.output.dir = dir_.Join("out");
}

absl::StatusOr<Program> RankFixture::Compile(const Mesh& mesh) const {
  ASSIGN_OR_RETURN(const ImportedModel model, ImportArchive(job_.model.archives[0]));
  ASSIGN_OR_RETURN(LoweredProgram lowered, CompileForMesh(model, job_, mesh, nullptr));
  return std::move(lowered.program);
}

std::string RankFixture::RankLog(const std::string& name, int64_t rank) const {
  return dir_.Join(absl::StrCat(name, "-rank", rank, ".log"));
}

std::string RankFixture::ShmPrefix(const std::string& name) const {
  return absl::StrCat("/autosp-rank-test-", getpid(), "-", name);
}

absl::StatusOr<Subprocess> RankFixture::StartRank(const std::string& name, const Mesh& mesh,
                                                  int64_t rank) const {
  ASSIGN_OR_RETURN(const Program program, Compile(mesh));
  const std::string program_path = dir_.Join(name + ".program");
  const std::string job_path = dir_.Join(name + ".yaml");
  const std::string spec_path = dir_.Join(absl::StrCat(name, "-rank", rank, ".json"));
  RETURN_IF_ERROR(WriteFileAtomically(program_path, PrintProgram(program)));
  RETURN_IF_ERROR(WriteFileAtomically(job_path, CanonicalJobYaml(job_)));
  const nlohmann::json spec = {
      {"attempt", {{"jobId", name}, {"generation", 1}}},
      {"rank", rank},
      {"worldSize", mesh.world_size()},
      {"localWorldSize", mesh.world_size()},
      {"mesh", {{"dpSize", mesh.dp}, {"ulyssesSize", mesh.ulysses}, {"ringSize", mesh.ring}}},
      {"programPath", program_path},
      {"programDigest", ProgramDigest(program)},
      {"jobYamlPath", job_path},
      {"outputDirectory", output_directory(name)},
      {"shmPrefix", ShmPrefix(name)},
      {"rendezvousTimeoutMs", 60000},
      {"numThreads", 1}};
  RETURN_IF_ERROR(WriteFileAtomically(spec_path, spec.dump()));
  const char* binary = std::getenv("AUTOSP_RANK");
  AUTOSP_CHECK(binary != nullptr, "AUTOSP_RANK must name the binary; run the test through ctest");
  return Subprocess::Start({.argv = {binary, "--spec", spec_path},
                            .env = {},
                            .working_directory = "",
                            .output = SubprocessOptions::Output::kFile,
                            .output_path = RankLog(name, rank),
                            .inherited_fds = {},
                            .dies_with_parent = true});
}

}  // namespace autosp
