#include "tests/random_graphs/case_text.h"

#include <algorithm>
#include <map>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {

std::string MeshText(const Mesh& mesh) {
  return absl::StrCat("accum=", mesh.accum, " dp=", mesh.dp, " ring=", mesh.ring,
                      " ulysses=", mesh.ulysses);
}

std::string PrintCase(const RandomCase& random_case) {
  return absl::StrCat("# ", MeshText(random_case.mesh), " batch=", random_case.batch_size,
                      " seq_len=", random_case.seq_len, " seed=", random_case.seed,
                      " recompute=", static_cast<int>(random_case.recompute),
                      " tiling=", static_cast<int>(random_case.tiling), "\n",
                      PrintGraph(random_case.graph));
}

absl::StatusOr<RandomCase> ParseCase(const std::string& text) {
  RandomCase result;
  std::map<std::string, int64_t> numbers;
  const std::string first = text.substr(0, text.find('\n'));
  for (const absl::string_view part : absl::StrSplit(first, ' ')) {
    const std::vector<std::string> pair = absl::StrSplit(part, '=');
    int64_t number = 0;
    if (pair.size() == 2 && absl::SimpleAtoi(pair[1], &number)) numbers[pair[0]] = number;
  }
  for (const char* name : {"accum", "dp", "ring", "ulysses", "batch", "seq_len", "seed"}) {
    if (!numbers.contains(name)) {
      return InvalidArgument("the first line says no ", name,
                             "; write it as # accum=1 dp=1 ring=1 "
                             "ulysses=2 batch=2 seq_len=8 seed=1");
    }
  }
  result.mesh = {.accum = numbers["accum"],
                 .dp = numbers["dp"],
                 .ring = numbers["ring"],
                 .ulysses = numbers["ulysses"]};
  result.batch_size = numbers["batch"];
  result.seq_len = numbers["seq_len"];
  result.seed = static_cast<uint64_t>(numbers["seed"]);
  // Absent in older files.
  if (numbers.contains("recompute")) {
    result.recompute = static_cast<Recompute>(std::clamp<int64_t>(numbers["recompute"], 0, 3));
    result.tiling = static_cast<Tiling>(std::clamp<int64_t>(numbers["tiling"], 0, 3));
  }
  ASSIGN_OR_RETURN(result.graph, ParseGraph(text));
  return result;
}

}  // namespace autosp
