// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/shards/movable_core.hpp>

#include <boost/asio/socket_base.hpp>
#include <boost/asio/steady_timer.hpp>

#include <chrono>
#include <cstdint>
#include <new>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

/// \file
/// The sockets and timers of a session that may move, and how they are moved to another context: they are
/// made there first, and then released here. So a step that fails has changed nothing.

namespace asio_pulse {

/// What has to move with an object of type T: `parts(object)` returns a std::tuple of references to
/// sockets and timers. Specialise it for a class that has some of its own.
template <class T>
struct movable_parts;

namespace detail {

template <class T>
concept socket_object = requires(T& s, boost::system::error_code& ec) {
  typename T::protocol_type;
  s.release(ec);
  s.assign(s.local_endpoint(ec).protocol(), s.native_handle(), ec);
};
template <class T>
concept timer_object = requires(T& t) {
  typename T::clock_type;
  t.expires_at(t.expiry());
};
template <class T>
concept layered_object = requires(T& t) {
  t.next_layer();
};

}  // namespace detail

template <detail::socket_object T>
struct movable_parts<T> {
  static auto parts(T& s) { return std::tie(s); }
};
template <detail::timer_object T>
struct movable_parts<T> {
  static auto parts(T& t) { return std::tie(t); }
};
/// Streams over streams, such as boost::asio::ssl::stream. What the stream knows of its peer stays in
/// the object.
template <class T>
requires(detail::layered_object<T> && !detail::socket_object<T>) struct movable_parts<T> {
  static auto parts(T& t) {
    return movable_parts<std::remove_cvref_t<decltype(t.next_layer())>>::parts(t.next_layer());
  }
};

namespace detail {

template <class T>
class moving_timer {
 public:
  explicit moving_timer(T& t) noexcept : timer_(t) {}
  [[nodiscard]] boost::system::error_code prepare(io_context& to, moved_tasks&) {
    fresh_.emplace(to.get_executor());
    fresh_->expires_at(timer_.expiry());
    return {};
  }
  void commit() { timer_ = std::move(*fresh_); }
  void undo() noexcept {}

 private:
  T& timer_;
  std::optional<T> fresh_;
};

template <class T>
class moving_socket {
 public:
  explicit moving_socket(T& s) noexcept : socket_(s) {}

  [[nodiscard]] boost::system::error_code prepare(io_context& to,
                                                  [[maybe_unused]] moved_tasks& tasks) {
    fresh_.emplace(to.get_executor());
    if (!socket_.is_open()) return {};
    boost::system::error_code ec;
    const auto protocol = socket_.local_endpoint(ec).protocol();
    if (ec) return ec;
#if !defined(ASIO_PULSE_DISABLE)
    owner_ = task_ref(static_cast<task_state*>(
        hooks::owner_of_socket(static_cast<hooks::descriptor>(socket_.native_handle()))));
    now_ = tasks.of(owner_.get());
#endif
    fresh_->assign(protocol, socket_.native_handle(), ec);
    if (ec) {
      restore();
      return ec;
    }
    both_ = true;
    if (socket_.non_blocking()) fresh_->non_blocking(true, ec);
    boost::asio::socket_base::linger linger;
    if (!socket_.get_option(linger, ec) && linger.enabled()) fresh_->set_option(linger, ec);
    return {};
  }
  void commit() {
    boost::system::error_code ignored;
    if (both_) (void)socket_.release(ignored);
    socket_ = std::move(*fresh_);
    own(now_);
#if !defined(ASIO_PULSE_DISABLE)
    // What it has left behind in the other context belongs to no task, as after a close.
    if (owner_.get() != nullptr && owner_.get() != now_) owner_->home->connection_closed(*owner_);
#endif
  }
  void undo() noexcept {
    if (!both_) return;
    boost::system::error_code ignored;
    (void)fresh_->release(ignored);
    restore();
  }

