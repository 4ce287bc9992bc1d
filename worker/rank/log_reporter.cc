#include "worker/rank/log_reporter.h"

#include "common/log.h"

namespace autosp {

void LogReporter::Hello(const std::string& program_digest) {
  LogInfo("running program ", program_digest);
}

void LogReporter::Finished(const std::vector<OutputInfo>& outputs) {
  for (const OutputInfo& output : outputs) {
    LogInfo("wrote ", output.kind, " ", output.path, ", ", output.size_bytes, " bytes");
  }
}

}  // namespace autosp
