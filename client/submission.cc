#include "client/submission.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/ids.h"
#include "common/sha256.h"
#include "common/status_macros.h"
#include "compiler/config/job_yaml.h"

namespace autosp {
namespace {

v1::FileRef::Role RoleOf(JobFileRole role) {
  switch (role) {
    case JobFileRole::kArchive:
      return v1::FileRef::ROLE_ARCHIVE;
    case JobFileRole::kWeights:
      return v1::FileRef::ROLE_WEIGHTS;
    case JobFileRole::kTrainingData:
      return v1::FileRef::ROLE_TRAINING_DATA;
  }
  return v1::FileRef::ROLE_UNSPECIFIED;
}

// Without its files.
absl::StatusOr<LoadedJob> ReadJob(const std::string& path,
                                  const std::vector<std::string>& overrides) {
  LoadedJob job{
      .spec = {}, .files = {}, .data_status = {}, .path = path, .text = "", .overrides = overrides};
  ASSIGN_OR_RETURN(job.text, ReadFile(path, kMaxConfigBytes));
  ASSIGN_OR_RETURN(job.spec, ParseJobYaml(job.text, path, overrides));
  return job;
}

// From which the paths of a job file count.
std::string FolderOf(const std::string& path) {
  return std::filesystem::absolute(path).lexically_normal().parent_path().string();
}

}  // namespace

absl::StatusOr<LoadedJob> LoadJob(const std::string& path,
                                  const std::vector<std::string>& overrides) {
  ASSIGN_OR_RETURN(LoadedJob job, ReadJob(path, overrides));
  ASSIGN_OR_RETURN(job.files, ResolveJobFiles(FolderOf(path), job.spec), path);
  return job;
}

absl::StatusOr<LoadedJob> LoadJobForVerify(const std::string& path,
                                           const std::vector<std::string>& overrides) {
  ASSIGN_OR_RETURN(LoadedJob job, ReadJob(path, overrides));
  JobSpec with_data = job.spec;
  ASSIGN_OR_RETURN(job.files, ResolveModelFiles(FolderOf(path), job.spec), path);
  absl::StatusOr<std::vector<JobFile>> files = ResolveJobFiles(FolderOf(path), with_data);
  job.data_status = files.status();
  if (!files.ok()) return job;
  job.files = *std::move(files);
  job.spec = std::move(with_data);
  return job;
}

absl::Status Located(const absl::Status& status, const LoadedJob& job) {
  absl::Status located(status.code(),
                       LocateInJobYaml(status.message(), job.text, job.path, job.overrides));
  status.ForEachPayload(
      [&](absl::string_view url, const absl::Cord& payload) { located.SetPayload(url, payload); });
  return located;
}

absl::StatusOr<ClusterSpec> LoadCluster(const std::string& path) {
  if (path.empty()) return LocalCluster();
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxConfigBytes));
  return ParseClusterYaml(text, path);
}

absl::StatusOr<v1::SubmitJobRequest> MakeSubmission(const LoadedJob& job) {
  v1::SubmitJobRequest request;
  request.set_request_id(RandomId("submit"));
  request.set_job_yaml(CanonicalJobYaml(job.spec));
  // With every path spelt out the text may outgrow what the server's parser takes.
  if (request.job_yaml().size() > static_cast<size_t>(kMaxConfigBytes)) {
    return InvalidArgument("data.files: the list of ", job.files.size(),
                           " files makes the job file larger than ", kMaxConfigBytes,
                           " bytes; join them into fewer");
  }
  for (const JobFile& file : job.files) {
    ASSIGN_OR_RETURN(const std::string digest, Sha256HexOfFile(file.path));
    v1::FileRef* ref = request.add_files();
    ref->set_role(RoleOf(file.role));
    ref->set_uri(absl::StrCat("file://", file.path));
    ref->set_sha256(digest);
    ref->set_size_bytes(file.size_bytes);
  }
  return request;
}

}  // namespace autosp
