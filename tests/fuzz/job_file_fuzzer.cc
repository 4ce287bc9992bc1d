// Job and cluster files from anywhere: parsing must not crash, hang or accept what it cannot write
// down again. What is accepted must survive the round trip through the canonical text, which is
// what a submission carries.
#include <cstdint>

#include "common/check.h"
#include "compiler/config/job_yaml.h"

namespace autosp {
namespace {

void CheckJob(absl::string_view text) {
  const absl::StatusOr<JobSpec> spec = ParseJobYaml(text, "fuzz");
  if (!spec.ok()) return;
  const std::string canonical = CanonicalJobYaml(*spec);
  const absl::StatusOr<JobSpec> back = ParseJobYaml(canonical, "canonical");
  // The canonical text spells everything out, so it may outgrow the limit that the file was under.
  if (canonical.size() > static_cast<size_t>(kMaxConfigBytes)) return;
  AUTOSP_CHECK(back.ok(), back.status().message(), "\n", canonical);
  AUTOSP_CHECK(*back == *spec, canonical);
}

void CheckCluster(absl::string_view text) {
  const absl::StatusOr<ClusterSpec> spec = ParseClusterYaml(text, "fuzz");
  if (!spec.ok()) return;
  const std::string canonical = CanonicalClusterYaml(*spec);
  const absl::StatusOr<ClusterSpec> back = ParseClusterYaml(canonical, "canonical");
  if (canonical.size() > static_cast<size_t>(kMaxConfigBytes)) return;
  AUTOSP_CHECK(back.ok(), back.status().message(), "\n", canonical);
  AUTOSP_CHECK(*back == *spec, canonical);
}

}  // namespace
}  // namespace autosp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  autosp::CheckJob(text);
  autosp::CheckCluster(text);
  return 0;
}
