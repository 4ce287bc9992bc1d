#include "compiler/config/job_files.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "compiler/config/glob.h"

namespace autosp {
namespace {

namespace fs = std::filesystem;

// Past this the list alone outgrows the job file; one larger file serves better.
constexpr size_t kMaxDataFiles = 5'000;

int64_t BytesPerToken(const DataSpec& data) {
  if (data.format == DataFormat::kText) return 1;
  switch (data.dtype) {
    case TokenDtype::kUint16:
      return 2;
    case TokenDtype::kUint32:
    case TokenDtype::kInt32:
      return 4;
    case TokenDtype::kInt64:
      return 8;
  }
  return 1;
}

std::string MakeAbsolute(const std::string& base_dir, const std::string& path) {
  return fs::absolute(JoinPath(base_dir, path)).lexically_normal().string();
}

// Opens the file as well, because that is what tells whether it can be read.
absl::StatusOr<JobFile> MeasureFile(JobFileRole role, const char* key, const std::string& path) {
  ASSIGN_OR_RETURN(const UniqueFd fd, OpenForReading(path), key);
  ASSIGN_OR_RETURN(const int64_t size_bytes, FileSize(path), key);
  return JobFile{role, path, size_bytes};
}

absl::Status AddWeights(const std::string& path, std::vector<JobFile>& files) {
  constexpr char kKey[] = "model.weights";
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    ASSIGN_OR_RETURN(JobFile file, MeasureFile(JobFileRole::kWeights, kKey, path));
    files.push_back(std::move(file));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> paths,
                   ExpandFileGlob(JoinPath(path, "*.safetensors")), kKey);
  if (paths.empty()) {
    return NotFound(kKey, ": ", path, " has no *.safetensors file; name the folder that has them");
  }
  for (const std::string& shard : paths) {
    ASSIGN_OR_RETURN(JobFile file, MeasureFile(JobFileRole::kWeights, kKey, shard));
    files.push_back(std::move(file));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> FindDataFiles(const std::string& base_dir,
                                                       const DataSpec& data) {
  std::vector<std::string> paths;
  for (const std::string& pattern : data.files) {
    const std::string absolute = MakeAbsolute(base_dir, pattern);
    ASSIGN_OR_RETURN(const std::vector<std::string> found, ExpandFileGlob(absolute),
                     "data.files: ", absolute);
    if (found.empty()) {
      return NotFound("data.files: no file matches ", absolute,
                      "; relative paths count from the folder of the job file");
    }
    paths.insert(paths.end(), found.begin(), found.end());
  }
  if (paths.size() > kMaxDataFiles) {
    return InvalidArgument("data.files: ", paths.size(), " files; at most ", kMaxDataFiles,
                           " are taken; join them into fewer, or match fewer");
  }
  return paths;
}

absl::Status CheckDataSize(const JobSpec& spec, const std::vector<JobFile>& files) {
  const int64_t bytes_per_token = BytesPerToken(spec.data);
  int64_t num_tokens = 0;
  for (const JobFile& file : files) {
    if (file.role != JobFileRole::kTrainingData) continue;
    if (file.size_bytes % bytes_per_token != 0) {
      return InvalidArgument("data.files: ", file.path, " has ", file.size_bytes,
                             " bytes, which is no multiple of the ", bytes_per_token,
                             " bytes of data.dtype ", ToString(spec.data.dtype),
                             "; is the dtype right?");
    }
    num_tokens += file.size_bytes / bytes_per_token;
  }
  if (num_tokens >= spec.training.seq_len) return absl::OkStatus();
  return InvalidArgument("data.files: ", num_tokens,
                         " tokens are less than one sequence "
                         "(training.seq_len ",
                         spec.training.seq_len, "); give more data or a smaller seq_len");
}

absl::Status ResolveCheckpoints(const std::string& base_dir, CheckpointSpec& spec) {
  if (!spec.directory.empty()) spec.directory = MakeAbsolute(base_dir, spec.directory);
  if (!IsResumePath(spec.resume)) return absl::OkStatus();
  spec.resume = MakeAbsolute(base_dir, spec.resume);
  if (FileExists(spec.resume)) return absl::OkStatus();
  return NotFound("checkpoint.resume: ", spec.resume,
                  " does not exist; name a checkpoint or a folder of checkpoints, or write auto or "
                  "never");
}

}  // namespace

absl::StatusOr<std::vector<JobFile>> ResolveModelFiles(const std::string& base_dir, JobSpec& spec) {
  std::vector<JobFile> files;
  for (std::string& path : spec.model.archives) {
    path = MakeAbsolute(base_dir, path);
    ASSIGN_OR_RETURN(JobFile archive, MeasureFile(JobFileRole::kArchive, "model.archive", path));
    files.push_back(std::move(archive));
  }
  if (!spec.model.weights.empty()) {
    spec.model.weights = MakeAbsolute(base_dir, spec.model.weights);
    RETURN_IF_ERROR(AddWeights(spec.model.weights, files));
  }
  return files;
}

absl::StatusOr<std::vector<JobFile>> ResolveJobFiles(const std::string& base_dir, JobSpec& spec) {
  ASSIGN_OR_RETURN(std::vector<JobFile> files, ResolveModelFiles(base_dir, spec));
  ASSIGN_OR_RETURN(spec.data.files, FindDataFiles(base_dir, spec.data));
  for (const std::string& path : spec.data.files) {
    ASSIGN_OR_RETURN(JobFile file, MeasureFile(JobFileRole::kTrainingData, "data.files", path));
    files.push_back(std::move(file));
  }
  RETURN_IF_ERROR(CheckDataSize(spec, files));
  spec.output.dir = MakeAbsolute(base_dir, spec.output.dir);
  RETURN_IF_ERROR(ResolveCheckpoints(base_dir, spec.checkpoint));
  if (!spec.output.config.empty()) {
    spec.output.config = MakeAbsolute(base_dir, spec.output.config);
    RETURN_IF_ERROR(
        MeasureFile(JobFileRole::kArchive, "output.config", spec.output.config).status());
  }
  return files;
}

}  // namespace autosp
