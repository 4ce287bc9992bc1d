// Step time and memory of one plan, as ranks would run it: on virtual ranks, random tokens.
//
//   step_bench --archive model.pt2 --seq-len 4096 --ulysses 1 --steps 5 --threads 2
//
// Prints one JSON line. Peak bytes are those of the counting allocator, above what is held all the
// time (parameters, gradients, optimizer states), as the PyTorch peer counts them.
#include <ATen/Parallel.h>
#include <ATen/ops/randint.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>

#include "common/status_macros.h"
#include "compiler/analysis/simulate.h"
#include "compiler/planner/compile_job.h"
#include "worker/checkpoint/weight_files.h"
#include "worker/executor/shard.h"
#include "worker/rank/virtual_ranks.h"

namespace autosp {
namespace {

struct Options {
  std::string archive;
  int64_t seq_len = 4096;
  int64_t batch = 1;
  int64_t ulysses = 1;
  int64_t steps = 5;
  int64_t warmup = 2;
  int threads = 2;
  int64_t vocab = 8192;
  bool profile = false;
};

// Random token ids for every input.
class RandomFeeder final : public Feeder {
 public:
  RandomFeeder(int64_t batch, int64_t seq_len, int64_t vocab)
      : tokens_(at::randint(vocab, {batch, seq_len}, at::kLong)) {}

  absl::StatusOr<at::Tensor> Feed(const FeedRequest& request) override {
    ASSIGN_OR_RETURN(
        const at::Tensor shard,
        TakeShard(request.program, request.value, {request.place, request.micro_step}, tokens_, 0));
    return shard.clone();
  }

 private:
  at::Tensor tokens_;
};

absl::Status Run(const Options& options) {
  at::set_num_threads(options.threads);
  InstallCountingAllocator();
  ModelSpec spec;
  spec.archives = {options.archive};
  ASSIGN_OR_RETURN(const ImportedModel model, ImportArchive(options.archive));
  JobSpec job;
  job.training.seq_len = options.seq_len;
  job.training.global_batch_size = options.batch;
  job.training.clip_grad_norm = 1.0;
  job.training.optimizer.betas = {0.9, 0.95};
  job.training.optimizer.weight_decay = 0.1;
  const Mesh mesh{.accum = 1, .dp = 1, .ring = 1, .ulysses = options.ulysses};
  ASSIGN_OR_RETURN(const LoweredProgram lowered, CompileForMesh(model, job, mesh, nullptr));
  ASSIGN_OR_RETURN(const SectionPrediction predicted, SimulateSection(lowered.program, "step"));
  ASSIGN_OR_RETURN(const std::unique_ptr<WeightFiles> weights, WeightFiles::Open(spec));
  const auto make_feeder = [&](int64_t) -> absl::StatusOr<std::unique_ptr<Feeder>> {
    at::manual_seed(1);
    return std::make_unique<RandomFeeder>(options.batch, options.seq_len, options.vocab);
  };
  VirtualRankOptions world;
  world.num_threads = std::max<int>(1, options.threads / static_cast<int>(options.ulysses));
  ASSIGN_OR_RETURN(const std::unique_ptr<VirtualWorld> ranks,
                   VirtualWorld::Create(lowered.program, weights.get(), make_feeder, world));
  if (options.profile) ranks->executor(0).EnableProfile();
  RETURN_IF_ERROR(ranks->SetScalar("learning_rate", 1e-3F));
  std::vector<double> seconds;
  SectionResult last;
  for (int64_t step = 0; step < options.warmup + options.steps; ++step) {
    RETURN_IF_ERROR(ranks->SetScalar("step", static_cast<float>(step + 1)));
    const auto start = std::chrono::steady_clock::now();
    ASSIGN_OR_RETURN(std::vector<SectionResult> results, ranks->Run("step"));
    const double elapsed =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (step >= options.warmup) seconds.push_back(elapsed);
    last = std::move(results[0]);
  }
  std::ranges::sort(seconds);
  const AccountPeak& device = predicted.memory.at(Account::kDevice);
  const int64_t measured = last.memory.at(Account::kDevice).peak_bytes;
  ASSIGN_OR_RETURN(const double loss, last.Number("loss"));
  std::cout << nlohmann::json{{"step_seconds_median", seconds[seconds.size() / 2]},
                              {"step_seconds_min", seconds.front()},
                              {"tokens_per_second",
                               static_cast<double>(options.seq_len * options.batch) /
                                   seconds[seconds.size() / 2]},
                              {"peak_bytes", measured},
                              {"peak_bytes_above_states", measured - device.persistent_bytes},
                              {"predicted_peak_bytes", device.peak_bytes},
                              {"num_conformed", last.num_conformed},
                              {"num_unshared", last.num_unshared},
                              {"loss", loss}}
            << "\n";
  if (options.profile) std::cout << ranks->executor(0).ProfileText();
  return absl::OkStatus();
}

}  // namespace
}  // namespace autosp

int main(int argc, char** argv) {
  autosp::Options options;
  CLI::App app{"Step time and memory of a plan on virtual ranks."};
  app.add_option("--archive", options.archive, "model (.pt2)")->required();
  app.add_option("--seq-len", options.seq_len, "tokens of a sequence");
  app.add_option("--batch", options.batch, "sequences of a step");
  app.add_option("--ulysses", options.ulysses, "sequence-parallel ranks");
  app.add_option("--steps", options.steps, "measured steps");
  app.add_option("--warmup", options.warmup, "steps before them");
  app.add_option("--threads", options.threads, "threads of all ranks together");
  app.add_option("--vocab", options.vocab, "range of the random tokens");
  app.add_flag("--profile", options.profile, "print time and memory by instruction");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = autosp::Run(options);
  if (status.ok()) return 0;
  std::cerr << "step_bench: " << status.message() << "\n";
  return 1;
}
