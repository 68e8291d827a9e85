// SPDX-License-Identifier: BSL-1.0
#include "hint_hub.hpp"

#include <cstdlib>
#include <string>

#if defined(__linux__)

#include "hint_hub_thread.hpp"
#include "threads/background_thread.hpp"
#include "threads/thread_number.hpp"
#include "threads/thread_usage.hpp"
#include "threads/wakeup.hpp"

#include <fmt/core.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#endif

namespace asio_pulse {

#if defined(__linux__)

namespace {

static_assert(static_cast<int>(escalation_policy::none) == ASIO_PULSE_POLICY_NONE);
static_assert(static_cast<int>(escalation_policy::thread_kick) == ASIO_PULSE_POLICY_THREAD_KICK);
static_assert(static_cast<int>(escalation_policy::cgroup_throttle) ==
              ASIO_PULSE_POLICY_CGROUP_THROTTLE);
static_assert(static_cast<int>(escalation_policy::hybrid) == ASIO_PULSE_POLICY_HYBRID);
static_assert(static_cast<int>(determinism::pressured) == ASIO_PULSE_PRESSURED);
static_assert(static_cast<int>(determinism::defensive) == ASIO_PULSE_DEFENSIVE);

// A worker without a hint for this long behaves as if there were no hints. A guess: several ticks,
// twice the clean window of the tiers, and short enough for a person who watches the figures.
constexpr std::chrono::milliseconds calm{200};

// The slice that a worker requests from a kernel without scx_pulse: a third of EEVDF's default. A
// guess: with more, other threads on its CPU wait longer; with less, there are more switches.
constexpr std::chrono::milliseconds local_slice{1};

std::string socket_of(const options& o) {
  if (!o.hint_socket.empty()) return o.hint_socket;
  const char* const set = std::getenv(ASIO_PULSE_SOCKET_VARIABLE);
  return set != nullptr && *set != '\0' ? set : ASIO_PULSE_SOCKET_PATH;
}

const std::atomic<std::uint64_t>* hint_word(asio_pulse_scb& block) noexcept {
  static_assert(sizeof(std::atomic<std::uint64_t>) == sizeof block.preempt_seq);
  return reinterpret_cast<const std::atomic<std::uint64_t>*>(&block.preempt_seq);
}

const timing::published_cpu_time* published(asio_pulse_scb& block) noexcept {
  static_assert(sizeof(timing::published_cpu_time) == offsetof(asio_pulse_scb, preempt_seq));
  return reinterpret_cast<const timing::published_cpu_time*>(&block);
}

}  // namespace

namespace detail {

hint_hub& hint_hub::get() noexcept { return process_wide<hint_hub>(); }

hint_hub::subscriber* hint_hub::find(const hooks::thread_state& ts) noexcept {
  for (const auto& sub : subscribers_) {
    if (sub->ts == &ts) return sub.get();
  }
  return nullptr;
}

hint_hub::subscriber* hint_hub::find(std::uint64_t serial) noexcept {
  for (const auto& sub : subscribers_) {
    if (sub->serial == serial) return sub.get();
  }
  return nullptr;
}

std::uint32_t hint_hub::connection_to(const std::string& path) {
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    if (connections_[i]->path == path) return static_cast<std::uint32_t>(i);
  }
  auto fresh = std::make_unique<connection>();
  fresh->path = path;
  connections_.push_back(std::move(fresh));
  return static_cast<std::uint32_t>(connections_.size() - 1);
}

void hint_hub::start() noexcept {
  if (wakeup_ < 0) wakeup_ = make_wakeup();
  if (!running_ && wakeup_ >= 0) running_ = start_background_thread(this);
}

void hint_hub::wake() noexcept { signal_wakeup(wakeup_); }

void hint_hub::join(hooks::thread_state& ts, context_core& core) {
  const std::lock_guard lock(mutex_);
  if (find(ts) != nullptr) return;
  auto sub = std::make_unique<subscriber>();
  sub->ts = &ts;
  sub->core = &core;
  sub->tid = this_thread_number();
  sub->serial = ++last_serial_;
  sub->wanted = core.hints_from();
  sub->connection_index = connection_to(socket_of(core.opts()));
  subscribers_.push_back(std::move(sub));
  start();
  wake();
}

void hint_hub::leave(hooks::thread_state& ts, context_core& core) noexcept {
  const std::lock_guard lock(mutex_);
  const auto at = std::find_if(subscribers_.begin(), subscribers_.end(), [&](const auto& sub) {
    return sub->ts == &ts && sub->core == &core;
  });
  if (at == subscribers_.end()) return;
  subscriber& sub = **at;
  if (sub.offered != nullptr) part(sub, *sub.offered);
  let_go(sub);
  if (files_.any_of(sub.tid)) wake();
  subscribers_.erase(at);
}

// Removes the link, and informs its source.
void hint_hub::part(const subscriber& sub, const hint_link& link) noexcept {
  if (link.source != hint_source::kernel) return;
  try {
    departures_.push_back({sub.connection_index, link.session, sub.tid, link.slot});
    wake();
  } catch (const std::bad_alloc&) {  // the loader notices it when the thread ends
  }
}

void hint_hub::let_go(subscriber& sub) noexcept {
  hooks::thread_state& ts = *sub.ts;
  if (sub.link != nullptr) {
    ts.hint = &hooks::thread_state::no_hint;
    ts.hint_seen = 0;
    ts.pressure = 0;
    ts.pressured = false;
    ts.yields_for_hint = false;
    ts.block = nullptr;
    ts.link = nullptr;
    if (std::exchange(ts.published, nullptr) != nullptr) {
      ts.arbiter != nullptr ? hooks::attach_clock(ts) : ts.clock.detach();
    }
    if (!sub.gone) part(sub, *sub.link);
  }
  sub.gone = false;
  if (std::exchange(sub.changed, false)) (void)write_scheduling(sub.before);
  sub.link.reset();
}

void hint_hub::take(hooks::thread_state& ts) noexcept {
  const std::lock_guard lock(mutex_);
  subscriber* const sub = find(ts);
  if (sub == nullptr) return;
  if (sub->gone || sub->offered != nullptr) let_go(*sub);
  if (sub->offered != nullptr) install(*sub);
  if (sub->link != nullptr && sub->shadow != sub->core->shadow()) permit(*sub);
}

// Says in the control block whether the scheduler may escalate: in shadow mode it may not.
void hint_hub::permit(subscriber& sub) noexcept {
  sub.shadow = sub.core->shadow();
  const bool may = sub.core->opts().escapable && !sub.shadow;
  write_word(sub.link->block->escapable, static_cast<std::uint8_t>(may));
}

void hint_hub::install(subscriber& sub) noexcept {
  hooks::thread_state& ts = *sub.ts;
  const options& o = sub.core->opts();
  sub.link = std::move(sub.offered);
  hint_link& link = *sub.link;
  asio_pulse_scb& block = *link.block;
  const std::uint64_t sequence = read_word(block.preempt_seq);
  write_word(block.priority, static_cast<std::uint16_t>(o.hint_priority));
  write_word(block.critical,
             static_cast<std::uint8_t>(ts.critical.load(std::memory_order_relaxed) != 0));
  permit(sub);
  write_word(block.policy, static_cast<std::uint8_t>(o.escalation));
  write_word(block.determinism, std::uint8_t{ASIO_PULSE_DETERMINISTIC});
  acknowledge(block, sequence, ASIO_PULSE_YIELD_IDLE);
  link.watch.start(sequence, read_word(block.lost_hints));
  if (link.scheduled) {
    bool works = read_scheduling(sub.before) &&
                 (sub.before.policy == SCHED_OTHER || sub.before.policy == SCHED_BATCH);
    scheduling_attributes mine = sub.before;
    mine.policy = policy_sched_ext;
    mine.runtime = 0;
    works = works && write_scheduling(mine);
    sub.changed = works;
    if (!works) {
      std::string& fault = connections_[sub.connection_index]->fault;
      const int error = errno;
      try {
        fault =
            fmt::format("thread {} may not become SCHED_EXT: {}", sub.tid, std::strerror(error));
      } catch (const std::bad_alloc&) {  // then the reason is not reported
        fault.clear();
      }
      sub.refused = link.session;
      part(sub, link);
      sub.link.reset();
      return;
    }
    // If scx_pulse schedules the thread, it was switched in by now.
    const std::uint64_t run = read_word(block.cpu_sequence);
    if (run != 0 && (run & 1) == 0 && !o.clock.has_value()) {
      ts.published = published(block);
      hooks::attach_clock(ts);
    }
  } else if (link.source == hint_source::local) {
    sub.changed = own_seccomp_filters() == 0 && request_slice(local_slice, sub.before);
  }
  ts.block = &block;
  ts.link = &link;
  ts.hint = hint_word(block);
  ts.hint_seen = sequence;
}

hint_status hint_hub::status() {
  const std::lock_guard lock(mutex_);
  hint_status s;
  s.why = "no thread that can get hints is in run()";
  for (const auto& sub : subscribers_) {
    const connection& c = *connections_[sub->connection_index];
    const hint_source now = sub->link != nullptr ? sub->link->source : hint_source::off;
    if (now != hint_source::off) ++s.workers;
    if (s.source == hint_source::kernel || (s.source != hint_source::off && now == s.source)) {
      continue;
    }
    if (now == hint_source::off && s.source != hint_source::off) continue;
    s.source = now;
    if (now == hint_source::kernel) {
      s.why = fmt::format("scx_pulse at {}", c.path);
    } else {
      const std::string& local = local_fault_;
      const std::string kernel = sub->wanted == hint_source::local ? std::string()
                                 : c.fault.empty()                 ? "not connected yet"
                                                                   : c.fault;
      s.why = now == hint_source::local
                  ? fmt::format("/proc/pressure and involuntary switches{}{}",
                                kernel.empty() ? "" : "; ", kernel)
                  : fmt::format("{}{}{}", kernel, kernel.empty() || local.empty() ? "" : "; ",
                                local.empty() && kernel.empty() ? "not yet" : local);
    }
  }
  return s;
}

// The child has only the calling thread: no thread of the hub, and no connection that it may use.
void hint_hub::after_fork(bool child) noexcept {
  if (child) {
    const hooks::thread_state& self = hooks::this_thread();
    for (auto& sub : subscribers_) {
      if (sub->ts != &self) {
        (void)sub.release();  // leaked, because its thread does not exist here
        continue;
      }
      sub->gone = true;  // its source is not informed, because the block belongs to the parent
      let_go(*sub);
      (void)sub->offered.release();
      sub->refused = 0;
      sub->local.reset();
    }
    std::erase(subscribers_, nullptr);
    for (auto& c : connections_) {
      // The parent's hub may have been using it. The descriptor must be closed, because the loader
      // notices the end of the parent by it.
      if (c->client.fd() >= 0) ::close(c->client.fd());
      // The client is constructed in place of the old one, which is not destroyed. This cannot
      // fail.
      std::construct_at(&c->client);
      c->session = 0;
      c->up = false;
      c->since = c->retry = {};
      c->pause = {};
      c->fault.clear();
    }
    departures_.clear();
    if (wakeup_ >= 0) ::close(std::exchange(wakeup_, -1));
    running_ = false;
    files_.close_all();
    pressure_.close();
    pressure_tried_ = local_works_ = false;
  }
  mutex_.unlock();
}

void hint_hub::resume() noexcept {
  const std::lock_guard lock(mutex_);
  if (subscribers_.empty()) return;
  start();
  wake();
}

// ---- the interface

void join_hints(hooks::thread_state& ts, context_core& core) noexcept {
  if (!ts.wrapped || !ts.compensable.load(std::memory_order_relaxed)) return;
  if (ts.slice == nullptr && own_seccomp_filters() == 0)
    ts.slice = timing::enable_slice_extension();
  try {
    hint_hub::get().join(ts, core);
  } catch (const std::bad_alloc&) {  // then there are no hints
  }
}

void leave_hints(hooks::thread_state& ts, context_core& core) noexcept {
  hint_hub::get().leave(ts, core);
}

void take_hints(hooks::thread_state& ts) noexcept { hint_hub::get().take(ts); }

void resume_hints() noexcept { hint_hub::get().resume(); }

std::unique_ptr<hint_link> hint_hub::new_link() {
  return std::make_unique<hint_link>(timing::timebase::get().from_ns(calm));
}

}  // namespace detail

hint_status current_hints() { return detail::hint_hub::get().status(); }

escapable_scope::escapable_scope(bool escapable) noexcept {
  const hooks::thread_state& ts = hooks::this_thread();
  if (ts.link == nullptr) return;
  link_ = ts.link;
  std::uint8_t& word = ts.block->escapable;
  before_ = detail::read_word(word) != 0;
  detail::write_word(word, static_cast<std::uint8_t>(escapable));
}

escapable_scope::~escapable_scope() {
  const hooks::thread_state& ts = hooks::this_thread();
  // If the link has changed, the new one does not know this scope.
  if (link_ == nullptr || ts.link != link_) return;
  detail::write_word(ts.block->escapable, static_cast<std::uint8_t>(before_));
}

#else

namespace detail {

void join_hints(hooks::thread_state&, context_core&) noexcept {}
void leave_hints(hooks::thread_state&, context_core&) noexcept {}
void take_hints(hooks::thread_state&) noexcept {}
void resume_hints() noexcept {}

}  // namespace detail

hint_status current_hints() { return {.why = "Linux only"}; }
escapable_scope::escapable_scope(bool) noexcept {}
escapable_scope::~escapable_scope() = default;

#endif

}  // namespace asio_pulse
