#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "common/errors.h"
#include "worker/gpu/torch_gpu.h"

namespace autosp {

absl::StatusOr<int> ParseCudaDevice(const std::string& name) {
  absl::string_view number = name;
  int index = 0;
  if (absl::ConsumePrefix(&number, "cuda:") && absl::SimpleAtoi(number, &index) && index >= 0 &&
      index < 128) {
    return index;
  }
  return InvalidArgument("device '", name, "' is neither cpu nor a GPU such as cuda:0");
}

}  // namespace autosp
