// SPDX-License-Identifier: BSL-1.0
//
// Made readings, and a machine whose processes they are.

#pragma once

#include "process/machine.hpp"

#include <asio_pulse/metrics.hpp>

#include <clocale>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace made {

using namespace std::chrono_literals;

// The locale decides how wide characters are. C.UTF-8 is a part of glibc.
inline bool use_utf8() { return std::setlocale(LC_CTYPE, "C.UTF-8") != nullptr; }

inline asio_pulse::histogram delays(std::initializer_list<asio_pulse::histogram::bucket> buckets) {
  asio_pulse::histogram h;
  for (const auto& b : buckets) {
    h.buckets.push_back(b);
    h.count += b.count;
    h.sum += b.upper * static_cast<std::int64_t>(b.count);
  }
  return h;
}

/// A server with one bad handler. Of reading 0, 1, 2 ..., one second apart: everything grows
/// evenly.
inline asio_pulse::process_metrics server(std::uint64_t n) {
  using asio_pulse::tier;
  const auto times = static_cast<std::int64_t>(n + 1);
  asio_pulse::process_metrics p;
  p.pid = 123;
  p.program = "server";
  p.version = "0.1.0";
  p.at = std::chrono::system_clock::time_point{std::chrono::seconds{1'700'000'000} + n * 1s};
  p.uptime = 1000s + n * 1s;
  asio_pulse::context_metrics c;
  c.number = 1;
  c.name = "main";
  c.collecting = true;
  c.totals.clock = asio_pulse::timing::clock_kind::rseq_tsc;
  c.totals.yields = 3 * (n + 1);
  c.totals.stalls = 2 * (n + 1);
  c.totals.reports = n + 1;
  c.polls = 1000 * (n + 1);
  c.cpu = 500ms * times;
  c.poll_duration = delays({{10us, 990 * (n + 1)}, {60ms, 10 * (n + 1)}});
  c.queue_delay = delays({{20us, 90 * (n + 1)}, {61ms, 10 * (n + 1)}});
  c.workers = {{.thread = 124, .polls = 600 * (n + 1), .cpu = 400ms * times},
               {.thread = 125,
                .polls = 400 * (n + 1),
                .cpu = 100ms * times,
                .running = "build_report",
                .running_task = 2,
                .running_for = 150ms}};
  c.sites = {{.type = "build_report",
              .place = {.file = "src/report.cpp", .line = 42, .function = "start()"},
              .polls = 10 * (n + 1),
              .cpu = 450ms * times,
              .longest = 61ms},
             {.type = "on_read",
              .place = {.file = "src/session.cpp", .line = 7},
              .polls = 990 * (n + 1),
              .again = 99 * (n + 1),
              .cpu = 50ms * times,
              .longest = 90us}};
  c.tasks = {
      {.id = 2,
       .name = "report",
       .level = tier::yield,
       .polls = 10 * (n + 1),
       .cpu = 450ms * times,
       .recent = 45ms,
       .waiting = true},
      {.id = 1, .name = "session", .polls = 990 * (n + 1), .cpu = 50ms * times, .recent = 5ms}};
  c.task_count = 2;
  c.groups = {{.path = "small",
               .name = "small",
               .cpu = 50ms * times,
               .recent = 5ms,
               .asked = 25ms,
               .weight = 100,
               .tasks = 1,
               .admitted = 99 * (n + 1),
               .refused_share = n + 1,
               .refused_overload = n + 1,
               .queue_delay = 2ms,
               .wants_more = true},
              {.path = "flood",
               .name = "flood",
               .cpu = 450ms * times,
               .recent = 45ms,
               .asked = 25ms,
               .weight = 100,
               .tasks = 64,
               .admitted = 10 * (n + 1),
               .refused_share = 70 * (n + 1),
               .refused_overload = 3 * (n + 1),
               .queue_delay = 6ms}};
  c.group_count = 2;
  c.group_recent = 50ms;
  c.recent_interval = 100ms;
  c.stalls = {{.at = p.at - 3s,
               .task_id = 2,
               .task = "report",
               .site = "build_report",
               .thread = 125,
               .lasted = 61ms,
               .ended = true,
               .cause = asio_pulse::stall_cause::spinning,
               .stack = {{.function = "crc32(char const*)", .file = "src/crc.cpp", .line = 8},
                         {.function = "build_report()", .file = "src/report.cpp", .line = 50},
                         {.function = "main", .file = "src/main.cpp", .line = 3}},
               .blamed = 1}};
  p.contexts.push_back(std::move(c));
  return p;
}

/// All its names are what an attacker would choose.
inline asio_pulse::process_metrics hostile(std::uint64_t n) {
  const std::string name = "\x1b[2J\x1b]0;owned\a\r\n\t\b\x7f\x9b\xff\xc3\x28\u202e\u200b\"\\" +
                           std::string(10'000, 'A') + "\u4e16\u0301";
  asio_pulse::process_metrics p = server(n);
  p.program = p.version = name;
  asio_pulse::context_metrics& c = p.contexts[0];
  c.name = name;
  for (auto& w : c.workers) w.running = w.batch_site = name;
  for (auto& s : c.sites) s.type = s.place.file = s.place.function = name;
  for (auto& t : c.tasks) t.name = name;
  for (auto& g : c.groups) g.path = g.name = name;
  for (auto& s : c.stalls) {
    s.task = s.site = s.place.file = s.place.function = s.system_call = name;
    s.stack = {{.function = name, .file = name}, {.function = name, .module = name}};
  }
  return p;
}

/// One answer of a process.
struct answer {
  asio_pulse::process_metrics metrics{};
  std::error_code ec{};
  std::string detail{};
};

class machine final : public asio_pulse::top::machine {
 public:
  std::vector<asio_pulse::inspectable_process> listed{};
  std::error_code list_error{};
  std::map<std::uint64_t, std::deque<answer>> answers{};  ///< empty: the process has ended
  std::uint64_t requests = 0;
  std::uint64_t connections = 0;
  asio_pulse::recording recorded{};
  /// What change() was asked for, and what it answers: a sentence, or why it refuses.
  std::vector<std::pair<std::uint64_t, asio_pulse::context_change>> changes{};
  std::string changed{};
  std::string refused{};

  std::vector<asio_pulse::inspectable_process> processes(std::error_code& ec) override {
    ec = list_error;
    return listed;
  }
  std::unique_ptr<asio_pulse::top::peer> open() override { return std::make_unique<peer>(*this); }
  bool alive(std::uint64_t pid) override {
    return answers.contains(pid) && !answers.at(pid).empty();
  }
  std::optional<std::chrono::nanoseconds> age(std::uint64_t) override { return 65s; }

 private:
  class peer final : public asio_pulse::top::peer {
   public:
    explicit peer(machine& m) : m_(m) {}
    void connect(std::uint64_t pid, std::error_code& ec) override {
      ++m_.connections;
      pid_ = pid;
      ec = m_.alive(pid) ? std::error_code{} : make_error_code(std::errc::no_such_process);
    }
    asio_pulse::process_metrics fetch(std::error_code& ec) override {
      ++m_.requests;
      if (!m_.alive(pid_)) {
        ec = make_error_code(std::errc::connection_reset);
        return {};
      }
      const answer a = m_.answers.at(pid_).front();
      m_.answers.at(pid_).pop_front();
      detail_ = a.detail;
      ec = a.ec;
      return a.metrics;
    }
    asio_pulse::recording trace(std::chrono::milliseconds, std::uint64_t,
                                std::error_code& ec) override {
      ec = {};
      return m_.recorded;
    }
    std::string change(std::uint64_t context, const asio_pulse::context_change& what,
                       std::error_code& ec) override {
      m_.changes.emplace_back(context, what);
      detail_ = m_.refused;
      ec = {};
      if (!detail_.empty()) ec = make_error_code(std::errc::operation_not_permitted);
      return m_.changed;
    }
    [[nodiscard]] std::string detail() const override { return detail_; }

   private:
    machine& m_;
    std::uint64_t pid_ = 0;
    std::string detail_;
  };
};

}  // namespace made
