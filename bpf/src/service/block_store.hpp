// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "program/scx_pulse.h"

#include <asio_pulse/bpf/control_block.h>

#include <sys/types.h>

#include <span>
#include <string>
#include <utility>

/// \file
/// Where the service gets control blocks from. The scheduler is one such store; tests, and machines
/// without sched_ext, have others.

namespace asio_pulse::scx {

/// A file descriptor that is closed with its owner.
class unique_fd {
 public:
  unique_fd() noexcept = default;
  explicit unique_fd(int fd) noexcept : fd_(fd) {}
  unique_fd(unique_fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  unique_fd& operator=(unique_fd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~unique_fd() { reset(); }
  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] explicit operator bool() const noexcept { return fd_ >= 0; }
  [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
  void reset() noexcept;

 private:
  int fd_ = -1;
};

/// The control blocks of one process.
struct process_blocks {
  int fd = -1;  ///< to be sent to the process, which maps it; owned by the store
  /// ASIO_PULSE_SLOT_COUNT elements, which are mapped here as well; the first is an
  /// asio_pulse_system.
  std::span<asio_pulse_scb> blocks;
};

/// \par Thread safety  For one thread only.
class block_store {
 public:
  virtual ~block_store() = default;

  /// Makes the process's array, which is zero except for versions and modes.
  ///
  /// \par Errors  std::system_error, std::runtime_error with a sentence.
  virtual process_blocks open_process(pid_t tgid) = 0;
  /// Forgets the array and all workers of the process. The process may keep it mapped, but nothing
  /// that it writes there from now on is read.
  virtual void close_process(pid_t tgid) noexcept = 0;
  /// Makes the thread a worker from its next switch on.
  ///
  /// \par Errors  As open_process().
  virtual void add_worker(pid_t tid, const scx_pulse_registration& worker) = 0;
  virtual void remove_worker(pid_t tid) noexcept = 0;
};

}  // namespace asio_pulse::scx
