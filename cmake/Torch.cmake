# libtorch from the pinned PyPI wheel, as imported targets.
#
#   torch::c10   tensors' foundation: dispatcher keys, allocator, types
#   torch::cpu   c10 and every CPU operator, autograd included
#
# find_package(Torch) is of no use here: on a CUDA wheel it fails without a CUDA toolkit. The
# targets carry torch's include directory, which also holds headers of protobuf: keep them out of
# targets that include generated protobuf code.

set(AUTOSP_DEPS "$ENV{AUTOSP_DEPS}" CACHE PATH "Where ./run setup unpacked the pinned wheels")
if(NOT AUTOSP_DEPS)
  set(AUTOSP_DEPS ${PROJECT_SOURCE_DIR}/.deps CACHE PATH "" FORCE)
endif()
set(AUTOSP_LIBTORCH ${AUTOSP_DEPS}/libtorch)
set(AUTOSP_TORCH_DIR ${AUTOSP_LIBTORCH}/torch)

if(NOT EXISTS ${AUTOSP_TORCH_DIR}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "libtorch is not in ${AUTOSP_LIBTORCH}: run ./run setup, or configure with "
                      "-DAUTOSP_WITH_TORCH=OFF to leave the ranks out")
endif()

add_library(torch::c10 SHARED IMPORTED GLOBAL)
set_target_properties(torch::c10 PROPERTIES
  IMPORTED_LOCATION ${AUTOSP_TORCH_DIR}/lib/libc10.so
  INTERFACE_INCLUDE_DIRECTORIES
    "${AUTOSP_TORCH_DIR}/include;${AUTOSP_TORCH_DIR}/include/torch/csrc/api/include")

add_library(torch::cpu SHARED IMPORTED GLOBAL)
set_target_properties(torch::cpu PROPERTIES
  IMPORTED_LOCATION ${AUTOSP_TORCH_DIR}/lib/libtorch_cpu.so
  INTERFACE_LINK_LIBRARIES torch::c10)

# libtorch_cpu.so asks for libcudart and libcupti even where there is no GPU. Its own rpath does not
# reach them at link time, so the linker is told where they are. The folder is named after CUDA's
# version, which the wheels choose.
file(GLOB AUTOSP_CUDA_DIR ${AUTOSP_LIBTORCH}/nvidia/cu[0-9]*)
target_link_options(torch::cpu INTERFACE
  -Wl,-rpath-link,${AUTOSP_TORCH_DIR}/lib -Wl,-rpath-link,${AUTOSP_CUDA_DIR}/lib
  -Wl,--allow-shlib-undefined)
