// SPDX-License-Identifier: BSL-1.0
//
// How docs/guide.md would start a context in production. Shows it and ends.

#include <asio_pulse/asio_pulse.hpp>

#include <boost/asio/post.hpp>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>

using namespace std::chrono_literals;

namespace {

void write_log(const std::string& line) { std::clog << line + '\n'; }

//! [options]
asio_pulse::options production_options() {
  asio_pulse::options o;
  o.name = "chat";                                    // in reports, pulse_top and metrics
  o.shadow = std::getenv("CHAT_ENFORCE") == nullptr;  // decide and report, enforce nothing
  o.on_report = [](const asio_pulse::report& r) {
    write_log(asio_pulse::format(r));  // one line, whatever the names in it are
    if (!r.stack.empty()) write_log(asio_pulse::format(r.stack));
  };
  o.trace = asio_pulse::instrument_mode::on;  // the last events of each worker are kept ...
  o.trace_folder = "/var/tmp";                // ... and written there when a stall is found
  return o;
}
//! [options]

}  // namespace

int main() {
  asio_pulse::io_context io(production_options());
  // Two handlers too long by far: one report and one recording.
  for (int i = 0; i != 2; ++i) boost::asio::post(io, [] { std::this_thread::sleep_for(50ms); });
  io.run();
  //! [shadow_saved]
  const asio_pulse::statistics s = io.stats();
  std::cout << s.stalls << " stalls; enforcement would have put "
            << std::chrono::duration<double, std::milli>(s.shadow_saved).count()
            << " ms of work behind the others\n";
  //! [shadow_saved]
  return s.stalls > 0 ? 0 : 1;
}
