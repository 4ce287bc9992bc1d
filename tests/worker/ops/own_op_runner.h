// Runs one op of our own on given tensors, as the executor would.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compiler/program/program.h"
#include "worker/ops/own_op.h"

namespace autosp {

class OwnOpRunner {
 public:
  explicit OwnOpRunner(std::string op, int num_results = 0) {
    instruction.op = std::move(op);
    instruction.results.resize(num_results);
  }

  OwnOpRunner& Tensor(at::Tensor tensor) {
    instruction.args.emplace_back(AddValue());
    args_.push_back({std::move(tensor)});
    integers_.push_back(0);
    return *this;
  }
  OwnOpRunner& Tensors(std::vector<at::Tensor> tensors) {
    ValueList ids;
    for (size_t i = 0; i < tensors.size(); ++i) ids.push_back(AddValue());
    instruction.args.emplace_back(ids);
    args_.push_back(std::move(tensors));
    integers_.push_back(0);
    return *this;
  }
  OwnOpRunner& Literal(Argument literal) {
    const auto* integer = std::get_if<SymInt>(&literal);
    integers_.push_back(integer == nullptr ? 0 : integer->value);
    instruction.args.push_back(std::move(literal));
    args_.emplace_back();
    return *this;
  }
  OwnOpRunner& Attribute(std::string name, Argument value) {
    instruction.attributes[std::move(name)] = std::move(value);
    return *this;
  }

  absl::StatusOr<std::vector<at::Tensor>> Run() {
    const OwnOpFactory factory = FindOwnOp(instruction.op);
    if (factory == nullptr) return absl::NotFoundError(instruction.op);
    auto op = factory({program, instruction, place});
    if (!op.ok()) return op.status();
    std::vector<at::Tensor> results;
    const absl::Status status = (*op)({args_, integers_, micro_step, tile, results});
    if (!status.ok()) return status;
    return results;
  }

  Program program;
  MeshCoordinate place;
  Instruction instruction;
  int64_t micro_step = 0;
  int64_t tile = 0;

 private:
  ValueId AddValue() {
    ProgramValue value;
    value.name = "v" + std::to_string(program.values.size());
    return program.AddValue(value);
  }

  std::vector<OwnArgument> args_;
  std::vector<int64_t> integers_;
};

}  // namespace autosp
