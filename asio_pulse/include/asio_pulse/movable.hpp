// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <asio_pulse/detail/asio/coroutine_home.hpp>
#include <asio_pulse/detail/shards/movable_objects.hpp>
#include <asio_pulse/detail/shards/movable_steps.hpp>
#include <asio_pulse/detail/shards/shard_moves.hpp>
#include <asio_pulse/sharded_context.hpp>

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/smart_ptr/intrusive_ptr.hpp>
#include <boost/system/error_code.hpp>

#include <chrono>
#include <cstddef>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <utility>

namespace asio_pulse {

/// Refers to a session that may move. It may be used on any thread and at any time, even while the
/// sharded_context is being destroyed, and afterwards; then the session has ended.
///
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe; the session behind them: Safe.
class movable_ref {
 public:
  movable_ref() noexcept = default;

  /// Moves the session to that shard: at once if it waits in idle(), otherwise at its next quiet point.
  /// If it cannot be moved then, it stays, and shard_options::on_move is called.
  ///
  /// \par Errors  error::session_ended, no_such_shard, shards_stopped, shard_drained, move_forbidden,
  ///              already_moving; or an error of the system. Then nothing has changed.
  [[nodiscard]] boost::system::error_code move_to(std::size_t shard) const noexcept {
    return core_ == nullptr ? make_error_code(error::session_ended) : core_->order(shard);
  }
  /// If the session waits in idle(), ends that with operation_aborted. Returns whether it did so.
  [[nodiscard]] bool cancel() const noexcept { return core_ != nullptr && core_->cancel(); }
  /// Its shard. Empty if it has ended.
  [[nodiscard]] std::optional<std::size_t> shard() const noexcept {
    return core_ != nullptr ? core_->shard() : std::nullopt;
  }

 private:
  friend class movable;
  explicit movable_ref(boost::intrusive_ptr<detail::movable_core> core) noexcept
      : core_(std::move(core)) {}
  boost::intrusive_ptr<detail::movable_core> core_;
};

/// A session, such as a connection, that may move to another shard. It is a local variable of the
/// session's coroutine, or a member of the session's class, and refers to the session's sockets,
/// streams and timers:
///
///     asio::awaitable<void> session(tcp::socket socket) {
///       asio_pulse::movable here(socket);
///       for (;;) {
///         co_await here.idle(buffer.size());     // waits for a request; may be on another shard then
///         co_await http::async_read(socket, buffer, request);
///         ...
///
/// A session moves only at a *quiet point*, that is in idle(), move_point() or move_to(). No operation may
/// be in progress there on any of its objects. Afterwards the session continues on the other shard's
/// thread, with its sockets and timers (a timer keeps its expiry), and a new task there continues its
/// task; see shards.md.
///
/// **The promise.** From the first to the last quiet point nothing but the session uses its objects and
/// its state: no other handler of the shard, and no other coroutine. (A stuck shard runs no other
/// handlers, but the handler that blocks it continues.) A reference to something that belongs to a shard,
/// such as sharded::local(), still refers to the old shard after a quiet point.
///
/// A coroutine has to run on the shard's own executor, and not on a strand. With callbacks in place of
/// coroutines, use async_idle() and async_move_to(): the handlers must have no executor of their own.
///
/// \par Cost           Two allocations for each session, and one for each idle(). move_point(): a
///                     coroutine's frame, and two loads.
/// \par Thread safety  The thread on which the session runs. handle(): any thread.
class movable {
 public:
  /// \pre  The objects outlive this one, and belong to the shard on whose thread this is called.
  ///
  /// \par Errors  std::logic_error if the thread does not belong to a shard; std::bad_alloc.
  template <class... Objects>
  explicit movable(Objects&... objects)
      : core_(std::apply([](auto&... part) { return make(part...); },
                         std::tuple_cat(movable_parts<Objects>::parts(objects)...))) {
    core_->home()->add(*core_);
  }
  movable(const movable&) = delete;
  movable& operator=(const movable&) = delete;
  ~movable() { core_->end(); }

  // ---- quiet points

  /// Waits until the (first) socket can be read, if `buffered` is 0. Until then the session may move, any
  /// number of times: on order, to balance the load, because its shard is drained, or because a handler
  /// of its shard does not end.
  ///
  /// `buffered` is the number of bytes that were read and not used yet, for example the size of Beast's
  /// buffer. A stream that decrypts has a buffer of its own; see ssl_buffered().
  ///
  /// \par Errors  operation_aborted after movable_ref::cancel(), and if the socket is closed.
  [[nodiscard]] boost::asio::awaitable<void> idle(std::size_t buffered = 0);
  /// The same, but completes with boost::asio::error::timed_out after that time. A move does not
  /// restart the time.
  [[nodiscard]] boost::asio::awaitable<void> idle_for(std::chrono::steady_clock::duration limit,
                                                      std::size_t buffered = 0);
  /// Moves if that is wanted. Otherwise continues without suspending.
  [[nodiscard]] boost::asio::awaitable<void> move_point();
  /// Moves to that shard now.
  ///
  /// \par Errors  Thrown as boost::system::system_error: error::no_such_shard, shards_stopped,
  ///              shard_drained, move_forbidden, not_movable; or an error of the system. Then the
  ///              session is where it was.
  [[nodiscard]] boost::asio::awaitable<void> move_to(std::size_t shard);

