// The header of a safetensors file from anywhere: whatever is accepted lies inside the file, and is
// accepted again after it was written.
#include <cstdint>

#include "common/check.h"
#include "compiler/weights/safetensors_header.h"

// The first byte is the size of the data, in units of 4 bytes.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const int64_t data_bytes = data[0] * 4;
  const absl::string_view json(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto header = autosp::ParseSafetensorsHeader(json, data_bytes);
  if (!header.ok()) return 0;
  for (const autosp::SafetensorsEntry& entry : header->entries) {
    AUTOSP_CHECK(entry.begin >= 0 && entry.begin <= entry.end && entry.end <= data_bytes, json);
  }
  const std::string text = autosp::FormatSafetensorsHeader(*header);
  const auto again = autosp::ParseSafetensorsHeader(text, data_bytes);
  AUTOSP_CHECK(again.ok(), again.status().ToString(), "\n", text);
  AUTOSP_CHECK(autosp::FormatSafetensorsHeader(*again) == text, text);
  return 0;
}
