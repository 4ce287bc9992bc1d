// What a user asks for: one training job, typed and checked.
//
// A JobSpec comes out of ParseJobYaml (job_yaml.h), which fills in every default and holds the
// rules between keys; code that is handed one may rely on them. docs/job-file.md describes each
// key.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace autosp {

struct ModelSpec {
  std::vector<std::string> archives;  // .pt2 files; several are parts of one model, in order
  // Names of weights that are one, of a model in several archives.
  std::vector<std::vector<std::string>> tied;
  std::string weights;      // safetensors file or folder; empty: the archives carry their weights
  std::string loss_output;  // output name, or its index in digits; empty: the only scalar output
  std::vector<std::string> frozen;    // globs over parameter names (GlobMatch): not trained
  std::vector<std::string> no_decay;  // globs over parameter names: weight_decay is 0

  bool operator==(const ModelSpec&) const = default;
};

enum class DataFormat { kText, kTokens };

enum class TokenDtype { kUint16, kUint32, kInt32, kInt64 };

// What fills a graph input.
enum class InputSource {
  kTokens,      // the seq_len tokens of the sample
  kNextTokens,  // the same, one further: label t is token t + 1
  kPositions,   // 0, 1, ..., seq_len - 1
  kOnes,
  kZeros,
  kMlmTokens,  // tokens, of which a random part is masked (masked language modelling)
  kMlmLabels,  // the masked tokens; ignore_index elsewhere
};

// What a dimension of a graph input stands for.
enum class DimRole { kBatch, kSequence, kOther };

struct InputFeed {
  InputSource source = InputSource::kTokens;
  std::vector<DimRole> dims = {DimRole::kBatch, DimRole::kSequence};

  bool operator==(const InputFeed&) const = default;
};

// A held-out part of the data, from the end of it, on which the loss is measured.
struct ValidationSpec {
  double fraction = 0.0;  // of the samples; 0: no validation
  int64_t every_steps = 100;
  int64_t batches = 4;  // global batches per measurement

  bool operator==(const ValidationSpec&) const = default;
};

struct DataSpec {
  DataFormat format = DataFormat::kText;
  std::vector<std::string> files;  // as written: globs; after ResolveJobFiles: absolute paths
  TokenDtype dtype = TokenDtype::kUint16;  // of the ids in the files; only for kTokens
  int64_t shuffle_seed = 0;
  ValidationSpec validation;
  std::map<std::string, InputFeed> inputs;  // by graph input; see InputFeedFor
  int64_t ignore_index = -100;
  int64_t pad_token = 0;
  double mlm_probability = 0.15;
  int64_t mask_token = -1;  // -1: none; required where an input is fed by mlm_tokens

  bool operator==(const DataSpec&) const = default;
};

enum class OptimizerKind { kAdamW, kSgd };

struct OptimizerSpec {
  OptimizerKind kind = OptimizerKind::kAdamW;
  double lr = 1e-3;
  std::vector<double> betas = {0.9, 0.999};  // exactly two; AdamW only
  double eps = 1e-8;                         // AdamW only
  double weight_decay = 0.0;
  double momentum = 0.0;  // SGD only

  bool operator==(const OptimizerSpec&) const = default;
};

enum class ScheduleKind { kConstant, kLinear, kCosine };

// lr(step) = optimizer.lr * factor: it rises linearly over warmup_steps, then stays, or falls to
// min_lr_ratio at the last step.
struct ScheduleSpec {
  ScheduleKind kind = ScheduleKind::kConstant;
  int64_t warmup_steps = 0;
  double min_lr_ratio = 0.0;

  bool operator==(const ScheduleSpec&) const = default;
};

enum class NanPolicy { kStop, kContinue };

struct TrainingSpec {
  int64_t seq_len = 0;
  int64_t global_batch_size = 0;            // sequences per optimizer step, of the whole job
  std::optional<int64_t> micro_batch_size;  // sequences per dp rank and micro-step; unset: auto
  int64_t steps = 0;
  int64_t seed = 0;
  OptimizerSpec optimizer;
  ScheduleSpec schedule;
  double clip_grad_norm = 0.0;  // 0: no clipping
  NanPolicy on_nan = NanPolicy::kStop;
  int64_t max_restarts = 3;  // since the last progress; 0: the first fault ends the job

  bool operator==(const TrainingSpec&) const = default;
};

enum class ParamPrecision { kAsExported, kFp32, kBf16 };

enum class ReducePrecision { kFp32 };

