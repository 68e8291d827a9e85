// SPDX-License-Identifier: BSL-1.0
//
// Which kinds of reports are sent, and what reports cost the process.

#include "told.hpp"

#include <asio_pulse/should_yield.hpp>

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

namespace {

using namespace pulse_test;
using asio_pulse::report;
using asio_pulse::report_kind;
using asio_pulse::report_kinds;
namespace asio = boost::asio;

// ---- silencing

/// The reports that were sent, by kind.
class counted {
 public:
  [[nodiscard]] asio_pulse::options options(report_kinds silenced) {
    asio_pulse::options o;
    o.report_interval = 0ns;
    o.reports_per_second = 0;
    o.max_critical = 1ms;
    o.silenced = silenced;
    o.on_report = [this](const report& r) {
      const std::lock_guard lock(mutex_);
      ++counts_[r.kind];
    };
    return o;
  }
  [[nodiscard]] std::size_t of(report_kind k) const {
    const std::lock_guard lock(mutex_);
    const auto found = counts_.find(k);
    return found == counts_.end() ? 0 : found->second;
  }
  [[nodiscard]] std::size_t all() const {
    const std::lock_guard lock(mutex_);
    std::size_t sum = 0;
    for (const auto& [kind, count] : counts_) sum += count;
    return sum;
  }

 private:
  mutable std::mutex mutex_;
  std::map<report_kind, std::size_t> counts_;
};

/// Runs a handler that is stuck for long enough to be found by the watchdog, and another one that
/// stays in a critical section. Returns when the watchdog has noticed the ends of both.
void run_offenders(asio_pulse::io_context& io) {
  const std::uint64_t before = io.stats().stalls;
  asio::post(io, [&] {
    require(until([&] { return io.stats().stalls > before; }), "the watchdog sees a stuck handler");
  });
  asio::post(io, [] {
    const asio_pulse::critical_section section;
    std::this_thread::sleep_for(2ms);
  });
  io.run();
  io.restart();
}

int silences_all() {
  counted reports;
  {
    asio_pulse::io_context io{reports.options(report_kinds::all())};
    run_offenders(io);
    require(until([&] { return io.stats().reports_silenced >= 3; }),
            "the stall, its end and the overstay are counted");
    const asio_pulse::statistics s = io.stats();
    require(s.stalls != 0, "the stall itself is counted");
    require(s.reports == 0 && s.reports_suppressed == 0 && s.stall_reports == 0, "none is sent");
  }
  require(reports.all() == 0, "no report was received");
  return 0;
}
const program with_all_silenced{"silences_all", &silences_all};

int silences_two() {
  counted reports;
  {
    asio_pulse::io_context io{
        reports.options({report_kind::stall, report_kind::critical_overstay})};
    run_offenders(io);
    require(until([&] { return reports.of(report_kind::stall_ended) != 0; }),
            "of a silenced stall the end is sent");
    require(io.stats().reports_silenced >= 2, "the others are counted");
  }
  require(reports.of(report_kind::stall) == 0, "no stall");
  require(reports.of(report_kind::critical_overstay) == 0, "no overstay");
  return 0;
}
const program with_two_silenced{"silences_two", &silences_two};

int silences_none() {
  counted reports;
  {
    asio_pulse::io_context io{reports.options({})};
    run_offenders(io);
    require(until([&] { return reports.of(report_kind::stall_ended) != 0; }), "the end is sent");
    require(io.stats().reports_silenced == 0, "nothing is silenced");
  }
  require(reports.of(report_kind::stall) != 0, "a stall");
  require(reports.of(report_kind::critical_overstay) != 0, "an overstay");
  return 0;
}
const program with_none_silenced{"silences_none", &silences_none};

TEST(silenced, all_kinds_are_counted_and_not_sent) {
  const outcome o = with_all_silenced.run();
  EXPECT_TRUE(succeeded(o));
  EXPECT_EQ(o.err, "");
}

TEST(silenced, kinds_are_not_sent_and_others_are) {
  EXPECT_TRUE(succeeded(with_two_silenced.run()));
}

TEST(silenced, no_kind_is_by_default) { EXPECT_TRUE(succeeded(with_none_silenced.run())); }

// ---- symbols

/// The number of mappings of this program's file and of its libraries.
std::size_t mapped_parts() {
  std::ifstream maps("/proc/self/maps");
  std::size_t count = 0;
  for (std::string line; std::getline(maps, line);) {
    count += line.find(" /") != line.npos ? 1U : 0U;
  }
  return count;
}

int reads_symbols_late() {
  told reports;
  asio_pulse::io_context io{reports.options()};
  const std::size_t before = mapped_parts();
  for (int i = 0; i != 20; ++i) {  // short handlers, and pauses in which the watchdog goes to sleep
    asio::post(io, [] {});
    io.poll();
    io.restart();
    std::this_thread::sleep_for(10ms);
  }
  require(mapped_parts() == before, "no file is read for symbols before the first report");
  std::size_t during = 0;
  asio::post(io, [&] {
    const auto has_stack = [](const told::stall& s) { return s.frames != 0; };
    require(until([&] { return reports.any(has_stack); }), "a stall is reported with its stack");
    during = mapped_parts();
  });
  io.run();
  require(during > before, "they are read for it");
  return 0;
}
const program with_late_symbols{"reads_symbols_late", &reads_symbols_late};

TEST(symbols, are_not_read_before_the_first_report) {
  if (asio_pulse::stack_support() != asio_pulse::stack_detail::full) {
    GTEST_SKIP() << "built without libdw";
  }
  EXPECT_TRUE(succeeded(with_late_symbols.run()));
}

}  // namespace
