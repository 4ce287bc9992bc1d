#include "tests/compiler/checker/zoo_jobs.h"

#include <filesystem>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"

namespace autosp {

std::vector<std::string> ZooModelNames() {
  return {"llama",   "llama_static", "llama_mask",   "llama_bf16", "llama_autocast",
          "gpt2",    "gpt2_long",    "gpt2_dropout", "bert",       "bert_long",
          "plain",   "qwen2",        "qwen3",        "mistral",    "opt",
          "roberta", "mixtral",      "t5",           "qwen3_moe"};
}

std::vector<std::string> ZooCaseNames() {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(ZooPath("cases"))) {
    names.insert("cases/" + entry.path().filename().string());
  }
  return {names.begin(), names.end()};
}

JobSpec ZooJob(const ImportedModel& model, int64_t batch, int64_t seq_len) {
  constexpr DimRole kB = DimRole::kBatch;
  constexpr DimRole kS = DimRole::kSequence;
  constexpr DimRole kO = DimRole::kOther;
  static const auto& kFeeds = *new std::map<std::string, InputFeed>{
      {"ids", {.source = InputSource::kTokens}},
      {"labels", {.source = InputSource::kNextTokens}},
      {"shift_labels", {.source = InputSource::kNextTokens}},
      {"targets", {.source = InputSource::kNextTokens}},
      {"mask", {.source = InputSource::kOnes}},
      {"documents", {.source = InputSource::kZeros}},
      // Not positions: tests have sequences longer than the table that these are looked up in.
      {"positions", {.source = InputSource::kZeros}},
      {"ids_sb", {.source = InputSource::kTokens, .dims = {kS, kB}}},
      {"labels_sb", {.source = InputSource::kNextTokens, .dims = {kS, kB}}},
      {"features", {.source = InputSource::kZeros, .dims = {kB, kS, kO}}},
      {"context", {.source = InputSource::kZeros, .dims = {kB, kO, kO}}},
      {"distances", {.source = InputSource::kZeros, .dims = {kB, kO, kO}}},
      {"image", {.source = InputSource::kZeros, .dims = {kB, kO, kS, kO}}},
      {"classes", {.source = InputSource::kZeros, .dims = {kB}}},
      {"patches", {.source = InputSource::kZeros, .dims = {kB, kO, kO}}},
      {"pixel_values", {.source = InputSource::kZeros, .dims = {kB, kO, kO, kO}}},
  };
  JobSpec job;
  job.name = "zoo";
  job.training.seq_len = seq_len;
  job.training.global_batch_size = batch;
  job.training.steps = 3;
  job.training.clip_grad_norm = 1.0;
  for (const GraphInput& input : model.graph.inputs) {
    if (const auto feed = kFeeds.find(input.name); feed != kFeeds.end()) {
      job.data.inputs[input.name] = feed->second;
    }
  }
  // The class of an image.
  if (job.data.inputs.contains("pixel_values")) job.data.inputs["labels"] = kFeeds.at("classes");
  return job;
}

}  // namespace autosp
