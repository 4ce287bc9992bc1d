// The one place that says which version this is; CMake reads it from here.

#pragma once

namespace autosp {

inline constexpr char kVersion[] = "0.1.0";

}  // namespace autosp
