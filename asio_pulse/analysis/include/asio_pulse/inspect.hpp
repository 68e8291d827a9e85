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

/// A change of a context in a running process.
struct context_change {
  enum class kind : std::uint8_t {
    enforce,  ///< options::shadow = false
    shadow,   ///< options::shadow = true
    weight,   ///< the weight of a group
    /// Takes back the last of these changes that was not taken back, of the last 16 that inspectors
    /// have made to the context. Refused if the value is another one by now.
    undo
  };
  kind what = kind::undo;
  /// For `weight`: the group's path, "tenant/user". A "/" or "\" in a name follows a "\", and of each
  /// name there are the first 128 bytes.
  std::string group{};
  unsigned weight = 0;  ///< for `weight`: from 1 to 10000
};

/// A connection to a process. The process collects figures while an inspector is connected. It is
/// changed only by change().
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

  /// Changes the context whose context_metrics::number is `context`, or the only one that can be
  /// changed if that is 0. Returns a sentence about what has changed, without a full stop; parts of it
  /// come from the process. The context treats the change as io_context::update().
  ///
  /// \par Errors    std::errc::operation_not_permitted if the process refuses: options::controllable
  ///                is false, there is no such context or group, the value is out of range, or there
  ///                were too many changes (20 at once, and ten a second). detail() says why. Otherwise
  ///                as fetch(). If the connection is lost, it is not known whether the change was made.
  /// \par Blocking  At most `patience`.
  [[nodiscard]] std::string change(std::uint64_t context, const context_change& what,
                                   std::error_code& ec,
                                   std::chrono::milliseconds patience = std::chrono::seconds{2});

  /// A sentence about the last error; empty if there was none.
  [[nodiscard]] const std::string& detail() const noexcept { return detail_; }

 private:
  [[nodiscard]] std::string exchange(const std::string& request, std::size_t longest,
                                     std::chrono::milliseconds patience, std::error_code& ec);

  int socket_ = -1;
  std::string detail_;
};

}  // namespace asio_pulse
