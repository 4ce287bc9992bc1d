// Archives for tests: those checked in, changed copies of them, and zip files that no honest writer
// makes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"

namespace autosp {

struct ArchiveEntry {
  std::string name;
  std::string content;
  bool is_deflated = false;
  std::optional<uint32_t> claimed_size;  // in place of the true size in the directory
  bool is_encrypted = false;             // only the flag
};

class ArchiveEditor {
 public:
  // All entries of an honest archive, in order.
  static ArchiveEditor Read(const std::string& path);

  std::vector<ArchiveEntry>& entries() { return entries_; }
  // The entry whose name ends with `suffix`; the test fails without one.
  ArchiveEntry& Find(const std::string& suffix);
  void Remove(const std::string& suffix);
  // Replaces the first occurrence of `from` in an entry; the test fails without one.
  void Replace(const std::string& suffix, const std::string& from, const std::string& to);

  std::string Write() const;

 private:
  std::vector<ArchiveEntry> entries_;
};

// The archives checked in beside the tests, and those of the model zoo.
std::string CaseArchive(const std::string& name);
std::string ZooArchive(const std::string& name);

std::string ReadFileOrDie(const std::string& path);

inline absl::Span<const std::byte> Bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace autosp
