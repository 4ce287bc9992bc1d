# The few functions with which every folder declares its targets. Sources are listed, never globbed;
# DEPS are the dependency graph. All includes are from the root of the repository.
#
#   autosp_library(NAME autosp_common SRCS a.cc HDRS a.h DEPS absl::status [PRIVATE_DEPS ...]
#                  [PRECOMPILE <CLI/CLI.hpp> ...])
#   autosp_executable(NAME autosp-cli SRCS main.cc DEPS ...)
#   autosp_torch_executable(NAME autosp-rank SRCS main.cc DEPS ...)
#   autosp_test(NAME sha256_test SRCS sha256_test.cc DEPS autosp_common
#               [LABELS unit] [TIMEOUT 120] [SERIAL] [OWN_MAIN] [ARGS ...] [ENV A=b ...])
#   autosp_fuzzer(NAME yaml_fuzzer SRCS yaml_fuzzer.cc DEPS autosp_job_config [CORPUS corpus/yaml])
#   autosp_proto_library(NAME autosp_proto PROTOS autosp/v1/job.proto [GRPC] [DEPS ...])

if(AUTOSP_BUILD_FUZZERS)
  add_custom_target(fuzzers)
endif()

function(_autosp_configure target)
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR})
  target_compile_options(${target} PRIVATE ${AUTOSP_WARNINGS})
endfunction()

