// SPDX-License-Identifier: BSL-1.0
#pragma once

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

#include "process_info.hpp"

/// \file
/// Who has which control blocks, and how many he may have. No I/O, and no clock of its own.

namespace asio_pulse::scx {

/// Bounds on what anybody may take of a service that everybody may use.
struct limits {
  std::size_t workers_per_process = 128;  ///< at most ASIO_PULSE_SLOT_COUNT - 1
  std::size_t processes_per_user = 64;
  std::size_t workers_per_user = 1024;
  /// More than processes: those that only ask for the status have one for a moment.
  std::size_t connections_per_user = 96;
  /// Whose number of processes, workers and connections is not bounded, and whose requests are
  /// never slowed down: root's, for he can take all there is anyhow. The bound for a process holds.
  std::optional<uid_t> exempt = 0;
};

/// A code, and a sentence for who is refused; OK and empty where nothing is.
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

/// \par Thread safety  One thread.
class ledger {
 public:
  /// Cost is counted by a clock that the caller reads; it only has to be monotonic.
  using time_point = std::chrono::steady_clock::time_point;

  explicit ledger(const limits& bounds) : limits_(bounds) {}

  refusal connect(uid_t uid, time_point now);
  void disconnect(uid_t uid) noexcept;

  refusal open(pid_t tgid, uid_t uid);
  /// The process's workers, which are forgotten with it.
  std::vector<worker_entry> close(pid_t tgid);

  /// Gives the thread the lowest free slot. A slot whose thread had the same number and another
  /// start has been vacated; `displaced` gets it.
  refusal attach(pid_t tgid, const thread_identity& thread, worker_entry& made,
                 std::optional<worker_entry>& displaced);
  /// By the number that the program itself knows.
  std::optional<worker_entry> detach(pid_t tgid, pid_t own_tid, unsigned slot);

  [[nodiscard]] std::vector<worker_entry> workers_of(pid_t tgid) const;

  struct process {
    pid_t tgid = 0;
    uid_t uid = 0;
    std::size_t workers = 0;
  };
  [[nodiscard]] std::vector<process> processes() const;
  [[nodiscard]] std::size_t process_count() const noexcept { return processes_.size(); }
  [[nodiscard]] std::size_t worker_count() const noexcept { return workers_; }
  [[nodiscard]] std::size_t connection_count() const noexcept { return connections_; }

  /// Notes that a request of this user's has cost so much of the loader's time, and answers how
  /// long all of his connections are to rest before the next one is read: zero until he is `credit`
  /// ahead, then as long as brings him to a tenth of the loader's time. Forty such users at once
  /// still slow the loader down; one does not.
  std::chrono::nanoseconds charge(uid_t uid, std::chrono::nanoseconds cost, time_point now);

  /// As much as a program with 128 workers needs to attach them all at once, by a margin (some
  /// 50 us each where /proc is slow).
  static constexpr std::chrono::milliseconds credit{10};
  static constexpr int share = 10;

 private:
  // Debts outlive the last connection: else to come again would be the way out of them.
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
  std::map<uid_t, user> users_;  // one for each user with a connection, or with debts
  std::map<pid_t, account> processes_;
  std::size_t workers_ = 0;
  std::size_t connections_ = 0;
};

}  // namespace asio_pulse::scx
