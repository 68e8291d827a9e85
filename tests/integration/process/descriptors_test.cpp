// SPDX-License-Identifier: BSL-1.0
//
// The descriptors that the library has open: few, whatever the number of workers.

#include <support/sanitizers.hpp>
#include <support/stuck.hpp>
//
#include "filter.hpp"
#include "told.hpp"

#include <boost/asio/ip/tcp.hpp>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <barrier>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace pulse_test;
using asio_pulse::report;
using asio_pulse::report_kind;
using asio_pulse::stall_cause;
namespace asio = boost::asio;

constexpr std::size_t workers = 200;
constexpr std::size_t allowed = 8;

using descriptors = std::set<std::pair<int, std::string>>;

/// The open descriptors, by number and target, in the tables of all threads.
descriptors open_descriptors() {
  descriptors found;
  std::error_code gone;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task", gone)) {
    for (const auto& entry : std::filesystem::directory_iterator(task.path() / "fd", gone)) {
      const std::string target = std::filesystem::read_symlink(entry.path(), gone).string();
      if (target.ends_with("/fd")) continue;  // the iterator's own
      found.emplace(std::stoi(entry.path().filename().string()), target);
    }
  }
  return found;
}

/// The descriptors that stay open, while others are opened and closed.
descriptors lasting_descriptors() {
  descriptors lasting = open_descriptors();
  for (int look = 0; look != 10; ++look) {
    std::this_thread::sleep_for(5ms);
    const descriptors now = open_descriptors();
    std::erase_if(lasting, [&now](const auto& d) { return !now.contains(d); });
  }
  return lasting;
}

/// Files of /proc about other threads than the first one.
std::size_t files_of_threads() {
  const std::string first = "/task/" + std::to_string(::getpid()) + '/';
  std::size_t count = 0;
  for (const auto& [number, target] : open_descriptors()) {
    const bool of_a_thread = target.find("/task/") != target.npos;
    count += static_cast<std::size_t>(of_a_thread && target.find(first) == target.npos);
  }
  return count;
}

/// The number of further descriptors that the program can open.
std::size_t free_descriptors() {
  std::vector<int> opened;
  for (int d = 0; (d = ::open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;) opened.push_back(d);
  for (const int d : opened) ::close(d);
  return opened.size();
}

/// Workers that are in a handler all at once, for as long as it takes to be seen.
int many_workers() {
  const descriptors before = open_descriptors();
  const std::size_t free_before = free_descriptors();
  std::size_t of_asio = 0;
  {
    asio::io_context plain;
    const asio::ip::tcp::socket socket{plain};
    of_asio = free_before - free_descriptors();
  }
  std::atomic<std::size_t> stalls{0};
  asio_pulse::options o;
  o.on_report = [&](const report& r) { stalls += r.kind == report_kind::stall ? 1 : 0; };
  o.report_interval = 0ns;
  o.reports_per_second = 0;
  {
    asio_pulse::io_context io{o};
    const asio::ip::tcp::socket socket{io};
    auto work = asio::make_work_guard(io);
    std::barrier all_here{static_cast<std::ptrdiff_t>(workers)};
    std::atomic<bool> over{false};
    for (std::size_t n = 0; n != workers; ++n) {
      asio::post(io, [&] {
        all_here.arrive_and_wait();
        while (!over) std::this_thread::sleep_for(20ms);  // leaves the CPU to the watchdog
      });
    }
    std::vector<std::thread> threads;
    for (std::size_t n = 0; n != workers; ++n) threads.emplace_back([&io] { io.run(); });
    require(until([&] { return stalls >= workers; }), "each stuck worker is reported");
    // The watchdog opens some files only for the time of one look at a thread.
    std::size_t taken = free_before - free_descriptors() - of_asio;
    for (int n = 0; n != 50 && taken > allowed; ++n) {
      std::this_thread::sleep_for(10ms);
      taken = std::min(taken, free_before - free_descriptors() - of_asio);
    }
    std::size_t ours = 0;
    for (const auto& [number, target] : lasting_descriptors()) {
      if (before.contains({number, target})) continue;
      std::printf("%d %s\n", number, target.c_str());
      ++ours;
    }
    ours -= of_asio;
    std::printf("%zu descriptors of our own, %zu taken from the program\n", ours, taken);
    require(ours <= allowed, "the library has at most 8 descriptors");
    require(taken <= allowed, "the program can use all other descriptors");
    over = true;
    work.reset();
    for (std::thread& t : threads) t.join();
    require(until([] { return files_of_threads() == 0; }), "no files of ended threads are open");
  }
  return 0;
}
const program with_many_workers{"many_workers", &many_workers};

void few_descriptors() {
  const rlimit limit{.rlim_cur = 256, .rlim_max = 256};
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

TEST(descriptors, are_few_with_two_hundred_workers) {
  const outcome o = with_many_workers.run(few_descriptors);
  EXPECT_TRUE(succeeded(o));
  std::printf("%s", o.out.c_str());
}

TEST(descriptors, are_few_under_a_filter) {
  if (sanitized) GTEST_SKIP() << "a sanitizer makes calls of its own";
  const outcome o = with_many_workers.run([] {
    few_descriptors();
    filter_calls(std::array{long{SYS_process_vm_readv}}, SECCOMP_RET_ERRNO | EPERM,
                 SECCOMP_RET_ALLOW);
  });
  EXPECT_TRUE(succeeded(o));
  std::printf("%s", o.out.c_str());
}

/// The kernel's table of descriptors is enlarged before there is a second thread.
int table_of_descriptors() {
  const asio_pulse::io_context io;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("FDSize:")) {
      std::printf("%s\n", line.c_str());
      require(std::stoi(line.substr(7)) >= 1024, "there is room for 1024");
      return 0;
    }
  }
  return 1;
}
const program with_a_table{"table_of_descriptors", &table_of_descriptors};

TEST(descriptors, need_no_larger_table_beside_the_watchdog) {
  if (sanitized) GTEST_SKIP() << "a sanitizer has its own thread";
  EXPECT_TRUE(succeeded(with_a_table.run([] {
    const rlimit limit{.rlim_cur = 1024, .rlim_max = 1024};
    ::setrlimit(RLIMIT_NOFILE, &limit);
  })));
}

/// A stall while no file can be opened.
int no_descriptor_free() {
  std::atomic<bool> told{false};
  asio_pulse::options o;
  o.report_interval = 0ns;
  o.on_report = [&](const report& r) {
    if (r.kind != report_kind::stall) return;
    std::printf("%s\n", asio_pulse::format(r).c_str());
    told = told || (r.cause == stall_cause::unknown &&
                    r.detail.find("no file descriptor") != r.detail.npos);
  };
  asio_pulse::io_context io{o};
  asio::post(io, [&] { require(until([&] { return told.load(); }), "it is reported"); });
  const rlimit none{.rlim_cur = 0, .rlim_max = 1024};
  require(::setrlimit(RLIMIT_NOFILE, &none) == 0, "the limit is set");
  io.run();
  return told ? 0 : 1;
}
const program without_descriptors{"no_descriptor_free", &no_descriptor_free};

TEST(descriptors, that_cannot_be_had_are_named_as_the_reason) {
#if defined(PULSE_TEST_ASAN)
  GTEST_SKIP() << "UBSan, which is built with it, needs a pipe to look at an object's type";
#endif
  EXPECT_TRUE(succeeded(without_descriptors.run()));
}

}  // namespace
