#include "common/program_output.h"

#include <unistd.h>

#include <cerrno>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

absl::StatusOr<std::string> ReadAll(int fd, size_t max_bytes) {
  std::string output;
  char buffer[4096];
  while (output.size() < max_bytes) {
    const ssize_t count = read(fd, buffer, sizeof(buffer));
    if (count == 0) return output;
    if (count < 0 && errno != EINTR) return ErrnoError(errno, "cannot read its output");
    if (count > 0) output.append(buffer, static_cast<size_t>(count));
  }
  return InvalidArgument("it prints more than ", max_bytes, " bytes");
}

}  // namespace

absl::StatusOr<ProgramOutput> RunForOutput(const std::vector<std::string>& argv, size_t max_bytes) {
  SubprocessOptions options;
  options.argv = argv;
  options.output = SubprocessOptions::Output::kPipe;
  options.dies_with_parent = true;
  ASSIGN_OR_RETURN(Subprocess process, Subprocess::Start(options));
  ASSIGN_OR_RETURN(std::string text, ReadAll(process.output().get(), max_bytes));
  return ProgramOutput{.exit = process.Wait(), .text = std::move(text)};
}

}  // namespace autosp
