// SPDX-License-Identifier: BSL-1.0
//
// The service's answers to requests.
#include "control_blocks.hpp"
#include "service_impl.hpp"
#include "settings.hpp"
#include "status.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <exception>
#include <tuple>
#include <utility>

namespace asio_pulse::scx {
namespace {

answer refuse(asio_pulse_refusal code, std::string sentence) {
  answer result;
  result.refused = {code, std::move(sentence)};
  return result;
}

answer refuse(refusal why) {
  answer result;
  result.refused = std::move(why);
  return result;
}

// The text that a program gets about an error in the loader.
answer trouble(const char* what, const std::exception& why) {
  return refuse(ASIO_PULSE_REFUSED_INTERNAL, fmt::format("{}: {}", what, why.what()));
}

}  // namespace

answer service::impl::handle(session& from, const asio_pulse_request& request,
                             const asio_pulse_set_request& change) {
  client_of(from).last_request = now();
  try {
    if (request.kind == ASIO_PULSE_STATUS) return status();
    if (request.abi_version != ASIO_PULSE_ABI_VERSION) {
      return refuse(ASIO_PULSE_REFUSED_VERSION,
                    fmt::format("this scx_pulse serves version {} of the control blocks, and the "
                                "program asks for version {}: build both from the same release",
                                ASIO_PULSE_ABI_VERSION, request.abi_version));
    }
    switch (request.kind) {
      case ASIO_PULSE_HELLO:
        return hello(from);
      case ASIO_PULSE_ATTACH:
        return attach(from, static_cast<pid_t>(request.tid));
      case ASIO_PULSE_DETACH:
        return detach(from, static_cast<pid_t>(request.tid), request.slot);
      case ASIO_PULSE_SET:
        return set(from, change);
      default:
        return refuse(ASIO_PULSE_REFUSED_MALFORMED,
                      fmt::format("there is no request of kind {}", request.kind));
    }
  } catch (const std::exception& why) {  // usually std::bad_alloc
    return trouble("the loader failed", why);
  }
}

std::chrono::nanoseconds service::impl::charge(session& from, std::chrono::nanoseconds cost) {
  return quotas.charge(from.who().uid, cost, std::chrono::steady_clock::now());
}

void service::impl::ended(session& which) noexcept {
  const auto found = clients.find(&which);
  if (found == clients.end()) return;
  if (found->second.has_blocks) {
    for (const worker_entry& worker : quotas.close(which.who().pid)) forget(found->second, worker);
    close_system_block(found->second.blocks.blocks[0]);
    store.close_process(which.who().pid);
  }
  quotas.disconnect(which.who().uid);
  clients.erase(found);
}

// Ends the session of a process that no longer exists and whose id this peer has now. Returns
// whether there was one.
bool service::impl::end_dead_namesake(const session& of) {
  for (auto& [which, owner] : clients) {
    if (which == &of || !owner.has_blocks || which->who().pid != of.who().pid) continue;
    if (!which->who().ended()) return false;
    owner.connection->end();
    return true;
  }
  return false;
}

answer service::impl::hello(session& from) {
  const peer& who = from.who();
  if (!who.process) {
    return refuse(
        ASIO_PULSE_REFUSED_THREAD,
        "this scx_pulse cannot see the process in /proc: it runs in another PID namespace, "
        "or has ended");
  }
  refusal refused = quotas.open(who.pid, who.uid);
  if (refused.code == ASIO_PULSE_REFUSED_ORDER && end_dead_namesake(from)) {
    refused = quotas.open(who.pid, who.uid);
  }
  if (refused) return refuse(std::move(refused));
  client& mine = client_of(from);
  try {
    mine.blocks = store.open_process(who.pid);
  } catch (const std::exception& why) {
    quotas.close(who.pid);
    return trouble("cannot make control blocks", why);
  }
  mine.has_blocks = true;
  write_system_block(mine.blocks.blocks[0], hooks.look(), monotonic_ns());
  answer result;
  result.slots = static_cast<std::uint32_t>(mine.blocks.blocks.size());
  result.fd = mine.blocks.fd;
  return result;
}

void service::impl::forget(const client& owner, const worker_entry& worker) noexcept {
  const auto known = registered.find(worker.thread.tid);
  if (known != registered.end() && known->second == owner.connection->who().pid) {
    registered.erase(known);
    store.remove_worker(worker.thread.tid);
  }
  retire_block(owner.blocks.blocks[worker.slot]);
}

// Frees the slots of threads that have ended without a DETACH.
std::size_t service::impl::reap(const session& owner) {
  std::size_t reaped = 0;
  for (const worker_entry& worker : quotas.workers_of(owner.who().pid)) {
    if (owner.who().process.has_thread(worker.thread)) continue;
    if (quotas.detach(owner.who().pid, worker.thread.own_tid, worker.slot)) {
      forget(client_of(owner), worker);
      ++reaped;
    }
  }
  return reaped;
}

answer service::impl::attach(session& from, pid_t own_tid) {
  client& mine = client_of(from);
  if (!mine.has_blocks) {
    return refuse(ASIO_PULSE_REFUSED_ORDER, "send HELLO before ATTACH");
  }
  const peer& who = from.who();
  const auto thread = who.process.find_thread(own_tid);
  if (!thread) {
    return refuse(ASIO_PULSE_REFUSED_THREAD,
                  fmt::format("process {} has no thread {}", who.pid, own_tid));
  }
  worker_entry made;
  std::optional<worker_entry> displaced;
  refusal refused = quotas.attach(who.pid, *thread, made, displaced);
  if (displaced) forget(mine, *displaced);
  if ((refused.code == ASIO_PULSE_REFUSED_PROCESS_LIMIT ||
       refused.code == ASIO_PULSE_REFUSED_USER_LIMIT) &&
      reap(from) > 0) {
    refused = quotas.attach(who.pid, *thread, made, displaced);
  }
  if (refused) return refuse(std::move(refused));

  prepare_block(mine.blocks.blocks[made.slot], hooks.look().settings.mode);
  auto known = registered.end();
  bool fresh = false;
  try {
    std::tie(known, fresh) = registered.try_emplace(thread->tid, who.pid);
    store.add_worker(thread->tid, {.start_ticks = thread->start_ticks,
                                   .tgid = static_cast<std::uint32_t>(who.pid),
                                   .slot = made.slot});
    known->second = who.pid;
  } catch (const std::exception& why) {
    if (fresh) registered.erase(known);
    quotas.detach(who.pid, own_tid, made.slot);
    retire_block(mine.blocks.blocks[made.slot]);
    return trouble("cannot register the thread", why);
  }
  answer result;
  result.slot = made.slot;
  return result;
}

answer service::impl::detach(session& from, pid_t own_tid, unsigned slot) {
  client& mine = client_of(from);
  if (!mine.has_blocks) {
    return refuse(ASIO_PULSE_REFUSED_ORDER, "send HELLO before DETACH");
  }
  const auto gone = quotas.detach(from.who().pid, own_tid, slot);
  if (!gone) {
    return refuse(ASIO_PULSE_REFUSED_THREAD,
                  fmt::format("thread {} is not attached as slot {}", own_tid, slot));
  }
  forget(mine, *gone);
  answer result;
  result.slot = slot;
  return result;
}

answer service::impl::status() {
  answer result;
  result.text = status_json(hooks.look(), quotas, hooks.describe);
  return result;
}

answer service::impl::set(const session& from, const asio_pulse_set_request& change) {
  const uid_t uid = from.who().uid;
  const bool may = hooks.may_change ? hooks.may_change(uid) : uid == 0 || uid == ::geteuid();
  if (!may) {
    return refuse(
        ASIO_PULSE_REFUSED_PERMISSION,
        fmt::format("user {} may not change the settings of this scx_pulse: only root, and "
                    "the user that it runs as",
                    uid));
  }
  if (!hooks.change) {
    return refuse(ASIO_PULSE_REFUSED_INTERNAL, "this scx_pulse has no settings to change");
  }
  scx_pulse_settings settings = hooks.look().settings;
  if (auto wrong = apply(change, settings)) {
    return refuse(ASIO_PULSE_REFUSED_VALUE, std::move(*wrong));
  }
  try {
    hooks.change(settings, uid);
  } catch (const std::exception& why) {
    return trouble("cannot change the settings", why);
  }
  publish();  // so that programs see the change at once
  return {};
}

}  // namespace asio_pulse::scx
