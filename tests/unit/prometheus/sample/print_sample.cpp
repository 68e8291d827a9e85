// SPDX-License-Identifier: BSL-1.0
//
// Prints the exporter's output for a process in which every metric has a sample, for the checks of
// the dashboard and of the documentation.

#include "support/sample_metrics.hpp"

#include <asio_pulse/prometheus.hpp>

#include <prometheus/text_serializer.h>

#include <iostream>

int main() {
  const asio_pulse::prometheus_collectable metrics(
      {}, [](const asio_pulse::metrics_request&) { return pulse_test::sample_metrics(); });
  prometheus::TextSerializer().Serialize(std::cout, metrics.Collect());
  std::cout.flush();
  return std::cout ? 0 : 1;
}
