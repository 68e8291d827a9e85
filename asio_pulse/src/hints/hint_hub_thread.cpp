// SPDX-License-Identifier: BSL-1.0
//
// The hub's thread: it connects, asks for control blocks, watches connections, and writes the
// blocks of workers for which no scheduler does.
#include "hint_hub_thread.hpp"

#if defined(__linux__)

#include "threads/thread_name.hpp"
#include "threads/wakeup.hpp"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <utility>

namespace asio_pulse::detail {
namespace {

using namespace std::chrono_literals;

// The time between two attempts to find a loader. It is short after a loader was lost, which may be
// restarting, and grows, so that an idle server sleeps. Guesses.
constexpr std::chrono::milliseconds first_pause = 100ms;
constexpr std::chrono::milliseconds longest_pause = 5s;

// For local hints. Without pressure no worker is sampled, and if the kernel notifies the hub when
// pressure begins, it does not even look for pressure. The kernel's tick is 1 to 10 ms, so more
// frequent looks would show nothing new.
constexpr std::chrono::milliseconds look_every = 4ms;
constexpr std::chrono::milliseconds look_for_pressure_every = 500ms;
constexpr std::chrono::seconds stays_hot = 3s;
constexpr std::uint32_t least_pressure = 5;
// The time until something is tried again that failed for lack of memory. A guess: it is short
// enough for hints, and takes almost no CPU time.
constexpr std::chrono::milliseconds after_a_failure = 50ms;
// The CPU time that a worker may use at a time while others wait. About the slice of EEVDF.
constexpr std::chrono::milliseconds slice = 3ms;

std::uint64_t nanoseconds(std::chrono::steady_clock::time_point t) noexcept {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(t.time_since_epoch()).count());
}

}  // namespace

void hint_hub::run() noexcept {
  name_this_thread("pulse-hints");
  std::unique_lock lock(mutex_);
  for (;;) {
    bool failed = false;
    try {
      serve(lock);
    } catch (const std::bad_alloc&) {  // it is tried again later
      failed = true;
    }
    if (!lock.owns_lock()) lock.lock();
    wait(lock, failed);
  }
}

void hint_hub::serve(std::unique_lock<std::mutex>& lock) {
  say_goodbye(lock);
  // Close the files of threads that have left.
  files_.close_unless([this](pid_t tid) {
    return std::any_of(subscribers_.begin(), subscribers_.end(),
                       [tid](const auto& sub) { return sub->tid == tid; });
  });
  const clock::time_point now = clock::now();
  // By index, because the list may change whenever the mutex is released.
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    connection& c = *connections_[i];  // connections are never removed
    const bool wanted = std::any_of(subscribers_.begin(), subscribers_.end(), [i](const auto& sub) {
      return sub->connection_index == i && sub->wanted != hint_source::local;
    });
    if (wanted && !c.up && now >= c.retry) connect(lock, c);
  }
  std::vector<std::uint64_t> unserved;
  for (const auto& sub : subscribers_) {
    const hint_link* const has = sub->offered != nullptr ? sub->offered.get() : sub->link.get();
    const bool second_best =
        has != nullptr && has->source == hint_source::local && sub->wanted != hint_source::local;
    if (has == nullptr || sub->gone || second_best) unserved.push_back(sub->serial);
  }
  for (const std::uint64_t serial : unserved) {
    if (offer_kernel(lock, serial)) continue;
    subscriber* const sub = find(serial);
    if (sub == nullptr || sub->offered != nullptr) continue;
    if (sub->wanted == hint_source::kernel || (sub->link != nullptr && !sub->gone)) continue;
    offer_local(*sub);
  }
  sample(now);
}

void hint_hub::connect(std::unique_lock<std::mutex>& lock, connection& c) {
  lock.unlock();
  std::string fault;
  try {
    fault = c.client.connect(c.path);
  } catch (const std::bad_alloc&) {
    c.client.disconnect();
  }
  lock.lock();
  c.up = c.client.connected();
  c.fault = std::move(fault);
  if (c.up) {
    ++c.session;
    c.since = clock::now();
    return;
  }
  retry_later(c);
}

