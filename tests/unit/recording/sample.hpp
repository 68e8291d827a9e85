// SPDX-License-Identifier: BSL-1.0
//
// Recordings made by hand.

#pragma once

#include <asio_pulse/recording.hpp>

#include <chrono>
#include <cstdint>
#include <string>

namespace asio_pulse::test {

inline recorded_event poll_at(std::chrono::nanoseconds start, std::uint32_t task,
                              std::chrono::nanoseconds cost,
                              std::uint32_t site = recorded_event::no_site) {
  return recorded_event::make(event_kind::poll, start, site, task, cost);
}

/// One of everything, with names that no format likes.
inline recording everything() {
  using namespace std::chrono_literals;
  recording r;
  r.pid = 4711;
  r.program = "serv\"er\\";
  r.context = "main\n\x01";
  r.begin = std::chrono::system_clock::time_point{
      std::chrono::duration_cast<std::chrono::system_clock::duration>(1'790'000'000s)};
  r.length = 20ms;
  r.clock = timing::clock_kind::rseq_tsc;
  r.settings = {.stall_threshold = 5ms,
                .yield_threshold = 20ms,
                .isolate_threshold = 50ms,
                .tiers = {.yield_after = 4, .isolate_after = 5, .clean_window = 90ms},
                .shadow = true};
  r.sites = {{"void parse<char>(int)::{lambda()#1}", {"src/pa\"rse.cpp", 12, "parse"}}, {}};
  r.tasks = {{7, "re\xffport\x1b[31m", 300us, 3ms, 1ms}, {(1ULL << 32) + 9, "", 0ns, 0ns, 0ns}};
  recorded_worker w{1234, 3, {}};
  w.events = {
      poll_at(1us, 7, 100us, 0),
      poll_at(200us, 9, 7ms, 1),
      recorded_event::make(event_kind::tier, 7300us, 1, 9, std::uint32_t{0 * 4 + 2}),
      recorded_event::make(event_kind::parked, 7400us, 1, 9, std::uint32_t{0}),
      recorded_event::make(event_kind::yielded, 7500us, 0, 7, std::uint32_t{0}),
      recorded_event::make(event_kind::isolated, 7600us, 1, 9, std::uint32_t{0}),
      recorded_event::make(event_kind::hint, 7700us, recorded_event::no_site, 0, std::uint32_t{0}),
      recorded_event::make(event_kind::stall, 7800us, 1, 9, std::uint32_t{0}),
      recorded_event::make(event_kind::queue_delay, 8ms, recorded_event::no_site, 0,
                           std::chrono::nanoseconds{7ms}),
  };
  r.workers = {w, {1235, 0, {poll_at(10us, 0, 10s, recorded_event::no_site)}}};
  stall_metrics s;
  s.at = r.begin + std::chrono::duration_cast<std::chrono::system_clock::duration>(7800us);
  s.task_id = (1ULL << 32) + 9;
  s.task = "job";
  s.site = "work(int)";
  s.place = {"src/work.cpp", 99, "work"};
  s.thread = 1234;
  s.lasted = 9ms;
  s.ended = true;
  s.cause = stall_cause::blocked;
  s.system_call = "futex";
  s.stack = {{.address = 0x7f0011223344,
              .function = "wait",
              .module = "libc.so.6",
              .offset = 0x9c3fe,
              .inlined = true},
             {.address = 0x401234,
              .function = "work \"x\"",
              .file = "src/work.cpp",
              .line = 99,
              .module = "server",
              .offset = 0x1234,
              .awaiting = true}};
  s.blamed = 1;
  r.stalls = {s};
  return r;
}

}  // namespace asio_pulse::test
