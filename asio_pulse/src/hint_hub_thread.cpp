// SPDX-License-Identifier: BSL-1.0
//
// What the hub's thread does: connects, asks for control blocks, watches connections, and writes
// the blocks of workers that have no scheduler to write them.
#include "hint_hub_thread.hpp"

#if defined(__linux__)

#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <utility>

namespace asio_pulse::detail {
namespace {

using namespace std::chrono_literals;

// Between two attempts to find a loader: soon after it was lost, for it may be restarting; later
// rarely, for an idle server is to sleep. Guesses.
constexpr std::chrono::milliseconds first_pause = 100ms;
constexpr std::chrono::milliseconds longest_pause = 5s;

// Local hints. Without pressure nothing is sampled; where the kernel calls us when it begins,
// nothing is even looked at. A tick of the kernel is 1 to 10 ms: a quicker look sees nothing new.
constexpr std::chrono::milliseconds look_every = 4ms;
constexpr std::chrono::milliseconds look_for_pressure_every = 500ms;
constexpr std::chrono::seconds stays_hot = 3s;
constexpr std::uint32_t least_pressure = 5;
// CPU time that a worker may use at a time while others wait. EEVDF's own slice, about.
constexpr std::chrono::milliseconds slice = 3ms;

std::uint64_t nanoseconds(std::chrono::steady_clock::time_point t) noexcept {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(t.time_since_epoch()).count());
}

}  // namespace

void hint_hub::run() noexcept {
  ::pthread_setname_np(::pthread_self(), "pulse-hints");
  std::unique_lock lock(mutex_);
  for (;;) {
    try {
      serve(lock);
    } catch (const std::bad_alloc&) {  // there may be memory later
    }
    if (!lock.owns_lock()) lock.lock();
    wait(lock);
  }
}

void hint_hub::serve(std::unique_lock<std::mutex>& lock) {
  say_goodbye(lock);
  const clock::time_point now = clock::now();
  // By index: the list may change whenever the mutex is let go.
  for (std::size_t i = 0; i < lines_.size(); ++i) {
    line& l = *lines_[i];  // lines are never removed
    const bool wanted = std::any_of(members_.begin(), members_.end(), [i](const auto& m) {
      return m->line == i && m->wanted != hint_source::local;
    });
    if (wanted && !l.up && now >= l.retry) connect(lock, l);
  }
  std::vector<std::uint64_t> unserved;
  for (const auto& m : members_) {
    const hint_link* const has = m->offered != nullptr ? m->offered.get() : m->link.get();
    const bool second_best =
        has != nullptr && has->source == hint_source::local && m->wanted != hint_source::local;
    if (has == nullptr || m->gone || second_best) unserved.push_back(m->serial);
  }
  for (const std::uint64_t serial : unserved) {
    if (offer_kernel(lock, serial)) continue;
    member* const m = find(serial);
    if (m == nullptr || m->offered != nullptr) continue;
    if (m->wanted == hint_source::kernel || (m->link != nullptr && !m->gone)) continue;
    offer_local(*m);
  }
  sample(now);
}

void hint_hub::connect(std::unique_lock<std::mutex>& lock, line& l) {
  lock.unlock();
  std::string fault = l.client.connect(l.path);
  lock.lock();
  l.up = l.client.connected();
  l.fault = std::move(fault);
  if (l.up) {
    ++l.session;
    l.pause = {};
    return;
  }
  l.pause = std::clamp<std::chrono::milliseconds>(l.pause * 2, first_pause, longest_pause);
  l.retry = clock::now() + l.pause;
}

// Everybody who has something of this connection's is to let go of it.
void hint_hub::lost(line& l) noexcept {
  l.client.disconnect();
  l.up = false;
  l.pause = first_pause;
  l.retry = clock::now() + l.pause;
  for (const auto& m : members_) {
    if (lines_[m->line].get() != &l) continue;
    if (m->offered != nullptr && m->offered->source == hint_source::kernel) m->offered.reset();
    if (m->link != nullptr && m->link->source == hint_source::kernel && !m->gone) {
      m->gone = true;
      m->core->tell_workers();
    }
  }
}

void hint_hub::say_goodbye(std::unique_lock<std::mutex>& lock) {
  while (!departures_.empty()) {
    const departure d = departures_.back();
    departures_.pop_back();
    line& l = *lines_[d.line];
    if (!l.up || l.session != d.session) continue;
    lock.unlock();
    l.client.detach(d.tid, d.slot);
    lock.lock();
    if (!l.client.connected()) lost(l);
  }
}