void hint_hub::retry_later(connection& c) noexcept {
  c.pause = std::clamp<std::chrono::milliseconds>(c.pause * 2, first_pause, longest_pause);
  c.retry = clock::now() + c.pause;
}

// Makes every subscriber drop what it has from this connection.
void hint_hub::lost(connection& c) noexcept {
  c.client.disconnect();
  c.up = false;
  // A source that has served for a while may be restarting. For one that is lost again and again,
  // the pause grows.
  if (clock::now() - c.since >= longest_pause) c.pause = {};
  retry_later(c);
  for (const auto& sub : subscribers_) {
    if (connections_[sub->connection_index].get() != &c) continue;
    if (sub->offered != nullptr && sub->offered->source == hint_source::kernel)
      sub->offered.reset();
    if (sub->link != nullptr && sub->link->source == hint_source::kernel && !sub->gone) {
      sub->gone = true;
      sub->core->notify_workers();
    }
  }
}

void hint_hub::say_goodbye(std::unique_lock<std::mutex>& lock) {
  while (!departures_.empty()) {
    const departure d = departures_.back();
    departures_.pop_back();
    connection& c = *connections_[d.connection_index];
    if (!c.up || c.session != d.session) continue;
    lock.unlock();
    c.client.detach(d.tid, d.slot);
    lock.lock();
    if (!c.client.connected()) lost(c);
  }
}

// Returns true if the subscriber has a link of the kernel, or is gone.
bool hint_hub::offer_kernel(std::unique_lock<std::mutex>& lock, std::uint64_t serial) {
  const subscriber* sub = find(serial);
  if (sub == nullptr) return true;
  const std::uint32_t index = sub->connection_index;
  connection& c = *connections_[index];
  if (sub->wanted == hint_source::local || !c.up || sub->refused == c.session) return false;
  const pid_t tid = sub->tid;
  const std::uint32_t session = c.session;
  std::unique_ptr<hint_link> link = new_link();
  lock.unlock();
  std::uint32_t slot = 0;
  std::string fault;
  try {
    fault = c.client.attach(tid, slot);
  } catch (const std::bad_alloc&) {
    // The loader's answer is not known, so it has to be asked again.
    c.client.disconnect();
    fault = "no memory";  // short enough not to be allocated
  }
  lock.lock();
  subscriber* const now = find(serial);
  if (!fault.empty()) {
    c.fault = std::move(fault);
    if (!c.client.connected()) lost(c);
    if (now != nullptr) now->refused = session;
    return now == nullptr;
  }
  link->source = hint_source::kernel;
  link->slot = slot;
  link->session = session;
  // A source of control blocks need not be a scheduler.
  link->scheduled = read_word(c.client.system().mode) != ASIO_PULSE_MODE_NONE;
  link->memory = c.client.memory();
  link->block = &c.client.block(slot);
  if (now == nullptr) {  // it has left meanwhile
    departures_.push_back({index, session, tid, slot});
    say_goodbye(lock);
    return true;
  }
  now->offered = std::move(link);
  now->core->notify_workers();
  return true;
}

void hint_hub::offer_local(subscriber& sub) {
  if (!pressure_tried_) {
    local_fault_ = pressure_.open();
    if (local_fault_.empty()) {
      const thread_usage usage = thread_probe(sub.tid, files_).switches();
      if (!usage.valid || !usage.have_switches) {
        local_fault_ = "/proc/self/task has no counts of context switches";
      }
    }
    local_works_ = local_fault_.empty();
    pressure_tried_ = true;  // last, so that it is tried again after a lack of memory
  }
  if (!local_works_) return;
  // A separate block on the heap, which no other code writes.
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
  sub.probe = thread_probe(sub.tid, files_);
  sub.local = std::make_unique<local_hints>(slice);
  sub.offered = std::move(link);
  sub.core->notify_workers();
}

