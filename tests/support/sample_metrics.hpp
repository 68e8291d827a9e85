// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/metrics.hpp>

#include <chrono>
#include <string>
#include <utility>
#include <variant>

namespace pulse_test {

/// Gives each figure a value of its own, which is none of a figure that was not collected.
template <class Of>
void fill_figures(Of& of) {
  std::int64_t n = 0;
  for (const asio_pulse::figure<Of>& row : asio_pulse::figure_table<Of>) {
    ++n;
    if (const auto* count = std::get_if<std::uint64_t Of::*>(&row.member)) {
      of.** count = static_cast<std::uint64_t>(n);
    } else if (const auto* time = std::get_if<std::chrono::nanoseconds Of::*>(&row.member)) {
      of.** time = n * std::chrono::milliseconds{100};
    } else {
      of.*std::get<bool Of::*>(row.member) = true;
    }
  }
}

inline asio_pulse::site_metrics make_site(std::string type, std::string file, std::uint32_t line,
                                          std::chrono::milliseconds cpu, std::uint64_t polls) {
  asio_pulse::site_metrics s;
  fill_figures(s);
  s.type = std::move(type);
  s.place = {.file = std::move(file), .line = line, .function = {}};
  s.polls = polls;
  s.again = polls / 2;
  s.cpu = cpu;
  s.longest = cpu / 2;
  return s;
}

inline asio_pulse::task_metrics make_task(std::uint64_t id, std::string name,
                                          std::chrono::milliseconds recent) {
  asio_pulse::task_metrics t;
  fill_figures(t);
  t.id = id;
  t.name = std::move(name);
  t.polls = 10 * id;
  t.cpu = 10 * recent;
  t.recent = recent;
  t.waiting = false;
  return t;
}

inline asio_pulse::group_metrics make_group(std::string path, std::string name,
                                            std::chrono::milliseconds recent) {
  asio_pulse::group_metrics g;
  fill_figures(g);
  g.path = std::move(path);
  g.name = std::move(name);
  g.cpu = 10 * recent;
  g.recent = recent;
  return g;
}

inline asio_pulse::shard_metrics make_shard(std::uint64_t index, std::uint64_t shards,
                                            std::uint64_t cpu_permille) {
  asio_pulse::shard_metrics s;
  fill_figures(s);
  s.index = index;
  s.shards = shards;
  s.cpu_permille = cpu_permille;
  s.keeps = asio_pulse::stay_reason::nothing_movable;
  s.moves = {{.who = "peer",
              .from = 2,
              .to = index,
              .why = asio_pulse::move_reason::drain,
              .ago = std::chrono::milliseconds{1500},
              .took = std::chrono::microseconds{40}}};
  return s;
}

inline asio_pulse::worker_metrics make_worker(std::uint64_t thread, std::string running) {
  asio_pulse::worker_metrics w;
  fill_figures(w);
  w.thread = thread;
  w.polls = 700;
  w.cpu = std::chrono::milliseconds{1250};
  w.longest_batch = std::chrono::milliseconds{3};
  w.running_for = std::chrono::milliseconds{running.empty() ? 0 : 250};
  w.running = std::move(running);
  return w;
}

/// A process with one context in which every metric has a figure of its own.
inline asio_pulse::process_metrics sample_metrics() {
  using namespace std::chrono_literals;
  asio_pulse::context_metrics c;
  c.number = 1;
  c.name = "server";
  c.collecting = true;
  std::uint64_t n = 0;
  for (const asio_pulse::statistic& row : asio_pulse::statistic_table) {
    ++n;
    if (row.count != nullptr) {
      c.totals.*row.count = n;
    } else {
      c.totals.*row.time = n * 100ms;
    }
  }
  c.totals.stalls = c.totals.stalls_spinning + c.totals.stalls_blocked + 1;
  c.totals.clock = asio_pulse::timing::clock_kind::rseq_tsc;
  c.polls = 1000;
  c.cpu = 1500ms;
  c.poll_duration = {.buckets = {{3us, 90}, {700us, 9}, {20s, 1}}, .count = 100, .sum = 20s};
  c.queue_delay = {.buckets = {{15us, 4}}, .count = 4, .sum = 60us};
  c.workers = {make_worker(4711, ""), make_worker(4712, "parse_request"), make_worker(0, "")};
  c.sites = {make_site("parse_request", "src/parse.cpp", 12, 900ms, 300),
             make_site("main()::<lambda()>", "", 0, 400ms, 80)};
  c.other_sites = make_site("3 more", "", 0, 1ms, 3);
  c.tasks = {make_task(3, "report", 500ms), make_task(4, "connection", 100ms)};
  c.tasks[0].level = asio_pulse::tier::yield;
  c.tasks[0].waiting = true;
  c.other_tasks = make_task(0, "", 50ms);
  c.task_count = 22;
  c.groups = {make_group("tenant", "tenant", 600ms), make_group("tenant/user", "user", 200ms)};
  c.other_groups = make_group("", "", 400ms);
  c.group_count = 7;
  c.group_recent = 1s;
  c.shard = make_shard(1, 4, 250);
  c.recent_interval = 2s;
  asio_pulse::stall_metrics stall;
  stall.at = std::chrono::system_clock::time_point(1'700'000'000s);
  stall.stack = {{.address = 0x401234,
                  .function = "parse(char const*)",
                  .file = "src/parse.cpp",
                  .line = 12,
                  .module = "server",
                  .offset = 0x1234,
                  .inlined = true,
                  .awaiting = true}};
  stall.blamed = 0;
  c.stalls = {stall};
  c.instrument_bytes = 65536;
  c.uncollected_workers = 1;

  asio_pulse::process_metrics m;
  m.pid = 42;
  m.program = "server";
  m.version = "0.1.0";
  m.contexts = {c};
  return m;
}

}  // namespace pulse_test
