// SPDX-License-Identifier: BSL-1.0
#include "quota.hpp"

#include <fmt/core.h>

#include <algorithm>

namespace asio_pulse::scx {

std::chrono::nanoseconds user_quotas::user::owed(time_point now) const noexcept {
  return std::max(debt - (now - charged) / share, std::chrono::nanoseconds{0});
}

limits within_descriptors(limits bounds, std::size_t descriptors) noexcept {
  // Kept for the loader itself: maps, programs and links of the scheduler, the event loop,
  // listeners (about 60); and for 32 connections of root.
  constexpr std::size_t kept = 128 + 32 * descriptors_per_connection;
  constexpr std::size_t least = 8;
  constexpr std::size_t users = 4;  // how many users can use all of their limits at the same time
  const std::size_t free = descriptors > kept ? descriptors - kept : 0;
  bounds.connections =
      std::min(bounds.connections, std::max(free / descriptors_per_connection, least));
  bounds.connections_per_user =
      std::min(bounds.connections_per_user, std::max<std::size_t>(bounds.connections / users, 1));
  return bounds;
}

refusal user_quotas::connect(uid_t uid, time_point now) {
  std::erase_if(users_, [&](const auto& entry) {
    return entry.second.connections == 0 && entry.second.owed(now).count() == 0;
  });
  user& who = users_[uid];
  if (!exempt(uid) && who.connections >= limits_.connections_per_user) {
    return {ASIO_PULSE_REFUSED_USER_LIMIT,
            fmt::format("user {} has {} connections to this scx_pulse, which is the limit", uid,
                        who.connections)};
  }
  if (!exempt(uid) && bounded_connections_ >= limits_.connections) {
    return {ASIO_PULSE_REFUSED_SERVICE_LIMIT,
            fmt::format("this scx_pulse has {} connections; the rest is reserved for root",
                        bounded_connections_)};
  }
  ++who.connections;
  ++connections_;
  if (!exempt(uid)) ++bounded_connections_;
  return {};
}

void user_quotas::disconnect(uid_t uid) noexcept {
  const auto found = users_.find(uid);
  if (found == users_.end()) return;
  --connections_;
  if (!exempt(uid)) --bounded_connections_;
  --found->second.connections;
}

refusal user_quotas::open(pid_t tgid, uid_t uid) {
  if (processes_.contains(tgid)) {
    return {
        ASIO_PULSE_REFUSED_ORDER,
        fmt::format("process {} already has control blocks, over this connection or another one",
                    tgid)};
  }
  user& who = users_[uid];
  if (!exempt(uid) && who.processes >= limits_.processes_per_user) {
    return {ASIO_PULSE_REFUSED_USER_LIMIT,
            fmt::format("user {} has {} processes with control blocks, which is the limit", uid,
                        who.processes)};
  }
  processes_[tgid].uid = uid;
  ++who.processes;
  return {};
}

worker_entry user_quotas::vacate(account& owner, unsigned slot) {
  worker_entry gone{owner.slots[slot].value_or(thread_identity{}), slot};  // it holds one
  owner.slots[slot].reset();
  --owner.workers;
  --workers_;
  if (const auto who = users_.find(owner.uid); who != users_.end()) --who->second.workers;
  return gone;
}

std::vector<worker_entry> user_quotas::close(pid_t tgid) {
  std::vector<worker_entry> gone;
  const auto found = processes_.find(tgid);
  if (found == processes_.end()) return gone;
  account& owner = found->second;
  for (unsigned slot = 1; slot < owner.slots.size(); ++slot) {
    if (owner.slots[slot]) gone.push_back(vacate(owner, slot));
  }
  if (const auto who = users_.find(owner.uid); who != users_.end()) --who->second.processes;
  processes_.erase(found);
  return gone;
}

refusal user_quotas::attach(pid_t tgid, const thread_identity& thread, worker_entry& made,
                            std::optional<worker_entry>& displaced) {
  const auto found = processes_.find(tgid);
  if (found == processes_.end()) {
    return {ASIO_PULSE_REFUSED_ORDER, "send HELLO before ATTACH"};
  }
  account& owner = found->second;
  unsigned free = 0;
  for (unsigned slot = 1; slot < owner.slots.size(); ++slot) {
    auto& held = owner.slots[slot];
    if (held && held->tid == thread.tid) {
      if (held->start_ticks == thread.start_ticks) {
        return {ASIO_PULSE_REFUSED_THREAD,
                fmt::format("thread {} is already attached, as slot {}", thread.own_tid, slot)};
      }
      displaced = vacate(owner, slot);
    }
    if (!held && free == 0) free = slot;
  }
  if (free == 0 || owner.workers >= limits_.workers_per_process) {
    return {ASIO_PULSE_REFUSED_PROCESS_LIMIT,
            fmt::format("process {} has {} workers, which is the limit", tgid, owner.workers)};
  }
  user& who = users_[owner.uid];
  if (!exempt(owner.uid) && who.workers >= limits_.workers_per_user) {
    return {ASIO_PULSE_REFUSED_USER_LIMIT,
            fmt::format("user {} has {} workers, which is the limit", owner.uid, who.workers)};
  }
  owner.slots[free] = thread;
  ++owner.workers;
  ++who.workers;
  ++workers_;
  made = worker_entry{thread, free};
  return {};
}

std::optional<worker_entry> user_quotas::detach(pid_t tgid, pid_t own_tid, unsigned slot) {
  const auto found = processes_.find(tgid);
  if (found == processes_.end() || slot == 0 || slot >= found->second.slots.size()) {
    return std::nullopt;
  }
  const auto& held = found->second.slots[slot];
  if (!held || held->own_tid != own_tid) return std::nullopt;
  return vacate(found->second, slot);
}

std::vector<worker_entry> user_quotas::workers_of(pid_t tgid) const {
  std::vector<worker_entry> result;
  const auto found = processes_.find(tgid);
  if (found == processes_.end()) return result;
  for (unsigned slot = 1; slot < found->second.slots.size(); ++slot) {
    if (const auto& held = found->second.slots[slot]) result.push_back({*held, slot});
  }
  return result;
}

bool user_quotas::has_workers(pid_t tgid) const noexcept {
  const auto found = processes_.find(tgid);
  return found != processes_.end() && found->second.workers != 0;
}

std::vector<user_quotas::process> user_quotas::processes() const {
  std::vector<process> result;
  result.reserve(processes_.size());
  for (const auto& [tgid, owner] : processes_) {
    result.push_back({.tgid = tgid, .uid = owner.uid, .workers = owner.workers});
  }
  return result;
}

std::chrono::nanoseconds user_quotas::charge(uid_t uid, std::chrono::nanoseconds cost,
                                             time_point now) {
  const auto found = users_.find(uid);
  if (found == users_.end() || exempt(uid)) return std::chrono::nanoseconds{0};
  user& who = found->second;
  who.debt = who.owed(now) + cost;
  who.charged = now;
  return who.debt > credit ? (who.debt - credit) * share : std::chrono::nanoseconds{0};
}

}  // namespace asio_pulse::scx
