#include "tests/equality/case_jobs.h"

#include <filesystem>
#include <map>

namespace autosp {
namespace {

constexpr DimRole kB = DimRole::kBatch;
constexpr DimRole kS = DimRole::kSequence;
constexpr DimRole kO = DimRole::kOther;

}  // namespace

std::vector<std::string> ZooFolders(const std::string& folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(ZooPath(folder))) {
    names.insert(entry.path().filename().string());
  }
  return {names.begin(), names.end()};
}

void FeedCaseInputs(const ImportedModel& model, JobSpec* job) {
  static const auto& kFeeds = *new std::map<std::string, InputFeed>{
      {"ids", {.source = InputSource::kTokens}},
      {"labels", {.source = InputSource::kNextTokens}},
      {"mask", {.source = InputSource::kOnes}},
      {"documents", {.source = InputSource::kZeros}},
      // Not positions: tests have sequences longer than the table that these are looked up in.
      {"positions", {.source = InputSource::kZeros}},
      {"ids_sb", {.source = InputSource::kTokens, .dims = {kS, kB}}},
      {"labels_sb", {.source = InputSource::kNextTokens, .dims = {kS, kB}}},
      {"features", {.source = InputSource::kZeros, .dims = {kB, kS, kO}}},
      {"context", {.source = InputSource::kZeros, .dims = {kB, kO, kO}}},
      {"image", {.source = InputSource::kZeros, .dims = {kB, kO, kS, kO}}},
      {"classes", {.source = InputSource::kZeros, .dims = {kB}}},
      {"distances", {.source = InputSource::kZeros, .dims = {kB, kO, kO}}},
  };
  job->data.inputs.clear();
  for (const GraphInput& input : model.graph.inputs) {
    if (const auto feed = kFeeds.find(input.name); feed != kFeeds.end()) {
      job->data.inputs[input.name] = feed->second;
    }
  }
}

const std::set<std::string>& CasesThatNeedTheWholeBatch() {
  static const auto& names = *new std::set<std::string>{
      // A statistic over the batch, fed back.
      "batch_statistics", "expert_histogram", "mixture_of_experts", "static_experts", "unbatched",
      // Statistics that are read in the step that takes them.
      "batch_norms", "running_normalizer",
      // Sums over it, fed back.
      "stretched_logits",
      // Sequences that are compared with one another.
      "groups_of_sequences", "preferred_half", "sequences_compared", "sequences_of_one_class",
      // Windows of memory, which has the sequences one behind the other.
      "strided_windows",
      // Rows that are counted over all tokens of the batch.
      "counted_rows", "image_rows",
      // Rows that are sorted over the whole batch.
      "ordered_experts",
      // Ops without a rule, which are gathered.
      "in_place_forms", "ops_without_rules", "vectors_compared",
      // Two views of the batch, put together.
      "views_of_a_batch"};
  return names;
}

const std::set<std::string>& CasesOfThreePairs() {
  static const auto& names = *new std::set<std::string>{"groups_of_sequences"};
  return names;
}

}  // namespace autosp
