// SPDX-License-Identifier: BSL-1.0
//
// How to start a context in production, from docs/production.md. Runs a short demonstration and
// ends.

#include <asio_pulse/asio_pulse.hpp>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <string>

using namespace std::chrono_literals;

namespace {

void write_log(const std::string& line) { std::clog << line + '\n'; }

//! [options]
asio_pulse::options production_options(const std::string& folder) {
  asio_pulse::options o;
  o.name = "chat";                                    // in reports, pulse_top and metrics
  o.shadow = std::getenv("CHAT_ENFORCE") == nullptr;  // decide and report, enforce nothing
  o.on_report = [](const asio_pulse::report& r) {
    write_log(asio_pulse::format(r));  // one line, whatever the names in it are
    if (!r.stack.empty()) write_log(asio_pulse::format(r.stack));
  };
  o.trace = asio_pulse::instrument_mode::on;  // the last events of each worker are kept,
  o.trace_folder = folder;                    // and written there when a stall is found
  return o;
}
//! [options]

void spin(std::chrono::nanoseconds how_long) {
  const auto end = std::chrono::steady_clock::now() + how_long;
  while (std::chrono::steady_clock::now() < end) {
  }
}

}  // namespace

int main(int argc, char** argv) {
  asio_pulse::io_context io(production_options(argc > 1 ? argv[1] : "."));
  const asio_pulse::task import(io, {.name = "import", .budget = 2ms, .per = 10ms});
  for (int i = 0; i != 20; ++i) asio_pulse::post(import, [] { spin(25ms); });
  io.run();
  //! [shadow_saved]
  const asio_pulse::statistics s = io.stats();
  std::cout << s.stalls << " stalls; enforcement would have put handlers of "
            << std::chrono::duration<double, std::milli>(s.shadow_saved).count()
            << " ms of CPU time behind the others\n";
  //! [shadow_saved]
  return s.stalls > 0 && s.shadow_saved > 0ns ? 0 : 1;
}