void hint_hub::sample(clock::time_point now) noexcept {
  const bool any = std::any_of(subscribers_.begin(), subscribers_.end(), [](const auto& sub) {
    return sub->link != nullptr && sub->link->source == hint_source::local;
  });
  if (!any || now < next_sample_) return;
  const std::uint32_t pressure = pressure_.sample(nanoseconds(now));
  if (pressure >= least_pressure) hot_until_ = now + stays_hot;
  if (now >= hot_until_) {
    next_sample_ = now + look_for_pressure_every;
    return;
  }
  next_sample_ = now + look_every;
  for (const auto& sub : subscribers_) {
    if (sub->link == nullptr || sub->link->source != hint_source::local) continue;
    (void)sub->local->look(sub->probe.switches(), *sub->link->block, pressure);
  }
}

// The time-out for poll() in milliseconds; negative if nothing is due.
int hint_hub::next_timeout(clock::time_point now) const noexcept {
  clock::time_point next = clock::time_point::max();
  bool local = false;
  for (const auto& sub : subscribers_) {
    if (sub->link != nullptr && sub->link->source == hint_source::local) local = true;
    const connection& c = *connections_[sub->connection_index];
    if (sub->wanted != hint_source::local && !c.up) next = std::min(next, c.retry);
  }
  // If the kernel notifies the hub when pressure begins, it need not look before.
  if (local && (now < hot_until_ || pressure_.trigger() < 0)) next = std::min(next, next_sample_);
  if (!departures_.empty()) next = now;
  if (next == clock::time_point::max()) return -1;
  return static_cast<int>(
      std::chrono::ceil<std::chrono::milliseconds>(std::max(next - now, clock::duration::zero()))
          .count());
}

// `soon`: something has to be tried again, and nothing will wake this thread for it.
void hint_hub::wait(std::unique_lock<std::mutex>& lock, bool soon) noexcept {
  // Further connections are not watched; their end is noticed with the next request.
  constexpr std::size_t most_watched = 14;
  pollfd fds[most_watched + 2] = {};
  connection* watched[most_watched] = {};
  nfds_t count = 0;
  fds[count++] = {.fd = wakeup_, .events = POLLIN, .revents = 0};
  fds[count++] = {.fd = pressure_.trigger(), .events = POLLPRI, .revents = 0};
  std::size_t watching = 0;
  for (const auto& c : connections_) {
    if (!c->up || watching == most_watched) continue;
    watched[watching++] = c.get();
    fds[count++] = {.fd = c->client.fd(), .events = POLLRDHUP, .revents = 0};
  }
  constexpr auto shortly = static_cast<int>(after_a_failure.count());
  const int due = next_timeout(clock::now());
  const int timeout = !soon ? due : due < 0 ? shortly : std::clamp(due, 1, shortly);
  const int wakeup = wakeup_;
  lock.unlock();
  const int ready = ::poll(fds, count, timeout);
  // If poll() fails, sleep instead of spinning.
  if (ready < 0) std::this_thread::sleep_for(std::chrono::milliseconds{50});
  lock.lock();
  if (ready <= 0) return;
  if (fds[0].revents != 0) {
    reset_wakeup(wakeup);
  }
  if ((fds[1].revents & POLLERR) != 0) {
    // The file is gone, or PSI was switched off. There will be nothing to sample.
    pressure_.close();
  } else if (fds[1].revents != 0) {
    hot_until_ = clock::now() + stays_hot;
    next_sample_ = {};
  }
  for (std::size_t i = 0; i < watching; ++i) {
    if ((fds[i + 2].revents & (POLLHUP | POLLERR | POLLRDHUP)) != 0 && watched[i]->up) {
      lost(*watched[i]);
      try {
        watched[i]->fault = "scx_pulse has ended";
      } catch (const std::bad_alloc&) {
        watched[i]->fault.clear();
      }
    }
  }
}

}  // namespace asio_pulse::detail

#endif
