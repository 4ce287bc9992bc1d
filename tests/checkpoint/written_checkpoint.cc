#include "tests/checkpoint/written_checkpoint.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <utility>

#include "checkpoint/checkpoint_folder.h"
#include "checkpoint/safetensors_writer.h"
#include "common/check.h"
#include "common/file.h"
#include "common/sha256.h"

namespace autosp {
namespace {

int64_t Product(const std::vector<int64_t>& shape, size_t from = 0) {
  return std::accumulate(shape.begin() + static_cast<int64_t>(from), shape.end(), int64_t{1},
                         std::multiplies<>());
}

// Rows [begin, end) along `dim`.
std::vector<std::byte> BytesOf(const WholeTensor& tensor, size_t dim, int64_t begin, int64_t end) {
  if (tensor.shape.empty()) return tensor.bytes;
  const int64_t inner = Product(tensor.shape, dim + 1) * SizeOf(tensor.dtype);
  const int64_t outer_bytes = tensor.shape[dim] * inner;
  std::vector<std::byte> bytes;
  for (size_t outer = 0; outer < tensor.bytes.size(); outer += outer_bytes) {
    const auto from = tensor.bytes.begin() + static_cast<int64_t>(outer);
    bytes.insert(bytes.end(), from + begin * inner, from + end * inner);
  }
  return bytes;
}

struct Slices {
  std::vector<TensorSpec> specs;
  std::vector<std::vector<std::byte>> bytes;
};

// Adds the part of each file to `files`.
ManifestTensor Cut(const WholeTensor& tensor, size_t dim, std::vector<Slices>& files) {
  ManifestTensor cut{.name = tensor.name, .dtype = tensor.dtype, .shape = tensor.shape};
  const auto num_files = static_cast<int64_t>(files.size());
  for (int64_t file = 0; file < num_files; ++file) {
    TensorSlice slice{.file = file,
                      .offset = std::vector<int64_t>(tensor.shape.size(), 0),
                      .shape = tensor.shape};
    int64_t begin = 0;
    int64_t end = 0;
    if (!tensor.shape.empty()) {
      begin = tensor.shape[dim] * file / num_files;
      end = tensor.shape[dim] * (file + 1) / num_files;
      slice.offset[dim] = begin;
      slice.shape[dim] = end - begin;
    }
    const bool is_empty = tensor.shape.empty() ? file > 0 : begin == end;
    if (is_empty) continue;
    files[file].specs.push_back({.name = tensor.name, .dtype = tensor.dtype, .shape = slice.shape});
    files[file].bytes.push_back(BytesOf(tensor, dim, begin, end));
    cut.slices.push_back(std::move(slice));
  }
  return cut;
}

void WriteFile(const std::string& path, const Slices& slices) {
  auto writer = SafetensorsWriter::Create(path, slices.specs, {});
  AUTOSP_CHECK(writer.ok());
  for (const SafetensorsEntry& entry : writer->order()) {
    const auto spec = std::ranges::find(slices.specs, entry.name, &TensorSpec::name);
    AUTOSP_CHECK(writer->Append(entry.name, slices.bytes[spec - slices.specs.begin()]).ok());
  }
  AUTOSP_CHECK(writer->Commit().ok());
}

}  // namespace

WholeTensor F32Tensor(const std::string& name, std::vector<int64_t> shape, float first) {
  std::vector<float> values(Product(shape));
  std::iota(values.begin(), values.end(), first);
  WholeTensor tensor{.name = name, .dtype = DType::kF32, .shape = std::move(shape)};
  tensor.bytes.resize(values.size() * sizeof(float));
  std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
  return tensor;
}

CheckpointManifest WriteCheckpoint(const std::string& folder, int64_t num_files,
                                   const std::vector<WholeTensor>& tensors,
                                   CheckpointManifest manifest) {
  AUTOSP_CHECK(MakeDirectories(folder).ok());
  std::vector<Slices> files(num_files);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const size_t dim = i % std::max<size_t>(1, tensors[i].shape.size());
    manifest.tensors.push_back(Cut(tensors[i], dim, files));
  }
  std::ranges::sort(manifest.tensors, {}, &ManifestTensor::name);
  for (int64_t file = 0; file < num_files; ++file) {
    const std::string path = JoinPath(folder, ShardName(file));
    WriteFile(path, files[file]);
    manifest.files.push_back(
        {.name = ShardName(file), .size_bytes = *FileSize(path), .sha256 = *Sha256HexOfFile(path)});
  }
  AUTOSP_CHECK(WriteFileAtomically(JoinPath(folder, kManifestName), FormatManifest(manifest)).ok());
  return manifest;
}

}  // namespace autosp
