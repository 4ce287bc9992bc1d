#include "common/metrics_exporter.h"

#include <arpa/inet.h>
#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/check.h"
#include "common/errors.h"
#include "common/file.h"

namespace autosp {

struct MetricRegistry::State final : prometheus::Collectable {
  struct Series {
    prometheus::Counter* counter = nullptr;
    prometheus::Gauge* gauge = nullptr;
    prometheus::Histogram* histogram = nullptr;
  };
  // One of the three families is set, by kind. The series are found here again by their labels.
  struct Entry {
    const MetricDef* def = nullptr;
    prometheus::Family<prometheus::Counter>* counters = nullptr;
    prometheus::Family<prometheus::Gauge>* gauges = nullptr;
    prometheus::Family<prometheus::Histogram>* histograms = nullptr;
    std::map<LabelValues, Series> series;
  };

  std::shared_ptr<prometheus::Registry> registry = std::make_shared<prometheus::Registry>();
  std::mutex mutex;
  absl::flat_hash_map<const MetricDef*, Entry> entries;  // Guarded by mutex.

  mutable std::mutex refresh_mutex;
  std::vector<std::function<void()>> refreshers;  // Guarded by refresh_mutex.

  std::vector<prometheus::MetricFamily> Collect() const override {
    const std::lock_guard lock(refresh_mutex);
    for (const auto& refresh : refreshers) refresh();
    return registry->Collect();
  }

