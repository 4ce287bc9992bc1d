#include "client/model_export.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "checkpoint/checkpoint_folder.h"
#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/convert_floats.h"
#include "client/partial_folder.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "compiler/weights/safetensors_reader.h"

namespace autosp {
namespace {

constexpr int64_t kPieceBytes = int64_t{16} << 20;
constexpr int64_t kMaxCompanionBytes = int64_t{1} << 28;
constexpr size_t kMaxNamed = 3;

// Where the values of a name of the state dict come from.
struct Source {
  const ManifestTensor* tensor = nullptr;  // of the checkpoint; null: `bytes`
  absl::Span<const std::byte> bytes = {};  // of the whole tensor
  DType dtype = DType::kF32;
};

bool IsConverted(DType from, DType to) { return from != to && IsFloating(from) && IsFloating(to); }

// Rows [begin, begin + count) of a tensor; a scalar is its one row.
TensorBox RowsOf(const std::vector<int64_t>& shape, int64_t begin, int64_t count) {
  TensorBox box{.offset = std::vector<int64_t>(shape.size(), 0), .shape = shape};
  if (shape.empty()) return box;
  box.offset[0] = begin;
  box.shape[0] = count;
  return box;
}

class Exporter {
 public:
  explicit Exporter(const ModelExportOptions& options) : options_(options) {}

  absl::StatusOr<ExportedModel> Run() {
    RETURN_IF_ERROR(CheckReplaceable(options_.output_dir, options_.overwrite));
    ASSIGN_OR_RETURN(CheckpointManifest manifest, Choose());
    model_.step = manifest.step;
    ASSIGN_OR_RETURN(CheckpointReader reader,
                     CheckpointReader::Open(model_.checkpoint, std::move(manifest)), "checkpoint ",
                     model_.checkpoint);
    reader_ = std::make_unique<CheckpointReader>(std::move(reader));
    RETURN_IF_ERROR(FindSources());
    RETURN_IF_ERROR(Write());
    return std::move(model_);
  }

 private:
  // The newest checkpoint that is whole. One that was named itself must be.
  absl::StatusOr<CheckpointManifest> Choose() {
    const std::string& path = options_.checkpoint;
    ASSIGN_OR_RETURN(const std::vector<std::string> found, ListCheckpoints(path));
    for (const std::string& checkpoint : found) {
      absl::StatusOr<CheckpointManifest> manifest = ReadWhole(checkpoint);
      if (manifest.ok()) {
        model_.checkpoint = checkpoint;
        return manifest;
      }
      const bool is_cancelled = absl::IsCancelled(manifest.status());
      if (checkpoint == path || is_cancelled) return manifest.status();
      model_.skipped.push_back(absl::StrCat(checkpoint, ": ", manifest.status().message()));
    }
    if (model_.skipped.empty()) {
      return NotFound(path,
                      " has no checkpoint; name one, as in checkpoints/step-00000040, or the "
                      "folder that has them");
    }
    return DataLoss(path, " has no whole checkpoint; ", absl::StrJoin(model_.skipped, "; "));
  }

  absl::StatusOr<CheckpointManifest> ReadWhole(const std::string& checkpoint) const {
    ASSIGN_OR_RETURN(CheckpointManifest manifest, ReadManifest(checkpoint));
    if (manifest.state_dict.empty()) {
      return FailedPrecondition(checkpoint,
                                ": its manifest does not say what the weights of the model are; an "
                                "older version has written it, so go on from it for a step");
    }
    int64_t total = 0;
    for (const ManifestFile& file : manifest.files) total += file.size_bytes;
    int64_t done = 0;
    for (const ManifestFile& file : manifest.files) {
      RETURN_IF_ERROR(CheckFile(checkpoint, file, [&](int64_t num_bytes) {
        return options_.on_progress("checking", done += num_bytes, total);
      }));
    }
    return manifest;
  }

  DType WantedType(const StateDictEntry& entry) const {
    return options_.dtype && IsFloating(entry.dtype) ? *options_.dtype : entry.dtype;
  }

  absl::Status FindSources() {
    std::vector<TensorSpec> missing;
    for (const StateDictEntry& entry : reader_->manifest().state_dict) {
      specs_.push_back({.name = entry.name, .dtype = WantedType(entry), .shape = entry.shape});
      if (entry.parameter.empty()) {
        missing.push_back(specs_.back());
        continue;
      }
      Source source;
      ASSIGN_OR_RETURN(source.tensor, reader_->Find(entry.parameter));
      if (!entry.master.empty() && source.tensor->dtype != specs_.back().dtype) {
        ASSIGN_OR_RETURN(source.tensor, reader_->Find(entry.master));
      }
      source.dtype = source.tensor->dtype;
      sources_[entry.name] = source;
    }
    if (missing.empty()) return absl::OkStatus();
    return options_.weights.empty() ? RefuseMissing(missing) : FindMissing(missing);
  }

  absl::Status RefuseMissing(const std::vector<TensorSpec>& missing) const {
    std::vector<std::string> names;
    for (size_t i = 0; i < std::min(missing.size(), kMaxNamed); ++i) {
      names.push_back(missing[i].name);
    }
    return InvalidArgument(
        "checkpoint ", model_.checkpoint, ": has no value of ", missing.size(),
        missing.size() == 1 ? " weight" : " weights", " of the model, which no step changes (",
        absl::StrJoin(names, ", "), missing.size() > kMaxNamed ? ", ..." : "",
        "); name safetensors with them by --weights, as those that the job began with");
  }

