#include "client/format.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"

namespace autosp {
namespace {

// "JOB_STATE_QUEUED" gives "queued".
std::string WordOf(absl::string_view enum_name, absl::string_view prefix) {
  absl::ConsumePrefix(&enum_name, prefix);
  return absl::AsciiStrToLower(enum_name);
}

// Of UTF-8, U+0080 to U+009F: some terminals take them for escapes.
bool IsControlOfTwoBytes(absl::string_view text) {
  if (text.size() < 2 || text[0] != '\xc2') return false;
  const auto second = static_cast<unsigned char>(text[1]);
  return second >= 0x80 && second <= 0x9f;
}

}  // namespace

std::string Printable(absl::string_view text) {
  std::string printable;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte == '\n' || byte == '\t' ||
        !(absl::ascii_iscntrl(byte) || IsControlOfTwoBytes(text.substr(i)))) {
      printable += text[i];
      continue;
    }
    absl::StrAppendFormat(&printable, "\\x%02x", byte);
    if (byte == 0xc2)
      absl::StrAppendFormat(&printable, "\\x%02x", static_cast<unsigned char>(text[++i]));
  }
  return printable;
}

std::string FormatCount(int64_t value) {
  const std::string plain = absl::StrCat(value);
  std::string text;
  for (size_t i = 0; i < plain.size(); ++i) {
    const size_t digits_left = plain.size() - i;
    const bool is_after_digit = i > 0 && plain[i - 1] != '-';
    if (is_after_digit && digits_left % 3 == 0) text.push_back(',');
    text.push_back(plain[i]);
  }
  return text;
}

std::string FormatLoss(double loss) {
  if (!std::isfinite(loss)) return std::isnan(loss) ? "nan" : loss > 0 ? "inf" : "-inf";
  if (loss != 0.0 && std::abs(loss) < 0.01) return absl::StrFormat("%.3e", loss);
  return absl::StrFormat("%.4f", loss);
}

std::string FormatRate(double per_second) {
  if (!std::isfinite(per_second)) return "?";
  if (std::abs(per_second) < 10.0) return absl::StrFormat("%.1f", per_second);
  return FormatCount(std::llround(per_second));
}

std::string FormatSpan(absl::Duration span) {
  if (span < absl::ZeroDuration() || span == absl::InfiniteDuration()) return "?";
  const int64_t seconds = absl::ToInt64Seconds(span + absl::Milliseconds(500));
  if (seconds < 60) return absl::StrCat(seconds, "s");
  if (seconds < 3600) return absl::StrFormat("%dm%02ds", seconds / 60, seconds % 60);
  const int64_t minutes = seconds / 60;
  if (minutes < 24 * 60) return absl::StrFormat("%dh%02dm", minutes / 60, minutes % 60);
  return absl::StrFormat("%dd%02dh", minutes / (24 * 60), minutes / 60 % 24);
}

std::string FormatState(v1::JobState state) {
  return WordOf(v1::JobState_Name(state), "JOB_STATE_");
}

std::string FormatState(v1::RankState state) {
  return WordOf(v1::RankState_Name(state), "RANK_STATE_");
}

std::string FormatState(v1::Node::State state) {
  return WordOf(v1::Node::State_Name(state), "STATE_");
}

v1::JobState ParseJobState(const std::string& word) {
  v1::JobState state = v1::JOB_STATE_UNSPECIFIED;
  const std::string name = absl::StrCat("JOB_STATE_", absl::AsciiStrToUpper(word));
  if (!v1::JobState_Parse(name, &state)) return v1::JOB_STATE_UNSPECIFIED;
  return state;
}

absl::Time ToTime(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

bool IsTerminal(v1::JobState state) {
  return state == v1::JOB_STATE_SUCCEEDED || state == v1::JOB_STATE_FAILED ||
         state == v1::JOB_STATE_CANCELLED;
}

}  // namespace autosp
