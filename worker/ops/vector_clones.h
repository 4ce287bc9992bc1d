// Compiles a function for several vector widths; the widest that the processor has is chosen at
// load.
//
// The file that uses it is compiled with -O3 and the options of AUTOSP_KERNEL_OPTIONS. What the
// function calls must be inlined into it, else it stays narrow.
#pragma once

// The chooser runs before a sanitizer is ready.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define AUTOSP_VECTOR_CLONES \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define AUTOSP_VECTOR_CLONES
#endif
#define AUTOSP_INLINE inline __attribute__((always_inline))
