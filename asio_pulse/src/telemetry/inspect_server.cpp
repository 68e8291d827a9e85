// SPDX-License-Identifier: BSL-1.0
#include "inspection.hpp"

#if defined(__linux__)

#include "inspect_server.hpp"
#include "inspect_wire.hpp"
#include "instruments.hpp"
#include "process/process_name.hpp"
#include "threads/background_thread.hpp"
#include "threads/thread_name.hpp"
#include "threads/wakeup.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <new>
#include <thread>
#include <utility>

namespace asio_pulse::detail {
namespace {

using namespace std::chrono_literals;

// The interval at which queues are probed and rings are read while figures are collected. With less,
// probes cost more (each wakes a worker, which takes about 10 us); with more, short stalls of the
// loop are missed.
constexpr std::chrono::milliseconds tick = 10ms;
// How long after a stall its recording is written: the stack is taken after the stall was found.
constexpr std::chrono::milliseconds story_time = 100ms;
// How long this thread sleeps if it has no memory for poll(), or poll() fails. A guess: soon
// enough, and almost no CPU time.
constexpr std::chrono::milliseconds after_a_failure = 50ms;

// For the signal handler, which may use nothing else. Relaxed: set before the handler is installed.
std::atomic<int> wakeup_for_signals{-1};
std::atomic<bool> asked_by_signal{false};

void on_signal(int) {
  asked_by_signal.store(true, std::memory_order_relaxed);
  signal_wakeup(wakeup_for_signals.load(std::memory_order_relaxed));
}

// Installs the handler, unless the program handles the signal itself.
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

void inspect_server::show(context_telemetry& context) {
  const options& o = context.core().opts();
  if (!o.enabled) return;
  const std::lock_guard lock(mutex_);
  contexts_.push_back({.context = &context});
  open_for(contexts_.back());
  if (context.collecting()) wake();
}

void inspect_server::worker_joined(const context_telemetry& context) noexcept {
  if (!context.core().opts().enabled) return;
  const std::lock_guard lock(mutex_);
  const auto here = [&context](const shown& s) { return s.context == &context; };
  const auto at = std::find_if(contexts_.begin(), contexts_.end(), here);
  if (at == contexts_.end()) return;
  at->has_run = true;
  may_start_ = true;  // this is a process that runs contexts, also if it is the child of a fork
  open_for(*at);
}

// Starts what the context needs, as far as it does not exist yet. A thread is not started for an
// inspectable context before it runs: until then, programs do what the kernel allows with one thread
// only (a user namespace), or what applies to one thread only (seccomp filters, capabilities).
void inspect_server::open_for(const shown& context) noexcept {
  const options& o = context.context->core().opts();
  const bool inspectable = o.inspectable && context.has_run;
  if (inspectable || context.context->collecting() || o.trace_signal != 0) start();
  if (inspectable) listen();
  if (o.trace_signal != 0 && wakeup_ >= 0) {
    wakeup_for_signals.store(wakeup_, std::memory_order_relaxed);
    install(o.trace_signal);
  }
}

void inspect_server::hide(context_telemetry& context) noexcept {
  std::unique_lock lock(mutex_);
  std::erase_if(contexts_, [&context](const shown& s) { return s.context == &context; });
  for (client& c : clients_) {
    std::erase_if(c.takers, [&context](const auto& t) { return t->of(context); });
  }
  // The context has a reference to its core, so these are not the last ones.
  std::erase_if(to_announce_, [&context](const announcement& a) { return a.context == &context; });
  if (!clients_.empty()) wake();
  if (socket_ && close_at_ == clock::time_point{} && !any_inspectable()) {
    close_at_ = clock::now() + linger;
    wake();
  }
  if (thread_.load(std::memory_order_relaxed) == std::this_thread::get_id()) return;
  announced_.wait(lock, [&] { return announcing_ != &context; });
}

bool inspect_server::any_inspectable() const noexcept {
  return std::any_of(contexts_.begin(), contexts_.end(),
                     [](const shown& s) { return s.context->core().opts().inspectable; });
}

void inspect_server::begun() noexcept {
  const std::lock_guard lock(mutex_);
  start();
  wake();
}

// The watchdog's thread must not wait for this one, because a fork waits for both.
void inspect_server::stalled(context_telemetry& context) noexcept {
  context.tools().stalled();
  wake();
}

// ---- the thread

void inspect_server::start() noexcept {
  if (!may_start_) return;
  if (wakeup_ < 0) wakeup_ = make_wakeup();
  if (!running_ && wakeup_ >= 0) running_ = start_background_thread(this);
}

void inspect_server::listen() noexcept {
  if (socket_ || !running_) return;
  const inspect_address address(this_process_number());
  descriptor s(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!s || ::bind(s.get(), address.get(), address.length) != 0 ||
      ::listen(s.get(), most_waiting) != 0) {
    return;
  }
  listens_as_ = ::geteuid();
  socket_ = std::move(s);
  reserve();
  wake();  // the thread may be in a poll() without the socket
}

void inspect_server::wake() noexcept { signal_wakeup(wakeup_.load(std::memory_order_relaxed)); }

int inspect_server::timeout(clock::time_point now) const noexcept {
  clock::time_point next = clock::time_point::max();
  for (const shown& s : contexts_) {
    if (s.context->tools().collecting()) next = std::min(next, now + tick);
    if (s.to_write != clock::time_point{}) next = std::min(next, s.to_write);
  }
  for (const client& c : clients_) {
    next = std::min(next, c.takers.empty() ? c.deadline : now + tick);
  }
  if (close_at_ != clock::time_point{}) next = std::min(next, close_at_);
  if (socket_ && now < accept_from_) next = std::min(next, accept_from_);
  if (next == clock::time_point::max()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - now).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, 60'000));
}

void inspect_server::work(clock::time_point now) {
  for (shown& s : contexts_) {
    context_telemetry& context = *s.context;
    if (context.tools().take_stalled() && s.to_write == clock::time_point{}) {
      s.to_write = now + story_time;
    }
    if (context.collecting()) context.probe();
    context.expire(now);
  }
  // If no context can be inspected, the socket is closed. It is closed here and not elsewhere,
  // because a socket keeps its name while a thread polls it.
  if (close_at_ != clock::time_point{} && now >= close_at_) {
    close_at_ = {};
    if (!any_inspectable()) {
      socket_.reset();
      reserve_.reset();
    }
  }
  for (client& c : clients_) follow(c, now);
  std::erase_if(clients_, [now](const client& c) {
    return c.done || (c.takers.empty() && now >= c.deadline);
  });
  reserve();
  tell_own_user();
  if (asked_by_signal.exchange(false, std::memory_order_relaxed)) {
    for (shown& s : contexts_) {
      if (s.context->core().opts().trace_signal != 0) s.to_write = now;
    }
  }
  write_wanted(now);
}

// The program's code runs without the mutex. The core stays until it has returned, even if it
// destroys the context.
void inspect_server::announce_changes(std::unique_lock<std::mutex>& lock) noexcept {
  while (!to_announce_.empty()) {
    announcement one = std::move(to_announce_.front());
    to_announce_.pop_front();
    // Objects that the hooks use may be destroyed at exit. A handler that is registered late runs
    // before those that were registered earlier.
    if (!std::exchange(at_exit_, true)) (void)std::atexit([] { get().end_announcements(); });
    const bool calls = !over_ && one.made.number != 0;
    if (calls) announcing_ = one.context;
    lock.unlock();
    if (calls) one.core->announce(one.made);
    one.core = core_ref();
    lock.lock();
    announcing_ = nullptr;
    announced_.notify_all();
  }
}

void inspect_server::end_announcements() noexcept {
  std::unique_lock lock(mutex_);
  over_ = true;
  if (thread_.load(std::memory_order_relaxed) == std::this_thread::get_id()) return;
  announced_.wait(lock, [this] { return announcing_ == nullptr; });
}

void inspect_server::run() noexcept {
  name_this_thread("pulse-inspect");
  std::unique_lock lock(mutex_);
  thread_.store(std::this_thread::get_id(), std::memory_order_relaxed);
  std::vector<pollfd> sources;
  for (;;) {
    const clock::time_point now = clock::now();
    try {
      work(now);
      sources.clear();
      sources.push_back({.fd = wakeup_, .events = POLLIN, .revents = 0});
      sources.push_back(
          {.fd = now < accept_from_ ? -1 : socket_.get(), .events = POLLIN, .revents = 0});
      for (const client& c : clients_) {
        const bool speaks = c.sent < c.out.size();
        sources.push_back({.fd = c.socket.get(),
                           .events = static_cast<short>(speaks ? POLLOUT : POLLIN),
                           .revents = 0});
      }
    } catch (const std::bad_alloc&) {
      sources.clear();
    }
    // Without memory for the list no other thread can wake this one, so it looks again by itself.
    const int patience = sources.empty() ? static_cast<int>(after_a_failure.count()) : timeout(now);
    lock.unlock();
    if (::poll(sources.data(), sources.size(), patience) < 0) {
      std::this_thread::sleep_for(after_a_failure);
    }
    lock.lock();
    if (sources.size() < 2) continue;
    if ((sources[0].revents & POLLIN) != 0) reset_wakeup(wakeup_);
    // Only this thread adds and removes clients.
    const std::size_t polled = sources.size() - 2;
    try {
      for (std::size_t i = 0; i < polled && i < clients_.size(); ++i) {
        if (sources[i + 2].revents != 0) serve(clients_[i], clock::now());
      }
      if (socket_ && (sources[1].revents & POLLIN) != 0) accept_waiting(clock::now());
    } catch (const std::bad_alloc&) {
      for (client& c : clients_) c.done = true;
    }
    announce_changes(lock);
  }
}

// ---- fork

void inspect_server::after_fork(bool child) noexcept {
  if (child) {
    // The thread and its clients belong to the parent. All data except the lists of takers are
    // consistent, because before_fork() has taken the mutex.
    clients_.clear();
    socket_.reset();
    reserve_.reset();
    accept_from_ = {};
    close_at_ = {};
    if (wakeup_ >= 0) ::close(wakeup_);
    wakeup_ = -1;
    wakeup_for_signals.store(-1, std::memory_order_relaxed);
    // A hook that the thread was calling goes on in the parent only.
    if (thread_.load(std::memory_order_relaxed) != std::this_thread::get_id()) {
      announcing_ = nullptr;
      thread_.store({}, std::memory_order_relaxed);
    }
    to_announce_.clear();
    changes_until_ = {};
    new (&announced_) std::condition_variable;  // threads that waited do not exist here
    running_ = false;
    may_start_ = false;  // until resume() is called
  }
  mutex_.unlock();
}

void inspect_server::resume() noexcept {
  const std::lock_guard lock(mutex_);
  may_start_ = true;
  if (running_) return;
  for (const shown& s : contexts_) open_for(s);
}

// ---- functions for other parts

void show_context(context_telemetry& context) noexcept {
  try {
    inspect_server::get().show(context);
  } catch (const std::bad_alloc&) {  // then it cannot be inspected
  }
}

void inspect_running(const context_telemetry& context) noexcept {
  inspect_server::get().worker_joined(context);
}

void hide_context(context_telemetry& context) noexcept { inspect_server::get().hide(context); }

void inspect_stalled(context_telemetry& context) noexcept {
  const options& o = context.core().opts();
  if (!o.trace_folder.empty() && o.trace == instrument_mode::on)
    inspect_server::get().stalled(context);
}

void inspect_collecting() noexcept { inspect_server::get().begun(); }

void resume_inspection() noexcept { inspect_server::get().resume(); }

}  // namespace asio_pulse::detail

#else

namespace asio_pulse::detail {

void show_context(context_telemetry&) noexcept {}
void inspect_running(const context_telemetry&) noexcept {}
void hide_context(context_telemetry&) noexcept {}
void inspect_stalled(context_telemetry&) noexcept {}
void inspect_collecting() noexcept {}
void resume_inspection() noexcept {}

}  // namespace asio_pulse::detail

#endif
