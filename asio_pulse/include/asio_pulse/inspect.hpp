// SPDX-License-Identifier: BSL-1.0
//
// Looking into another process that uses asio-pulse: what pulse_top does.

#pragma once

#include <asio_pulse/metrics.hpp>
#include <asio_pulse/recording.hpp>

#include <chrono>
#include <cstdint>
#include <string>
#include <system_error>
#include <vector>

namespace asio_pulse {

/// A process with contexts that can be looked into.
struct inspectable_process {
  std::uint64_t pid = 0;
  std::string program{};  ///< as the kernel calls it
};

/// The processes of this user (root: of all users) in this network namespace, by number.
///
/// \par Errors  An empty list where the kernel does not tell (`ec`), or there are none.
[[nodiscard]] std::vector<inspectable_process> inspectable_processes(std::error_code& ec);

/// A connection to one process. Nothing in the process changes but that it collects while somebody
/// is connected.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
class inspector {
 public:
  inspector() noexcept = default;
  inspector(inspector&&) noexcept;
  inspector& operator=(inspector&&) noexcept;
  ~inspector();

  /// \par Errors  std::errc: no_such_process (or one without contexts), permission_denied (another
  ///              user's), protocol_not_supported (another version), bad_message, timed_out; or the
  ///              system's. detail() says it in a sentence.
  /// \par Blocking  For 5 s at most, where others are waiting to be let in.
  void connect(std::uint64_t pid, std::error_code& ec);
  [[nodiscard]] bool connected() const noexcept { return socket_ >= 0; }
  void close() noexcept;

  /// \par Blocking  For `patience` at most; then error timed_out. An error closes the connection.
  [[nodiscard]] process_metrics fetch(const metrics_request& what, std::error_code& ec,
                                      std::chrono::milliseconds patience = std::chrono::seconds{2});

  /// What the workers did during `how_long` (at most 60 s), from now on, or, where the process
  /// traces all the time, what its rings hold (`how_long` zero). `context`:
  /// context_metrics::number; 0: the one with the most events.
  ///
  /// \par Blocking  For `how_long`, and for what it takes to read the answer.
  [[nodiscard]] recording trace(std::chrono::milliseconds how_long, std::error_code& ec,
                                std::uint64_t context = 0);

  /// What went wrong, in a sentence; empty if nothing did.
  [[nodiscard]] const std::string& detail() const noexcept { return detail_; }

 private:
  [[nodiscard]] std::string exchange(const std::string& request, std::chrono::milliseconds patience,
                                     std::error_code& ec);

  int socket_ = -1;
  std::string detail_;
};

}  // namespace asio_pulse
