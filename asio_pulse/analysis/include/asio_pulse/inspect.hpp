// SPDX-License-Identifier: BSL-1.0
//
// Inspecting another process that uses asio-pulse, as pulse_top does.

#pragma once

#include <asio_pulse/metrics.hpp>
#include <asio_pulse/recording.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <system_error>
#include <vector>

namespace asio_pulse {

/// A process with contexts that can be inspected.
struct inspectable_process {
  std::uint64_t pid = 0;
  std::string program{};  ///< the kernel's name of the process
};

/// The inspectable processes of this user (for root: of all users) in this network namespace, in
/// the order of their ids.
///
/// \par Errors  Sets `ec` and returns an empty list if /proc cannot be read.
[[nodiscard]] std::vector<inspectable_process> inspectable_processes(std::error_code& ec);

/// A connection to a process. The process collects figures while an inspector is connected;
/// otherwise it is not changed.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
class inspector {
 public:
  inspector() noexcept = default;
  inspector(inspector&&) noexcept;
  inspector& operator=(inspector&&) noexcept;
  ~inspector();

  /// \par Errors    std::errc: no_such_process (or it has no contexts), permission_denied (it
  ///                belongs to another user), protocol_not_supported (another version),
  ///                bad_message, timed_out; or an error of the system. detail() describes it in a sentence.
  /// \par Blocking  At most 5 s, while others wait for a connection, too.
  void connect(std::uint64_t pid, std::error_code& ec);
  [[nodiscard]] bool connected() const noexcept { return socket_ >= 0; }
  void close() noexcept;

  /// \par Blocking  At most `patience`; then the error is timed_out. An error closes the
  ///                connection.
  [[nodiscard]] process_metrics fetch(const metrics_request& what, std::error_code& ec,
                                      std::chrono::milliseconds patience = std::chrono::seconds{2});

  /// Records the events of the workers for `how_long` (at most 60 s) from now on. If `how_long` is
  /// zero and the process traces all the time, returns what its rings contain. `context` is
  /// context_metrics::number; 0 stands for the context with the most events.
  ///
  /// \par Blocking  For `how_long`, and until the answer was read.
  [[nodiscard]] recording trace(std::chrono::milliseconds how_long, std::error_code& ec,
                                std::uint64_t context = 0);

  /// A sentence about the last error; empty if there was none.
  [[nodiscard]] const std::string& detail() const noexcept { return detail_; }

 private:
  [[nodiscard]] std::string exchange(const std::string& request, std::size_t longest,
                                     std::chrono::milliseconds patience, std::error_code& ec);

  int socket_ = -1;
  std::string detail_;
};

}  // namespace asio_pulse
