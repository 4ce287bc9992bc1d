#include "checkpoint/manifest.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/sha256.h"
#include "common/status_macros.h"
#include "compiler/weights/safetensors_header.h"

namespace autosp {
namespace {

using Json = nlohmann::json;

constexpr int64_t kVersion = 1;
// Far above anything real, and far enough from overflow.
constexpr int64_t kMaxStep = int64_t{1} << 50;
constexpr int64_t kMaxAxis = int64_t{1} << 16;
constexpr size_t kMaxItems = 1 << 20;
constexpr size_t kMaxTextBytes = 1 << 16;
constexpr size_t kMaxFileNameBytes = 255;

// Names come from models and paths, which need not be UTF-8.
std::string Dump(const Json& json) {
  return json.dump(/*indent=*/-1, ' ', false, Json::error_handler_t::replace);
}

// Reads members of one JSON object. The first thing that is not as it must be is kept as the error,
// and everything after it reads as empty.
class ObjectReader {
 public:
  ObjectReader(const Json& json, std::string where, absl::Status& status)
      : json_(json), where_(std::move(where)), status_(status) {
    if (!json.is_object()) Fail("is no table");
  }

  int64_t Int(const char* key, int64_t min, int64_t max) {
    return IntFrom(Find(key), key, min, max);
  }

  std::vector<int64_t> Ints(const char* key) {
    std::vector<int64_t> values;
    for (const Json& item : List(key, kMaxTensorDims)) {
      values.push_back(IntFrom(item, key, 0, INT64_MAX));
    }
    return values;
  }

  std::string Text(const char* key) { return TextFrom(Find(key), key); }

  DType Type(const char* key) {
    const std::optional<DType> dtype = DTypeFromName(Text(key));
    if (!dtype.has_value()) Fail(absl::StrCat("its ", key, " is unknown"));
    return dtype.value_or(DType::kF32);
  }

  const Json& List(const char* key, size_t max_items) {
    static const Json* const kEmpty = new Json(Json::array());
    const Json& list = Find(key);
    if (!list.is_array() || list.size() > max_items) {
      Fail(absl::StrCat(key, " is no list of at most ", max_items));
      return *kEmpty;
    }
    return list;
  }

  std::map<std::string, std::string> Texts(const char* key) {
    std::map<std::string, std::string> texts;
    const Json& table = Find(key);
    if (!table.is_object()) Fail(absl::StrCat(key, " is no table"));
    if (!status_.ok()) return texts;
    for (const auto& [name, text] : table.items()) texts[name] = TextFrom(text, key);
    return texts;
  }

  void Fail(absl::string_view what) {
    if (status_.ok()) status_ = InvalidArgument(where_, ": ", what);
  }

 private:
  const Json& Find(const char* key) {
    static const Json* const kNull = new Json(nullptr);
    const auto found = json_.find(key);
    if (json_.is_object() && found != json_.end()) return *found;
    Fail(absl::StrCat(key, " is missing"));
    return *kNull;
  }

  int64_t IntFrom(const Json& json, const char* key, int64_t min, int64_t max) {
    const bool is_signed = json.is_number_integer() && !json.is_number_unsigned();
    const bool is_small =
        json.is_number_unsigned() && json.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
    const int64_t value = is_signed || is_small ? json.get<int64_t>() : -1;
    if (!(is_signed || is_small) || value < min || value > max) {
      Fail(absl::StrCat(key, " is no number from ", min, " to ", max));
      return min;
    }
    return value;
  }

  std::string TextFrom(const Json& json, const char* key) {
    if (json.is_string() && json.get_ref<const std::string&>().size() <= kMaxTextBytes) {
      return json.get<std::string>();
    }
    Fail(absl::StrCat(key, " is no text of at most ", kMaxTextBytes, " bytes"));
    return "";
  }

