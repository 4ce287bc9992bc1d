// Nodes of libtorch's autograd graph: where they are declared, and what owns them, has changed
// between the releases that ranks are built with.
#pragma once

#if __has_include(<torch/csrc/autograd/node.h>)
#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/autograd/node.h>
#else
#include <torch/csrc/autograd/function.h>

#include <memory>
#endif

namespace autosp {

#if __has_include(<torch/csrc/autograd/node.h>)
template <typename T>
using NodePtr = c10::intrusive_ptr<T>;
template <typename T>
NodePtr<T> MakeNode() {
  return c10::make_intrusive<T>();
}
#else
template <typename T>
using NodePtr = std::shared_ptr<T>;
template <typename T>
NodePtr<T> MakeNode() {
  return std::make_shared<T>();
}
#endif

}  // namespace autosp
