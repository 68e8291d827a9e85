// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/detail/hint_hub.hpp>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

#if defined(__linux__)

#include <fmt/format.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "background_thread.hpp"
#include "event_bell.hpp"
#include "hint_hub_thread.hpp"

#endif

namespace asio_pulse {

std::string_view to_string(hint_source s) noexcept {
  switch (s) {
    case hint_source::environment:
      return "environment";
    case hint_source::off:
      return "off";
    case hint_source::automatic:
      return "automatic";
    case hint_source::kernel:
      return "kernel";
    case hint_source::local:
      return "local";
  }
  return "unknown";
}

std::string_view to_string(escalation_policy p) noexcept {
  switch (p) {
    case escalation_policy::none:
      return "none";
    case escalation_policy::thread_kick:
      return "thread_kick";
    case escalation_policy::cgroup_throttle:
      return "cgroup_throttle";
    case escalation_policy::hybrid:
      return "hybrid";
  }
  return "unknown";
}

std::string_view to_string(determinism d) noexcept {
  switch (d) {
    case determinism::deterministic:
      return "deterministic";
    case determinism::pressured:
      return "pressured";
    case determinism::defensive:
      return "defensive";
  }
  return "unknown";
}

hint_source detail::wanted_hints(const options& o) {
  if (o.hints != hint_source::environment) return o.hints;
  const char* const set = std::getenv("ASIO_PULSE_HINTS");
  const std::string_view text = set != nullptr ? set : "";
  if (text.empty()) return hint_source::off;
  for (const hint_source s :
       {hint_source::off, hint_source::automatic, hint_source::kernel, hint_source::local}) {
    if (text == to_string(s)) return s;
  }
  throw std::invalid_argument(
      "the environment variable ASIO_PULSE_HINTS must be off, automatic, "
      "kernel or local (got " +
      std::string(text) + ")");
}

#if defined(__linux__)

namespace {

static_assert(static_cast<int>(escalation_policy::none) == ASIO_PULSE_POLICY_NONE);
static_assert(static_cast<int>(escalation_policy::thread_kick) == ASIO_PULSE_POLICY_THREAD_KICK);
static_assert(static_cast<int>(escalation_policy::cgroup_throttle) ==
              ASIO_PULSE_POLICY_CGROUP_THROTTLE);
static_assert(static_cast<int>(escalation_policy::hybrid) == ASIO_PULSE_POLICY_HYBRID);
static_assert(static_cast<int>(determinism::pressured) == ASIO_PULSE_PRESSURED);
static_assert(static_cast<int>(determinism::defensive) == ASIO_PULSE_DEFENSIVE);

// A worker that has had no hint for this long is as without. A guess: several ticks, and windows of
// the tiers, and short for whoever watches.
constexpr std::chrono::milliseconds calm{200};

// The slice that a worker asks an ordinary kernel for: a third of EEVDF's default. A guess between
// the wait of those who share its CPU and switches.
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

hint_hub::member* hint_hub::find(const hooks::thread_state& ts) noexcept {
  for (const auto& m : members_) {
    if (m->ts == &ts) return m.get();
  }
  return nullptr;
}

hint_hub::member* hint_hub::find(std::uint64_t serial) noexcept {
  for (const auto& m : members_) {
    if (m->serial == serial) return m.get();
  }
  return nullptr;
}

std::uint32_t hint_hub::line_of(const std::string& path) {
  for (std::size_t i = 0; i < lines_.size(); ++i) {
    if (lines_[i]->path == path) return static_cast<std::uint32_t>(i);
  }
  lines_.push_back(std::make_unique<line>());
  lines_.back()->path = path;
  return static_cast<std::uint32_t>(lines_.size() - 1);
}

void hint_hub::start() noexcept {
  if (bell_ < 0) bell_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (!running_ && bell_ >= 0) running_ = start_background_thread(this);
}

void hint_hub::wake() noexcept { ring(bell_); }

void hint_hub::join(hooks::thread_state& ts, context_core& core) {
  const std::lock_guard lock(mutex_);
  if (find(ts) != nullptr) return;
  auto m = std::make_unique<member>();
  m->ts = &ts;
  m->core = &core;
  m->tid = static_cast<pid_t>(::syscall(SYS_gettid));
  m->serial = ++last_serial_;
  m->wanted = core.hints_from();
  m->line = line_of(socket_of(core.opts()));
  members_.push_back(std::move(m));
  start();
  wake();
}

void hint_hub::leave(hooks::thread_state& ts, context_core& core) noexcept {
  const std::lock_guard lock(mutex_);
  const auto at = std::find_if(members_.begin(), members_.end(),
                               [&](const auto& m) { return m->ts == &ts && m->core == &core; });
  if (at == members_.end()) return;
  member& m = **at;
  if (m.offered != nullptr) part(m, *m.offered);
  let_go(m);
  members_.erase(at);
}

// The link goes; whoever gave it is told.
void hint_hub::part(const member& m, const hint_link& link) noexcept {
  if (link.source != hint_source::kernel) return;
  try {
    departures_.push_back({m.line, link.session, m.tid, link.slot});
    wake();
  } catch (const std::bad_alloc&) {  // the loader finds out when the thread ends
  }
}

void hint_hub::let_go(member& m) noexcept {
  hooks::thread_state& ts = *m.ts;
  if (m.link != nullptr) {
    ts.hint = &hooks::thread_state::no_hint;
    ts.hint_seen = 0;
    ts.pressure = 0;
    ts.pressured = false;
    ts.block = nullptr;
    ts.link = nullptr;
    if (std::exchange(ts.published, nullptr) != nullptr) {
      ts.observer != nullptr ? hooks::attach_clock(ts) : ts.clock.detach();
    }
    if (!m.gone) part(m, *m.link);
  }
  m.gone = false;
  if (std::exchange(m.changed, false)) (void)write_scheduling(m.before);
  m.link.reset();
}

void hint_hub::take(hooks::thread_state& ts) noexcept {
  const std::lock_guard lock(mutex_);
  member* const m = find(ts);
  if (m == nullptr) return;
  if (m->gone || m->offered != nullptr) let_go(*m);
  if (m->offered != nullptr) install(*m);
}

void hint_hub::install(member& m) noexcept {
  hooks::thread_state& ts = *m.ts;
  const options& o = m.core->opts();
  m.link = std::move(m.offered);
  hint_link& link = *m.link;
  asio_pulse_scb& block = *link.block;
  const std::uint64_t sequence = read_word(block.preempt_seq);
  write_word(block.priority, static_cast<std::uint16_t>(o.hint_priority));
  write_word(block.critical,
             static_cast<std::uint8_t>(ts.critical.load(std::memory_order_relaxed) != 0));
  write_word(block.escapable, static_cast<std::uint8_t>(o.escapable && !o.shadow));
  write_word(block.policy, static_cast<std::uint8_t>(o.escalation));
  write_word(block.determinism, std::uint8_t{ASIO_PULSE_DETERMINISTIC});
  acknowledge(block, sequence, ASIO_PULSE_YIELD_IDLE);
  link.watch.start(sequence, read_word(block.lost_hints));
  if (link.scheduled) {
    bool works = read_scheduling(m.before) &&
                 (m.before.policy == SCHED_OTHER || m.before.policy == SCHED_BATCH);
    scheduling_attributes mine = m.before;
    mine.policy = policy_sched_ext;
    mine.runtime = 0;
    works = works && write_scheduling(mine);
    m.changed = works;
    if (!works) {
      lines_[m.line]->fault =
          fmt::format("thread {} may not become SCHED_EXT: {}", m.tid, std::strerror(errno));
      m.refused = link.session;
      part(m, link);
      m.link.reset();
      return;
    }
    // It has been switched in by now, if a scheduler of ours is there.
    const std::uint64_t run = read_word(block.cpu_sequence);
    if (run != 0 && (run & 1) == 0 && !o.clock.has_value()) {
      ts.published = published(block);
      hooks::attach_clock(ts);
    }
  } else if (link.source == hint_source::local) {
    m.changed = request_slice(local_slice, m.before);
  }
  ts.block = &block;
  ts.link = &link;
  ts.hint = hint_word(block);
  ts.hint_seen = sequence;
}

hint_status hint_hub::status() {
  const std::lock_guard lock(mutex_);
  hint_status s;
  s.why = "no thread that wants hints is in run()";
  for (const auto& m : members_) {
    const line& l = *lines_[m->line];
    const hint_source now = m->link != nullptr ? m->link->source : hint_source::off;
    if (now != hint_source::off) ++s.workers;
    if (s.source == hint_source::kernel || (s.source != hint_source::off && now == s.source)) {
      continue;
    }
    if (now == hint_source::off && s.source != hint_source::off) continue;
    s.source = now;
    if (now == hint_source::kernel) {
      s.why = fmt::format("scx_pulse at {}", l.path);
    } else {
      const std::string& local = local_fault_;
      const std::string kernel = m->wanted == hint_source::local ? std::string()
                                 : l.fault.empty()               ? "not connected yet"
                                                                 : l.fault;
      s.why = now == hint_source::local
                  ? fmt::format("/proc/pressure and involuntary switches{}{}",
                                kernel.empty() ? "" : "; ", kernel)
                  : fmt::format("{}{}{}", kernel, kernel.empty() || local.empty() ? "" : "; ",
                                local.empty() && kernel.empty() ? "not yet" : local);
    }
  }
  return s;
}

// The child: no hub's thread, no connection of its own, and nobody but the calling thread.
void hint_hub::after_fork(bool child) noexcept {
  if (child) {
    const hooks::thread_state& self = hooks::this_thread();
    for (auto& m : members_) {
      if (m->ts != &self) {
        (void)m.release();  // its thread does not exist here
        continue;
      }
      m->gone = true;  // nobody is told: the block is the parent's
      let_go(*m);
      (void)m->offered.release();
      m->refused = 0;
      m->local.reset();
    }
    std::erase(members_, nullptr);
    for (auto& l : lines_) {
      // The parent's hub may be in the middle of using it. The descriptor must go, for the loader
      // learns of the parent's end by it.
      if (l->client.fd() >= 0) ::close(l->client.fd());
      std::string path = l->path;
      (void)l.release();
      l = std::unique_ptr<line>(new (std::nothrow) line);
      if (l != nullptr) l->path = std::move(path);
    }
    departures_.clear();
    if (bell_ >= 0) ::close(std::exchange(bell_, -1));
    running_ = false;
    pressure_.close();
    pressure_tried_ = local_works_ = false;
  }
  mutex_.unlock();
}

void hint_hub::resume() noexcept {
  const std::lock_guard lock(mutex_);
  if (members_.empty()) return;
  start();
  wake();
}

// ---- the interface

void join_hints(hooks::thread_state& ts, context_core& core) noexcept {
  if (!ts.wrapped || !ts.compensable.load(std::memory_order_relaxed)) return;
  if (ts.slice == nullptr) ts.slice = timing::enable_slice_extension();
  try {
    hint_hub::get().join(ts, core);
  } catch (const std::bad_alloc&) {  // no hints
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
  // Another one, or none: what there is now knows nothing of this scope.
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
