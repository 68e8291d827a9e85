// SPDX-License-Identifier: BSL-1.0
//
// Metrics for Prometheus. In a library of its own, asio_pulse::prometheus, for programs that have
// prometheus-cpp; asio_pulse/prometheus/README.md lists what is exported.

#pragma once

#include <asio_pulse/metrics.hpp>

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace asio_pulse {

/// What is exported, and how much of it.
///
/// The order of the members is stable: designated initialisers go on compiling.
struct prometheus_options {
  /// What every metric's name begins with, without the underscore that follows. A letter or an
  /// underscore, then letters, digits and underscores; not two underscores at the beginning.
  std::string prefix = "asio_pulse";

  /// Names of tasks that a context may fill series with, by recent CPU time; the rest is summed up
  /// as "(all other)". Zero: no metrics of tasks. At most 1000. The default is a guess.
  std::size_t top_tasks = 20;

  /// Sites that a context may fill series with, by CPU time. Zero: no metrics of sites. At most
  /// 2047. The default is a guess.
  std::size_t top_sites = 20;

  /// Metrics of each worker: five series a thread.
  bool workers = true;

  bool operator==(const prometheus_options&) const = default;
};

/// The metrics of all contexts of this process, read anew at each scrape. To be registered with a
/// prometheus::Exposer, or handed to a prometheus::TextSerializer:
///
///     prometheus::Exposer exposer("127.0.0.1:9464");
///     auto metrics = std::make_shared<asio_pulse::prometheus_collectable>();
///     exposer.RegisterCollectable(metrics);   // keeps a weak pointer
///
/// \par Cost           Nothing between scrapes but what options::metrics says. A scrape costs what
///                     asio_pulse::collect() does, and some strings a series.
/// \par Thread safety  Distinct objects: Safe. Shared objects: Safe.
class prometheus_collectable : public prometheus::Collectable {
 public:
  /// Where the figures come from: this process, or, with inspector::fetch(), another.
  using source = std::function<process_metrics(const metrics_request&)>;

  /// Asks the source once, so that contexts that collect on demand have figures at the first
  /// scrape.
  ///
  /// \par Errors  std::invalid_argument, naming the field and the rule; std::bad_alloc.
  explicit prometheus_collectable(prometheus_options opts = {}, source from = {});
  ~prometheus_collectable() override;
  prometheus_collectable(const prometheus_collectable&) = delete;
  prometheus_collectable& operator=(const prometheus_collectable&) = delete;

  /// \par Errors  None but std::bad_alloc where there is no memory for a single line: a source that
  ///              throws leaves the metric PREFIX_up, at 0, and no other. Exposer's threads do not
  ///              catch.
  [[nodiscard]] std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace asio_pulse