  const Json& json_;
  const std::string where_;
  absl::Status& status_;
};

// A name that stays inside the folder and is no hidden file.
bool IsPlainName(absl::string_view name) {
  return !name.empty() && name.size() <= kMaxFileNameBytes && name[0] != '.' &&
         name.find('/') == absl::string_view::npos && name.find('\0') == absl::string_view::npos;
}

Json FileToJson(const ManifestFile& file) {
  return {{"name", file.name}, {"size_bytes", file.size_bytes}, {"sha256", file.sha256}};
}

ManifestFile FileFrom(const Json& json, absl::Status& status) {
  ObjectReader reader(json, "files", status);
  ManifestFile file;
  file.name = reader.Text("name");
  file.size_bytes = reader.Int("size_bytes", 0, INT64_MAX);
  file.sha256 = reader.Text("sha256");
  if (!IsPlainName(file.name)) reader.Fail("a name is not that of a file in the folder");
  if (!IsSha256Hex(file.sha256)) reader.Fail(absl::StrCat(file.name, " has no sha256"));
  return file;
}

Json TensorToJson(const ManifestTensor& tensor) {
  Json slices = Json::array();
  for (const TensorSlice& slice : tensor.slices) {
    slices.push_back({{"file", slice.file}, {"offset", slice.offset}, {"shape", slice.shape}});
  }
  return {{"name", tensor.name},
          {"dtype", DTypeName(tensor.dtype)},
          {"shape", tensor.shape},
          {"slices", std::move(slices)}};
}

ManifestTensor TensorFrom(const Json& json, size_t num_files, absl::Status& status) {
  ManifestTensor tensor;
  ObjectReader names(json, "tensors", status);
  tensor.name = names.Text("name");
  ObjectReader reader(json, absl::StrCat("tensor ", tensor.name), status);
  tensor.dtype = reader.Type("dtype");
  tensor.shape = reader.Ints("shape");
  for (const Json& item : reader.List("slices", kMaxItems)) {
    ObjectReader slice(item, absl::StrCat("tensor ", tensor.name, ": slices"), status);
    tensor.slices.push_back({.file = slice.Int("file", 0, static_cast<int64_t>(num_files) - 1),
                             .offset = slice.Ints("offset"),
                             .shape = slice.Ints("shape")});
  }
  return tensor;
}

Json EntryToJson(const StateDictEntry& entry) {
  return {{"name", entry.name},
          {"dtype", DTypeName(entry.dtype)},
          {"shape", entry.shape},
          {"parameter", entry.parameter},
          {"master", entry.master}};
}

StateDictEntry EntryFrom(const Json& json, absl::Status& status) {
  StateDictEntry entry;
  ObjectReader names(json, "state_dict", status);
  entry.name = names.Text("name");
  ObjectReader reader(json, absl::StrCat("state_dict ", entry.name), status);
  entry.dtype = reader.Type("dtype");
  entry.shape = reader.Ints("shape");
  entry.parameter = reader.Text("parameter");
  entry.master = reader.Text("master");
  return entry;
}

bool IsInside(const TensorSlice& slice, const std::vector<int64_t>& shape) {
  if (slice.offset.size() != shape.size() || slice.shape.size() != shape.size()) return false;
  for (size_t dim = 0; dim < shape.size(); ++dim) {
    const int64_t room = shape[dim] - slice.offset[dim];
    if (room < 0 || slice.shape[dim] > room) return false;
  }
  return true;
}

bool Overlap(const TensorSlice& a, const TensorSlice& b) {
  for (size_t dim = 0; dim < a.shape.size(); ++dim) {
    const int64_t begin = std::max(a.offset[dim], b.offset[dim]);
    const int64_t end = std::min(a.offset[dim] + a.shape[dim], b.offset[dim] + b.shape[dim]);
    if (begin >= end) return false;
  }
  return true;
}

// Boxes that lie inside, do not overlap, and together have as many elements, are the tensor.
absl::Status CheckSlices(const ManifestTensor& tensor) {
  const std::optional<int64_t> wanted = TensorBytes(tensor.dtype, tensor.shape);
  if (!wanted.has_value()) return InvalidArgument("its size overflows");
  std::vector<TensorSlice> slices = tensor.slices;
  std::ranges::sort(slices, {}, &TensorSlice::offset);
  int64_t bytes = 0;
  std::set<int64_t> files;
  for (size_t i = 0; i < slices.size(); ++i) {
    const TensorSlice& slice = slices[i];
    if (!IsInside(slice, tensor.shape)) return InvalidArgument("a slice is not inside of it");
    // A file has one tensor of a name.
    if (!files.insert(slice.file).second) return InvalidArgument("two slices are in one file");
    bytes += *TensorBytes(tensor.dtype, slice.shape);
    if (bytes > *wanted) return InvalidArgument("its slices are larger than it");
    if (tensor.shape.empty()) continue;
    // Sorted by their first dimension, only near ones can overlap.
    for (size_t j = i + 1; j < slices.size(); ++j) {
      if (slices[j].offset[0] >= slice.offset[0] + slice.shape[0]) break;
      if (!IsInside(slices[j], tensor.shape)) break;  // Refused when it is its turn.
      if (Overlap(slice, slices[j])) return InvalidArgument("two slices overlap");
    }
  }
  if (bytes == *wanted) return absl::OkStatus();
  return InvalidArgument("its slices have ", bytes, " of ", *wanted, " bytes");
}

// `name` is empty, or that of a tensor that can be the entry's value.
absl::Status CheckSource(const CheckpointManifest& manifest, const StateDictEntry& entry,
                         const std::string& name) {
  if (name.empty()) return absl::OkStatus();
  const ManifestTensor* tensor = manifest.Find(name);
  if (tensor == nullptr) {
    return InvalidArgument("its value is ", name, ", which is no tensor of the checkpoint");
  }
  if (CanConvert(tensor->dtype, entry.dtype) && tensor->shape == entry.shape)
    return absl::OkStatus();
  return InvalidArgument("its value is ", name, ", which has another shape or kind of type");
}

// Requires: the tensors are in the order of names.
absl::Status CheckStateDict(const CheckpointManifest& manifest) {
  std::set<absl::string_view> names;
  for (const StateDictEntry& entry : manifest.state_dict) {
    if (entry.name.empty() || entry.name == kSafetensorsMetadataKey) {
      return InvalidArgument("state_dict: '", entry.name, "' is no name of a weight");
    }
    if (!names.insert(entry.name).second) {
      return InvalidArgument("state_dict ", entry.name, ": twice");
    }
    const bool has_size = TensorBytes(entry.dtype, entry.shape).has_value();
    if (!has_size) return InvalidArgument("state_dict ", entry.name, ": its size overflows");
    for (const std::string& source : {entry.parameter, entry.master}) {
      RETURN_IF_ERROR(WithContext(CheckSource(manifest, entry, source), "state_dict ", entry.name));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckManifest(const CheckpointManifest& manifest) {
  std::set<std::string> files;
  for (const ManifestFile& file : manifest.files) {
    if (!files.insert(file.name).second) return InvalidArgument("file ", file.name, ": twice");
  }
  for (size_t i = 0; i < manifest.tensors.size(); ++i) {
    const ManifestTensor& tensor = manifest.tensors[i];
    if (i > 0 && tensor.name <= manifest.tensors[i - 1].name) {
      return InvalidArgument("tensor ", tensor.name, ": is not in the order of names");
    }
    RETURN_IF_ERROR(WithContext(CheckSlices(tensor), "tensor ", tensor.name));
  }
  return CheckStateDict(manifest);
}

Json BodyToJson(const CheckpointManifest& manifest) {
  Json files = Json::array();
  for (const ManifestFile& file : manifest.files) files.push_back(FileToJson(file));
  Json tensors = Json::array();
  for (const ManifestTensor& tensor : manifest.tensors) tensors.push_back(TensorToJson(tensor));
  Json state_dict = Json::array();
  for (const StateDictEntry& entry : manifest.state_dict) state_dict.push_back(EntryToJson(entry));
  return {{"version", kVersion},
          {"job_id", manifest.job_id},
          {"generation", manifest.generation},
          {"plan_digest", manifest.plan_digest},
          {"mesh",
           {{"accum", manifest.mesh.accum},
            {"dp", manifest.mesh.dp},
            {"ring", manifest.mesh.ring},
            {"ulysses", manifest.mesh.ulysses}}},
          {"step", manifest.step},
          {"num_sequences", manifest.num_sequences},
          {"settings", manifest.settings},
          {"files", std::move(files)},
          {"tensors", std::move(tensors)},
          {"state_dict", std::move(state_dict)}};
}

Mesh MeshFrom(const Json& body, absl::Status& status) {
  static const Json* const kNone = new Json(nullptr);
  const auto found = body.find("mesh");
  ObjectReader reader(found == body.end() ? *kNone : *found, "mesh", status);
  return {.accum = reader.Int("accum", 1, kMaxStep),
          .dp = reader.Int("dp", 1, kMaxAxis),
          .ring = reader.Int("ring", 1, kMaxAxis),
          .ulysses = reader.Int("ulysses", 1, kMaxAxis)};
}

absl::StatusOr<CheckpointManifest> BodyFrom(const Json& body) {
  absl::Status status;
  CheckpointManifest manifest;
  ObjectReader reader(body, "manifest", status);
  reader.Int("version", kVersion, kVersion);
  manifest.job_id = reader.Text("job_id");
  manifest.generation = reader.Int("generation", 0, kMaxStep);
  manifest.plan_digest = reader.Text("plan_digest");
  manifest.mesh = MeshFrom(body, status);
  manifest.step = reader.Int("step", 0, kMaxStep);
  manifest.num_sequences = reader.Int("num_sequences", 0, INT64_MAX);
  manifest.settings = reader.Texts("settings");
  for (const Json& file : reader.List("files", kMaxItems)) {
    manifest.files.push_back(FileFrom(file, status));
  }
  for (const Json& tensor : reader.List("tensors", kMaxItems)) {
    manifest.tensors.push_back(TensorFrom(tensor, manifest.files.size(), status));
    RETURN_IF_ERROR(status);
  }
  if (body.contains("state_dict")) {
    for (const Json& entry : reader.List("state_dict", kMaxItems)) {
      manifest.state_dict.push_back(EntryFrom(entry, status));
    }
  }
  RETURN_IF_ERROR(status);
  RETURN_IF_ERROR(CheckManifest(manifest));
  return manifest;
}

}  // namespace

const ManifestTensor* CheckpointManifest::Find(absl::string_view name) const {
  const auto found = std::ranges::lower_bound(tensors, name, {}, &ManifestTensor::name);
  return found != tensors.end() && found->name == name ? &*found : nullptr;
}

std::string FormatManifest(const CheckpointManifest& manifest) {
  // That of many ranks has hundreds of megabytes: no second copy of it, and no white space.
  const std::string body = Dump(BodyToJson(manifest));
  return absl::StrCat(R"({"manifest":)", body, R"(,"sha256":")", Sha256Hex(body), "\"}\n");
}

absl::StatusOr<CheckpointManifest> ParseManifest(absl::string_view text) {
  const Json whole = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!whole.is_object() || !whole.contains("manifest") || !whole.contains("sha256")) {
    return DataLoss("the manifest is cut off or no manifest");
  }
  if (whole["sha256"] != Sha256Hex(Dump(whole["manifest"]))) {
    return DataLoss("the manifest is damaged: its sum is not that of its content");
  }
  return BodyFrom(whole["manifest"]);
}

}  // namespace autosp
