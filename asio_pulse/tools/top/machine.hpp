// SPDX-License-Identifier: BSL-1.0
//
// Where the readings come from: this machine's processes, or made ones in tests.

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

/// A connection to one process: what asio_pulse::inspector is.
class peer {
 public:
  peer() = default;
  peer(const peer&) = delete;
  peer& operator=(const peer&) = delete;
  virtual ~peer() = default;

  virtual void connect(std::uint64_t pid, std::error_code&) = 0;
  virtual process_metrics fetch(std::error_code&) = 0;
  virtual recording trace(std::chrono::milliseconds, std::uint64_t context, std::error_code&) = 0;
  [[nodiscard]] virtual std::string detail() const = 0;
};

class machine {
 public:
  machine() = default;
  machine(const machine&) = delete;
  machine& operator=(const machine&) = delete;
  virtual ~machine() = default;

  virtual std::vector<inspectable_process> processes(std::error_code&) = 0;
  /// Not connected yet. Never null.
  virtual std::unique_ptr<peer> open() = 0;
  /// False for what has ended, though its parent may not have noticed.
  virtual bool alive(std::uint64_t pid) = 0;
  /// Since it was started; nothing where that is not known.
  virtual std::optional<std::chrono::nanoseconds> age(std::uint64_t pid) = 0;
};

/// This one.
std::unique_ptr<machine> this_machine();

/// What became of one attempt.
struct reading {
  std::optional<process_metrics> metrics{};
  std::optional<std::chrono::nanoseconds> age{};  ///< of the process
  std::string trouble{};  ///< a sentence without a full stop where there are none
  bool ended = false;     ///< there will be no more
};

/// Reads one process again and again, and connects anew where it has to.
class watcher {
 public:
  watcher(machine&, std::uint64_t pid);

  /// One request. Blocks as long as asio_pulse::inspector does.
  reading read();

  /// The one to compare the next with. Two requests where the first has begun to collect.
  reading read_first();

 private:
  reading failed(const std::error_code&);

  machine& machine_;
  std::uint64_t pid_;
  std::unique_ptr<peer> peer_;
  bool connected_ = false;
};

}  // namespace asio_pulse::top
