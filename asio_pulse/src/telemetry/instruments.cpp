// SPDX-License-Identifier: BSL-1.0
#include "instruments.hpp"

#include <asio_pulse/hooks/poll_path.hpp>
#include <asio_pulse/report.hpp>

#include <algorithm>
#include <bit>
#include <new>
#include <span>

#if defined(__linux__)
#include "threads/thread_number.hpp"
#endif

namespace asio_pulse::detail {
namespace {

constexpr std::size_t least_ring = 256;
constexpr std::size_t kept_stalls = 16;
// How many frames of a stall's stack are kept, about a screen, and how much of each name in them,
// so that the memory is limited: at most 30 KB a stall.
constexpr std::size_t kept_frames = 32;
constexpr std::size_t kept_name = 256;

// The frame with its names cut.
stack_frame kept(const stack_frame& frame) {
  const auto cut = [](std::string_view name) { return std::string(name.substr(0, kept_name)); };
  return {.address = frame.address,
          .function = cut(frame.function),
          .file = cut(frame.file),
          .line = frame.line,
          .module = cut(frame.module),
          .offset = frame.offset,
          .inlined = frame.inlined,
          .awaiting = frame.awaiting};
}

std::uint64_t thread_number() noexcept {
#if defined(__linux__)
  return static_cast<std::uint64_t>(this_thread_number());
#else
  return 1 + std::hash<std::thread::id>{}(std::this_thread::get_id());
#endif
}

constexpr std::size_t ring_bytes(std::size_t events) noexcept { return events * 16; }

}  // namespace

instruments::instruments(const options& o)
    : metrics_(o.enabled ? o.metrics : instrument_mode::off),
      trace_(o.enabled ? o.trace : instrument_mode::off),
      limit_(o.instrument_bytes),
      events_(std::bit_ceil(o.trace_events)),
      // A ring is a part of a recorder, so tracing needs collection.
      collecting_(metrics_ == instrument_mode::on || trace_ == instrument_mode::on),
      tracing_(trace_ == instrument_mode::on) {}

// ---- workers

std::size_t instruments::bytes_now() const noexcept {
  std::size_t sum = 0;
  for (const auto& r : recorders_) sum += sizeof *r + ring_bytes(r->ring_size());
  return sum;
}

std::size_t instruments::bytes() const noexcept {
  const std::lock_guard lock(mutex_);
  return bytes_now();
}

// The recorder that the thread had before, or a free one, or a new one; null if there is no room.
hooks::poll_recorder* instruments::choose(const hooks::thread_state& ts, std::uint64_t thread) {
  hooks::poll_recorder* found = nullptr;
  for (const auto& r : recorders_) {
    if (r->owner == &ts) return r.get();
    if (r->owner != nullptr) continue;
    if (r->thread == thread) return r.get();
    if (found == nullptr) found = r.get();
  }
  if (found != nullptr) return found;
  if (bytes_now() + sizeof(hooks::poll_recorder) > limit_) {
    refused_.fetch_add(1, std::memory_order_relaxed);
    return nullptr;
  }
  recorders_.push_back(std::make_unique<hooks::poll_recorder>());
  return recorders_.back().get();
}

// Gives the recorder a ring of the wanted size, or a smaller one if there is no room.
void instruments::fit_ring(hooks::poll_recorder& r) {
  const bool wanted = tracing_.load(std::memory_order_relaxed);
  if (!wanted) {
    if (r.ring_size() != 0) r.make_ring(0);
    return;
  }
  if (r.ring_size() != 0) return;
  const std::size_t taken = bytes_now();
  for (std::size_t size = events_; size >= least_ring; size /= 2) {
    if (taken + ring_bytes(size) <= limit_) return r.make_ring(size);
  }
}

void instruments::renew(hooks::thread_state& ts) noexcept {
  const std::lock_guard lock(mutex_);
  hooks::poll_recorder* now = nullptr;
  if (collecting_.load(std::memory_order_relaxed)) {
    const std::uint64_t thread = thread_number();
    try {
      now = choose(ts, thread);
      if (now != nullptr) {
        if (now->owner != &ts) now->updates_seen = hooks::poll_recorder::unseen;
        now->owner = &ts;
        now->thread = thread;
        fit_ring(*now);
      }
    } catch (const std::bad_alloc&) {  // continue without a recorder, or without a ring
    }
  } else {
    for (const auto& r : recorders_) {
      if (r->owner != &ts) continue;
      r->owner = nullptr;
      r->make_ring(0);
    }
  }
  hooks::set_recorder(ts, now);
}

void instruments::leave(hooks::thread_state& ts) noexcept {
  const std::lock_guard lock(mutex_);
  for (const auto& r : recorders_) {
    if (r->owner != &ts) continue;
    r->owner = nullptr;
    hooks::set_recorder(ts, nullptr);
  }
}

void instruments::forked() noexcept {
  const hooks::thread_state* const here = &hooks::this_thread();
  const std::lock_guard lock(mutex_);
  for (const auto& r : recorders_) {
    if (r->owner != here) r->owner = nullptr;
  }
}

// ---- leases

bool instruments::lease(clock::time_point& held, clock::time_point until,
                        std::atomic<bool>& what) noexcept {
  const std::lock_guard lock(mutex_);
  held = std::max(held, until);
  return !what.exchange(true, std::memory_order_relaxed);
}

bool instruments::want_metrics(clock::time_point until) noexcept {
  return metrics_ != instrument_mode::off && lease(metrics_until_, until, collecting_);
}

bool instruments::want_trace(clock::time_point until) noexcept {
  if (trace_ == instrument_mode::off) return false;
  const bool more = lease(trace_until_, until, tracing_);
  return lease(trace_until_, until, collecting_) || more;
}

bool instruments::expire(clock::time_point now) noexcept {
  const std::lock_guard lock(mutex_);
  const bool trace = trace_ == instrument_mode::on || now < trace_until_;
  const bool collect = trace || metrics_ == instrument_mode::on || now < metrics_until_;
  const bool traced = tracing_.exchange(trace, std::memory_order_relaxed);
  const bool collected = collecting_.exchange(collect, std::memory_order_relaxed);
  return traced != trace || collected != collect;
}

bool instruments::busy() noexcept {
  const std::lock_guard lock(mutex_);
  bool any = false;
  for (const auto& r : recorders_) {
    if (r->owner == nullptr) continue;
    const timing::ticks last = r->owner->clock.last();
    any = any || last != r->seen || r->owner->top.load(std::memory_order_relaxed) != nullptr;
    r->seen = last;
  }
  return any;
}

// ---- stalls

stall_metrics* instruments::open_stall(std::uint64_t thread) noexcept {
  const auto last = std::find_if(stalls_.rbegin(), stalls_.rend(),
                                 [thread](const stall_metrics& s) { return s.thread == thread; });
  return last == stalls_.rend() || last->ended ? nullptr : &*last;
}

void instruments::stall_began(const stalled_poll& s, const task_state& t) noexcept try {
  stall_metrics m;
  m.at = std::chrono::system_clock::now();
  m.task_id = t.id();
  m.task = std::string_view(t.name.get()).substr(0, told_name);
  if (s.site != nullptr) m.site = short_type(s.site->type_name);
  m.place = place_of(s.where);
  m.thread = s.thread_number;
  m.lasted = s.lasted;
  m.cause = s.cause;
  const std::lock_guard lock(mutex_);
  if (stalls_.size() == kept_stalls) stalls_.erase(stalls_.begin());
  stalls_.push_back(std::move(m));
} catch (const std::bad_alloc&) {
}

void instruments::stall_described(const stalled_poll& s, std::string_view system_call,
                                  std::span<const stack_frame> stack) noexcept try {
  const std::span<const stack_frame> innermost = stack.first(std::min(stack.size(), kept_frames));
  stack_trace frames;
  frames.reserve(innermost.size());
  for (const stack_frame& frame : innermost) frames.push_back(kept(frame));
  const std::lock_guard lock(mutex_);
  stall_metrics* const m = open_stall(s.thread_number);
  if (m == nullptr) return;
  m->lasted = s.lasted;
  m->cause = s.cause;
  if (!system_call.empty()) m->system_call = system_call.substr(0, told_name);
  if (frames.empty()) return;
  m->stack = std::move(frames);
  const std::size_t blamed = blamed_frame(stack);
  m->blamed = blamed < m->stack.size() ? blamed : no_frame;
} catch (const std::bad_alloc&) {
}

void instruments::stall_over(const stalled_poll& s) noexcept {
  const std::lock_guard lock(mutex_);
  if (stall_metrics* const m = open_stall(s.thread_number)) {
    m->lasted = s.lasted;
    m->ended = true;
  }
}

std::vector<stall_metrics> instruments::stalls() const {
  const std::lock_guard lock(mutex_);
  return {stalls_.rbegin(), stalls_.rend()};
}

}  // namespace asio_pulse::detail
