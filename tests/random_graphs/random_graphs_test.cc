// Random training graphs through the planner, the checker and virtual ranks, held against PyTorch's
// own operators and autograd.
//
//   random_graphs_test --count 300               the run of the test suite
//   random_graphs_test --seed 5000 --count 10000 a long one, from another seed
//   random_graphs_test --graph FILE              one graph again, as a failure writes it
//
// A graph that fails is made small before it is printed. Exit code 0: nothing failed, and enough of
// the graphs ran.

#include <unistd.h>

#include <csignal>
#include <cstring>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/file.h"
#include "tests/random_graphs/case_text.h"
#include "tests/random_graphs/random_graph.h"
#include "tests/random_graphs/run_case.h"
#include "tests/random_graphs/shrink_case.h"
#include "worker/rank/rank_threads.h"

namespace autosp {
namespace {

constexpr double kLeastRun = 0.8;
constexpr size_t kMaxFailures = 10;  // of different kinds

struct Options {
  uint64_t seed = 1;
  int64_t count = 300;
  std::string graph_path;
  bool is_verbose = false;
};

// Written by the handler of signals, which may not allocate.
char running_text[256] = "";

void OnCrash(int signal) {
  static_cast<void>(!write(STDERR_FILENO, running_text, std::strlen(running_text)));
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void Announce(const std::string& text) {
  std::strncpy(running_text, text.c_str(), sizeof(running_text) - 1);
}

const char* ResultName(CaseResult result) {
  switch (result) {
    case CaseResult::kEqual:
      return "equal";
    case CaseResult::kRefused:
      return "refused";
    case CaseResult::kDisproved:
      return "DISPROVED";
    case CaseResult::kFailed:
      return "FAILED";
    case CaseResult::kDiffers:
      return "DIFFERS";
  }
  return "";
}

// The message without what is of one graph alone.
std::string ReasonOf(const std::string& message) {
  std::string reason;
  for (const char character : message) {
    if (absl::ascii_isdigit(static_cast<unsigned char>(character))) {
      if (reason.empty() || reason.back() != '#') reason += '#';
    } else {
      reason += character;
    }
  }
  return reason.substr(0, 240);
}

class Run {
 public:
  void Add(const GraphRecipe& recipe, const RunOutcome& outcome) {
    ++num_graphs_;
    ++results_[outcome.result];
    if (outcome.is_resized) ++num_resized_;
    if (outcome.result == CaseResult::kRefused) ++refusals_[ReasonOf(outcome.message)];
    if (!outcome.not_proved.empty()) ++not_proved_[ReasonOf(outcome.not_proved)];
    if (!outcome.is_failure()) return;
    const std::string reason =
        absl::StrCat(ResultName(outcome.result), " ") + ReasonOf(outcome.message);
    // One small graph of each kind is enough.
    if (++failures_[reason] == 1) {
      Report(recipe, outcome);
    } else {
      std::cout << "seed " << recipe.seed << ": as before: " << outcome.message << std::endl;
    }
  }

  bool is_over() const { return failures_.size() >= kMaxFailures; }

  int Finish() const {
    const int64_t num_equal = CountOf(CaseResult::kEqual);
    std::cout << num_graphs_ << " graphs: " << num_equal << " equal (" << num_resized_
              << " of all at other sizes than exported), " << CountOf(CaseResult::kRefused)
              << " refused, " << num_failures() << " failed\n";
    for (const auto& [reason, count] : refusals_) {
      std::cout << "  refused " << count << " x " << reason << "\n";
    }
    for (const auto& [reason, count] : not_proved_) {
      std::cout << "  not proved " << count << " x " << reason << "\n";
    }
    if (num_failures() > 0) return 1;
    const double part = static_cast<double>(num_equal) / static_cast<double>(num_graphs_);
    if (part >= kLeastRun) return 0;
    std::cout << "only " << part * 100 << " % of the graphs ran; at least " << kLeastRun * 100
              << " % must\n";
    return 1;
  }

 private:
  int64_t CountOf(CaseResult result) const {
    const auto found = results_.find(result);
    return found == results_.end() ? 0 : found->second;
  }
  int64_t num_failures() const {
    return num_graphs_ - CountOf(CaseResult::kEqual) - CountOf(CaseResult::kRefused);
  }

  static void Report(const GraphRecipe& recipe, const RunOutcome& outcome) {
    std::cout << "seed " << recipe.seed << ": " << ResultName(outcome.result) << ": "
              << outcome.message << "\n  " << recipe.ToString() << " on " << MeshText(recipe.mesh)
              << std::endl;
    const RandomCase small = ShrinkCase(
        recipe, [&](const RandomCase& each) { return RunCase(each).result == outcome.result; });
    const std::string path = absl::StrCat("random_graph_", recipe.seed, ".txt");
    const std::string text = PrintCase(small);
    const absl::Status written = WriteFileAtomically(path, text);
    std::cout << text << RunCase(small).message << "\n";
    if (!written.ok()) std::cout << written << "\n";
    std::cout << "again: random_graphs_test --graph " << path << "\n" << std::endl;
  }

  int64_t num_graphs_ = 0;
  int64_t num_resized_ = 0;
  std::map<CaseResult, int64_t> results_;
  std::map<std::string, int64_t> refusals_;
  std::map<std::string, int64_t> not_proved_;
  std::map<std::string, int64_t> failures_;
};

int RunGraphs(const Options& options) {
  std::cout << "seeds " << options.seed << " to " << options.seed + options.count - 1 << std::endl;
  Run run;
  for (int64_t i = 0; i < options.count && !run.is_over(); ++i) {
    const GraphRecipe recipe = RandomRecipe(options.seed + static_cast<uint64_t>(i));
    Announce(absl::StrCat("crashed at seed ", recipe.seed, ": ", recipe.ToString(), " on ",
                          MeshText(recipe.mesh), "\n"));
    const RunOutcome outcome = RunCase(MakeCase(recipe));
    if (options.is_verbose) {
      std::cout << recipe.seed << " " << ResultName(outcome.result) << " " << recipe.ToString()
                << " on " << MeshText(recipe.mesh) << std::endl;
    }
    run.Add(recipe, outcome);
  }
  return run.Finish();
}

int RunGraph(const Options& options) {
  constexpr int64_t kMaxBytes = 1 << 20;
  const absl::StatusOr<std::string> text = ReadFile(options.graph_path, kMaxBytes);
  AUTOSP_CHECK(text.ok(), text.status().message());
  const absl::StatusOr<RandomCase> parsed = ParseCase(*text);
  AUTOSP_CHECK(parsed.ok(), parsed.status().message());
  const RunOutcome outcome = RunCase(*parsed);
  std::cout << ResultName(outcome.result) << " " << outcome.message << outcome.not_proved << "\n";
  return outcome.is_failure() ? 1 : 0;
}

}  // namespace
}  // namespace autosp

int main(int argc, char** argv) {
  autosp::EnsurePassiveWaiting(argv);
  autosp::Options options;
  CLI::App app("Random training graphs against PyTorch's own operators.");
  app.add_option("--seed", options.seed, "Of the first graph")->capture_default_str();
  app.add_option("--count", options.count, "Graphs")->capture_default_str();
  app.add_option("--graph", options.graph_path, "The text of one graph, instead of random ones");
  app.add_flag("--verbose", options.is_verbose, "A line for each graph");
  CLI11_PARSE(app, argc, argv);
  for (const int signal : {SIGSEGV, SIGABRT, SIGFPE}) std::signal(signal, autosp::OnCrash);
  return options.graph_path.empty() ? autosp::RunGraphs(options) : autosp::RunGraph(options);
}
