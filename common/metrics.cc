#include "common/metrics.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/errors.h"
#include "common/status_macros.h"

namespace autosp {
namespace {

bool IsSnakeCase(absl::string_view text) {
  return !text.empty() && absl::ascii_islower(text[0]) &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '_';
         });
}

absl::Status CheckBuckets(const MetricDef& def) {
  if (def.kind != MetricKind::kHistogram) {
    if (def.buckets.empty()) return absl::OkStatus();
    return InvalidArgument("has buckets but is a ", MetricKindName(def.kind));
  }
  if (def.buckets.empty()) return InvalidArgument("is a histogram without buckets");
  const bool is_ascending =
      std::adjacent_find(def.buckets.begin(), def.buckets.end(),
                         [](double a, double b) { return a >= b; }) == def.buckets.end();
  return is_ascending ? absl::OkStatus() : InvalidArgument("has buckets that do not ascend");
}

absl::Status CheckMetricDef(const MetricDef& def) {
  if (!absl::StartsWith(def.name, "autosp_") || !IsSnakeCase(def.name)) {
    return InvalidArgument("is not snake case with the prefix autosp_");
  }
  if (absl::EndsWith(def.name, "_total") != (def.kind == MetricKind::kCounter)) {
    return InvalidArgument("a counter ends in _total and nothing else does; this is a ",
                           MetricKindName(def.kind));
  }
  for (const absl::string_view label : def.label_names()) {
    if (!IsSnakeCase(label)) return InvalidArgument("label \"", label, "\" is not snake case");
  }
  if (!absl::EndsWith(def.help, ".")) {
    return InvalidArgument("help is not a sentence; end it with a full stop");
  }
  return CheckBuckets(def);
}

}  // namespace

absl::string_view MetricKindName(MetricKind kind) {
  switch (kind) {
    case MetricKind::kCounter:
      return "counter";
    case MetricKind::kGauge:
      return "gauge";
    case MetricKind::kHistogram:
      return "histogram";
  }
  return "unknown";
}

absl::Span<const absl::string_view> MetricDef::label_names() const {
  const auto* end = std::find(labels.begin(), labels.end(), absl::string_view());
  return {labels.data(), static_cast<size_t>(end - labels.begin())};
}

absl::Status CheckMetricDefs(absl::Span<const MetricDef* const> defs) {
  absl::flat_hash_set<absl::string_view> names;
  for (const MetricDef* def : defs) {
    RETURN_IF_ERROR(WithContext(CheckMetricDef(*def), "metric ", def->name));
    if (!names.insert(def->name).second) {
      return AlreadyExists("metric ", def->name, " is listed twice");
    }
  }
  return absl::OkStatus();
}

std::string MetricsMarkdown(absl::Span<const MetricDef* const> defs) {
  std::string table = "| name | kind | labels | meaning |\n|---|---|---|---|\n";
  for (const MetricDef* def : defs) {
    absl::StrAppend(&table, "| `", def->name, "` | ", MetricKindName(def->kind), " | ",
                    absl::StrJoin(def->label_names(), ", "), " | ", def->help, " |\n");
  }
  return table;
}

}  // namespace autosp
