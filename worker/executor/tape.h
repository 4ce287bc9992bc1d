// The derivative of one op, without the tensors that it needs.
//
// `Record` runs an op under libtorch's autograd and keeps only its derivative: the nodes of this
// one op, cut off from every other. Tensors that the derivative needs are replaced by slot numbers;
// the caller keeps the tensors themselves, may move, free or compute them again, and gives them
// back to `Vjp`. So the program decides about memory, and autograd about mathematics.
//
//   op        y = f(x, w)      runs on x and w whose gradient edges lead to a boundary node
//   saved     x -> slot 0      by the hooks that the default engine hands out while recording
//   vjp       engine.execute({edge of y}, {dy}, outputs = edges of the boundary) with slot 0 = x
//
// This file and tape.cc alone know libtorch's autograd internals, which are semi-public and change
// between releases.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace autosp {

// A tensor that goes into a recorded op or comes out of it.
struct TapeTensor {
  bool is_result = false;
  int index = 0;  // among the tensor operands (lists flattened, None skipped) or among the results
  friend bool operator==(const TapeTensor&, const TapeTensor&) = default;
};

class Tape {
 public:
  Tape(Tape&&) noexcept;
  Tape& operator=(Tape&&) noexcept;
  ~Tape();

  // Bytes of tensors that the tape keeps itself: none unless it was recorded as opaque.
  int64_t kept_bytes() const;

  struct Impl;
  explicit Tape(std::unique_ptr<Impl> impl);
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// Makes the engine that tapes need libtorch's own. Call it before the first backward pass of the
// process, if that is not one of a tape: an engine that comes later does not know the GPUs.
void InstallTapeEngine();

struct RecordRequest {
  const c10::OperatorHandle& op;
  // Which operands need a gradient, as TapeTensor::index.
  absl::Span<const int> diff;
  // The tensors that the caller will give back to Vjp.
  absl::Span<const TapeTensor> saves;
  // May the tape keep tensors that are neither operands nor results? Else they are an error.
  bool opaque = false;
};

// Runs the op: `stack` holds all arguments of its schema, and then its results, which have no
// history. An error if the derivative needs a tensor that is not in `saves`: it is named by its
// place. Libtorch's own failures are exceptions (CatchTorch).
absl::StatusOr<Tape> Record(const RecordRequest& request, torch::jit::Stack& stack);

// Gradients for the operands in `diff`, in this order, from those of the results; undefined tensors
// stand for zero on both sides. `saved` is in the order of `saves`, with the sizes of then, and
// with the strides of then where the derivative needs a view (else an exception). A tape is good
// for one call. A gradient may share memory with one of `grads` or `saved`.
absl::StatusOr<std::vector<at::Tensor>> Vjp(Tape& tape, absl::Span<const at::Tensor> grads,
                                            absl::Span<const at::Tensor> saved);

}  // namespace autosp
