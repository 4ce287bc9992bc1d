#include "worker/collectives/group_digest.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace autosp {

// FNV-1a.
uint64_t GroupDigest(const ProcessGroup& group) {
  uint64_t digest = 0xcbf29ce484222325;
  const std::string text = absl::StrCat(group.name, "|", absl::StrJoin(group.ranks, ","));
  for (const char c : text) digest = (digest ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return digest;
}

}  // namespace autosp
