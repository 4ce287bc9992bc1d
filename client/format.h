// Numbers and times as people read them.
#pragma once

#include <google/protobuf/timestamp.pb.h>

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "autosp/v1/coordinator.pb.h"
#include "autosp/v1/job.pb.h"

namespace autosp {

// "12,345".
std::string FormatCount(int64_t value);

// Four decimals, enough digits where that would be 0, "nan" and "inf" as they are.
std::string FormatLoss(double loss);

// "1,234"; below ten with a decimal: "3.2".
std::string FormatRate(double per_second);

// Two units: "42s", "2m05s", "3h07m", "2d04h". Negative and infinite ones are "?".
std::string FormatSpan(absl::Duration span);

// Text of strangers (names in an archive, a message about them), for a terminal: what would steer
// it is written as \x1b, all but ends of lines and tabs.
std::string Printable(absl::string_view text);

// "queued", "running": the word of the enum.
std::string FormatState(v1::JobState state);
std::string FormatState(v1::RankState state);
std::string FormatState(v1::Node::State state);

// The word of a state, as FormatState writes it; UNSPECIFIED for others.
v1::JobState ParseJobState(const std::string& word);

absl::Time ToTime(const google::protobuf::Timestamp& time);

bool IsTerminal(v1::JobState state);

}  // namespace autosp
