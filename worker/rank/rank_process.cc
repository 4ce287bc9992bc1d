#include "worker/rank/rank_process.h"

#include <fcntl.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "checkpoint/checkpoint_folder.h"
#include "checkpoint/checkpoint_layout.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/log.h"
#include "common/sha256.h"
#include "common/status_macros.h"
#include "compiler/config/job_yaml.h"
#include "worker/checkpoint/weight_files.h"
#include "worker/collectives/network_collectives.h"
#include "worker/collectives/shared_memory_collectives.h"
#include "worker/data/data_feeder.h"
#include "worker/executor/device_memory.h"
#include "worker/executor/executor.h"
#include "worker/rank/agreement.h"
#include "worker/rank/checkpoint_settings.h"
#include "worker/rank/metrics_file.h"
#include "worker/rank/resume.h"
#include "worker/rank/trained_weights.h"
#include "worker/rank/training_loop.h"

namespace autosp {
namespace {

constexpr int64_t kMaxProgramBytes = int64_t{1} << 30;
constexpr int64_t kMaxModelConfigBytes = 16 << 20;
// A rank whose disk takes longer for its part of a checkpoint is taken for stuck.
constexpr absl::Duration kCheckpointTimeout = absl::Hours(2);

OutputInfo OutputOf(const std::string& kind, const WrittenFile& file) {
  return {.kind = kind, .path = file.path, .sha256 = file.sha256, .size_bytes = file.size_bytes};
}

// Before the training rather than behind it, when the file may be gone. Empty where none is named.
absl::StatusOr<std::string> LoadModelConfig(const std::string& path) {
  if (path.empty()) return "";
  ASSIGN_OR_RETURN(std::string text, ReadFile(path, kMaxModelConfigBytes), "output.config");
  return text;
}

}  // namespace

RankProcess::RankProcess(const RankConfig& config, const Options& options)
    : config_(config), options_(options) {}

absl::Status RankProcess::Run(RankReporter& reporter) {
  reporter.Hello(config_.program_digest);
  std::vector<OutputInfo> outputs;
  absl::Status status = Train(reporter, outputs);
  if (!status.ok() && stop_.load()) {
    // What fails while ranks are being stopped fails because of it.
    status = absl::CancelledError(status.message());
  }
  if (status.ok()) {
    reporter.Finished(outputs);
  } else if (!absl::IsCancelled(status)) {
    reporter.Failed({.status = status, .step = current_step_, .is_peer_lost = IsPeerLost(status)});
  }
  CloseGroups(status);
  return status;
}

bool RankProcess::Stop(absl::string_view reason) {
  stop_.store(true);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (groups_ == nullptr) return false;
  groups_->Abort(reason);
  if (checkpoint_group_ != nullptr) checkpoint_group_->Abort(reason);
  return true;
}

absl::StatusOr<Program> RankProcess::LoadProgram() const {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(config_.program_path, kMaxProgramBytes));
  const std::string digest = Sha256Hex(text);
  if (!config_.program_digest.empty() && digest != config_.program_digest) {
    return FailedPrecondition("its digest is ", digest, ", the plan's is ", config_.program_digest,
                              "; the file has changed");
  }
  ASSIGN_OR_RETURN(Program program, ParseProgram(text));
  const Mesh& mesh = program.mesh;
  if (mesh.dp != config_.mesh.dp || mesh.ring != config_.mesh.ring ||
      mesh.ulysses != config_.mesh.ulysses) {
    return InvalidArgument("is for dp ", mesh.dp, ", ring ", mesh.ring, ", ulysses ", mesh.ulysses,
                           ", not for the mesh of the rank spec");
  }
  return program;
}

absl::StatusOr<JobSpec> RankProcess::LoadJob() const {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(config_.job_yaml_path, kMaxConfigBytes));
  return ParseJobYaml(text, config_.job_yaml_path);
}

// The way to ranks on other nodes, open until all groups are.
absl::StatusOr<std::unique_ptr<TcpRendezvous>> RankProcess::MakeRendezvous() const {
  if (config_.rank_addresses.empty()) return nullptr;
  if (config_.listen_fds.empty()) return InvalidArgument("--listen-fd: is missing");
  std::vector<UniqueFd> listeners;
  for (const int fd : config_.listen_fds) {
    listeners.emplace_back(fd);
    // Children, if an operator had any, would keep the port open.
    fcntl(fd, F_SETFD, FD_CLOEXEC);
  }
  TcpRendezvousOptions options{.attempt = {.job_id = config_.job_id,
                                           .generation = config_.generation,
                                           .secret = config_.secret},
                               .rank = config_.rank,
                               .timeout = config_.rendezvous_timeout};
  for (size_t rank = 0; rank < config_.rank_addresses.size(); ++rank) {
    options.endpoints.push_back({config_.rank_addresses[rank], config_.node_of_rank[rank]});
  }
  return std::make_unique<TcpRendezvous>(std::move(listeners), std::move(options));
}

