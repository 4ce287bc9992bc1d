// Counts the products that libtorch really makes: the calls of its kernels for matrices,
// convolutions and attention, with the sizes of their operands. The formulas are those of
// torch.utils.flop_counter, except for the gradient of a grouped convolution's weight.
#pragma once

#include <ATen/record_function.h>

namespace autosp {

// While it lives; in all threads, so one at a time.
class ProductObserver {
 public:
  ProductObserver();
  ~ProductObserver();
  ProductObserver(const ProductObserver&) = delete;
  ProductObserver& operator=(const ProductObserver&) = delete;

  double flops() const;
  // Whether attention ran in a kernel of its own, which makes the scores again in the backward.
  bool has_fused_attention() const;

 private:
  at::CallbackHandle handle_;
};

}  // namespace autosp
