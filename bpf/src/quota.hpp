// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "process_info.hpp"

#include <asio_pulse/bpf/control_block.h>
#include <asio_pulse/bpf/protocol.h>

#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

/// \file
/// Which process has which control blocks, and how many each user may have. It does no I/O and
/// reads no clock.

namespace asio_pulse::scx {

/// Limits on what a user may take from a service that all users share.
struct limits {
  std::size_t workers_per_process = 128;  ///< at most ASIO_PULSE_SLOT_COUNT - 1
  std::size_t processes_per_user = 64;
  std::size_t workers_per_user = 1024;
  /// More than processes, since a program that only asks for the status also has a connection.
  std::size_t connections_per_user = 96;
  /// For all users together except the exempt one, for which the rest of the service's descriptors
  /// is kept.
  std::size_t connections = 1024;
  /// The user whose number of processes, workers and connections is not limited, and whose requests
  /// are never delayed: root, which could take everything anyway. The limit for a process applies.
  std::optional<uid_t> exempt = 0;
};

/// How many descriptors a connection takes: a socket, the pidfd of the process, its folder in /proc
/// and, once the process has control blocks, their map.
inline constexpr std::size_t descriptors_per_connection = 4;

/// Reduces the limits for a loader that may open only this many descriptors. What all users can
/// take together leaves enough for the loader itself and for root, and what one user can take
/// leaves enough for others.
[[nodiscard]] limits within_descriptors(limits bounds, std::size_t descriptors) noexcept;

/// A code and a sentence for a program that is refused; OK and empty if it is not.
struct refusal {
  asio_pulse_refusal code = ASIO_PULSE_OK;
  std::string text = {};

  [[nodiscard]] explicit operator bool() const noexcept { return code != ASIO_PULSE_OK; }
};

/// A thread that has a control block.
struct worker_entry {
  thread_identity thread = {};
  unsigned slot = 0;

  bool operator==(const worker_entry&) const = default;
};

/// \par Thread safety  For one thread only.
class user_quotas {
 public:
  /// The caller reads the clock by which costs are counted. It only has to be monotonic.
  using time_point = std::chrono::steady_clock::time_point;

  explicit user_quotas(const limits& bounds) : limits_(bounds) {}

  refusal connect(uid_t uid, time_point now);
  void disconnect(uid_t uid) noexcept;

  refusal open(pid_t tgid, uid_t uid);
  /// Forgets the process, and returns its workers, which are forgotten as well.
  std::vector<worker_entry> close(pid_t tgid);

  /// Gives the thread the lowest free slot. If a slot belongs to a thread with the same id and
  /// another start, it is freed and returned in `displaced`.
  refusal attach(pid_t tgid, const thread_identity& thread, worker_entry& made,
                 std::optional<worker_entry>& displaced);
  /// Identifies the thread by its id in the program's own PID namespace.
  std::optional<worker_entry> detach(pid_t tgid, pid_t own_tid, unsigned slot);

  [[nodiscard]] std::vector<worker_entry> workers_of(pid_t tgid) const;
  [[nodiscard]] bool has_workers(pid_t tgid) const noexcept;

  struct process {
    pid_t tgid = 0;
    uid_t uid = 0;
    std::size_t workers = 0;
  };
  [[nodiscard]] std::vector<process> processes() const;
  [[nodiscard]] std::size_t process_count() const noexcept { return processes_.size(); }
  [[nodiscard]] std::size_t worker_count() const noexcept { return workers_; }
  [[nodiscard]] std::size_t connection_count() const noexcept { return connections_; }

  /// Charges a user with the loader's time that a request has taken. Returns how long all of the
  /// user's connections have to pause before the next request is read: zero until the user is over
  /// `credit`, then long enough to limit the user to a tenth of the loader's time. Ten such users
  /// at once can still keep the loader busy; one cannot.
  std::chrono::nanoseconds charge(uid_t uid, std::chrono::nanoseconds cost, time_point now);

  /// What a program needs to attach 128 workers at once, with a margin: about 50 us each, if /proc
  /// is slow.
  static constexpr std::chrono::milliseconds credit{10};
  static constexpr int share = 10;

 private:
  // Debts outlive the last connection. Otherwise a user could avoid them by reconnecting.
  struct user {
    std::size_t connections = 0;
    std::size_t processes = 0;
    std::size_t workers = 0;
    std::chrono::nanoseconds debt{0};
    time_point charged = {};

    [[nodiscard]] std::chrono::nanoseconds owed(time_point now) const noexcept;
  };
  struct account {
    uid_t uid = 0;
    std::array<std::optional<thread_identity>, ASIO_PULSE_SLOT_COUNT> slots = {};
    std::size_t workers = 0;
  };

  [[nodiscard]] bool exempt(uid_t uid) const noexcept { return limits_.exempt == uid; }
  worker_entry vacate(account& owner, unsigned slot);

  limits limits_;
  std::map<uid_t, user> users_;  // one entry for each user with a connection or debts
  std::map<pid_t, account> processes_;
  std::size_t workers_ = 0;
  std::size_t connections_ = 0;
  std::size_t bounded_connections_ = 0;  // connections of users that are not exempt
};

}  // namespace asio_pulse::scx
