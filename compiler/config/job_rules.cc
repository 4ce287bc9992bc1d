#include "compiler/config/job_rules.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace autosp {
namespace {

using Violations = std::vector<RuleViolation>;

// It is in lists, in logs and in every message about the job.
constexpr size_t kMaxNameBytes = 256;

void CheckName(const JobSpec& spec, Violations& violations) {
  if (spec.name.size() <= kMaxNameBytes) return;
  violations.push_back({"name", absl::StrCat("has ", spec.name.size(), " bytes, more than ",
                                             kMaxNameBytes, "; write a shorter one")});
}

// "ranks (4)", for each of the named values that is set.
struct NamedSize {
  const char* name;
  std::optional<int64_t> value;
};

std::string Describe(const std::vector<NamedSize>& sizes) {
  std::vector<std::string> parts;
  for (const NamedSize& size : sizes) {
    if (size.value.has_value()) parts.push_back(absl::StrCat(size.name, " (", *size.value, ")"));
  }
  return absl::StrJoin(parts, " x ");
}

int64_t ProductOf(const std::vector<NamedSize>& sizes) {
  int64_t product = 1;
  for (const NamedSize& size : sizes) product *= size.value.value_or(1);
  return product;
}

void CheckMesh(const JobSpec& spec, Violations& violations) {
  const ParallelismSpec& mesh = spec.parallelism;
  const std::vector<NamedSize> axes = {
      {"dp", mesh.dp}, {"ulysses", mesh.ulysses}, {"ring", mesh.ring}};
  if (!mesh.ranks.has_value()) return;
  const int64_t product = ProductOf(axes);
  const bool is_whole = mesh.dp.has_value() && mesh.ulysses.has_value() && mesh.ring.has_value();
  if (is_whole && product != *mesh.ranks) {
    violations.push_back(
        {"parallelism.ranks", absl::StrCat(*mesh.ranks, " is not ", Describe(axes), "; set it to ",
                                           product, ", or to auto")});
  } else if (*mesh.ranks % product != 0) {
    violations.push_back(
        {"parallelism.ranks", absl::StrCat(*mesh.ranks, " is not a multiple of ", Describe(axes),
                                           "; set it to one, or to auto")});
  }
}

void CheckBatch(const JobSpec& spec, Violations& violations) {
  const std::vector<NamedSize> parts = {
      {"parallelism.dp", spec.parallelism.dp},
      {"training.micro_batch_size", spec.training.micro_batch_size}};
  const int64_t product = ProductOf(parts);
  const int64_t batch = spec.training.global_batch_size;
  if (batch % product == 0) return;
  const int64_t above = (batch / product + 1) * product;
  const std::string remedy =
      batch < product ? absl::StrCat(product) : absl::StrCat(above - product, " or ", above);
  violations.push_back(
      {"training.global_batch_size",
       absl::StrCat(batch, " is not a multiple of ", Describe(parts), "; set it to ", remedy)});
}

void CheckSchedule(const JobSpec& spec, Violations& violations) {
  const int64_t warmup_steps = spec.training.schedule.warmup_steps;
  if (warmup_steps <= spec.training.steps) return;
  violations.push_back({"training.schedule.warmup_steps",
                        absl::StrCat(warmup_steps, " is above training.steps (",
                                     spec.training.steps, "); warm up for fewer steps")});
}

int64_t Count(const InputFeed& feed, DimRole role) {
  return std::count(feed.dims.begin(), feed.dims.end(), role);
}

// What is wrong with the dims of one feed, empty if nothing.
std::string FindDimsFault(const InputFeed& feed) {
  const int64_t num_batch = Count(feed, DimRole::kBatch);
  const int64_t num_sequence = Count(feed, DimRole::kSequence);
  if (num_batch > 1) return "batch may be there once";
  if (num_sequence > 1) {
    return "sequence may be there once; for a mask of queries and keys call the second one other: "
           "its size follows from the keys";
  }
  switch (feed.source) {
    case InputSource::kOnes:
    case InputSource::kZeros:
      return "";
    case InputSource::kPositions:
      return num_sequence == 1 ? "" : "positions need a sequence dimension";
    default:
      break;
  }
  if (num_batch == 1 && num_sequence == 1 && feed.dims.size() == 2) return "";
  const bool is_one_sequence = num_sequence == 1 && feed.dims.size() == 1;
  return absl::StrCat(ToString(feed.source), " have one batch and one sequence dimension",
                      is_one_sequence ? "; export a model of one sequence in a module that takes "
                                        "[1, sequence] and gives it x[0], and set "
                                        "training.global_batch_size to 1"
                                      : "");
}

void CheckInputs(const JobSpec& spec, Violations& violations) {
  bool has_masked_tokens = false;
  bool has_masked_labels = false;
  for (const auto& [name, feed] : spec.data.inputs) {
    const std::string path = absl::StrCat("data.inputs.", name);
    const std::string fault = FindDimsFault(feed);
    if (!fault.empty()) {
      std::vector<std::string> words;
      for (const DimRole role : feed.dims) words.emplace_back(ToString(role));
      violations.push_back({absl::StrCat(path, ".dims"),
                            absl::StrCat("[", absl::StrJoin(words, ", "), "]: ", fault)});
    }
  }
  std::set<std::string> names = {"input_ids", "labels"};  // whose defaults may be mlm_*
  for (const auto& [name, feed] : spec.data.inputs) names.insert(name);
  for (const std::string& name : names) {
    const InputFeed feed = *InputFeedFor(spec.data, name);
    has_masked_tokens = has_masked_tokens || feed.source == InputSource::kMlmTokens;
    has_masked_labels = has_masked_labels || feed.source == InputSource::kMlmLabels;
  }
  if (has_masked_labels && !has_masked_tokens) {
    violations.push_back({"data.inputs",
                          "mlm_labels without mlm_tokens: the model would see what "
                          "it shall predict; feed the tokens from mlm_tokens"});
  }
  if (has_masked_tokens && spec.data.mask_token < 0) {
    violations.push_back({"data.mask_token",
                          "is missing; mlm_tokens need the id of the token that "
                          "stands for a masked one"});
  }
}

}  // namespace

std::vector<RuleViolation> FindRuleViolations(const JobSpec& spec) {
  Violations violations;
  CheckName(spec, violations);
  CheckMesh(spec, violations);
  CheckBatch(spec, violations);
  CheckSchedule(spec, violations);
  CheckInputs(spec, violations);
  return violations;
}

std::vector<RuleViolation> FindRuleViolations(const ClusterSpec& spec) {
  Violations violations;
  std::set<std::string> names;
  for (size_t i = 0; i < spec.nodes.size(); ++i) {
    if (names.insert(spec.nodes[i].name).second) continue;
    violations.push_back(
        {absl::StrCat("nodes[", i, "].name"),
         absl::StrCat(spec.nodes[i].name, " is the name of an earlier node; names are unique")});
  }
  return violations;
}

}  // namespace autosp