bool RankProcess::IsOnOneNode(const ProcessGroup& group) const {
  return config_.rank_addresses.empty() || std::ranges::all_of(group.ranks, [&](int64_t rank) {
           return config_.node_of_rank[rank] == config_.node_of_rank[group.ranks.front()];
         });
}

absl::Status RankProcess::OpenOwnGroups(const Program& program) {
  ASSIGN_OR_RETURN(const std::unique_ptr<TcpRendezvous> rendezvous, MakeRendezvous());
  const SharedMemoryOptions options{.name_prefix = config_.shm_prefix,
                                    .generation = config_.generation,
                                    .rendezvous_timeout = config_.rendezvous_timeout};
  ASSIGN_OR_RETURN(auto groups,
                   OpenGroups(program, config_.rank, [&](const ProcessGroup& group, int index) {
                     if (IsOnOneNode(group)) {
                       return OpenSharedMemoryCollectives(group, index, options);
                     }
                     return OpenNetworkCollectives(group, index, *rendezvous,
                                                   {.shm_prefix = config_.shm_prefix});
                   }));
  if (gpu_ != nullptr) {
    RETURN_IF_ERROR(groups->WrapAll([this](std::unique_ptr<Collectives> control) {
      return gpu_->OpenGroup(std::move(control));
    }));
  }
  std::unique_ptr<Collectives> checkpoint_group;
  if (config_.world_size > 1) {
    ASSIGN_OR_RETURN(checkpoint_group, OpenCheckpointGroup(options, rendezvous.get()));
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  groups_ = std::move(groups);
  checkpoint_group_ = std::move(checkpoint_group);
  return absl::OkStatus();
}

// Its messages are short and few, and its members wait for each other's disks.
absl::StatusOr<std::unique_ptr<Collectives>> RankProcess::OpenCheckpointGroup(
    SharedMemoryOptions options, TcpRendezvous* rendezvous) const {
  options.ring = {.timeout = kCheckpointTimeout, .spin_rounds = 0};
  options.chunk_bytes = kMaxAgreementBytes;
  options.chunks_per_ring = 2;
  ProcessGroup group{.name = "checkpoint", .ranks = {}};
  for (int64_t rank = 0; rank < config_.world_size; ++rank) group.ranks.push_back(rank);
  const auto index = static_cast<int>(config_.rank);
  if (IsOnOneNode(group)) return OpenSharedMemoryCollectives(group, index, options);
  return OpenNetworkCollectives(
      group, index, *rendezvous,
      {.shm_prefix = config_.shm_prefix, .stream = {.timeout = kCheckpointTimeout}});
}

// Comes after the report, which the agent should have before the peers' echoes of a failure.
void RankProcess::CloseGroups(const absl::Status& status) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (groups_ != nullptr && !status.ok()) groups_->Abort(status.message());
    if (checkpoint_group_ != nullptr && !status.ok()) checkpoint_group_->Abort(status.message());
  }
  // Without the lock: it may wait for the disk, and a signal must not wait for it.
  checkpointer_.reset();
  const std::lock_guard<std::mutex> lock(mutex_);
  groups_.reset();
  checkpoint_group_.reset();
}

// What all checkpoints of the job have in common; the tensors are left out where there are none.
// What every checkpoint would fail with is found here, before hours of work.
absl::StatusOr<CheckpointManifest> RankProcess::ManifestTemplate(const Program& program,
                                                                 const JobSpec& job,
                                                                 int64_t num_tokens,
                                                                 const WeightFiles& weights) const {
  CheckpointManifest manifest{.job_id = config_.job_id,
                              .generation = config_.generation,
                              .plan_digest = config_.program_digest,
                              .mesh = program.mesh,
                              .settings = CheckpointSettings(job, num_tokens)};
  const bool writes = job.checkpoint.every_steps > 0;
  if (!writes && !IsResumePath(job.checkpoint.resume)) return manifest;
  ASSIGN_OR_RETURN(manifest.tensors, LayOutCheckpoint(program, config_.world_size), "checkpoint");
  if (!writes) return manifest;
  manifest.state_dict = StateDictOf(program, weights);
  // A disk that has failed meanwhile costs a restarted job its checkpoints, and not what it
  // trained.
  if (!config_.is_restart) {
    RETURN_IF_ERROR(
        WithContext(CheckFolderTakesFiles(CheckpointDirectory(job)), "checkpoint.directory"));
  }
  if (config_.rank != 0) return manifest;
  RETURN_IF_ERROR(WithContext(CheckManifestLength(manifest, config_.world_size), "checkpoint"));
  return manifest;
}