  // Among the weights that the job began with.
  absl::Status FindMissing(const std::vector<TensorSpec>& missing) {
    ASSIGN_OR_RETURN(SafetensorsReader reader, SafetensorsReader::Open(options_.weights),
                     "--weights");
    weights_ = std::make_unique<SafetensorsReader>(std::move(reader));
    for (const TensorSpec& spec : missing) {
      ASSIGN_OR_RETURN(const SafetensorsReader::Tensor found, weights_->Find(spec.name),
                       "--weights");
      const SafetensorsEntry& entry = *found.entry;
      const bool fits =
          entry.dtype && entry.shape == spec.shape && CanConvert(*entry.dtype, spec.dtype);
      if (!fits) {
        return InvalidArgument("--weights: ", *found.path, ": ", spec.name, " is ",
                               entry.dtype_name, " [", absl::StrJoin(entry.shape, ", "),
                               "], the model's is ", SafetensorsDTypeName(spec.dtype), " [",
                               absl::StrJoin(spec.shape, ", "), "]");
      }
      sources_[spec.name] = {.tensor = nullptr, .bytes = found.bytes, .dtype = *entry.dtype};
    }
    return absl::OkStatus();
  }

  absl::Status Write() {
    ASSIGN_OR_RETURN(const std::vector<ModelShard> shards,
                     LayOutModel(specs_, options_.max_shard_bytes));
    model_.num_tensors = static_cast<int64_t>(specs_.size());
    for (const TensorSpec& spec : specs_) {
      model_.num_bytes += *TensorBytes(spec.dtype, spec.shape);
      if (IsFloating(spec.dtype)) model_.floating_types.insert(spec.dtype);
    }

    ASSIGN_OR_RETURN(PartialFolder folder, PartialFolder::Create(options_.output_dir));
    ASSIGN_OR_RETURN(model_.files, WriteModelFiles(folder.path(), shards,
                                                   [this](const SafetensorsEntry& tensor,
                                                          SafetensorsWriter& writer) {
                                                     return Append(tensor, writer);
                                                   }));
    for (const CompanionFile& file : options_.files) {
      RETURN_IF_ERROR(CopyCompanion(file, folder.path()));
    }
    RETURN_IF_ERROR(folder.Commit(options_.overwrite));
    for (WrittenFile& file : model_.files) {
      const auto name = std::filesystem::path(file.path).filename();
      file.path = JoinPath(options_.output_dir, name.string());
    }
    return absl::OkStatus();
  }

  // Row by row, as many as make a piece.
  absl::Status Append(const SafetensorsEntry& tensor, SafetensorsWriter& writer) {
    const Source& source = sources_.at(tensor.name);
    if (tensor.num_bytes() == 0) return writer.Append(tensor.name, {});
    const int64_t num_rows = tensor.shape.empty() ? 1 : tensor.shape[0];
    const int64_t row_elements = tensor.num_bytes() / SizeOf(*tensor.dtype) / num_rows;
    const int64_t rows = std::max<int64_t>(1, kPieceBytes / (row_elements * SizeOf(DType::kF64)));
    std::vector<std::byte> read;
    std::vector<std::byte> converted;
    for (int64_t begin = 0; begin < num_rows; begin += rows) {
      const int64_t count = std::min(rows, num_rows - begin);
      read.resize(count * row_elements * SizeOf(source.dtype));
      RETURN_IF_ERROR(ReadRows(source, RowsOf(tensor.shape, begin, count), absl::MakeSpan(read)));
      converted.resize(count * row_elements * SizeOf(*tensor.dtype));
      if (IsConverted(source.dtype, *tensor.dtype)) {
        ConvertFloats(source.dtype, read, *tensor.dtype, absl::MakeSpan(converted));
      } else {
        converted.swap(read);
      }
      RETURN_IF_ERROR(writer.Append(tensor.name, converted));
      num_written_ += static_cast<int64_t>(converted.size());
      RETURN_IF_ERROR(options_.on_progress("writing", num_written_, model_.num_bytes));
    }
    return absl::OkStatus();
  }

  absl::Status ReadRows(const Source& source, const TensorBox& rows,
                        absl::Span<std::byte> out) const {
    if (source.tensor != nullptr) return reader_->Read(*source.tensor, rows, out);
    const int64_t row_bytes = rows.shape.empty() ? 0 : std::ssize(out) / rows.shape[0];
    const int64_t begin = rows.shape.empty() ? 0 : rows.offset[0] * row_bytes;
    std::ranges::copy(source.bytes.subspan(begin, out.size()), out.begin());
    return absl::OkStatus();
  }

  absl::Status CopyCompanion(const CompanionFile& file, const std::string& folder) {
    ASSIGN_OR_RETURN(const std::string text, ReadFile(file.path, kMaxCompanionBytes));
    ASSIGN_OR_RETURN(WrittenFile copy, WriteTextFile(JoinPath(folder, file.name), text));
    model_.files.push_back(std::move(copy));
    return absl::OkStatus();
  }

  const ModelExportOptions& options_;
  ExportedModel model_;
  std::unique_ptr<CheckpointReader> reader_;
  std::unique_ptr<SafetensorsReader> weights_;  // null: nothing is missing
  std::vector<TensorSpec> specs_;               // in the order of the state dict
  std::map<std::string, Source> sources_;       // of each of them
  int64_t num_written_ = 0;
};

}  // namespace

absl::StatusOr<ExportedModel> ExportModel(const ModelExportOptions& options) {
  return Exporter(options).Run();
}

}  // namespace autosp