struct PrecisionSpec {
  ParamPrecision params = ParamPrecision::kAsExported;
  ReducePrecision reduce = ReducePrecision::kFp32;

  bool operator==(const PrecisionSpec&) const = default;
};

// How members of a ring get each other's keys and values: from neighbour to neighbour while they
// compute, or all of them before. See compiler/lowering/block_attention.h.
enum class RingExchange { kAuto, kSendRecv, kAllGather };

// Unset means auto: the planner chooses.
struct ParallelismSpec {
  std::optional<int64_t> ranks;
  std::optional<int64_t> dp;
  std::optional<int64_t> ulysses;
  std::optional<int64_t> ring;
  RingExchange ring_exchange = RingExchange::kAuto;
  std::optional<int64_t> zero;  // stage of ZeRO, 0 to 3

  bool operator==(const ParallelismSpec&) const = default;
};

// What of the forward is made again in the backward instead of kept. See
// compiler/lowering/recompute_segments.h.
enum class Recompute { kAuto, kNone, kSelective, kFull };

// What runs a part of a rank's sequence at a time. See compiler/lowering/tile_loss.h and
// tile_stretches.h.
enum class Tiling { kAuto, kNone, kLoss, kAll };

// What lies in the memory of the host meanwhile. See compiler/lowering/offload_kept.h.
enum class Offload { kAuto, kNone, kActivations, kEveryLayer };

struct MemorySpec {
  std::optional<int64_t> device_budget_bytes;  // per rank; unset: the device's memory
  Recompute recompute = Recompute::kAuto;      // auto: the planner chooses
  Tiling tiling = Tiling::kAuto;               // likewise
  Offload offload = Offload::kAuto;            // likewise

  bool operator==(const MemorySpec&) const = default;
};

struct CheckpointSpec {
  int64_t every_steps = 0;      // 0: none are written
  int64_t keep = 2;             // of this job
  std::string directory;        // as written; see CheckpointDirectory
  std::string resume = "auto";  // auto, never, or a path

  bool operator==(const CheckpointSpec&) const = default;
};

// "5GB", past which Hugging Face splits what it writes.
inline constexpr int64_t kDefaultShardBytes = 5'000'000'000;

struct OutputSpec {
  std::string dir;
  bool weights = true;
  int64_t max_shard_bytes = kDefaultShardBytes;  // of one file of weights
  std::string config;  // config.json of Hugging Face, copied beside the weights; empty: none

  bool operator==(const OutputSpec&) const = default;
};

// Whether a node verifies the plan before the job trains, as `autosp-cli verify` does.
enum class VerifyMode {
  kNever,
  kUnproved,  // only a plan that the checker does not prove; as kNewPlan
  kNewPlan,   // unless it was verified for an earlier job
  kAlways,
};

struct JobSpec {
  std::string name;     // for people; not unique
  bool strict = false;  // a warning of planning is an error
  VerifyMode verify = VerifyMode::kUnproved;
  ModelSpec model;
  DataSpec data;
  TrainingSpec training;
  PrecisionSpec precision;
  ParallelismSpec parallelism;
  MemorySpec memory;
  CheckpointSpec checkpoint;
  OutputSpec output;

  bool operator==(const JobSpec&) const = default;
};

// How `data` feeds the graph input `name`: what data.inputs says, else the default for a usual
// name (input_ids, labels, position_ids, attention_mask, token_type_ids), else nothing.
std::optional<InputFeed> InputFeedFor(const DataSpec& data, absl::string_view name);

// The words of checkpoint.resume that are no path.
inline constexpr absl::string_view kResumeAuto = "auto";
inline constexpr absl::string_view kResumeNever = "never";
bool IsResumePath(absl::string_view resume);

// Where the job writes its checkpoints: "checkpoints" in output.dir unless another is named.
std::string CheckpointDirectory(const JobSpec& job);

// The words of the job file.
absl::string_view ToString(DataFormat value);
absl::string_view ToString(TokenDtype value);
absl::string_view ToString(InputSource value);
absl::string_view ToString(DimRole value);
absl::string_view ToString(OptimizerKind value);
absl::string_view ToString(ScheduleKind value);
absl::string_view ToString(NanPolicy value);
absl::string_view ToString(VerifyMode value);
absl::string_view ToString(ParamPrecision value);
absl::string_view ToString(RingExchange value);
absl::string_view ToString(Recompute value);
absl::string_view ToString(Tiling value);
absl::string_view ToString(Offload value);
absl::string_view ToString(ReducePrecision value);

}  // namespace autosp
