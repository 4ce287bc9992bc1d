# Headers of others that nearly every source reads, compiled once per kind of target instead of once
# per source: parsing them is most of the time that a source takes. `-DAUTOSP_PRECOMPILE=OFF` builds
# without, and so does the release preset: there a source must include what it uses.
#
#   library     absl and the standard library
#   test        the same and gmock
#   torch_test  the same and ATen
#
# A compiler takes a precompiled header only under the flags that it was made with, so these are for
# targets without flags of their own; a library with libtorch includes little of it, and has none.

option(AUTOSP_PRECOMPILE "Precompile headers of absl, gmock and ATen" ON)

set(AUTOSP_LIBRARY_HEADERS
  <absl/container/flat_hash_map.h>
  <absl/status/status.h>
  <absl/status/statusor.h>
  <absl/strings/str_cat.h>
  <absl/strings/str_format.h>
  <absl/strings/str_join.h>
  <algorithm>
  <functional>
  <map>
  <memory>
  <optional>
  <set>
  <string>
  <vector>)
set(AUTOSP_TEST_HEADERS ${AUTOSP_LIBRARY_HEADERS} <gmock/gmock.h> <gtest/gtest.h>)
set(AUTOSP_TORCH_TEST_HEADERS ${AUTOSP_TEST_HEADERS} <ATen/ATen.h>)

# The target that holds one kind of header: of the type of its users, since code of libraries and of
# programs is made under different flags.
function(_autosp_add_precompiled kind)
  string(TOUPPER ${kind} upper)
  set(source ${PROJECT_BINARY_DIR}/precompiled/${kind}.cc)
  if(kind STREQUAL library)
    file(CONFIGURE OUTPUT ${source} CONTENT "")
    add_library(autosp_precompiled_${kind} OBJECT ${source})
  else()
    file(CONFIGURE OUTPUT ${source} CONTENT "int main() { return 0; }\n")
    add_executable(autosp_precompiled_${kind} ${source})
  endif()
  _autosp_configure(autosp_precompiled_${kind})
  target_link_libraries(autosp_precompiled_${kind} PRIVATE ${ARGN})
  target_precompile_headers(autosp_precompiled_${kind} PRIVATE ${AUTOSP_${upper}_HEADERS})
endfunction()

function(autosp_add_precompiled)
  set(absl absl::flat_hash_map absl::statusor absl::str_format absl::strings)
  _autosp_add_precompiled(library ${absl})
  if(BUILD_TESTING)
    _autosp_add_precompiled(test ${absl} GTest::gmock)
    if(AUTOSP_WITH_TORCH)
      _autosp_add_precompiled(torch_test ${absl} GTest::gmock torch::cpu)
    endif()
  endif()
endfunction()

# Notes on a target whether it links libtorch, itself or through DEPS that carry the note already.
function(_autosp_mark_torch target)
  set(links_torch FALSE)
  foreach(dep IN LISTS ARGN)
    if(dep MATCHES "^torch::")
      set(links_torch TRUE)
    elseif(TARGET ${dep} AND dep MATCHES "^autosp_")
      get_target_property(dep_links_torch ${dep} AUTOSP_LINKS_TORCH)
      if(dep_links_torch)
        set(links_torch TRUE)
      endif()
    endif()
  endforeach()
  set_target_properties(${target} PROPERTIES AUTOSP_LINKS_TORCH ${links_torch})
endfunction()

# KIND is library or test. HEADERS are what a large target has precompiled for itself instead.
function(_autosp_precompile target kind)
  if(NOT AUTOSP_PRECOMPILE)
    return()
  endif()
  get_target_property(links_torch ${target} AUTOSP_LINKS_TORCH)
  if(links_torch)
    set(kind torch_${kind})
  endif()
  if(ARGN)
    target_precompile_headers(${target} PRIVATE ${ARGN})
  elseif(TARGET autosp_precompiled_${kind})
    target_precompile_headers(${target} REUSE_FROM autosp_precompiled_${kind})
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND kind MATCHES "test$")
    # g++ 12 has false reports of a + of std::string, and tells headers of the system that were
    # precompiled from those that were not.
    target_compile_options(${target} PRIVATE
      -Wno-array-bounds -Wno-restrict -Wno-stringop-overflow -Wno-stringop-overread)
  endif()
endfunction()
