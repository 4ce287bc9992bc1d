#include "worker/rank/agreement.h"

#include <algorithm>
#include <cstring>

#include "absl/types/span.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

struct Record {
  uint32_t size = 0;
  char text[kMaxAgreementBytes] = {};
};

}  // namespace

absl::StatusOr<std::vector<std::string>> GatherTexts(Collectives* world, absl::string_view text) {
  if (world == nullptr) return std::vector<std::string>{std::string(text)};
  std::vector<Record> records(world->size());
  Record own;
  own.size = static_cast<uint32_t>(std::min(text.size(), kMaxAgreementBytes));
  std::memcpy(own.text, text.data(), own.size);
  RETURN_IF_ERROR(world->AllGather(
      {reinterpret_cast<const std::byte*>(&own), sizeof(own)},
      {reinterpret_cast<std::byte*>(records.data()), records.size() * sizeof(Record)}));
  std::vector<std::string> texts;
  for (const Record& record : records) texts.emplace_back(record.text, record.size);
  return texts;
}

}  // namespace autosp