absl::Status RankProcess::Train(RankReporter& reporter, std::vector<OutputInfo>& outputs) {
  ASSIGN_OR_RETURN(Program program, LoadProgram(), "program ", config_.program_path);
  ASSIGN_OR_RETURN(const JobSpec job, LoadJob());
  ASSIGN_OR_RETURN(const std::string model_config, LoadModelConfig(job.output.config));
  ASSIGN_OR_RETURN(TokenFiles tokens, TokenFiles::Open(job.data));
  const int64_t num_tokens = tokens.num_tokens();
  ASSIGN_OR_RETURN(const auto feeder,
                   DataFeeder::Make(job, std::make_shared<TokenFiles>(std::move(tokens))));
  ASSIGN_OR_RETURN(const auto weights, WeightFiles::Open(job.model));
  ASSIGN_OR_RETURN(CheckpointManifest manifest,
                   ManifestTemplate(program, job, num_tokens, *weights));
  if (config_.gpu) {
    ASSIGN_OR_RETURN(gpu_, TorchGpu::Open(*config_.gpu, config_.device_budget_bytes));
    LogInfo("computes on cuda:", *config_.gpu, ": ", gpu_->Describe());
  }
  RETURN_IF_ERROR(OpenOwnGroups(program));

  MemoryAccount device("device", config_.device_budget_bytes);
  MemoryAccount pinned_host("pinned_host");
  MemoryAccount communication("communication", /*budget_bytes=*/0, &device);
  const MeshCoordinate place = CoordinateOf(program.mesh, config_.rank);
  ASSIGN_OR_RETURN(const auto executor,
                   Executor::Create(std::move(program), {.place = place,
                                                         .compute = ComputeDeviceOf(gpu_.get()),
                                                         .collectives = groups_.get(),
                                                         .feeder = feeder.get(),
                                                         .device = &device,
                                                         .pinned_host = &pinned_host,
                                                         .communication = &communication,
                                                         .gpu = gpu_.get()}));
  RETURN_IF_ERROR(executor->LoadPersistents(weights.get()));
  if (options_.profile) executor->EnableProfile();
  LogInfo("loaded; device memory ", gpu_ == nullptr ? device.live_bytes() : gpu_->live_bytes(),
          " bytes");
  ASSIGN_OR_RETURN(const int64_t num_done,
                   Resume(config_, job, manifest, checkpoint_group_.get(), *executor, reporter));
  checkpointer_ = std::make_unique<Checkpointer>(config_, job, std::move(manifest),
                                                 checkpoint_group_.get(), reporter);
  // Before hours of work, of which no checkpoint could be written.
  if (config_.rank == 0 && job.checkpoint.resume != kResumeAuto) {
    RETURN_IF_ERROR(checkpointer_->CheckNamesAfter(num_done));
  }

  // What the metrics say is the same on every rank, or is that of the first.
  std::unique_ptr<MetricsFile> metrics;
  if (config_.rank == 0) {
    ASSIGN_OR_RETURN(metrics, MetricsFile::Create(config_.output_directory, num_done, reporter));
  }
  RankReporter& step_reporter = metrics == nullptr ? reporter : *metrics;
  TrainingLoop loop(job, *executor, *feeder, *checkpointer_, step_reporter, stop_);
  const absl::Status trained = loop.Run(num_done);
  current_step_ = loop.current_step();
  if (options_.profile) LogInfo(executor->ProfileText());
  RETURN_IF_ERROR(trained);

  if (metrics != nullptr) {
    // A disk that was full has been logged; the job is done without the file.
    absl::StatusOr<OutputInfo> output = metrics->Output();
    if (output.ok()) outputs.push_back(*std::move(output));
  }
  if (!job.output.weights) return absl::OkStatus();
  return WriteModel(*executor, *weights, job.output, model_config, outputs);
}

absl::Status RankProcess::WriteModel(const Executor& executor, WeightFiles& weights,
                                     const OutputSpec& output, const std::string& model_config,
                                     std::vector<OutputInfo>& outputs) const {
  if (config_.rank != 0) return GivePartsOfTrainedWeights(executor, weights, output);
  ASSIGN_OR_RETURN(const std::vector<WrittenFile> files,
                   WriteTrainedWeights(executor, weights, output, config_));
  for (const WrittenFile& file : files) {
    const bool is_index = files.size() > 1 && &file == &files.back();
    outputs.push_back(OutputOf(is_index ? "weights_index" : "weights", file));
  }
  if (output.config.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const WrittenFile copy,
                   WriteModelConfig(model_config, config_.output_directory));
  outputs.push_back(OutputOf("config", copy));
  return absl::OkStatus();
}

}  // namespace autosp
