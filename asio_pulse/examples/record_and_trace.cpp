// SPDX-License-Identifier: BSL-1.0
//
// Writes the most recent events of the workers as a recording, which `pulse_recording replay`
// reads, and as a trace for Perfetto.
//
//   record_and_trace [FOLDER]     writes FOLDER/example.pulse and FOLDER/example.json (here: .)

#include <asio_pulse/asio_pulse.hpp>
#include <asio_pulse/recording.hpp>
#include <asio_pulse/trace.hpp>

#include <cstddef>
#include <fstream>
#include <iostream>
#include <string>
#include <system_error>

int main(int argc, char** argv) {
  const std::string folder = argc > 1 ? argv[1] : ".";
  asio_pulse::io_context io{asio_pulse::options{
      .on_report = [](const asio_pulse::report&) {},
      .name = "example",
      .trace = asio_pulse::instrument_mode::on,
  }};
  const asio_pulse::task job{io, {.name = "job"}};
  for (int n = 0; n != 1000; ++n) asio_pulse::post(job, [] {});
  io.run();

  // [record]
  const asio_pulse::recording taken = io.trace();
  std::error_code ec;
  std::string why;
  asio_pulse::write_recording(taken, folder + "/example.pulse", ec, &why);
  std::ofstream trace(folder + "/example.json");
  asio_pulse::write_trace(taken, trace);  // for ui.perfetto.dev or chrome://tracing
  // [record]
  trace.close();
  if (ec || !trace) {
    std::cerr << (ec ? why : "cannot write " + folder + "/example.json") << '\n';
    return 1;
  }

  const asio_pulse::recording read =
      asio_pulse::read_recording(folder + "/example.pulse", ec, &why);
  std::size_t events = 0;
  for (const auto& worker : read.workers) events += worker.events.size();
  std::cout << events << " events of " << read.workers.size() << " worker(s)\n";
  return !ec && read == taken && events >= 1000 ? 0 : 1;
}