// True: it has a kernel's link, or is gone.
bool hint_hub::offer_kernel(std::unique_lock<std::mutex>& lock, std::uint64_t serial) {
  const member* m = find(serial);
  if (m == nullptr) return true;
  line& l = *lines_[m->line];
  if (m->wanted == hint_source::local || !l.up || m->refused == l.session) return false;
  const pid_t tid = m->tid;
  const std::uint32_t session = l.session;
  std::unique_ptr<hint_link> link = new_link();
  lock.unlock();
  std::uint32_t slot = 0;
  std::string fault = l.client.attach(tid, slot);
  lock.lock();
  member* const now = find(serial);
  if (!fault.empty()) {
    l.fault = std::move(fault);
    if (!l.client.connected()) lost(l);
    if (now != nullptr) now->refused = session;
    return now == nullptr;
  }
  link->source = hint_source::kernel;
  link->slot = slot;
  link->session = session;
  // Somebody may serve control blocks who is no scheduler.
  link->scheduled = read_word(l.client.system().mode) != ASIO_PULSE_MODE_NONE;
  link->memory = l.client.memory();
  link->block = &l.client.block(slot);
  if (now == nullptr) {  // it has left meanwhile
    departures_.push_back({.line = 0, .session = session, .tid = tid, .slot = slot});
    for (std::size_t i = 0; i < lines_.size(); ++i) {
      if (lines_[i].get() == &l) departures_.back().line = static_cast<std::uint32_t>(i);
    }
    say_goodbye(lock);
    return true;
  }
  now->offered = std::move(link);
  now->core->tell_workers();
  return true;
}

void hint_hub::offer_local(member& m) {
  if (!pressure_tried_) {
    pressure_tried_ = true;
    local_fault_ = pressure_.open();
    if (local_fault_.empty()) {
      thread_usage usage = thread_probe(m.tid).full();
      if (!usage.valid || !usage.have_switches) {
        local_fault_ = "/proc/self/task tells nothing of switches";
      }
    }
    local_works_ = local_fault_.empty();
  }
  if (!local_works_) return;
  // Its own, in the heap: nobody else writes there.
  struct alignas(64) block {
    asio_pulse_scb scb{};
  };
  const auto memory = std::make_shared<block>();
  memory->scb.mode = ASIO_PULSE_MODE_NONE;
  memory->scb.worker_state = ASIO_PULSE_WORKER_RUNNING;
  std::unique_ptr<hint_link> link = new_link();
  link->source = hint_source::local;
  link->block = &memory->scb;
  link->memory = memory;
  m.probe = thread_probe(m.tid);
  m.local = std::make_unique<local_hints>(slice);
  m.offered = std::move(link);
  m.core->tell_workers();
}

void hint_hub::sample(clock::time_point now) noexcept {
  const bool any = std::any_of(members_.begin(), members_.end(), [](const auto& m) {
    return m->link != nullptr && m->link->source == hint_source::local;
  });
  if (!any || now < next_sample_) return;
  const std::uint32_t pressure = pressure_.sample(nanoseconds(now));
  if (pressure >= least_pressure) hot_until_ = now + stays_hot;
  if (now >= hot_until_) {
    next_sample_ = now + look_for_pressure_every;
    return;
  }
  next_sample_ = now + look_every;
  for (const auto& m : members_) {
    if (m->link == nullptr || m->link->source != hint_source::local) continue;
    (void)m->local->look(m->probe.full(), *m->link->block, pressure);
  }
}

// Milliseconds for poll(); negative: nothing is due.
int hint_hub::next_timeout(clock::time_point now) const noexcept {
  clock::time_point next = clock::time_point::max();
  bool local = false;
  for (const auto& m : members_) {
    if (m->link != nullptr && m->link->source == hint_source::local) local = true;
    const line& l = *lines_[m->line];
    if (m->wanted != hint_source::local && !l.up) next = std::min(next, l.retry);
  }
  // Where the kernel calls when pressure begins there is nothing to look for until then.
  if (local && (now < hot_until_ || pressure_.trigger() < 0)) next = std::min(next, next_sample_);
  if (!departures_.empty()) next = now;
  if (next == clock::time_point::max()) return -1;
  return static_cast<int>(
      std::chrono::ceil<std::chrono::milliseconds>(std::max(next - now, clock::duration::zero()))
          .count());
}

void hint_hub::wait(std::unique_lock<std::mutex>& lock) {
  constexpr std::size_t most_lines =
      14;  // more are not watched, and found dead when they are asked
  pollfd fds[most_lines + 2] = {};
  line* watched[most_lines] = {};
  nfds_t count = 0;
  fds[count++] = {.fd = bell_, .events = POLLIN, .revents = 0};
  fds[count++] = {.fd = pressure_.trigger(), .events = POLLPRI, .revents = 0};
  std::size_t lines = 0;
  for (const auto& l : lines_) {
    if (!l->up || lines == most_lines) continue;
    watched[lines++] = l.get();
    fds[count++] = {.fd = l->client.fd(), .events = POLLRDHUP, .revents = 0};
  }
  const int timeout = next_timeout(clock::now());
  const int bell = bell_;
  lock.unlock();
  const int ready = ::poll(fds, count, timeout);
  lock.lock();
  if (ready <= 0) return;
  if (fds[0].revents != 0) {
    std::uint64_t rung = 0;
    (void)!::read(bell, &rung, sizeof rung);
  }
  if ((fds[1].revents & POLLERR) != 0) {
    // The file is gone, or PSI was switched off: sample nothing for ever.
    pressure_.close();
  } else if (fds[1].revents != 0) {
    hot_until_ = clock::now() + stays_hot;
    next_sample_ = {};
  }
  for (std::size_t i = 0; i < lines; ++i) {
    if ((fds[i + 2].revents & (POLLHUP | POLLERR | POLLRDHUP)) != 0 && watched[i]->up) {
      watched[i]->fault = "scx_pulse has ended";
      lost(*watched[i]);
    }
  }
}

}  // namespace asio_pulse::detail

#endif
