#include "worker/executor/torch_types.h"

#include <c10/util/Exception.h>

#include <exception>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/errors.h"

namespace autosp {

at::ScalarType ToScalarType(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return at::ScalarType::Bool;
    case DType::kU8:
      return at::ScalarType::Byte;
    case DType::kI8:
      return at::ScalarType::Char;
    case DType::kI16:
      return at::ScalarType::Short;
    case DType::kI32:
      return at::ScalarType::Int;
    case DType::kI64:
      return at::ScalarType::Long;
    case DType::kF16:
      return at::ScalarType::Half;
    case DType::kBF16:
      return at::ScalarType::BFloat16;
    case DType::kF32:
      return at::ScalarType::Float;
    case DType::kF64:
      return at::ScalarType::Double;
  }
  return at::ScalarType::Undefined;
}

absl::StatusOr<DType> FromScalarType(at::ScalarType type) {
  switch (type) {
    case at::ScalarType::Bool:
      return DType::kBool;
    case at::ScalarType::Byte:
      return DType::kU8;
    case at::ScalarType::Char:
      return DType::kI8;
    case at::ScalarType::Short:
      return DType::kI16;
    case at::ScalarType::Int:
      return DType::kI32;
    case at::ScalarType::Long:
      return DType::kI64;
    case at::ScalarType::Half:
      return DType::kF16;
    case at::ScalarType::BFloat16:
      return DType::kBF16;
    case at::ScalarType::Float:
      return DType::kF32;
    case at::ScalarType::Double:
      return DType::kF64;
    default:
      return InvalidArgument("dtype ", c10::toString(type), " has no counterpart in a program");
  }
}

namespace {

std::string FirstLine(std::string message) {
  message.resize(std::min(message.find('\n'), message.size()));
  return message.empty() ? std::string("libtorch failed without a message") : message;
}

absl::Status FromMessage(std::string message) { return Internal(FirstLine(std::move(message))); }

}  // namespace

absl::Status CatchTorch(absl::FunctionRef<absl::Status()> body) {
  try {
    return body();
  } catch (const c10::OutOfMemoryError& error) {
    return ResourceExhausted(FirstLine(error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    return FromMessage(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return FromMessage(error.what());
  }
}

}  // namespace autosp
