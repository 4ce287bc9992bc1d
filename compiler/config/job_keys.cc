#include <algorithm>

#include "compiler/config/config_keys.h"
#include "compiler/config/table_codecs.h"
#include "compiler/config/value_codec.h"

namespace autosp {
namespace {

using enum Presence;

// Far above any real job, and low enough that products of a few of them fit into 63 bits.
constexpr int64_t kMaxSeqLen = int64_t{1} << 30;
constexpr int64_t kMaxBatch = int64_t{1} << 24;
constexpr int64_t kMaxSteps = int64_t{1} << 40;
constexpr int64_t kMaxRanks = int64_t{1} << 16;
constexpr int64_t kMaxRestarts = 1'000'000;
constexpr int64_t kMaxKeptCheckpoints = 1'000'000;
constexpr int64_t kMaxToken = (int64_t{1} << 31) - 1;

const ListCodec<StringCodec> kGlobs{
    .item = {"glob"}, .min_size = 0, .max_size = 10'000, .allow_single = true};

constexpr size_t kMaxArchives = 1'000;
constexpr size_t kMaxTied = 10'000;

const ListCodec<StringCodec> kArchives{
    .item = {"path"}, .min_size = 1, .max_size = kMaxArchives, .allow_single = true};

const ListCodec<ListCodec<StringCodec>> kTied{
    .item = {.item = {"name"}, .min_size = 1, .max_size = kMaxTied, .allow_single = true},
    .min_size = 0,
    .max_size = kMaxTied};

const AutoIntCodec kAutoRanks{.number = {1, kMaxRanks}};

KeyCondition<JobSpec> When(std::string words, bool (*holds)(const JobSpec&)) {
  return {holds, std::move(words)};
}

void AddModelKeys(KeyTable<JobSpec>& keys) {
  keys.Add("name", At(&JobSpec::name), StringCodec{"text"}, kOptional,
           "What lists call the job, 256 bytes at most. Without it, the file name of the archive.");
  keys.Add(
      "strict", At(&JobSpec::strict), BoolCodec{}, kOptional,
      "Refuse the job where planning would warn, for example of an op without a rule, of a plan "
      "that is not proved, or of gradients that torch.export has lost. The error lists every "
      "warning.");
  keys.Add(
      "verify", At(&JobSpec::verify),
      EnumCodec<VerifyMode>{
          {VerifyMode::kNever, VerifyMode::kUnproved, VerifyMode::kNewPlan, VerifyMode::kAlways}},
      kOptional,
      "Before the job trains, a node runs one step of its plan at a small size, on virtual "
      "ranks on its CPU, and of the model on one device. Where loss or gradients differ, the "
      "job fails. new-plan: not if an earlier job was verified with the same plan; unproved: as "
      "new-plan, but only of a plan that planning warns is not proved.");
  keys.Add("model.archive", At(&JobSpec::model, &ModelSpec::archives), kArchives, kRequired,
           "The .pt2 file that torch.export.save wrote, torch 2.9 or newer. A relative path counts "
           "from the folder of this file, here and below. A list: parts of one model, in the order "
           "in which they run. An input takes the output of that name of an earlier part, or else "
           "the outputs of the part before it in order, where the module gives them no names.");
  keys.Add("model.tied", At(&JobSpec::model, &ModelSpec::tied), kTied, kOptional,
           "Of a model in several archives: names of weights that are one and the same, such as "
           "[embed.weight, head.weight]. A name alone is in several archives.");
  keys.Add("model.weights", At(&JobSpec::model, &ModelSpec::weights), StringCodec{"path"},
           kOptional,
           "Weights for an archive that was exported without them: a safetensors file, or a folder "
           "of such files. Without it, the weights in the archive.");
  keys.Add(
      "model.loss_output", At(&JobSpec::model, &ModelSpec::loss_output),
      StringCodec{"name or index"}, kOptional,
      "Which output of the graph is the loss. Without it, the only scalar output. Others are in "
      "no plan.");
  keys.Add("model.frozen", At(&JobSpec::model, &ModelSpec::frozen), kGlobs, kOptional,
           "Parameters that are not trained, as globs over the names of the state dict.");
  keys.Add("model.no_decay", At(&JobSpec::model, &ModelSpec::no_decay), kGlobs, kOptional,
           "Parameters without weight decay, as globs over the names of the state dict.");
}

void AddDataKeys(KeyTable<JobSpec>& keys) {
  keys.Add("data.format", At(&JobSpec::data, &DataSpec::format),
           EnumCodec<DataFormat>{{DataFormat::kText, DataFormat::kTokens}}, kRequired,
           "text: every byte is a token, 0 to 255. tokens: the files hold token ids.");
  keys.Add("data.files", At(&JobSpec::data, &DataSpec::files),
           ListCodec<StringCodec>{{"path or glob"}, 1, 100'000, true}, kRequired,
           "The training data, read in this order as one stream; what a glob matches is sorted. "
           "`*` stays inside a folder, `**` crosses folders. One may stand without a list.");
  keys.Add("data.dtype", At(&JobSpec::data, &DataSpec::dtype),
           EnumCodec<TokenDtype>{
               {TokenDtype::kUint16, TokenDtype::kUint32, TokenDtype::kInt32, TokenDtype::kInt64}},
           kOptional, "The type of the token ids, little endian and without a header.",
           When("with data.format tokens",
                [](const JobSpec& job) { return job.data.format == DataFormat::kTokens; }));
  keys.Add("data.shuffle_seed", At(&JobSpec::data, &DataSpec::shuffle_seed), IntCodec{0}, kOptional,
           "Seed of the order of the samples; every pass over the data has another one.");
  const auto validates = When("with data.validation.fraction above 0", [](const JobSpec& job) {
    return job.data.validation.fraction > 0.0;
  });
  keys.Add("data.validation.fraction",
           At(&JobSpec::data, &DataSpec::validation, &ValidationSpec::fraction),
           FloatCodec{.min = 0.0, .max = 1.0, .below_max = true}, kOptional,
           "Part of the data, from its end, that is held out to measure the validation loss.");
  keys.Add("data.validation.every_steps",
           At(&JobSpec::data, &DataSpec::validation, &ValidationSpec::every_steps), IntCodec{1},
           kOptional, "Steps between two measurements. The last step is always measured.",
           validates);
  keys.Add("data.validation.batches",
           At(&JobSpec::data, &DataSpec::validation, &ValidationSpec::batches),
           IntCodec{1, kMaxBatch}, kOptional,
           "Global batches per measurement, fewer where the held-out part has fewer.", validates);
}

void AddInputKeys(KeyTable<JobSpec>& keys) {
  keys.Add("data.inputs", At(&JobSpec::data, &DataSpec::inputs),
           MapOfCodec<InputFeed>{InputFeedKeys, "<input>", "data.inputs"}, kOptional,
           "What fills each input of the graph, by its name. Usual names need no entry: input_ids "
           "and labels get tokens, position_ids positions, attention_mask ones, token_type_ids "
           "zeros; with data.mask_token set, input_ids get mlm_tokens and labels mlm_labels.");
  keys.Add("data.ignore_index", At(&JobSpec::data, &DataSpec::ignore_index),
           IntCodec{-kMaxToken, kMaxToken}, kOptional,
           "The label that the loss skips, its ignore_index: next_tokens gives it to the last "
           "token where nothing follows, mlm_labels to every token that is not masked.");
  keys.Add("data.pad_token", At(&JobSpec::data, &DataSpec::pad_token), IntCodec{0, kMaxToken},
           kOptional,
           "The token that fills up a sequence which the ranks cannot share evenly; one that the "
           "model has.");
  keys.Add("data.mask_token", At(&JobSpec::data, &DataSpec::mask_token), IntCodec{-1, kMaxToken},
           kOptional,
           "The token that stands for a masked one in masked language modelling; -1: none.");
  keys.Add("data.mlm_probability", At(&JobSpec::data, &DataSpec::mlm_probability),
           FloatCodec{.min = 0.0, .max = 1.0, .above_min = true}, kOptional,
           "Part of the tokens that masked language modelling predicts. Of them 80 % become "
           "mask_token, 10 % a random token, 10 % stay.",
           When("with data.mask_token set",
                [](const JobSpec& job) { return job.data.mask_token >= 0; }));
}

void AddTrainingKeys(KeyTable<JobSpec>& keys) {
  keys.Add("training.seq_len", At(&JobSpec::training, &TrainingSpec::seq_len),
           IntCodec{1, kMaxSeqLen}, kRequired,
           "Tokens per sequence, within the range that the model was exported for.");
  keys.Add("training.global_batch_size", At(&JobSpec::training, &TrainingSpec::global_batch_size),
           IntCodec{1, kMaxBatch}, kRequired, "Sequences per optimizer step, over all ranks.");
  keys.Add("training.micro_batch_size", At(&JobSpec::training, &TrainingSpec::micro_batch_size),
           AutoIntCodec{{1, kMaxBatch}}, kOptional,
           "Sequences that one dp rank runs at a time; gradients are accumulated until the global "
           "batch is complete. auto: the planner chooses.");
  keys.Add("training.steps", At(&JobSpec::training, &TrainingSpec::steps), IntCodec{1, kMaxSteps},
           kRequired, "Optimizer steps to run.");
  keys.Add("training.seed", At(&JobSpec::training, &TrainingSpec::seed), IntCodec{0}, kOptional,
           "Seed of everything random except the order of the samples.");
  keys.Add("training.clip_grad_norm", At(&JobSpec::training, &TrainingSpec::clip_grad_norm),
           FloatCodec{}, kOptional,
           "Gradients are scaled down to this norm over all parameters; 0: never.");
  keys.Add(
      "training.on_nan", At(&JobSpec::training, &TrainingSpec::on_nan),
      EnumCodec<NanPolicy>{{NanPolicy::kStop, NanPolicy::kContinue}}, kOptional,
      "What a loss or a norm of the gradients that is NaN or infinite does: stop fails the job "
      "and names the step.");
  keys.Add(
      "training.max_restarts", At(&JobSpec::training, &TrainingSpec::max_restarts),
      IntCodec{0, kMaxRestarts}, kOptional,
      "How often a job whose rank or agent was lost starts again, from its last checkpoint or, "
      "without one, from the first step. Counted from the last progress: a new checkpoint.");
}

void AddOptimizerKeys(KeyTable<JobSpec>& keys) {
  const auto of = [](auto member) {
    return At(&JobSpec::training, &TrainingSpec::optimizer, member);
  };
  const auto adamw = When("with training.optimizer.name adamw", [](const JobSpec& job) {
    return job.training.optimizer.kind == OptimizerKind::kAdamW;
  });
  const auto sgd = When("with training.optimizer.name sgd", [](const JobSpec& job) {
    return job.training.optimizer.kind == OptimizerKind::kSgd;
  });
  keys.Add("training.optimizer.name", of(&OptimizerSpec::kind),
           EnumCodec<OptimizerKind>{{OptimizerKind::kAdamW, OptimizerKind::kSgd}}, kOptional,
           "As torch.optim.AdamW and torch.optim.SGD.");
  keys.Add("training.optimizer.lr", of(&OptimizerSpec::lr), FloatCodec{}, kOptional,
           "Learning rate, before the schedule.");
  keys.Add("training.optimizer.betas", of(&OptimizerSpec::betas),
           ListCodec<FloatCodec>{{.min = 0.0, .max = 1.0, .below_max = true}, 2, 2}, kOptional,
           "Decay rates of the running means of the gradient and of its square.", adamw);
  keys.Add("training.optimizer.eps", of(&OptimizerSpec::eps), FloatCodec{.above_min = true},
           kOptional, "Added to the denominator.", adamw);
  keys.Add("training.optimizer.weight_decay", of(&OptimizerSpec::weight_decay), FloatCodec{},
           kOptional, "Decoupled with adamw, added to the gradient with sgd.");
  keys.Add("training.optimizer.momentum", of(&OptimizerSpec::momentum),
           FloatCodec{.min = 0.0, .max = 1.0, .below_max = true}, kOptional, "Without dampening.",
           sgd);
}

void AddScheduleKeys(KeyTable<JobSpec>& keys) {
  const auto of = [](auto member) {
    return At(&JobSpec::training, &TrainingSpec::schedule, member);
  };
  keys.Add("training.schedule.name", of(&ScheduleSpec::kind),
           EnumCodec<ScheduleKind>{
               {ScheduleKind::kConstant, ScheduleKind::kLinear, ScheduleKind::kCosine}},
           kOptional, "How the learning rate goes on after the warm-up.");
  keys.Add("training.schedule.warmup_steps", of(&ScheduleSpec::warmup_steps), IntCodec{0},
           kOptional, "Steps over which the learning rate rises linearly.");
  keys.Add("training.schedule.min_lr_ratio", of(&ScheduleSpec::min_lr_ratio),
           FloatCodec{.min = 0.0, .max = 1.0}, kOptional,
           "Where the schedule ends, as a part of the learning rate.",
           When("with training.schedule.name linear or cosine", [](const JobSpec& job) {
             return job.training.schedule.kind != ScheduleKind::kConstant;
           }));
}

void AddCheckpointKeys(KeyTable<JobSpec>& keys) {
  const auto of = [](auto member) { return At(&JobSpec::checkpoint, member); };
  const auto writes = When("with checkpoint.every_steps above 0",
                           [](const JobSpec& job) { return job.checkpoint.every_steps > 0; });
  keys.Add("checkpoint.every_steps", of(&CheckpointSpec::every_steps), IntCodec{0, kMaxSteps},
           kOptional,
           "Steps between two checkpoints; after the last step there is one too. 0: none.");
  keys.Add("checkpoint.keep", of(&CheckpointSpec::keep), IntCodec{1, kMaxKeptCheckpoints},
           kOptional,
           "How many of the job's checkpoints stay; older ones are removed. One more exists while "
           "the next is written.",
           writes);
  keys.Add("checkpoint.directory", of(&CheckpointSpec::directory), StringCodec{"path"}, kOptional,
           "Folder of the checkpoints, which all nodes see. Without it, checkpoints in output.dir.",
           writes);
  keys.Add(
      "checkpoint.resume", of(&CheckpointSpec::resume), StringCodec{"auto, never or path"},
      kOptional,
      "What the job goes on from. auto: with every_steps above 0, from the newest checkpoint in "
      "the directory, where there is one. never: from the first step; a restart uses the job's "
      "own all the same. A path: from that checkpoint, or the newest in that folder.");
}

void AddParallelismKeys(KeyTable<JobSpec>& keys) {
  keys.Add("parallelism.ranks", At(&JobSpec::parallelism, &ParallelismSpec::ranks), kAutoRanks,
           kOptional, "Processes of the job, one per device. auto: every device of the cluster.");
  keys.Add("parallelism.dp", At(&JobSpec::parallelism, &ParallelismSpec::dp), kAutoRanks, kOptional,
           "Ways in which the batch is split.");
  keys.Add("parallelism.ulysses", At(&JobSpec::parallelism, &ParallelismSpec::ulysses), kAutoRanks,
           kOptional,
           "Ways in which the sequence is split, with heads split instead inside attention.");
  keys.Add("parallelism.ring", At(&JobSpec::parallelism, &ParallelismSpec::ring), kAutoRanks,
           kOptional, "Ways in which the sequence is split, with keys and values exchanged.");
  keys.Add("parallelism.ring_exchange", At(&JobSpec::parallelism, &ParallelismSpec::ring_exchange),
           EnumCodec<RingExchange>{
               {RingExchange::kAuto, RingExchange::kSendRecv, RingExchange::kAllGather}},
           kOptional,
           "How a ring exchanges keys and values. send_recv: from neighbour to neighbour while "
           "attention runs on those at hand (ring attention). all_gather: all at once before it, "
           "which takes memory for the keys and values of all, and one call instead of many. auto: "
           "what the links make cheaper and the memory allows.",
           When("with parallelism.ring auto or above 1",
                [](const JobSpec& job) { return job.parallelism.ring.value_or(2) > 1; }));
  keys.Add("parallelism.zero", At(&JobSpec::parallelism, &ParallelismSpec::zero),
           AutoIntCodec{.number = {0, 3}}, kOptional,
           "Stage of ZeRO: what each rank holds a part of, over all ranks, instead of all. 0: "
           "nothing. 1: the optimizer's states. 2: gradients too. 3: parameters too, which are "
           "gathered before they are used. auto: the lowest stage that fits.");
}

void AddRunKeys(KeyTable<JobSpec>& keys) {
  keys.Add("precision.params", At(&JobSpec::precision, &PrecisionSpec::params),
           EnumCodec<ParamPrecision>{
               {ParamPrecision::kAsExported, ParamPrecision::kFp32, ParamPrecision::kBf16}},
           kOptional,
           "The type of the parameters and of what is computed from them. bf16: products and "
           "attention in bf16; norms, softmax, sums and losses in fp32; the optimizer keeps fp32 "
           "masters, which are what is written at the end.");
  keys.Add("precision.reduce", At(&JobSpec::precision, &PrecisionSpec::reduce),
           EnumCodec<ReducePrecision>{{ReducePrecision::kFp32}}, kOptional,
           "The type in which gradients are summed over micro-batches and ranks.");
  AddParallelismKeys(keys);
  keys.Add("memory.device_budget", At(&JobSpec::memory, &MemorySpec::device_budget_bytes),
           AutoBytesCodec{}, kOptional,
           "Device memory that one rank may use; a rank fails past it, on the CPU too. auto: the "
           "memory of the device.");
  keys.Add("memory.recompute", At(&JobSpec::memory, &MemorySpec::recompute),
           EnumCodec<Recompute>{
               {Recompute::kAuto, Recompute::kNone, Recompute::kSelective, Recompute::kFull}},
           kOptional,
           "What the backward makes again instead of keeping it (activation checkpointing). none: "
           "products, sums and casts only. selective: all but attention and what ranks exchange. "
           "full: all but the inputs of layers. auto: the least that fits into the budget.");
  keys.Add("memory.tiling", At(&JobSpec::memory, &MemorySpec::tiling),
           EnumCodec<Tiling>{{Tiling::kAuto, Tiling::kNone, Tiling::kLoss, Tiling::kAll}},
           kOptional,
           "What runs a part of a rank's sequence at a time, so that its wide values are never "
           "whole. loss: the head of the model with the loss, at no cost. all: what lies "
           "between attentions too, which the backward makes again. auto: the least that fits into "
           "the budget.");
  keys.Add(
      "memory.offload", At(&JobSpec::memory, &MemorySpec::offload),
      EnumCodec<Offload>{
          {Offload::kAuto, Offload::kNone, Offload::kActivations, Offload::kEveryLayer}},
      kOptional,
      "What lies in the memory of the host until it is needed. activations: large values that "
      "the forward hands to the backward; copies take time. every_layer: of each layer, so "
      "that with memory.recompute one layer at a time is made again; it needs most of the host "
      "and least of the device. auto: what fits where nothing else does, if the cluster file "
      "gives host_memory.");
  AddCheckpointKeys(keys);
  keys.Add("output.dir", At(&JobSpec::output, &OutputSpec::dir), StringCodec{"path"}, kRequired,
           "Folder for what the job writes; made where it is missing.");
  keys.Add("output.weights", At(&JobSpec::output, &OutputSpec::weights), BoolCodec{}, kOptional,
           "Write the trained weights at the end, as safetensors.");
  const auto with_weights =
      When("with output.weights true", [](const JobSpec& job) { return job.output.weights; });
  keys.Add("output.max_shard_size", At(&JobSpec::output, &OutputSpec::max_shard_bytes),
           BytesCodec{}, kOptional,
           "Size past which the weights become several files with an index, as transformers has "
           "them.",
           with_weights);
  keys.Add("output.config", At(&JobSpec::output, &OutputSpec::config), StringCodec{"path"},
           kOptional,
           "The config.json of a Hugging Face model. It is copied beside the weights, so that "
           "transformers loads output.dir.",
           with_weights);
}

KeyTable<JobSpec> MakeJobKeys() {
  KeyTable<JobSpec> keys;
  AddModelKeys(keys);
  AddDataKeys(keys);
  AddInputKeys(keys);
  AddTrainingKeys(keys);
  AddOptimizerKeys(keys);
  AddScheduleKeys(keys);
  AddRunKeys(keys);
  return keys;
}

KeyTable<InputFeed> MakeInputFeedKeys() {
  KeyTable<InputFeed> keys;
  keys.Add("from", At(&InputFeed::source),
           EnumCodec<InputSource>{{InputSource::kTokens, InputSource::kNextTokens,
                                   InputSource::kPositions, InputSource::kOnes, InputSource::kZeros,
                                   InputSource::kMlmTokens, InputSource::kMlmLabels}},
           kRequired,
           "What fills the input. next_tokens: label t is token t + 1, for a graph that does not "
           "shift its labels itself.");
  keys.Add(
      "dims", At(&InputFeed::dims),
      ListCodec<EnumCodec<DimRole>>{{{DimRole::kBatch, DimRole::kSequence, DimRole::kOther}}, 1, 8},
      kOptional,
      "What each dimension stands for; other has the size that was exported, or the one that the "
      "model ties it to: a mask of queries and keys is [batch, sequence, other].");
  return keys;
}

}  // namespace

const KeyTable<JobSpec>& JobKeys() {
  static const auto& keys = *new KeyTable<JobSpec>(MakeJobKeys());
  return keys;
}

const KeyTable<InputFeed>& InputFeedKeys() {
  static const auto& keys = *new KeyTable<InputFeed>(MakeInputFeedKeys());
  return keys;
}

}  // namespace autosp
