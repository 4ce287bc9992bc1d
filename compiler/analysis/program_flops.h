// The floating point operations of a program's instructions, on one rank: those of the op's row
// (compiler/rules/op_flops.h has the convention), or of a kernel that only programs have.
//
// A rank computes its shard, so what is replicated or made again counts each time, and padding as
// far as kernels compute it. A hop of a ring counts as the mean over its members and hops: which of
// them have less to do is a matter of the layout, and together they do the same.
#pragma once

#include <map>

#include "compiler/program/program.h"
#include "compiler/rules/op_flops.h"

namespace autosp {

// By kind of work.
using FlopTotals = std::map<FlopKind, double>;
double TotalOf(const FlopTotals& flops);

// Instructions are taken in the order of the program: a derivative is that of the op which its tape
// has recorded before.
class FlopCounter {
 public:
  explicit FlopCounter(const Program& program) : program_(program) {}

  // One instruction, without the body of a loop, so many times.
  void Add(const Instruction& instruction, int64_t repeats);

  const FlopTotals& totals() const { return totals_; }

 private:
  // By the row of the op: nothing where the row has no function, or where there is no row.
  OpFlops ByRow(const Instruction& instruction) const;

  const Program& program_;
  std::map<ValueId, const Instruction*> records_;  // by tape
  FlopTotals totals_;
};

}  // namespace autosp
