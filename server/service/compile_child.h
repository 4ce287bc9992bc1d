// What the two sides of a compilation in a child process agree on; compile_process.h has the rest.
#pragma once

#include <cstdint>

namespace autosp {

// argv of the child: the program, this, the descriptors of the request and of the answer, and the
// process id of the coordinator.
inline constexpr char kCompileChildMode[] = "compile-child";
inline constexpr int kCompileChildArgc = 5;

inline constexpr int64_t kMaxCompileRequestBytes = 64 << 20;
inline constexpr int64_t kMaxCompileAnswerBytes = int64_t{1} << 30;

// How the child ends when memory past its limit is asked for, and past that of the coordinator,
// where that is less.
inline constexpr int kCompileChildOutOfMemory = 77;
inline constexpr int kCompileChildOutOfAllMemory = 78;

}  // namespace autosp
