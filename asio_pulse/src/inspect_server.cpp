// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/detail/inspect_server.hpp>

#if defined(__linux__)

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <new>
#include <utility>

#include "background_thread.hpp"
#include "event_bell.hpp"
#include "inspect_server.hpp"
#include "inspect_wire.hpp"
#include "instruments.hpp"
#include "process_name.hpp"

namespace asio_pulse::detail {
namespace {

using namespace std::chrono_literals;

// While somebody collects: how often the queues are probed and the rings are read. Between what a
// probe costs (it wakes a worker: about 10 us), and how short a stall of the loop it meets.
constexpr std::chrono::milliseconds tick = 10ms;
constexpr std::size_t most_guests = 8;
// The stack of a stall follows the news of it.
constexpr std::chrono::milliseconds story_time = 100ms;

// For the signal handler, which may use nothing else. Relaxed: set before the handler is there.
std::atomic<int> bell_for_signals{-1};
std::atomic<bool> asked_by_signal{false};

void on_signal(int) {
  asked_by_signal.store(true, std::memory_order_relaxed);
  ring(bell_for_signals.load(std::memory_order_relaxed));
}

// Unless the program handles it itself.
void install(int signal) noexcept {
  struct sigaction now {};
  if (::sigaction(signal, nullptr, &now) != 0) return;
  if ((now.sa_flags & SA_SIGINFO) != 0 ||
      (now.sa_handler != SIG_DFL && now.sa_handler != SIG_IGN)) {
    return;
  }
  struct sigaction ours {};
  ours.sa_handler = &on_signal;
  ours.sa_flags = SA_RESTART;
  ::sigemptyset(&ours.sa_mask);
  ::sigaction(signal, &ours, nullptr);
}

}  // namespace

inspect_server& inspect_server::get() noexcept { return process_wide<inspect_server>(); }

// ---- contexts

void inspect_server::show(context_core& core) {
  const options& o = core.opts();
  if (!o.enabled) return;
  const std::lock_guard lock(mutex_);
  contexts_.push_back({.core = &core});
  open_for(core);
  wake();
}

// What the context needs of us, as far as it is not there yet.
void inspect_server::open_for(const context_core& core) noexcept {
  const options& o = core.opts();
  if (o.inspectable || core.tools().collecting() || o.trace_signal != 0) start();
  if (o.inspectable) listen();
  if (o.trace_signal != 0 && bell_ >= 0) {
    bell_for_signals.store(bell_, std::memory_order_relaxed);
    install(o.trace_signal);
  }
}

void inspect_server::hide(context_core& core) noexcept {
  const std::lock_guard lock(mutex_);
  std::erase_if(contexts_, [&core](const shown& s) { return s.core == &core; });
  for (guest& g : guests_) {
    std::erase_if(g.takers, [&core](const auto& t) { return t->of(core); });
  }
  wake();  // there may be nothing left to be seen
}

void inspect_server::begun() noexcept {
  const std::lock_guard lock(mutex_);
  start();
  wake();
}

// The watchdog's thread must not wait for this one: a fork holds both up.
void inspect_server::stalled(context_core& core) noexcept {
  core.tools().stalled();
  wake();
}

// ---- the thread

void inspect_server::start() noexcept {
  if (!may_start_) return;
  if (bell_ < 0) bell_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (!running_ && bell_ >= 0) running_ = start_background_thread(this);
}

void inspect_server::listen() noexcept {
  if (socket_ >= 0 || !running_) return;
  const inspect_address address(this_process_number());
  const int s = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (s < 0) return;
  if (::bind(s, address.get(), address.length) != 0 || ::listen(s, 8) != 0) {
    ::close(s);
    return;
  }
  socket_ = s;
}

void inspect_server::wake() noexcept { ring(bell_.load(std::memory_order_relaxed)); }

int inspect_server::timeout(clock::time_point now) const noexcept {
  clock::time_point next = clock::time_point::max();
  for (const shown& s : contexts_) {
    if (s.core->tools().collecting()) next = std::min(next, now + tick);
    if (s.to_write != clock::time_point{}) next = std::min(next, s.to_write);
  }
  for (const guest& g : guests_) {
    next = std::min(next, g.takers.empty() ? g.deadline : now + tick);
  }
  if (next == clock::time_point::max()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - now).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, 60'000));
}

void inspect_server::work(clock::time_point now) {
  for (shown& s : contexts_) {
    instruments& tools = s.core->tools();
    if (tools.take_stalled() && s.to_write == clock::time_point{}) s.to_write = now + story_time;
    if (tools.collecting()) s.core->probe();
    if (tools.expire(now)) s.core->tell_workers();
  }
  // Nothing to be seen: not to be found either. Here, for while somebody polls it, a socket that
  // was closed keeps its name.
  const bool seen = std::any_of(contexts_.begin(), contexts_.end(),
                                [](const shown& s) { return s.core->opts().inspectable; });
  if (!seen && socket_ >= 0) ::close(std::exchange(socket_, -1));
  for (guest& g : guests_) follow(g, now);
  std::erase_if(guests_, [now](const guest& g) {
    const bool late = g.takers.empty() && now >= g.deadline;
    if (g.done || late) ::close(g.socket);
    return g.done || late;
  });
  if (asked_by_signal.exchange(false, std::memory_order_relaxed)) {
    for (shown& s : contexts_) {
      if (s.core->opts().trace_signal != 0) s.to_write = now;
    }
  }
  write_wanted(now);
}

void inspect_server::run() noexcept {
  ::pthread_setname_np(::pthread_self(), "pulse-inspect");
  std::unique_lock lock(mutex_);
  std::vector<pollfd> sources;
  for (;;) {
    const clock::time_point now = clock::now();
    try {
      work(now);
      sources.clear();
      sources.push_back({.fd = bell_, .events = POLLIN, .revents = 0});
      sources.push_back(
          {.fd = guests_.size() < most_guests ? socket_ : -1, .events = POLLIN, .revents = 0});
      for (const guest& g : guests_) {
        const bool speaks = g.sent < g.out.size();
        sources.push_back({.fd = g.socket,
                           .events = static_cast<short>(speaks ? POLLOUT : POLLIN),
                           .revents = 0});
      }
    } catch (const std::bad_alloc&) {  // there may be memory later
    }
    const int patience = timeout(now);
    lock.unlock();
    (void)::poll(sources.data(), sources.size(), patience);
    lock.lock();
    if (sources.size() < 2) continue;
    std::uint64_t rung = 0;
    if ((sources[0].revents & POLLIN) != 0) (void)!::read(bell_, &rung, sizeof rung);
    // Nobody else adds or removes guests.
    const std::size_t polled = sources.size() - 2;
    try {
      for (std::size_t i = 0; i < polled && i < guests_.size(); ++i) {
        if (sources[i + 2].revents != 0) serve(guests_[i], clock::now());
      }
      if (sources[1].fd >= 0 && sources[1].fd == socket_ && (sources[1].revents & POLLIN) != 0) {
        welcome();
      }
    } catch (const std::bad_alloc&) {
      for (guest& g : guests_) g.done = true;
    }
  }
}

// ---- fork

void inspect_server::close_all() noexcept {
  for (guest& g : guests_) {
    ::close(g.socket);
    g.socket = -1;
  }
  guests_.clear();
  if (socket_ >= 0) ::close(socket_);
  socket_ = -1;
}

void inspect_server::after_fork(bool child) noexcept {
  if (child) {
    // The thread is the parent's, and so are its guests. What it was in the middle of, the list of
    // takers excepted, is as it was, for it held the mutex.
    close_all();
    if (bell_ >= 0) ::close(bell_);
    bell_ = -1;
    bell_for_signals.store(-1, std::memory_order_relaxed);
    running_ = false;
    may_start_ = false;  // until the program says that it goes on: see resume()
  }
  mutex_.unlock();
}

void inspect_server::resume() noexcept {
  const std::lock_guard lock(mutex_);
  may_start_ = true;
  if (running_) return;
  for (const shown& s : contexts_) open_for(*s.core);
}

// ---- what the others call

void show_context(context_core& core) noexcept {
  try {
    inspect_server::get().show(core);
  } catch (const std::bad_alloc&) {  // then it is not seen
  }
}

void hide_context(context_core& core) noexcept { inspect_server::get().hide(core); }

void inspect_stalled(context_core& core) noexcept {
  const options& o = core.opts();
  if (!o.trace_folder.empty() && o.trace == instrument_mode::on)
    inspect_server::get().stalled(core);
}

void inspect_collecting() noexcept { inspect_server::get().begun(); }

void resume_inspection() noexcept { inspect_server::get().resume(); }

}  // namespace asio_pulse::detail

#else

namespace asio_pulse::detail {

void show_context(context_core&) noexcept {}
void hide_context(context_core&) noexcept {}
void inspect_stalled(context_core&) noexcept {}
void inspect_collecting() noexcept {}
void resume_inspection() noexcept {}

}  // namespace asio_pulse::detail

#endif
