# Compiler, linker and cache settings that every target shares.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Build type" FORCE)
endif()
# -g1 keeps function names and lines for backtraces at a fifth of the size of -g. NDEBUG as in the
# libraries that we link; our own CHECK does not depend on it.
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1 -DNDEBUG")
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g1")

# A cache takes precompiled headers for what they were made from only where it is told that it may.
find_program(AUTOSP_CCACHE ccache)
if(AUTOSP_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${AUTOSP_CCACHE})
endif()

# The default linker takes seconds for a binary that links gRPC; lld takes a fraction of that.
find_program(AUTOSP_LLD NAMES ld.lld)
if(AUTOSP_LLD)
  add_link_options(-fuse-ld=lld)
endif()

add_compile_options(-fdiagnostics-color=auto)

# What gRPC, gtest and libtorch ask of those who include them, for all: precompiled headers are of
# use to sources that are compiled under the same flags only.
add_compile_options(-pthread)
add_compile_definitions(_GLIBCXX_USE_CXX11_ABI=1)

if(AUTOSP_SANITIZE)
  add_compile_options(-fsanitize=${AUTOSP_SANITIZE} -fno-omit-frame-pointer)
  if(AUTOSP_SANITIZE MATCHES "undefined")
    add_compile_options(-fno-sanitize-recover=undefined)
  endif()
  add_link_options(-fsanitize=${AUTOSP_SANITIZE})
  if(AUTOSP_SANITIZE MATCHES "address,undefined" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # As shared libraries they take each other's functions for the path of reports, and what is
    # undefined goes to stderr only, where no test may look; scripts/sanitize.sh counts files.
    add_link_options(-static-libasan -static-libubsan)
  endif()
  if(AUTOSP_SANITIZE MATCHES "thread")
    add_link_options(-Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/tsan/std_is_local.map)
  endif()
endif()

# Coverage of the code under test is what steers a fuzzer, so the libraries are instrumented too.
if(AUTOSP_BUILD_FUZZERS)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "AUTOSP_BUILD_FUZZERS needs clang, which has libFuzzer: use --preset fuzz")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# Our own targets ask for these through autosp_library and friends; generated code does not.
set(AUTOSP_WARNINGS -Wall -Wextra)
if(AUTOSP_WERROR)
  list(APPEND AUTOSP_WARNINGS -Werror)
endif()
if(AUTOSP_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ 12 reports false positives once the sanitizers have added their branches.
  list(APPEND AUTOSP_WARNINGS -Wno-maybe-uninitialized)
endif()
