// Safetensors files for tests, made without the code that ranks write them with.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/file.h"
#include "compiler/weights/safetensors_header.h"
#include "gtest/gtest.h"

namespace autosp {

inline std::string FreshFolder(const std::string& name) {
  const std::string folder = JoinPath(testing::TempDir(), name);
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

struct ZeroTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape = {};
};

// All tensors of zeros, one after another.
inline std::string ZerosFile(const std::vector<ZeroTensor>& tensors) {
  SafetensorsHeader header;
  int64_t end = 0;
  for (const ZeroTensor& tensor : tensors) {
    const int64_t begin = end;
    end += TensorBytes(tensor.dtype, tensor.shape).value();
    header.entries.push_back({.name = tensor.name,
                              .dtype_name = std::string(SafetensorsDTypeName(tensor.dtype)),
                              .dtype = tensor.dtype,
                              .shape = tensor.shape,
                              .begin = begin,
                              .end = end});
  }
  const std::string json = FormatSafetensorsHeader(header);
  const uint64_t length = json.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + json +
         std::string(end, '\0');
}

inline absl::Status SaveZeros(const std::string& path, const std::vector<ZeroTensor>& tensors) {
  return WriteFileAtomically(path, ZerosFile(tensors));
}

}  // namespace autosp
