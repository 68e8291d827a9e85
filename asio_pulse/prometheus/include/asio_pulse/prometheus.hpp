// SPDX-License-Identifier: BSL-1.0
//
// Metrics for Prometheus. They are in a separate library, asio_pulse::prometheus, which needs
// prometheus-cpp. asio_pulse/prometheus/README.md lists what is exported.

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
/// The order of the members is stable, so that designated initialisers continue to compile.
struct prometheus_options {
  /// The beginning of every metric's name, without the underscore that follows it. A letter or an
  /// underscore, then letters, digits and underscores; it must not begin with two underscores.
  std::string prefix = "asio_pulse";

  /// How many names of tasks a context exports, those with the most recent CPU time; the rest is
  /// summed up as "(all other)". Zero: no metrics of tasks. At most 1000. The default is a guess.
  std::size_t top_tasks = 20;

  /// How many sites a context exports, those with the most CPU time. Zero: no metrics of sites. At
  /// most 2047. The default is a guess.
  std::size_t top_sites = 20;

  /// How many groups a context exports, those with the most recent CPU time. Zero: no metrics of
  /// groups. At most 1000. The default is a guess.
  std::size_t top_groups = 20;

  /// Whether metrics of workers are exported: five series for each thread.
  bool workers = true;

  bool operator==(const prometheus_options&) const = default;
};

/// The metrics of all contexts of this process, read at each scrape. Register it with a
/// prometheus::Exposer, or give what it collects to a prometheus::TextSerializer:
///
///     prometheus::Exposer exposer("127.0.0.1:9464");
///     auto metrics = std::make_shared<asio_pulse::prometheus_collectable>();
///     exposer.RegisterCollectable(metrics);   // keeps a weak pointer
///
/// \par Cost           Between scrapes, the collection that options::metrics describes. A scrape
///                     costs what asio_pulse::collect() does, and some strings for each series.
/// \par Thread safety  Distinct objects: Safe. Shared objects: Safe.
class prometheus_collectable : public prometheus::Collectable {
 public:
  /// The source of the figures: this process or, with inspector::fetch(), another one.
  using source = std::function<process_metrics(const metrics_request&)>;

  /// Asks the source once, so that contexts that collect on demand have figures at the first
  /// scrape.
  ///
  /// \par Errors  std::invalid_argument, naming the field and the rule; std::bad_alloc.
  explicit prometheus_collectable(prometheus_options opts = {}, source from = {});
  ~prometheus_collectable() override;
  prometheus_collectable(const prometheus_collectable&) = delete;
  prometheus_collectable& operator=(const prometheus_collectable&) = delete;

  /// \par Errors  std::bad_alloc if there is no memory for a single line. If the source throws, the
  ///              result is the metric PREFIX_up with the value 0 and nothing else: the threads of
  ///              prometheus::Exposer do not catch exceptions.
  [[nodiscard]] std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace asio_pulse
