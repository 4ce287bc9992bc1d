// The floating point operations of a program's instructions, on one rank: those of the op's row
// (compiler/rules/op_flops.h has the convention), or of a kernel that only programs have.
//
// A rank computes its shard, so what is replicated or made again counts each time, and padding as
// far as kernels compute it. A hop of a ring counts as the mean over its members and hops: which of
// them have less to do is a matter of the layout, and together they do the same.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "compiler/program/program.h"
#include "compiler/rules/op_flops.h"

namespace autosp {

// By kind of work.
using FlopTotals = std::map<FlopKind, double>;
double TotalOf(const FlopTotals& flops);

// Of one run of a section. Error: the program does not have it.
absl::StatusOr<FlopTotals> CountFlops(const Program& program, const std::string& section);

}  // namespace autosp
