// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/shards/movable_core.hpp>
#include <asio_pulse/detail/shards/shard_moves.hpp>
#include <asio_pulse/error.hpp>

#include <boost/asio/error.hpp>
#include <boost/smart_ptr/intrusive_ptr.hpp>
#include <boost/system/error_code.hpp>

#include <cstdint>
#include <new>
#include <optional>
#include <utility>

/// \file
/// The steps from one state of a session to another; see movable_core.

namespace asio_pulse::detail {

inline movable_core::movable_core(shard_moves& home)
    : home_(&home), from_outside_(home.board.from_outside) {}
inline movable_core::~movable_core() = default;

inline bool movable_core::wanted() const noexcept {
  return (wanted_.load(std::memory_order_relaxed) != 0 || home()->draining()) && !forbidden();
}

inline std::uint64_t movable_core::used() const noexcept {
  constexpr std::uint64_t turn = 1000;  // ticks: less than any turn takes
  std::uint64_t n = turn * turns_.load(std::memory_order_relaxed);
#if !defined(ASIO_PULSE_DISABLE)
  if (task_.get() != nullptr) n += task_->cost();
#endif
  return n;
}

inline shard_moves* movable_core::target(move_reason& why) const noexcept {
  if (forbidden()) return nullptr;
  shard_moves& here = *home();
  if (const std::uint32_t w = wanted_.load(std::memory_order_relaxed); w != 0) {
    why = static_cast<move_reason>(w >> 16U);
    shard_moves* const to = here.board.all[(w & 0xffffU) - 1];
    return to != &here ? to : nullptr;
  }
  if (!here.draining()) return nullptr;
  why = move_reason::drain;
  return here.somewhere();
}

inline void movable_core::turn_ends() noexcept {
  turns_.store(turns_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  const std::uint8_t now = long_polls();
  home()->turn_ended(*this, std::exchange(long_seen_, now) != now);
}

inline void movable_core::idle(resumption& op, std::optional<time> until) {
  turn_ends();
  op_ = &op;
  until_ = until;
  move_reason why{};
  if (shard_moves* const to = target(why)) {
    op.waits_again = true;
    // No other thread changes it now. From here on the session waits, and can be cancelled.
    word_.store(word_.load(std::memory_order_relaxed) | taken, std::memory_order_release);
    if (!home()->move(*this, *to, why)) return;
    op.waits_again = false;  // it stays
  }
  try {
    if (!start_waiting(starting)) return;
  } catch (...) {
    run_again();
    op_ = nullptr;
    throw;
  }
  give_back();
}

inline void movable_core::move_now(resumption& op, std::size_t shard) noexcept {
  turn_ends();
  op_ = &op;
  shard_moves& here = *home();
  if (shard >= here.board.all.size()) {
    op.result = error::no_such_shard;
  } else if (forbidden()) {
    op.result = error::move_forbidden;
  } else if (shard != here.shard.index) {
    move_reason why = move_reason::ordered;
    if (const std::uint32_t w = wanted_.load(std::memory_order_relaxed);
        w != 0 && (w & 0xffffU) == shard + 1) {
      why = static_cast<move_reason>(w >> 16U);
    } else if (w == 0 && here.draining()) {
      why = move_reason::drain;
    }
    const boost::system::error_code ec = here.move(*this, *here.board.all[shard], why);
    if (!ec) return;  // `op` is the other shard's now
    op.result = ec;
  }
  here.enqueue(*this);
}

inline std::optional<std::size_t> movable_core::wanted_shard() noexcept {
  move_reason why{};
  if (!wanted()) return std::nullopt;
  const shard_moves* const to = target(why);
  if (to == nullptr) forget_wish(home()->shard.index);  // another move has brought it there
  return to != nullptr ? std::optional<std::size_t>(to->shard.index) : std::nullopt;
}

inline void movable_core::go_on_waiting(resumption& op) {
  op_ = &op;
  try {
    if (!start_waiting(starting)) return;
  } catch (const std::bad_alloc&) {
    run_again();
    op_ = nullptr;
    op.waits_again = false;
    op.result = boost::asio::error::no_memory;
    return op.resume();
  }
  give_back();
}

inline bool movable_core::start_waiting(word during) {
  word w = word_.load(std::memory_order_relaxed);
  word number = 0;
  do {
    if ((w & cancelled) != 0) {
      home()->enqueue(*this);
      return false;
    }
    number = (w >> number_shift) + 1;
  } while (!word_.compare_exchange_weak(w, number << number_shift | during,
                                        std::memory_order_acq_rel, std::memory_order_relaxed));
  // A wait that cancel() has left behind, or a time limit: otherwise they would pile up.
  if (std::exchange(wait_left_, true)) stop_waiting(true);
  wait(number, until_);
  return true;
}

inline void movable_core::wait_there() noexcept {
  try {
    // Asio allows any thread to start a wait: the reactor's locks are on, see shard_state. The state is
    // not *starting*, so order() refuses: a shard's thread must not be kept busy with one session for ever.
    // The wait belongs to the session's task, and that may end as soon as the session is cancelled.
#if !defined(ASIO_PULSE_DISABLE)
    const session_task task(task_);
    const label_scope scope(task.get());
#endif
    if (!start_waiting(taken)) return;
  } catch (...) {  // no memory: in its turn again
    op_->waits_again = true;
    return home()->enqueue(*this);
  }
  give_back();
}

inline void movable_core::give_back() noexcept {
  const boost::intrusive_ptr<movable_core> here(this);  // afterwards it may end on another thread
  for (;;) {
    op_->waits_again = false;
    word w = word_.load(std::memory_order_relaxed);
    do {
      if ((w & (fired | cancelled)) != 0) {
        // A thread of its shard was faster, or it was cancelled. It checks again what has happened: on the
        // socket, and with the time.
        op_->waits_again = true;
        return home()->enqueue(*this);
      }
    } while (!word_.compare_exchange_weak(w, (w & ~states) | waiting, std::memory_order_seq_cst,
                                          std::memory_order_relaxed));
    // An order that has found it not yet waiting: order() looks at the state after it has set `wanted_`,
    // and this is the other way round. All four are sequentially consistent.
    if (wanted_.load(std::memory_order_seq_cst) == 0 || !take()) return;
    move_reason why{};
    shard_moves& from = *home();
    shard_moves* const to = target(why);
    if (to == nullptr) {
      forget_wish(from.shard.index);  // another move has brought it there
      continue;
    }
    op_->waits_again = true;
    if (!from.move(*this, *to, why)) return;
  }
}

inline void movable_core::ready(std::uint64_t number, boost::system::error_code ec) {
  for (word w = word_.load(std::memory_order_acquire); w >> number_shift == number;) {
    switch (w & states) {
      case waiting:
        if (!word_.compare_exchange_weak(w, number << number_shift | running,
                                         std::memory_order_acq_rel)) {
          continue;
        }
        stop_waiting(ec == boost::asio::error::timed_out);
        wait_left_ = false;
#if !defined(ASIO_PULSE_DISABLE)
        // Other sessions may belong to the same task, and have stuck the shard meanwhile.
        if (task_.get() != nullptr && task_->declared()) long_seen_ = long_polls();
#endif
        op_->result = ec;
        std::exchange(op_, nullptr)->resume();
        return;
      case starting:
      case taken:
        // The read that follows finds out what happened to the socket.
        if (ec == boost::asio::error::operation_aborted) return;
        if (word_.compare_exchange_weak(w, w | fired, std::memory_order_acq_rel)) return;
        continue;
      default:
        return;
    }
  }
}

inline void movable_core::abandoned(std::uint64_t number) noexcept {
  word w = number << number_shift | waiting;
  if (word_.compare_exchange_strong(w, number << number_shift | running,
                                    std::memory_order_acq_rel)) {
    std::exchange(op_, nullptr)->drop();
  }
}

inline bool movable_core::cancel() noexcept {
  const visitors::visit inside(*from_outside_);
  if (!inside || ended()) return false;
  const shard_work until_it_is_queued(home()->shard);
  for (word w = word_.load(std::memory_order_relaxed);;) {
    if ((w & states) == running) return false;
    const bool mine = (w & states) == waiting;
    const word next = mine ? (w & ~states) | taken : w | cancelled;
    if (!word_.compare_exchange_weak(w, next, std::memory_order_acq_rel,
                                     std::memory_order_relaxed)) {
      continue;
    }
    if (!mine) return true;  // its owner sees it
    op_->result = boost::asio::error::operation_aborted;
    home()->enqueue(*this);
    return true;
  }
}

inline std::optional<std::size_t> movable_core::shard() const noexcept {
  const visitors::visit inside(*from_outside_);
  if (!inside || ended()) return std::nullopt;
  return home()->shard.index;
}

inline boost::system::error_code movable_core::order(std::size_t shard) noexcept {
  const visitors::visit inside(*from_outside_);
  if (!inside || ended()) return error::session_ended;
  shard_moves& here = *home();
  if (shard >= here.board.all.size()) return error::no_such_shard;
  if (here.board.stopped.load(std::memory_order_relaxed)) return error::shards_stopped;
  shard_moves& to = *here.board.all[shard];
  if (forbidden()) return error::move_forbidden;
  if (wanted_.load(std::memory_order_relaxed) != 0 ||
      (word_.load(std::memory_order_relaxed) & states) == taken) {
    return error::already_moving;
  }
  if (&to == &here) return {};
  if (to.draining()) return error::shard_drained;
  if (!want(shard, move_reason::ordered)) return error::already_moving;
  const shard_work until_it_is_back(here.shard);
  if (!take()) return {};  // at its next quiet point
  shard_moves& from = *home();
  if (&from != &to) return from.move_waiting(*this, to, move_reason::ordered);
  forget_wish(shard);  // another move has brought it there
  give_back();
  return {};
}

inline void movable_core::end() noexcept {
  if (ended_.exchange(true, std::memory_order_acq_rel)) return;
  home()->remove(*this);
  stop_waiting(false);  // a limit that was not reached is work, and uses the context's service
}

}  // namespace asio_pulse::detail
