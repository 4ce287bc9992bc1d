#include "worker/agent/attempt_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/bytes.h"
#include "common/errors.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "worker/agent/process_identity.h"

namespace autosp::agent {
namespace {

absl::Status CheckInput(const InputFile& file) {
  if (access(file.path.c_str(), R_OK) != 0) {
    return ErrnoError(errno, absl::StrCat("cannot read ", file.path));
  }
  ASSIGN_OR_RETURN(const int64_t size_bytes, FileSize(file.path));
  if (size_bytes == file.size_bytes) return absl::OkStatus();
  return FailedPrecondition(file.path, " has ", size_bytes, " bytes; it had ", file.size_bytes,
                            " when the job was submitted; submit the job again");
}

// Weights are written as large as they were read, so that much must be free now.
int64_t ExpectedOutputBytes(const AttemptOrder& order) {
  int64_t archives = 0;
  int64_t weights = 0;
  for (const InputFile& file : order.files) {
    if (file.role == FileRole::kArchive) archives += file.size_bytes;
    if (file.role == FileRole::kWeights) weights += file.size_bytes;
  }
  return std::max(archives, weights);
}

absl::Status CheckOutput(const AttemptOrder& order) {
  const std::string& folder = order.output_directory;
  RETURN_IF_ERROR(MakeDirectories(folder));
  RETURN_IF_ERROR(CheckWritable(folder));
  ASSIGN_OR_RETURN(const int64_t free_bytes, FreeDiskBytes(folder));
  const int64_t needed_bytes = ExpectedOutputBytes(order);
  if (free_bytes >= needed_bytes) return absl::OkStatus();
  return ResourceExhausted(folder, " has ", FormatBytes(free_bytes), " free; the weights need ",
                           FormatBytes(needed_bytes), "; free some space or choose another folder");
}

// All virtual ranks are one process, on the CPU.
absl::Status CheckMemory(const VerificationOrder& verification, int64_t host_memory_bytes) {
  if (verification.needed_bytes <= host_memory_bytes) return absl::OkStatus();
  return FailedPrecondition(
      "to verify the plan, its virtual ranks and the model on one device need ",
      FormatBytes(verification.needed_bytes), " of memory at the small size, and this machine has ",
      FormatBytes(host_memory_bytes),
      "; set verify to never, or verify an export with fewer layers with autosp-cli verify");
}

}  // namespace

std::string AttemptFiles::JobsFolder() const { return JoinPath(state_dir_, "jobs"); }

std::string AttemptFiles::Folder(const AttemptKey& key) const {
  return absl::StrCat(JobsFolder(), "/", key.job_id.value(), "/gen", key.generation.value());
}

std::string AttemptFiles::LivePath(const AttemptKey& key) const {
  return absl::StrCat(Folder(key), "/live");
}

std::string AttemptFiles::ProgramPath(const AttemptKey& key) const {
  return absl::StrCat(Folder(key), "/program.txt");
}

std::string AttemptFiles::JobYamlPath(const AttemptKey& key) const {
  return absl::StrCat(Folder(key), "/job.yaml");
}

std::string AttemptFiles::RendezvousFolder(const AttemptKey& key,
                                           const std::string& rendezvous_id) const {
  return absl::StrCat(Folder(key), "/rendezvous-", rendezvous_id);
}

std::string AttemptFiles::SpecPath(const AttemptKey& key, Rank rank) const {
  return absl::StrCat(Folder(key), "/rank", rank.value(), ".json");
}

std::string AttemptFiles::LogPath(const AttemptKey& key, Rank rank) const {
  return absl::StrCat(Folder(key), "/rank", rank.value(), ".log");
}

std::string AttemptFiles::PidPath(const AttemptKey& key, Rank rank) const {
  return absl::StrCat(Folder(key), "/rank", rank.value(), ".pid");
}

std::string AttemptFiles::PeersPath(const AttemptKey& key) const {
  return absl::StrCat(Folder(key), "/peers.json");
}

VerificationFilePaths AttemptFiles::VerificationPathsOf(
    const AttemptKey& key, const VerificationOrder& verification) const {
  const auto path = [&](const std::string& text, absl::string_view name) {
    return text.empty() ? "" : absl::StrCat(Folder(key), "/", name);
  };
  return {.one_device = path(verification.one_device_text, "one_device.txt"),
          .exact = path(verification.exact_text, "exact.txt"),
          .exported = path(verification.exported_text, "exported.txt")};
}

absl::Status AttemptFiles::WriteVerification(const AttemptKey& key,
                                             const VerificationOrder& verification) const {
  const VerificationFilePaths paths = VerificationPathsOf(key, verification);
  for (const auto& [path, text] : {std::pair(&paths.one_device, &verification.one_device_text),
                                   std::pair(&paths.exact, &verification.exact_text),
                                   std::pair(&paths.exported, &verification.exported_text)}) {
    if (!path->empty()) RETURN_IF_ERROR(WriteFileAtomically(*path, *text));
  }
  return absl::OkStatus();
}

absl::Status AttemptFiles::Write(const AttemptOrder& order,
                                 const std::vector<std::string>& specs) const {
  const AttemptKey& key = order.key();
  RETURN_IF_ERROR(MakeDirectories(RendezvousFolder(key, order.rendezvous_id)));
  // First, so that whatever exists of an attempt is found again after a crash.
  RETURN_IF_ERROR(WriteFileAtomically(LivePath(key), ""));
  RETURN_IF_ERROR(WriteFileAtomically(ProgramPath(key), order.program_text));
  RETURN_IF_ERROR(WriteFileAtomically(JobYamlPath(key), order.job_yaml));
  if (order.verification) RETURN_IF_ERROR(WriteVerification(key, *order.verification));
  for (size_t i = 0; i < specs.size(); ++i) {
    const Rank rank = order.reservation.slots[i].rank;
    RETURN_IF_ERROR(WriteFileAtomically(SpecPath(key, rank), specs[i]));
  }
  return absl::OkStatus();
}

std::string SharedMemoryPrefix(const AttemptKey& key) {
  return absl::StrCat("/autosp-", key.job_id.value(), "-", key.generation.value());
}

absl::Status CheckAttempt(const AttemptOrder& order, const RankPrograms& programs,
                          int64_t host_memory_bytes) {
  const std::string& program = programs.For(order.reservation.is_verification);
  if (access(program.c_str(), X_OK) != 0) {
    return FailedPrecondition(
        ErrnoError(errno, absl::StrCat("cannot execute ", program)).message(),
        "; name the program with ",
        order.reservation.is_verification ? "--verify-binary" : "--rank-binary");
  }
  for (const InputFile& file : order.files) RETURN_IF_ERROR(CheckInput(file));
  if (order.verification) return CheckMemory(*order.verification, host_memory_bytes);
  return WithContext(CheckOutput(order), "output folder");
}

// Not synced, as below.
absl::Status WritePeersFile(const std::string& path, const std::string& json) {
  const UniqueFd file(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file.is_open()) return ErrnoError(errno, absl::StrCat("cannot write ", path));
  return WriteAll(file.get(), json, path);
}

absl::Status WritePidFile(const std::string& path, int64_t pid) {
  ASSIGN_OR_RETURN(const ProcessIdentity identity, IdentifyProcess(pid));
  // Not synced: after a power cut the process is gone too, and the agent's loop must not wait for
  // a busy disk here, since its lease would run out meanwhile.
  const UniqueFd file(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!file.is_open()) return ErrnoError(errno, absl::StrCat("cannot write ", path));
  return WriteAll(file.get(), identity.ToText(), path);
}

}  // namespace autosp::agent
