// Amounts of bytes come from job and cluster files: whatever is accepted is not negative and
// survives being written and read again.

#include <cstddef>
#include <cstdint>

#include "common/bytes.h"
#include "common/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<int64_t> bytes = autosp::ParseBytes(text);
  if (!bytes.ok()) return 0;
  AUTOSP_CHECK(*bytes >= 0, text);
  const absl::StatusOr<int64_t> again = autosp::ParseBytes(autosp::FormatBytesExactly(*bytes));
  AUTOSP_CHECK(again.ok() && *again == *bytes, text);
  return 0;
}
