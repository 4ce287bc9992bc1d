// The training data as one stream of token ids: the files of a job, mapped and put end to end.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/mapped_file.h"
#include "compiler/config/job_spec.h"

namespace autosp {

// Thread-compatible; reading from several threads is fine. Only the pages that are read come in.
class TokenFiles {
 public:
  // Opens `data.files`, in this order. Empty files are skipped.
  static absl::StatusOr<TokenFiles> Open(const DataSpec& data);

  int64_t num_tokens() const { return num_tokens_; }

  // Reads tokens begin, begin + 1, ... Requires: they exist. A negative id is an error.
  absl::Status Read(int64_t begin, absl::Span<int64_t> tokens) const;

 private:
  enum class Encoding { kBytes, kUint16, kUint32, kInt32, kInt64 };
  struct File {
    MappedFile mapped;
    int64_t begin = 0;  // of its first token in the stream
    int64_t num_tokens = 0;
  };

  static Encoding EncodingOf(const DataSpec& data);
  static int64_t BytesPerToken(Encoding encoding);
  absl::Status ReadFrom(const File& file, int64_t first, absl::Span<int64_t> tokens) const;

  Encoding encoding_ = Encoding::kBytes;
  std::vector<File> files_;
  int64_t num_tokens_ = 0;
};

}  // namespace autosp
