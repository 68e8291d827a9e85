// SPDX-License-Identifier: BSL-1.0
//
// A program with some load, which Prometheus can scrape.
//
//   prometheus_server [ADDRESS [SECONDS]]     (127.0.0.1:0, any free port; 1 s)
//   curl http://127.0.0.1:PORT/metrics

#include <asio_pulse/asio_pulse.hpp>
#include <asio_pulse/prometheus.hpp>

#include <boost/asio/steady_timer.hpp>

#include <prometheus/exposer.h>
#include <prometheus/text_serializer.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>

using namespace std::chrono_literals;

int main(int argc, char** argv) {
  const std::string address = argc > 1 ? argv[1] : "127.0.0.1:0";
  const std::chrono::seconds how_long{argc > 2 ? std::atoi(argv[2]) : 1};
  asio_pulse::io_context io{asio_pulse::options{
      .on_report = [](const asio_pulse::report&) {},
      .name = "example",
      .metrics = asio_pulse::instrument_mode::on,
  }};
  // [exposer]
  prometheus::Exposer exposer(address);  // GET /metrics
  auto metrics = std::make_shared<asio_pulse::prometheus_collectable>();
  exposer.RegisterCollectable(metrics);  // keeps only a weak pointer: keep `metrics` alive
  // [exposer]
  std::cout << "port " << exposer.GetListeningPorts().at(0) << ", for " << how_long.count() << " s"
            << std::endl;

  const asio_pulse::task report{io, {.name = "report"}};
  boost::asio::steady_timer timer(io);
  const auto end = std::chrono::steady_clock::now() + how_long;
  std::function<void()> step = [&] {
    const auto busy_until = std::chrono::steady_clock::now() + 2ms;
    while (std::chrono::steady_clock::now() < busy_until) continue;
    if (busy_until >= end) return;
    timer.expires_after(8ms);
    timer.async_wait([&](boost::system::error_code) { step(); });
  };
  asio_pulse::post(report, step);
  io.run();

  // The text that a scrape would have got.
  std::istringstream lines(prometheus::TextSerializer().Serialize(metrics->Collect()));
  int shown = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("asio_pulse_polls_total") || line.starts_with("asio_pulse_task_cpus")) {
      std::cout << line << '\n';
      ++shown;
    }
  }
  return shown >= 2 ? 0 : 1;
}
