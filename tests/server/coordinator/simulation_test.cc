// Many short lives of a cluster. A failure prints its seed; AUTOSP_SIM_SEED=N runs that one alone,
// and AUTOSP_SIM_RUNS how many new ones are tried.
#include "tests/server/coordinator/simulation.h"

#include <cstdlib>
#include <iostream>
#include <map>
#include <random>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace autosp {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  uint64_t value = 0;
  return text != nullptr && absl::SimpleAtoi(text, &value) ? value : otherwise;
}

std::map<std::string, int> g_outcomes;

void RunSeed(uint64_t seed) {
  SCOPED_TRACE(absl::StrCat("AUTOSP_SIM_SEED=", seed));
  std::mt19937_64 random(seed);
  SimulationOptions options{.seed = seed};
  // From a quiet network to a bad one.
  const double badness = std::uniform_real_distribution<double>(0, 1)(random);
  options.drop = 0.1 * badness;
  options.duplicate = 0.1 * badness;
  options.late = 0.05 * badness;
  options.num_nodes = 1 + static_cast<int>(random() % 4);
  Simulation simulation(options);
  simulation.Run();
  for (const auto& [name, count] : simulation.Outcomes()) g_outcomes[name] += count;
}

TEST(CoordinatorSimulation, KnownSeeds) {
  const uint64_t only = FromEnvironment("AUTOSP_SIM_SEED", 0);
  const uint64_t first = only != 0 ? only : 1;
  const uint64_t last = only != 0 ? only : 60;
  for (uint64_t seed = first; seed <= last && !HasFailure(); ++seed) RunSeed(seed);
  for (const auto& [name, count] : g_outcomes) std::cout << name << " " << count << "\n";
  if (only != 0) return;
  // A simulation in which some things never happen proves nothing about them.
  for (const char* name :
       {"succeeded", "cancelled", "rank_lost", "agent_lost", "hung", "not_reattached",
        "start_failed", "succeeded after a restart", "restarts spent", "plan_differs",
        "verification equal", "verification known", "verified after a retry"}) {
    EXPECT_GT(g_outcomes[name], 0) << name;
  }
}

TEST(CoordinatorSimulation, NewSeeds) {
  const uint64_t base = std::random_device()();
  const uint64_t runs = FromEnvironment("AUTOSP_SIM_RUNS", 20);
  std::cout << "seeds " << base << " to " << base + runs - 1 << "\n";
  for (uint64_t seed = base; seed < base + runs && !HasFailure(); ++seed) RunSeed(seed);
}

}  // namespace
}  // namespace autosp
