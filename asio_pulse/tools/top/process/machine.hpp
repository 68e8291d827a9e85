// SPDX-License-Identifier: BSL-1.0
//
// Where the readings come from: the processes of this machine or, in tests, fake ones.

#pragma once

#include <asio_pulse/inspect.hpp>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

namespace asio_pulse::top {

/// A connection to a process, like asio_pulse::inspector.
class peer {
 public:
  peer() = default;
  peer(const peer&) = delete;
  peer& operator=(const peer&) = delete;
  virtual ~peer() = default;

  virtual void connect(std::uint64_t pid, std::error_code&) = 0;
  virtual process_metrics fetch(std::error_code&) = 0;
  virtual recording trace(std::chrono::milliseconds, std::uint64_t context, std::error_code&) = 0;
  virtual std::string change(std::uint64_t context, const context_change&, std::error_code&) = 0;
  [[nodiscard]] virtual std::string detail() const = 0;
};

class machine {
 public:
  machine() = default;
  machine(const machine&) = delete;
  machine& operator=(const machine&) = delete;
  virtual ~machine() = default;

  virtual std::vector<inspectable_process> processes(std::error_code&) = 0;
  /// A new object that is not connected yet. Never null.
  virtual std::unique_ptr<peer> open() = 0;
  /// Whether the process runs. False also for a zombie.
  virtual bool alive(std::uint64_t pid) = 0;
  /// The time since the process was started, if that is known.
  virtual std::optional<std::chrono::nanoseconds> age(std::uint64_t pid) = 0;
};

/// The machine that this program runs on.
std::unique_ptr<machine> this_machine();

/// The result of one attempt to read a process.
struct reading {
  std::optional<process_metrics> metrics{};
  std::optional<std::chrono::nanoseconds> age{};  ///< of the process
  std::string trouble{};  ///< why there are no metrics, as a sentence without a full stop
  bool ended = false;     ///< the process has ended: there will be no more
};

/// Reads a process repeatedly, and reconnects if necessary.
class watcher {
 public:
  watcher(machine&, std::uint64_t pid);

  /// Sends one request. Blocks as long as asio_pulse::inspector does.
  reading read();

  /// The first reading, with which the next one is compared. Sends two requests if the first one
  /// has started the collection.
  reading read_first();

 private:
  reading failed(const std::error_code&);

  machine& machine_;
  std::uint64_t pid_;
  std::unique_ptr<peer> peer_;
  bool connected_ = false;
  bool seen_ = false;  // the process was read at least once, so it existed
};

}  // namespace asio_pulse::top