function(autosp_library)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;HDRS;DEPS;PRIVATE_DEPS;PRECOMPILE" ${ARGN})
  if(ARG_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "autosp_library(${ARG_NAME}): unknown ${ARG_UNPARSED_ARGUMENTS}")
  endif()
  if(ARG_SRCS)
    add_library(${ARG_NAME} STATIC ${ARG_SRCS} ${ARG_HDRS})
    _autosp_configure(${ARG_NAME})
    target_link_libraries(${ARG_NAME} PUBLIC ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
    _autosp_mark_torch(${ARG_NAME} ${ARG_DEPS} ${ARG_PRIVATE_DEPS})
    _autosp_precompile(${ARG_NAME} library ${ARG_PRECOMPILE})
  else()
    add_library(${ARG_NAME} INTERFACE)
    target_include_directories(${ARG_NAME} INTERFACE ${PROJECT_SOURCE_DIR})
    target_link_libraries(${ARG_NAME} INTERFACE ${ARG_DEPS})
    _autosp_mark_torch(${ARG_NAME} ${ARG_DEPS})
  endif()
endfunction()

function(_autosp_add_executable)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  if(ARG_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "autosp_executable(${ARG_NAME}): unknown ${ARG_UNPARSED_ARGUMENTS}")
  endif()
  add_executable(${ARG_NAME} ${ARG_SRCS})
  _autosp_configure(${ARG_NAME})
  target_link_libraries(${ARG_NAME} PRIVATE ${ARG_DEPS})
endfunction()

# What a person runs, without the tests: ./run demo and ./run bench need no more.
add_custom_target(binaries)

function(autosp_executable)
  _autosp_add_executable(${ARGN})
  cmake_parse_arguments(ARG "" "NAME" "" ${ARGN})
  add_dependencies(binaries ${ARG_NAME})
endfunction()

# A program with libtorch, whose threads the sanitizer for races does not know. Such a build takes
# the program from another one, so that those that are built for it find it beside them.
function(autosp_torch_executable)
  if(NOT AUTOSP_TORCH_BIN_DIR)
    autosp_executable(${ARGN})
    return()
  endif()
  cmake_parse_arguments(ARG "" "NAME" "" ${ARGN})
  add_custom_target(${ARG_NAME}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_RUNTIME_OUTPUT_DIRECTORY}
    COMMAND ${CMAKE_COMMAND} -E create_symlink
      ${AUTOSP_TORCH_BIN_DIR}/${ARG_NAME} ${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/${ARG_NAME}
    VERBATIM)
  add_dependencies(binaries ${ARG_NAME})
endfunction()

# Uses gmock's main, which also starts gtest, unless the test brings a main of its own (OWN_MAIN).
# SERIAL keeps other tests away while it runs, for those that measure time or fill the machine.
function(autosp_test)
  cmake_parse_arguments(ARG "OWN_MAIN;SERIAL" "NAME;TIMEOUT" "SRCS;DEPS;LABELS;ARGS;ENV" ${ARGN})
  if(ARG_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "autosp_test(${ARG_NAME}): unknown ${ARG_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(AUTOSP_SANITIZE)
    math(EXPR ARG_TIMEOUT "4 * ${ARG_TIMEOUT}")
  endif()
  set(main GTest::gmock_main)
  if(ARG_OWN_MAIN)
    set(main GTest::gmock)
  endif()
  _autosp_add_executable(NAME ${ARG_NAME} SRCS ${ARG_SRCS} DEPS ${ARG_DEPS} ${main})
  set_target_properties(${ARG_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  # Tests find checked-in data (goldens, fixtures) through this one definition.
  target_compile_definitions(${ARG_NAME} PRIVATE AUTOSP_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  _autosp_mark_torch(${ARG_NAME} ${ARG_DEPS})
  _autosp_precompile(${ARG_NAME} test)
  get_target_property(links_torch ${ARG_NAME} AUTOSP_LINKS_TORCH)
  if(links_torch)
    # Spinning OpenMP threads stand still on a machine that is busy with other tests, and take their
    # cores.
    list(APPEND ARG_ENV OMP_WAIT_POLICY=passive)
  endif()
  add_test(NAME ${ARG_NAME} COMMAND ${ARG_NAME} ${ARG_ARGS})
  set_tests_properties(${ARG_NAME} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT}
                                              RUN_SERIAL ${ARG_SERIAL} ENVIRONMENT "${ARG_ENV}")
endfunction()

# A fuzz target defines LLVMFuzzerTestOneInput. The fuzz preset builds it, with clang; any other
# preset only registers a test that runs what the fuzz preset built, so that one ctest covers all.
# CORPUS is a folder of seeds; what the fuzzer finds stays in the build folder.
function(autosp_fuzzer)
  cmake_parse_arguments(ARG "" "NAME;CORPUS" "SRCS;DEPS" ${ARGN})
  if(ARG_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "autosp_fuzzer(${ARG_NAME}): unknown ${ARG_UNPARSED_ARGUMENTS}")
  endif()
  set(build_dir ${AUTOSP_FUZZ_BUILD_DIR})
  if(AUTOSP_BUILD_FUZZERS)
    set(build_dir ${PROJECT_BINARY_DIR})
    _autosp_add_executable(NAME ${ARG_NAME} SRCS ${ARG_SRCS} DEPS ${ARG_DEPS})
    target_compile_options(${ARG_NAME} PRIVATE -fsanitize=fuzzer)
    target_link_options(${ARG_NAME} PRIVATE -fsanitize=fuzzer)
    set_target_properties(${ARG_NAME} PROPERTIES EXCLUDE_FROM_ALL ON)
    add_dependencies(fuzzers ${ARG_NAME})
  endif()
  if(build_dir)
    set(corpus "")
    if(ARG_CORPUS)
      set(corpus ${CMAKE_CURRENT_SOURCE_DIR}/${ARG_CORPUS})
    endif()
    add_test(NAME ${ARG_NAME}
      COMMAND ${PROJECT_SOURCE_DIR}/scripts/run_fuzzer.sh ${build_dir}/bin/${ARG_NAME} ${corpus})
    set_tests_properties(${ARG_NAME} PROPERTIES LABELS fuzz)
  endif()
endfunction()

# PROTOS are relative to the current folder, and so are the imports between them and the includes of
# the generated headers: proto/autosp/v1/job.proto becomes "autosp/v1/job.pb.h".
function(autosp_proto_library)
  cmake_parse_arguments(ARG "GRPC" "NAME" "PROTOS;DEPS" ${ARGN})
  if(ARG_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "autosp_proto_library(${ARG_NAME}): unknown ${ARG_UNPARSED_ARGUMENTS}")
  endif()
  find_program(AUTOSP_GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)
  set(out ${CMAKE_CURRENT_BINARY_DIR}/generated)
  file(MAKE_DIRECTORY ${out})
  set(generated "")
  foreach(proto IN LISTS ARG_PROTOS)
    string(REGEX REPLACE "\\.proto$" "" stem ${proto})
    set(outputs ${out}/${stem}.pb.cc ${out}/${stem}.pb.h)
    set(grpc_args "")
    if(ARG_GRPC)
      list(APPEND outputs ${out}/${stem}.grpc.pb.cc ${out}/${stem}.grpc.pb.h)
      set(grpc_args --grpc_out=${out}
                    --plugin=protoc-gen-grpc=${AUTOSP_GRPC_CPP_PLUGIN})
    endif()
    # A change in an imported file must regenerate its importers, hence DEPENDS on all of them.
    add_custom_command(OUTPUT ${outputs}
      COMMAND protobuf::protoc --cpp_out=${out} ${grpc_args} -I ${CMAKE_CURRENT_SOURCE_DIR} ${proto}
      WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR} DEPENDS ${ARG_PROTOS}
      COMMENT "Generating code from ${proto}" VERBATIM)
    list(APPEND generated ${outputs})
  endforeach()
  add_library(${ARG_NAME} STATIC ${generated})
  target_include_directories(${ARG_NAME} SYSTEM PUBLIC ${out})
  if(AUTOSP_SANITIZE MATCHES "thread")
    target_include_directories(${ARG_NAME} PUBLIC ${PROJECT_SOURCE_DIR}/cmake/tsan)
  endif()
  target_link_libraries(${ARG_NAME} PUBLIC protobuf::libprotobuf ${ARG_DEPS})
  if(ARG_GRPC)
    target_link_libraries(${ARG_NAME} PUBLIC gRPC::grpc++)
  endif()
endfunction()
