#include "compiler/weights/safetensors_reader.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "common/edit_distance.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

constexpr int64_t kLengthBytes = 8;

// The shards of a folder in a fixed order.
absl::StatusOr<std::vector<std::string>> ShardsOf(const std::string& folder) {
  std::vector<std::string> paths;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".safetensors") paths.push_back(entry.path().string());
  }
  if (error) return InvalidArgument("model.weights: ", folder, ": ", error.message());
  if (paths.empty()) {
    return InvalidArgument("model.weights: ", folder,
                           " has no .safetensors file; name the folder that has them");
  }
  std::ranges::sort(paths);
  return paths;
}

}  // namespace

absl::StatusOr<SafetensorsReader> SafetensorsReader::Open(const std::string& path) {
  SafetensorsReader reader;
  reader.path_ = path;
  std::vector<std::string> files = {path};
  std::error_code ignored;  // what is no folder is opened, and that names the error
  if (std::filesystem::is_directory(path, ignored)) {
    ASSIGN_OR_RETURN(files, ShardsOf(path));
  }
  for (const std::string& file : files) {
    RETURN_IF_ERROR(WithContext(reader.AddFile(file), "model.weights: ", file));
  }
  return reader;
}

absl::Status SafetensorsReader::AddFile(const std::string& path) {
  ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(path));
  const auto file_bytes = static_cast<int64_t>(mapped.size());
  uint64_t header_bytes = 0;
  if (file_bytes < kLengthBytes) {
    return InvalidArgument("has ", file_bytes, " bytes; it is no safetensors file");
  }
  std::memcpy(&header_bytes, mapped.data(), kLengthBytes);
  if (header_bytes > kMaxSafetensorsHeaderBytes) {
    return InvalidArgument("states a header of ", header_bytes, " bytes, above the limit of ",
                           kMaxSafetensorsHeaderBytes, "; it is no safetensors file");
  }
  const int64_t data_begin = kLengthBytes + static_cast<int64_t>(header_bytes);
  if (data_begin > file_bytes) {
    return InvalidArgument("has ", file_bytes, " bytes, fewer than its header of ", header_bytes,
                           "; it is truncated");
  }
  const absl::string_view json(reinterpret_cast<const char*>(mapped.data()) + kLengthBytes,
                               header_bytes);
  ASSIGN_OR_RETURN(SafetensorsHeader header, ParseSafetensorsHeader(json, file_bytes - data_begin));
  for (size_t i = 0; i < header.entries.size(); ++i) {
    const std::string& name = header.entries[i].name;
    const auto [place, is_new] = places_.insert({name, {.file = files_.size(), .entry = i}});
    if (!is_new) {
      return InvalidArgument(name, ": is in ", files_[place->second.file].mapped.path(), " too");
    }
  }
  files_.push_back({std::move(mapped), std::move(header), data_begin});
  return absl::OkStatus();
}

std::optional<SafetensorsReader::Tensor> SafetensorsReader::Lookup(const std::string& name) const {
  const auto place = places_.find(name);
  if (place == places_.end()) return std::nullopt;
  const File& file = files_[place->second.file];
  const SafetensorsEntry& entry = file.header.entries[place->second.entry];
  return Tensor{
      .entry = &entry,
      .path = &file.mapped.path(),
      .bytes = file.mapped.bytes().subspan(file.data_begin + entry.begin, entry.num_bytes())};
}

absl::StatusOr<SafetensorsReader::Tensor> SafetensorsReader::Find(const std::string& name) const {
  if (const std::optional<Tensor> tensor = Lookup(name)) return *tensor;
  return NotFound("weights ", path_, ": has no tensor ", name, SuggestName(name, Names()));
}

std::vector<std::string> SafetensorsReader::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, place] : places_) names.push_back(name);
  return names;
}

}  // namespace autosp
