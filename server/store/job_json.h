// Jobs, requests and history entries as JSON, the form in which the store keeps what it does not
// search by. Enums are written as their names, times as microseconds since 1970.
//
// An unknown key is ignored and a missing one takes its default, so that rows of an older version
// can be read. Fields that job.h marks as not stored are left at their defaults.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/coordinator/decision.h"
#include "server/coordinator/job.h"

namespace autosp {

std::string JobToJson(const Job& job);
absl::StatusOr<Job> JobFromJson(absl::string_view text);

std::string HistoryEntryToJson(const HistoryEntry& entry);
absl::StatusOr<HistoryEntry> HistoryEntryFromJson(absl::string_view text);

}  // namespace autosp
