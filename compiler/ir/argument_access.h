// Typed reads from the argument list of a node or an instruction. A missing argument, None, and one
// of another kind read alike: as absent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compiler/ir/argument.h"

namespace autosp {

template <typename T>
const T* ArgumentAs(const std::vector<Argument>& args, size_t index) {
  return index < args.size() ? std::get_if<T>(&args[index]) : nullptr;
}

inline const Argument& ArgumentAt(const std::vector<Argument>& args, size_t index) {
  static const Argument& none = *new Argument(None{});
  return index < args.size() ? args[index] : none;
}

// Invalid where absent.
inline ValueId TensorArgument(const std::vector<Argument>& args, size_t index) {
  const auto* id = ArgumentAs<ValueId>(args, index);
  return id ? *id : ValueId{};
}

// Booleans count as 0 and 1, as ATen takes them.
inline std::optional<int64_t> IntegerArgument(const std::vector<Argument>& args, size_t index) {
  if (const auto* value = ArgumentAs<SymInt>(args, index)) return value->value;
  if (const auto* value = ArgumentAs<bool>(args, index)) return *value ? 1 : 0;
  return std::nullopt;
}

inline std::optional<double> NumberArgument(const std::vector<Argument>& args, size_t index) {
  if (const auto* value = ArgumentAs<double>(args, index)) return *value;
  if (const auto* value = ArgumentAs<SymInt>(args, index)) return static_cast<double>(value->value);
  return std::nullopt;
}

inline std::optional<bool> FlagArgument(const std::vector<Argument>& args, size_t index) {
  if (const auto* value = ArgumentAs<bool>(args, index)) return *value;
  if (const auto* value = ArgumentAs<SymInt>(args, index)) return value->value != 0;
  return std::nullopt;
}

}  // namespace autosp
