# CUDA's runtime, NCCL and libtorch's CUDA side from pinned wheels, as imported targets.
#
#   cuda::runtime  cudart and its headers
#   cuda::nccl     NCCL, whose header needs cudart's
#   torch::cuda    every CUDA operator, and the caching allocator
#
# Nothing here needs a GPU, nvcc or a driver. No version is named: what `./run setup --gpu`, or
# anybody else, has unpacked beside libtorch is what is used, so long as there is one of each.

function(_autosp_find_one variable pattern)
  file(GLOB found ${AUTOSP_LIBTORCH}/${pattern})
  list(LENGTH found count)
  if(NOT count EQUAL 1)
    message(FATAL_ERROR "AUTOSP_WITH_CUDA needs one file ${AUTOSP_LIBTORCH}/${pattern}; there are "
                        "${count}: run ./run setup --gpu, or configure without the gpu preset")
  endif()
  set(${variable} ${found} PARENT_SCOPE)
endfunction()

_autosp_find_one(cuda_header nvidia/cu[0-9]*/include/cuda_runtime_api.h)
_autosp_find_one(crt_header nvidia/cu[0-9]*/include/crt/host_defines.h)
_autosp_find_one(cudart nvidia/cu[0-9]*/lib/libcudart.so.[0-9]*)
_autosp_find_one(nccl_header nvidia/nccl/include/nccl.h)
_autosp_find_one(nccl nvidia/nccl/lib/libnccl.so.[0-9]*)
_autosp_find_one(torch_cuda torch/lib/libtorch_cuda.so)
_autosp_find_one(c10_cuda torch/lib/libc10_cuda.so)

cmake_path(GET cuda_header PARENT_PATH cuda_include)
cmake_path(GET nccl_header PARENT_PATH nccl_include)

add_library(cuda::runtime SHARED IMPORTED GLOBAL)
set_target_properties(cuda::runtime PROPERTIES
  IMPORTED_LOCATION ${cudart}
  INTERFACE_INCLUDE_DIRECTORIES ${cuda_include})

add_library(cuda::nccl SHARED IMPORTED GLOBAL)
set_target_properties(cuda::nccl PROPERTIES
  IMPORTED_LOCATION ${nccl}
  INTERFACE_INCLUDE_DIRECTORIES ${nccl_include}
  INTERFACE_LINK_LIBRARIES cuda::runtime)

add_library(torch::c10_cuda SHARED IMPORTED GLOBAL)
set_target_properties(torch::c10_cuda PROPERTIES
  IMPORTED_LOCATION ${c10_cuda}
  INTERFACE_LINK_LIBRARIES "torch::c10;cuda::runtime")

# Operators register themselves when the library is loaded, and no symbol of it is asked for: the
# linker must keep it all the same.
add_library(torch::cuda INTERFACE IMPORTED GLOBAL)
target_link_libraries(torch::cuda INTERFACE torch::cpu torch::c10_cuda
  -Wl,--push-state,--no-as-needed ${torch_cuda} -Wl,--pop-state)
target_link_options(torch::cuda INTERFACE -Wl,-rpath,${AUTOSP_TORCH_DIR}/lib)
