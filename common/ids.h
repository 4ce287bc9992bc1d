// Names and numbers that must not be mixed up: a function that wants a JobId takes no NodeId.
//
// Ids come from users and from the network and end up in paths, labels and log lines, so Parse()
// refuses what is not safe there. The explicit constructor is for ids that this program made.

#pragma once

#include <compare>
#include <cstdint>
#include <ostream>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace autosp {

inline constexpr size_t kMaxIdLength = 63;  // What Kubernetes and DNS allow in one label.

// Letters, digits, '-', '_' and '.', the first one a letter or a digit, at most kMaxIdLength.
absl::Status CheckId(absl::string_view kind, absl::string_view text);

template <typename Tag>
class StringId {
 public:
  static absl::StatusOr<StringId> Parse(absl::string_view text) {
    if (absl::Status status = CheckId(Tag::kKind, text); !status.ok()) return status;
    return StringId(std::string(text));
  }

  StringId() = default;
  explicit StringId(std::string value) : value_(std::move(value)) {}

  const std::string& value() const { return value_; }
  bool empty() const { return value_.empty(); }

  friend auto operator<=>(const StringId&, const StringId&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const StringId& id) {
    return H::combine(std::move(h), id.value_);
  }
  friend std::ostream& operator<<(std::ostream& out, const StringId& id) {
    return out << id.value_;
  }
  // Lets ids stand among the parts of absl::StrCat, hence in errors and log lines.
  operator absl::AlphaNum() const { return absl::AlphaNum(value_); }  // NOLINT: implicit on purpose

 private:
  std::string value_;
};

template <typename Tag>
class IntId {
 public:
  constexpr IntId() = default;
  constexpr explicit IntId(int64_t value) : value_(value) {}

  constexpr int64_t value() const { return value_; }

  friend constexpr auto operator<=>(const IntId&, const IntId&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const IntId& id) {
    return H::combine(std::move(h), id.value_);
  }
  friend std::ostream& operator<<(std::ostream& out, const IntId& id) { return out << id.value_; }
  operator absl::AlphaNum() const { return absl::AlphaNum(value_); }  // NOLINT: implicit on purpose

 private:
  int64_t value_ = 0;
};

struct JobIdTag {
  static constexpr absl::string_view kKind = "job id";
};
struct NodeIdTag {
  static constexpr absl::string_view kKind = "node id";
};
struct RequestIdTag {
  static constexpr absl::string_view kKind = "request id";
};
struct RankTag {};
struct GenerationTag {};

using JobId = StringId<JobIdTag>;
using NodeId = StringId<NodeIdTag>;
using RequestId = StringId<RequestIdTag>;

// A process of a job, from 0 to world_size - 1.
using Rank = IntId<RankTag>;

// One membership of a job: every attempt gets the next one, and messages of others are refused.
using Generation = IntId<GenerationTag>;

// "job-4x7hk2m9qp3t": the prefix, then 60 random bits in letters and digits that are not mistaken
// for each other. Thread-safe.
std::string RandomId(absl::string_view prefix);

}  // namespace autosp
