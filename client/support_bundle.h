// What somebody needs who looks into a job that went wrong, as the entries of one archive.
//
// Only what the coordinator tells any client is in it, and what doctor finds: no secret of an
// attempt, no environment, no data and no weights. What cannot be had is named in contents.txt, and
// the rest is there all the same. Large parts are cut at kMaxPartBytes.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/coordinator_client.h"
#include "client/zip_file.h"

namespace autosp {

inline constexpr size_t kMaxPartBytes = 16 << 20;
inline constexpr size_t kMaxLogBytes = 1 << 20;  // of each rank, the end of it
inline constexpr int kMaxLogs = 64;              // the rank that failed comes first

struct SupportBundle {
  std::vector<FileToZip> entries;    // the first is contents.txt
  std::vector<std::string> missing;  // "logs/rank1.log: the log is on node a, ..."
};

// An error only where there is no such job, or nobody who knows it.
absl::StatusOr<SupportBundle> MakeSupportBundle(const ServerAddress& server,
                                                const std::string& job_id,
                                                const std::string& program_folder);

// The last `limit` bytes of `text`, from the beginning of a line, behind a line that says so.
std::string KeepEnd(absl::string_view text, size_t limit);

}  // namespace autosp