 private:
  // Asio has announced that the descriptor was registered, or released.
  void restore() noexcept {
#if !defined(ASIO_PULSE_DISABLE)
    own(owner_.get());
#endif
  }
  void own([[maybe_unused]] hooks::task_record* t) noexcept {
#if !defined(ASIO_PULSE_DISABLE)
    if (t != nullptr && socket_.is_open()) {
      hooks::own_socket(static_cast<hooks::descriptor>(socket_.native_handle()), *t, false);
    }
#endif
  }

  T& socket_;
  std::optional<T> fresh_;
  bool both_ = false;
  hooks::task_record* now_ = nullptr;
#if !defined(ASIO_PULSE_DISABLE)
  task_ref owner_;
#endif
};

template <class T>
using moving = std::conditional_t<socket_object<T>, moving_socket<T>, moving_timer<T>>;

/// A session with these sockets and timers. The first one is the socket that it waits for.
template <class First, class... Others>
class movable_objects final : public movable_core {
  static_assert(socket_object<First>,
                "the first object that moves has to be, or contain, a socket");

 public:
  movable_objects(shard_moves& home, First& first, Others&... others)
      : movable_core(home), parts_(first, others...) {
#if !defined(ASIO_PULSE_DISABLE)
    hooks::task_record* const now = hooks::this_thread().current;
    hooks::task_record* t = nullptr;
    if (now == nullptr || !now->home->declared(*now)) {
      t = hooks::owner_of_socket(static_cast<hooks::descriptor>(first.native_handle()));
    }
    if (t == nullptr && now != nullptr) hooks::acquire(*(t = now));
    task_ = task_ref(static_cast<task_state*>(t));
#endif
  }

 private:
  void wait(std::uint64_t number, std::optional<time> until) override {
    First& socket = std::get<0>(parts_);
    if (until) {
      limit_.emplace(socket.get_executor());
      limit_->expires_at(*until);
      limit_->async_wait(wait_handler(*this, number, true));
    }
    socket.async_wait(First::wait_read, wait_handler(*this, number, false));
  }
  void stop_waiting(bool for_socket) noexcept override {
    boost::system::error_code ignored;
    limit_.reset();
    if (for_socket) std::get<0>(parts_).cancel(ignored);
  }

  [[nodiscard]] boost::system::error_code rebind(
      io_context& from, io_context& to, [[maybe_unused]] session_task& task) noexcept override {
    try {
      moved_tasks tasks(from, to);
      auto all = std::apply(
          [](auto&... part) {
            return std::make_tuple(moving<std::remove_reference_t<decltype(part)>>(part)...);
          },
          parts_);
#if !defined(ASIO_PULSE_DISABLE)
      auto* const now = static_cast<task_state*>(tasks.of(task_.get()));
#endif
      boost::system::error_code ec;
      std::size_t prepared = 0;
      const auto undo = [&] {
        std::size_t i = 0;
        std::apply([&](auto&... m) { ((i++ < prepared ? m.undo() : void()), ...); }, all);
      };
      try {
        std::apply(
            [&](auto&... m) {
              (void)((ec = m.prepare(to, tasks), prepared += ec ? 0U : 1U, !ec) && ...);
            },
            all);
      } catch (...) {
        undo();
        throw;
      }
      if (ec) {
        undo();
        return ec;
      }
      limit_.reset();
      std::apply([](auto&... m) { (m.commit(), ...); }, all);
#if !defined(ASIO_PULSE_DISABLE)
      task = now != nullptr ? task_ref(*now) : task_ref();
#endif
      return ec;
    } catch (const boost::system::system_error& e) {
      return e.code();
    } catch (const std::bad_alloc&) {
      return boost::asio::error::no_memory;
    }
  }

  std::tuple<First&, Others&...> parts_;
  std::optional<boost::asio::steady_timer> limit_;
};

}  // namespace detail
}  // namespace asio_pulse
