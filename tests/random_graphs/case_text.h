// A case as a file: the text of its graph behind a line that says how it is trained.
//
//   # accum=1 dp=1 ring=2 ulysses=1 batch=2 seq_len=8 seed=7
//   graph "random" { ...
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "tests/random_graphs/run_case.h"

namespace autosp {

std::string MeshText(const Mesh& mesh);  // "accum=1 dp=1 ring=2 ulysses=1"

std::string PrintCase(const RandomCase& random_case);
absl::StatusOr<RandomCase> ParseCase(const std::string& text);

}  // namespace autosp
