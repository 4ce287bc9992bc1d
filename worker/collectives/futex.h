// Sleeping on a word of memory that may be shared between processes.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>

namespace autosp {

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t));

// Sleeps while `word` holds `expected`, for `timeout_ms` at most. May wake for no reason.
inline void FutexWait(std::atomic<uint32_t>& word, uint32_t expected, int64_t timeout_ms) {
  const timespec timeout = {.tv_sec = timeout_ms / 1000,
                            .tv_nsec = (timeout_ms % 1000) * 1'000'000};
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT, expected, &timeout, nullptr,
          0);
}

// Wakes all that sleep on `word`. Callable from a signal handler.
inline void FutexWakeAll(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace autosp