  // Requires: mutex is held.
  Series& Find(const MetricDef& def, MetricKind kind, const LabelValues& labels);
};

namespace {

prometheus::Labels MakeLabels(const MetricDef& def, const LabelValues& values) {
  prometheus::Labels labels;
  for (size_t i = 0; i < values.size(); ++i) {
    labels.emplace(std::string(def.labels[i]), values[i]);
  }
  return labels;
}

}  // namespace

MetricRegistry::MetricRegistry(absl::Span<const MetricDef* const> defs)
    : state_(std::make_shared<State>()) {
  const absl::Status status = CheckMetricDefs(defs);
  AUTOSP_CHECK(status.ok(), status.message());
  const std::lock_guard lock(state_->mutex);
  for (const MetricDef* def : defs) {
    State::Entry& entry = state_->entries[def];
    entry.def = def;
    const std::string name(def->name);
    const std::string help(def->help);
    switch (def->kind) {
      case MetricKind::kCounter:
        entry.counters =
            &prometheus::BuildCounter().Name(name).Help(help).Register(*state_->registry);
        break;
      case MetricKind::kGauge:
        entry.gauges = &prometheus::BuildGauge().Name(name).Help(help).Register(*state_->registry);
        break;
      case MetricKind::kHistogram:
        entry.histograms =
            &prometheus::BuildHistogram().Name(name).Help(help).Register(*state_->registry);
        break;
    }
  }
}

// The server may still answer, but not ask what the owner of this registry has.
MetricRegistry::~MetricRegistry() {
  const std::lock_guard lock(state_->refresh_mutex);
  state_->refreshers.clear();
}

MetricRegistry::State::Series& MetricRegistry::State::Find(const MetricDef& def, MetricKind kind,
                                                           const LabelValues& labels) {
  const auto it = entries.find(&def);
  AUTOSP_CHECK(it != entries.end(), "metric ", def.name, " is not in this registry's list");
  Entry& entry = it->second;
  AUTOSP_CHECK(def.kind == kind, "metric ", def.name, " is a ", MetricKindName(def.kind));
  AUTOSP_CHECK(labels.size() == def.label_names().size(), "metric ", def.name, " has ",
               def.label_names().size(), " labels, not ", labels.size());
  const auto [series, is_new] = entry.series.try_emplace(labels);
  if (is_new) {
    const prometheus::Labels named = MakeLabels(def, labels);
    if (entry.counters != nullptr) series->second.counter = &entry.counters->Add(named);
    if (entry.gauges != nullptr) series->second.gauge = &entry.gauges->Add(named);
    if (entry.histograms != nullptr) {
      series->second.histogram = &entry.histograms->Add(
          named, prometheus::Histogram::BucketBoundaries(def.buckets.begin(), def.buckets.end()));
    }
  }
  return series->second;
}

void MetricRegistry::Declare(const MetricDef& def, const LabelValues& labels) {
  const std::lock_guard lock(state_->mutex);
  state_->Find(def, def.kind, labels);
}

// The values are set under the lock as well: RemoveSeries must not free one in use.
void MetricRegistry::Increment(const MetricDef& def, const LabelValues& labels, double by) {
  AUTOSP_CHECK(by >= 0, "metric ", def.name, " would go down by ", -by);
  const std::lock_guard lock(state_->mutex);
  state_->Find(def, MetricKind::kCounter, labels).counter->Increment(by);
}

void MetricRegistry::Set(const MetricDef& def, const LabelValues& labels, double value) {
  const std::lock_guard lock(state_->mutex);
  state_->Find(def, MetricKind::kGauge, labels).gauge->Set(value);
}

void MetricRegistry::Observe(const MetricDef& def, const LabelValues& labels, double value) {
  const std::lock_guard lock(state_->mutex);
  state_->Find(def, MetricKind::kHistogram, labels).histogram->Observe(value);
}

void MetricRegistry::RemoveSeries(absl::string_view label, absl::string_view value) {
  const std::lock_guard lock(state_->mutex);
  for (auto& [def, entry] : state_->entries) {
    const auto names = def->label_names();
    const size_t index = std::find(names.begin(), names.end(), label) - names.begin();
    if (index == names.size()) continue;
    std::erase_if(entry.series, [&, &entry = entry](auto& item) {
      if (item.first[index] != value) return false;
      const State::Series& series = item.second;
      if (series.counter != nullptr) entry.counters->Remove(series.counter);
      if (series.gauge != nullptr) entry.gauges->Remove(series.gauge);
      if (series.histogram != nullptr) entry.histograms->Remove(series.histogram);
      return true;
    });
  }
}

void MetricRegistry::BeforeAnswers(std::function<void()> refresh) {
  const std::lock_guard lock(state_->refresh_mutex);
  state_->refreshers.push_back(std::move(refresh));
}

std::string MetricRegistry::Render() const {
  return prometheus::TextSerializer().Serialize(state_->Collect());
}

struct MetricsServer::Impl {
  std::shared_ptr<MetricRegistry::State> state;  // The exposer holds it only weakly.
  std::unique_ptr<prometheus::Exposer> exposer;
};

namespace {

// A connection that says nothing holds one of them for half a minute.
constexpr size_t kNumThreads = 4;

void ConnectOnce(int port) {
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  // It only has to be noticed; whether it is accepted does not matter.
  (void)connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
}

}  // namespace

MetricsServer::MetricsServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

// The server's thread looks at its stop flag only when its poll of 2 s ends or somebody connects,
// so connections are made until it has gone: a process that is asked to stop should not take
// seconds.
MetricsServer::~MetricsServer() {
  std::atomic<bool> has_stopped = false;
  std::thread knocker([&has_stopped, port = port()] {
    while (!has_stopped) {
      ConnectOnce(port);
      absl::SleepFor(absl::Milliseconds(10));
    }
  });
  impl_->exposer.reset();
  has_stopped = true;
  knocker.join();
}

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(const MetricRegistry& registry,
                                                                    const std::string& address) {
  auto impl = std::make_unique<Impl>();
  impl->state = registry.state_;
  try {
    impl->exposer = std::make_unique<prometheus::Exposer>(address, kNumThreads);
  } catch (const std::exception& error) {
    return Unavailable("cannot serve metrics on ", address, ": ", error.what(),
                       "; is the port taken?");
  }
  impl->exposer->RegisterCollectable(impl->state);
  return std::unique_ptr<MetricsServer>(new MetricsServer(std::move(impl)));
}

int MetricsServer::port() const { return impl_->exposer->GetListeningPorts().front(); }

}  // namespace autosp
