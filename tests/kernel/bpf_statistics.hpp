// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "service/block_store.hpp"

#include <bpf/bpf.h>
#include <linux/bpf.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

/// \file
/// The kernel's own statistics of BPF programs: how often each has run, and for how long.

namespace sched_test {

namespace scx = asio_pulse::scx;

/// The kernel keeps these statistics only while such an object exists.
///
/// \par Errors  std::runtime_error.
class bpf_statistics {
 public:
  bpf_statistics() : fd_(bpf_enable_stats(BPF_STATS_RUN_TIME)) {
    if (!fd_) throw std::runtime_error("the kernel does not count runs of BPF programs");
  }

 private:
  scx::unique_fd fd_;
};

/// Calls `f(name, info)` for each BPF program that is loaded. Names end after 15 characters.
template <class F>
void for_each_program(F f) {
  for (std::uint32_t id = 0; bpf_prog_get_next_id(id, &id) == 0;) {
    scx::unique_fd fd(bpf_prog_get_fd_by_id(id));
    bpf_prog_info info{};
    std::uint32_t size = sizeof(info);
    if (!fd || bpf_obj_get_info_by_fd(fd.get(), &info, &size) != 0) continue;
    f(std::string(info.name), info, fd);
  }
}

/// Counts ticks that have interrupted SCHED_EXT threads: calls of the scheduler's own callback.
/// Unlike with a clock, a tick that the emulated machine loses does not count.
///
/// \par Errors  std::runtime_error where the scheduler is not loaded.
class tick_count {
 public:
  tick_count() {
    for_each_program([this](const std::string& name, const bpf_prog_info&, scx::unique_fd& fd) {
      if (name == "scx_pulse_tick") program_ = std::move(fd);
    });
    if (!program_) throw std::runtime_error("there is no BPF program scx_pulse_tick");
  }
  /// The number so far, on all CPUs. It includes the tick that has changed a control block, because
  /// that tick ends before the thread continues.
  [[nodiscard]] std::uint64_t now() const {
    bpf_prog_info info{};
    std::uint32_t size = sizeof(info);
    if (bpf_obj_get_info_by_fd(program_.get(), &info, &size) != 0)
      throw std::runtime_error("the statistics of the program scx_pulse_tick cannot be read");
    return info.run_cnt;
  }

 private:
  bpf_statistics counting_;
  scx::unique_fd program_;
};

}  // namespace sched_test