  /// idle() with a completion token, for void(boost::system::error_code). The errors are those of idle(),
  /// and error::not_movable if the handler is bound to an executor that is not the shard's own.
  template <class CompletionToken>
  auto async_idle(CompletionToken&& token) {
    return start_idle(std::nullopt, token);
  }
  template <class CompletionToken>
  auto async_idle(std::chrono::steady_clock::time_point until, CompletionToken&& token) {
    return start_idle(until, token);
  }
  /// move_to() with a completion token.
  template <class CompletionToken>
  auto async_move_to(std::size_t shard, CompletionToken&& token) {
    return boost::asio::async_initiate<CompletionToken, void(boost::system::error_code)>(
        [core = core_.get()](auto handler, std::size_t to) {
          if (!detail::may_leave(handler, core->home()->shard.io)) return refuse(*core, handler);
          core->move_now(resume_with(*core, handler), to);
        },
        token, shard);
  }

  /// Whether the session should move at its next quiet point.
  [[nodiscard]] bool wanted() const noexcept { return core_->wanted(); }
  /// The number of the shard that it is on.
  [[nodiscard]] std::size_t shard() const noexcept { return core_->home()->shard.index; }
  [[nodiscard]] movable_ref handle() const noexcept { return movable_ref(core_); }

  /// While one exists, the session does not move: for code that uses what belongs to the shard.
  class stay {
   public:
    explicit stay(const movable& m) noexcept : core_(m.core_) { core_->forbid(); }
    ~stay() { core_->allow(); }
    stay(const stay&) = delete;
    stay& operator=(const stay&) = delete;

   private:
    boost::intrusive_ptr<detail::movable_core> core_;
  };

 private:
  template <class... Parts>
  [[nodiscard]] static boost::intrusive_ptr<detail::movable_core> make(Parts&... parts) {
    detail::shard_state* const here = detail::shard_state::current();
    if (here == nullptr) {
      throw std::logic_error("asio_pulse::movable: must be made on the thread of a shard");
    }
    return new detail::movable_objects<Parts...>(*here->moves, parts...);
  }
  template <class Handler>
  [[nodiscard]] static detail::resumption& resume_with(detail::movable_core& core,
                                                       Handler& handler) {
    return *new detail::resumption_of<Handler>(core, std::move(handler));
  }
  template <class Handler>
  static void refuse(detail::movable_core& core, Handler& handler) {
    const auto ex =
        boost::asio::get_associated_executor(handler, core.home()->shard.io.get_executor());
    boost::asio::post(ex, [h = std::move(handler)]() mutable {
      std::move(h)(make_error_code(error::not_movable));
    });
  }
  [[nodiscard]] boost::asio::awaitable<void> wait_idle(
      std::optional<std::chrono::steady_clock::time_point> until);
  template <class CompletionToken>
  auto start_idle(std::optional<std::chrono::steady_clock::time_point> until,
                  CompletionToken&& token) {
    return boost::asio::async_initiate<CompletionToken, void(boost::system::error_code)>(
        [core = core_.get()](auto handler,
                             std::optional<std::chrono::steady_clock::time_point> limit) {
          if (!detail::may_leave(handler, core->home()->shard.io)) return refuse(*core, handler);
          detail::resumption& waiting = resume_with(*core, handler);
          try {
            core->idle(waiting, limit);
          } catch (...) {
            waiting.drop();
            throw;
          }
        },
        token, until);
  }

  boost::intrusive_ptr<detail::movable_core> core_;
};

inline boost::asio::awaitable<void> movable::idle(std::size_t buffered) {
  if (buffered != 0) return move_point();
  return wait_idle(std::nullopt);
}

inline boost::asio::awaitable<void> movable::idle_for(std::chrono::steady_clock::duration limit,
                                                      std::size_t buffered) {
  if (buffered != 0) return move_point();
  return wait_idle(std::chrono::steady_clock::now() + limit);
}

inline boost::asio::awaitable<void> movable::wait_idle(
    std::optional<std::chrono::steady_clock::time_point> until) {
  return start_idle(until, boost::asio::use_awaitable);
}

inline boost::asio::awaitable<void> movable::move_point() {
  if (const auto to = core_->wanted_shard()) {
    boost::system::error_code ignored;  // then it stays
    co_await async_move_to(*to, boost::asio::redirect_error(boost::asio::use_awaitable, ignored));
  } else {
    core_->turn_ends();
  }
}

inline boost::asio::awaitable<void> movable::move_to(std::size_t shard) {
  return async_move_to(shard, boost::asio::use_awaitable);
}

}  // namespace asio_pulse
