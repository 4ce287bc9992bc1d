#include "worker/data/token_files.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

// Files are little endian, as are the machines that we run on.
template <typename T>
void Widen(const std::byte* from, absl::Span<int64_t> tokens) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    T token;
    std::memcpy(&token, from + i * sizeof(T), sizeof(T));
    tokens[i] = static_cast<int64_t>(token);
  }
}

}  // namespace

TokenFiles::Encoding TokenFiles::EncodingOf(const DataSpec& data) {
  if (data.format == DataFormat::kText) return Encoding::kBytes;
  switch (data.dtype) {
    case TokenDtype::kUint16:
      return Encoding::kUint16;
    case TokenDtype::kUint32:
      return Encoding::kUint32;
    case TokenDtype::kInt32:
      return Encoding::kInt32;
    case TokenDtype::kInt64:
      return Encoding::kInt64;
  }
  return Encoding::kUint16;
}

int64_t TokenFiles::BytesPerToken(Encoding encoding) {
  switch (encoding) {
    case Encoding::kBytes:
      return 1;
    case Encoding::kUint16:
      return 2;
    case Encoding::kUint32:
    case Encoding::kInt32:
      return 4;
    case Encoding::kInt64:
      return 8;
  }
  return 1;
}

absl::StatusOr<TokenFiles> TokenFiles::Open(const DataSpec& data) {
  TokenFiles result;
  result.encoding_ = EncodingOf(data);
  const int64_t token_bytes = BytesPerToken(result.encoding_);
  for (const std::string& path : data.files) {
    ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(path), "data.files");
    const auto size_bytes = static_cast<int64_t>(mapped.size());
    if (size_bytes % token_bytes != 0) {
      return InvalidArgument("data.files: ", path, " has ", size_bytes,
                             " bytes, which is not a whole number of ", ToString(data.dtype),
                             " ids; is data.dtype right?");
    }
    if (size_bytes == 0) continue;
    result.files_.push_back({.mapped = std::move(mapped),
                             .begin = result.num_tokens_,
                             .num_tokens = size_bytes / token_bytes});
    result.num_tokens_ += size_bytes / token_bytes;
  }
  return result;
}

absl::Status TokenFiles::Read(int64_t begin, absl::Span<int64_t> tokens) const {
  auto file = std::upper_bound(files_.begin(), files_.end(), begin,
                               [](int64_t at, const File& f) { return at < f.begin; }) -
              1;
  while (!tokens.empty()) {
    const int64_t first = begin - file->begin;
    const auto count = std::min<int64_t>(file->num_tokens - first, tokens.size());
    RETURN_IF_ERROR(ReadFrom(*file, first, tokens.subspan(0, count)));
    tokens.remove_prefix(count);
    begin += count;
    ++file;
  }
  return absl::OkStatus();
}

absl::Status TokenFiles::ReadFrom(const File& file, int64_t first,
                                  absl::Span<int64_t> tokens) const {
  const std::byte* from = file.mapped.data() + first * BytesPerToken(encoding_);
  switch (encoding_) {
    case Encoding::kBytes:
      Widen<uint8_t>(from, tokens);
      return absl::OkStatus();
    case Encoding::kUint16:
      Widen<uint16_t>(from, tokens);
      return absl::OkStatus();
    case Encoding::kUint32:
      Widen<uint32_t>(from, tokens);
      return absl::OkStatus();
    case Encoding::kInt32:
      Widen<int32_t>(from, tokens);
      break;
    case Encoding::kInt64:
      Widen<int64_t>(from, tokens);
      break;
  }
  const auto negative = std::find_if(tokens.begin(), tokens.end(), [](int64_t t) { return t < 0; });
  if (negative == tokens.end()) return absl::OkStatus();
  return InvalidArgument("data.files: token ", first + (negative - tokens.begin()), " of ",
                         file.mapped.path(), " is ", *negative,
                         "; ids are never negative; is data.dtype right?");
}

}  // namespace autosp
