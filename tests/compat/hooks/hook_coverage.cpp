// SPDX-License-Identifier: BSL-1.0

// Every kind of handler that Boost.Asio can run is observed, with the task that it belongs to. The
// program is built for each Boost, and for some of them on each back end. It is one file, because
// all of Boost.Asio takes long to compile. Parts that an older Boost does not have are left out.

#include <asio_pulse/asio_pulse.hpp>
#include <asio_pulse/preemptible.hpp>
#include <support/io_uring.hpp>

#include <boost/asio.hpp>
#include <boost/asio/version.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <exception>
#include <functional>
#include <future>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

// The version is checked, because __has_include would find the headers of another Boost on the
// machine.
#if BOOST_ASIO_VERSION >= 102600  // Boost 1.81
#define COMPAT_HAS_CANCELLATION_AND_CHANNELS 1
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/experimental/channel.hpp>
#include <boost/asio/experimental/concurrent_channel.hpp>
#include <boost/asio/experimental/coro.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <boost/asio/experimental/promise.hpp>
#include <boost/asio/experimental/use_coro.hpp>
#include <boost/asio/experimental/use_promise.hpp>
#endif
#include <boost/asio/spawn.hpp>

namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using local = asio::local::stream_protocol;
using std::chrono::hours;
using std::chrono::milliseconds;
using testing::Each;
using testing::ElementsAre;
using testing::SizeIs;

class HookCoverage : public testing::Test {
 protected:
  HookCoverage() {
    connection_ =
        io_.hooks().install({.after_poll = [this](const asio_pulse::hooks::poll_event& event) {
          const std::lock_guard lock(mutex_);
          polled_.push_back(event.task_id);
        }});
  }

  /// A handler that records the task that it belongs to.
  auto handler() {
    return [this](auto&&...) { note(); };
  }
  void note() {
    const std::lock_guard lock(mutex_);
    seen_.push_back(asio_pulse::this_task::id());
  }

  /// Starts something whose handler is handler(), as part of the task work_, among handlers of
  /// another task.
  template <class Start>
  void start(Start&& start_it) {
    post_bystander();
    {
      const asio_pulse::task_scope scope{work_};
      EXPECT_EQ(asio_pulse::this_task::id(), work_.id());
      start_it();
    }
    EXPECT_EQ(asio_pulse::this_task::id(), 0u);
    post_bystander();
  }

  /// The same, run to its end: the handler ran once, as work_'s, and the registry's hooks saw it.
  template <class Start>
  void expect_observed(Start&& start_it) {
    start(std::forward<Start>(start_it));
    io_.run();
    expect_seen_once();
    EXPECT_THAT(polled_, testing::Contains(work_.id()));
    EXPECT_GE(work_.stats().polls, 1u);
    if (asio_pulse::hooks::detail::always_preempt()) {
      EXPECT_GE(io_.stats().yields, 1u);
    }
  }

  void expect_seen_once() {
    EXPECT_THAT(seen_, ElementsAre(work_.id()));
    EXPECT_THAT(bystanders_, Each(other_.id()));
    EXPECT_THAT(bystanders_, SizeIs(2));
    EXPECT_EQ(asio_pulse::this_task::id(), 0u);
  }

  void connect_pair() { asio::local::connect_pair(near_, far_); }

  // Without the rule for accepted connections, except in the tests of that rule.
  asio_pulse::io_context io_{asio_pulse::options{.accept_rule = false}};
  asio_pulse::task work_{io_, asio_pulse::task_options{.name = "work"}};
  asio_pulse::task other_{io_, asio_pulse::task_options{.name = "other"}};
  asio::steady_timer timer_{io_};
  local::socket near_{io_};
  local::socket far_{io_};
  std::array<char, 4> buffer_{};

  std::mutex mutex_;
  std::vector<std::uint64_t> seen_;
  std::vector<std::uint64_t> bystanders_;
  std::vector<std::uint64_t> polled_;
  asio_pulse::hooks::registry::connection connection_;

 private:
  void post_bystander() {
    const asio_pulse::task_scope scope{other_};
    asio::post(io_, [this] { bystanders_.push_back(asio_pulse::this_task::id()); });
  }
};

// Executors.

TEST_F(HookCoverage, Post) {
  expect_observed([&] { asio::post(io_, handler()); });
}
TEST_F(HookCoverage, Defer) {
  expect_observed([&] { asio::defer(io_, handler()); });
}
TEST_F(HookCoverage, DispatchFromOutside) {
  expect_observed([&] { asio::dispatch(io_, handler()); });
}
TEST_F(HookCoverage, Execute) {
  expect_observed([&] { io_.get_executor().execute(handler()); });
}
TEST_F(HookCoverage, AnyIoExecutor) {
  const asio::any_io_executor executor = io_.get_executor();
  expect_observed([&] { asio::post(executor, handler()); });
}
TEST_F(HookCoverage, PolymorphicExecute) {
  const asio::any_io_executor executor = io_.get_executor();
  expect_observed([&] { executor.execute(handler()); });
}
#if !defined(BOOST_ASIO_NO_TS_EXECUTORS)
TEST_F(HookCoverage, NetworkingTsExecutor) {
  const asio::executor executor = io_.get_executor();
  expect_observed([&] { asio::post(executor, handler()); });
}
#endif
TEST_F(HookCoverage, UseFuture) {
  std::future<void> done;
  expect_observed([&] { done = asio::post(io_, asio::use_future(handler())); });
  done.get();
}
TEST_F(HookCoverage, PackagedTask) {
  std::packaged_task<void()> packaged{[this] { note(); }};
  expect_observed([&] { asio::post(io_, std::move(packaged)); });
}

// Strands.

TEST_F(HookCoverage, PostToStrand) {
  auto strand = asio::make_strand(io_);
  expect_observed([&] { asio::post(strand, handler()); });
}
TEST_F(HookCoverage, BoundToStrand) {
  auto strand = asio::make_strand(io_);
  expect_observed([&] { asio::post(io_, asio::bind_executor(strand, handler())); });
}
TEST_F(HookCoverage, TimerBoundToStrand) {
  auto strand = asio::make_strand(io_);
  timer_.expires_after(milliseconds{1});
  expect_observed([&] { timer_.async_wait(asio::bind_executor(strand, handler())); });
}
TEST_F(HookCoverage, LegacyStrand) {
  asio::io_context::strand strand{io_};
  expect_observed([&] { asio::post(strand, handler()); });
}
TEST_F(HookCoverage, LegacyStrandAroundTimer) {
  asio::io_context::strand strand{io_};
  timer_.expires_after(milliseconds{1});
  expect_observed([&] { timer_.async_wait(asio::bind_executor(strand, handler())); });
}
template <class Strand>
void post_in_turns(Strand& strand, std::initializer_list<const asio_pulse::task*> turns,
                   std::vector<std::uint64_t>& seen) {
  for (const asio_pulse::task* turn : turns) {
    const asio_pulse::task_scope scope{*turn};
    asio::post(strand, [&seen] { seen.push_back(asio_pulse::this_task::id()); });
  }
}
TEST_F(HookCoverage, OneBatchOfAStrandHasManyTasks) {
  auto strand = asio::make_strand(io_);
  post_in_turns(strand, {&work_, &other_, &work_, &other_}, seen_);
  io_.run();
  EXPECT_THAT(seen_, ElementsAre(work_.id(), other_.id(), work_.id(), other_.id()));
}
TEST_F(HookCoverage, OneBatchOfALegacyStrandHasManyTasks) {
  asio::io_context::strand strand{io_};
  post_in_turns(strand, {&work_, &other_, &work_, &other_}, seen_);
  io_.run();
  EXPECT_THAT(seen_, ElementsAre(work_.id(), other_.id(), work_.id(), other_.id()));
}

// Operations of I/O objects.

TEST_F(HookCoverage, Timer) {
  timer_.expires_after(milliseconds{1});
  expect_observed([&] { timer_.async_wait(handler()); });
}
TEST_F(HookCoverage, TimerCancelledByAnother) {
  timer_.expires_after(hours{1});
  start([&] { timer_.async_wait(handler()); });
  {
    const asio_pulse::task_scope scope{other_};
    timer_.cancel();
  }
  io_.run();
  expect_seen_once();
}
TEST_F(HookCoverage, SocketRead) {
  connect_pair();
  asio::write(far_, asio::buffer("x", 1));
  expect_observed([&] { near_.async_read_some(asio::buffer(buffer_), handler()); });
}
TEST_F(HookCoverage, SocketReadThatWaits) {
  connect_pair();
  asio::post(io_, [&] { asio::write(far_, asio::buffer("x", 1)); });
  expect_observed([&] { near_.async_read_some(asio::buffer(buffer_), handler()); });
}
TEST_F(HookCoverage, SocketReadOfNothing) {
  connect_pair();
  expect_observed([&] { near_.async_read_some(asio::buffer(buffer_.data(), 0), handler()); });
}
TEST_F(HookCoverage, SocketWrite) {
  connect_pair();
  expect_observed([&] { near_.async_write_some(asio::buffer("x", 1), handler()); });
}
TEST_F(HookCoverage, SocketWait) {
  connect_pair();
  expect_observed([&] { near_.async_wait(asio::socket_base::wait_write, handler()); });
}
TEST_F(HookCoverage, SocketClosedByAnother) {
  connect_pair();
  start([&] { near_.async_read_some(asio::buffer(buffer_), handler()); });
  {
    const asio_pulse::task_scope scope{other_};
    near_.close();
  }
  io_.run();
  expect_seen_once();
}
TEST_F(HookCoverage, DatagramSendAndReceive) {
  using asio::ip::udp;
  udp::socket receiver{io_, {asio::ip::address_v4::loopback(), 0}};
  udp::socket sender{io_, udp::v4()};
  udp::endpoint from;
  start([&] { receiver.async_receive_from(asio::buffer(buffer_), from, handler()); });
  {
    const asio_pulse::task_scope scope{work_};
    sender.async_send_to(asio::buffer("x", 1), receiver.local_endpoint(), handler());
  }
  io_.run();
  EXPECT_THAT(seen_, ElementsAre(work_.id(), work_.id()));
}
TEST_F(HookCoverage, ConnectAndAccept) {
  using asio::ip::tcp;
  tcp::acceptor acceptor{io_, {asio::ip::address_v4::loopback(), 0}};
  tcp::socket client{io_};
  start([&] {
    acceptor.async_accept(handler());
    client.async_connect(acceptor.local_endpoint(), handler());
  });
  io_.run();
  EXPECT_THAT(seen_, ElementsAre(work_.id(), work_.id()));
}
TEST_F(HookCoverage, AcceptIntoASocket) {
  using asio::ip::tcp;
  tcp::acceptor acceptor{io_, {asio::ip::address_v4::loopback(), 0}};
  tcp::socket client{io_};
  tcp::socket server{io_};
  client.async_connect(acceptor.local_endpoint(), [](error_code) {});
  expect_observed([&] { acceptor.async_accept(server, handler()); });
}
TEST_F(HookCoverage, RangeConnect) {
  using asio::ip::tcp;
  tcp::acceptor acceptor{io_, {asio::ip::address_v4::loopback(), 0}};
  tcp::socket client{io_};
  const std::array<tcp::endpoint, 1> endpoints{acceptor.local_endpoint()};
  expect_observed([&] { asio::async_connect(client, endpoints, handler()); });
}
TEST_F(HookCoverage, Resolver) {
  asio::ip::tcp::resolver resolver{io_};
  expect_observed([&] { resolver.async_resolve("127.0.0.1", "80", handler()); });
}
TEST_F(HookCoverage, SignalSet) {
  asio::signal_set signals{io_, SIGUSR1};
  expect_observed([&] {
    signals.async_wait(handler());
    std::raise(SIGUSR1);
  });
}
TEST_F(HookCoverage, Descriptor) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  asio::posix::stream_descriptor in{io_, ends[0]};
  asio::posix::stream_descriptor out{io_, ends[1]};
  asio::write(out, asio::buffer("x", 1));
  expect_observed([&] { in.async_read_some(asio::buffer(buffer_), handler()); });
}
#if defined(COMPAT_HAS_CANCELLATION_AND_CHANNELS)
TEST_F(HookCoverage, Pipe) {
  asio::readable_pipe in{io_};
  asio::writable_pipe out{io_};
  asio::connect_pipe(in, out);
  asio::write(out, asio::buffer("x", 1));
  expect_observed([&] { in.async_read_some(asio::buffer(buffer_), handler()); });
}
#endif

#if defined(BOOST_ASIO_HAS_FILE)
TEST_F(HookCoverage, FileReadAndWrite) {
  const std::string path = testing::TempDir() + "asio_pulse_hooks_" + std::to_string(::getpid());
  asio::stream_file file{
      io_, path,
      asio::stream_file::read_write | asio::stream_file::create | asio::stream_file::truncate};
  expect_observed([&] {
    file.async_write_some(asio::buffer("xxxx", 4), [this, &file](error_code, std::size_t) {
      EXPECT_EQ(asio_pulse::this_task::id(), work_.id());
      file.seek(0, asio::stream_file::seek_set);
      file.async_read_some(asio::buffer(buffer_), handler());
    });
  });
  EXPECT_EQ(buffer_[0], 'x');
  ::unlink(path.c_str());
}
TEST_F(HookCoverage, FileReadAtAnOffset) {
  const std::string path = testing::TempDir() + "asio_pulse_hooks_" + std::to_string(::getpid());
  asio::random_access_file file{io_, path,
                                asio::random_access_file::read_write |
                                    asio::random_access_file::create |
                                    asio::random_access_file::truncate};
  asio::write_at(file, 0, asio::buffer("abcd", 4));
  expect_observed([&] { file.async_read_some_at(2, asio::buffer(buffer_), handler()); });
  EXPECT_EQ(buffer_[0], 'c');
  ::unlink(path.c_str());
}
#endif

// Asio's own objects, which are operations too.

TEST_F(HookCoverage, NothingOfAsiosKeepsATaskAlive) {
  using asio::ip::tcp;
  const auto tasks = io_.stats().tasks;
  std::array<char, 1> byte{};
  std::optional<tcp::acceptor> acceptor;
  std::optional<tcp::socket> client;
  std::optional<tcp::socket> server;
  std::optional<asio::signal_set> signals;
  std::optional<asio::ip::tcp::resolver> resolver;
  std::optional<asio::io_context::strand> strand;
  std::optional<asio::io_context> other_context;
#if defined(BOOST_ASIO_HAS_FILE)
  std::optional<asio::stream_file> file;
#endif
  {
    const asio_pulse::task opener{io_, asio_pulse::task_options{.name = "opener"}};
    const asio_pulse::task_scope scope{opener};
    EXPECT_EQ(io_.stats().tasks, tasks + 1);
    acceptor.emplace(io_, tcp::endpoint{asio::ip::address_v4::loopback(), 0});
    client.emplace(io_);
    server.emplace(io_);
    acceptor->async_accept(*server, [&](error_code) {
      server->async_receive(asio::buffer(byte), [](error_code, std::size_t) {});
    });
    client->async_connect(acceptor->local_endpoint(), [&](error_code) {
      client->async_send(asio::buffer("x", 1), [](error_code, std::size_t) {});
    });
    signals.emplace(io_, SIGUSR1);
    signals->async_wait([](error_code, int) {});
    std::raise(SIGUSR1);
    resolver.emplace(io_);
    resolver->async_resolve("127.0.0.1", "80", [](error_code, tcp::resolver::results_type) {});
    timer_.expires_after(milliseconds{1});
    timer_.async_wait([](error_code) {});
    strand.emplace(io_);
    for (int i = 0; i < 2; ++i) asio::post(*strand, [] {});
    other_context.emplace();
    asio::post(*other_context, [] {});
    other_context->run();
#if defined(BOOST_ASIO_HAS_FILE)
    const std::string path = testing::TempDir() + "asio_pulse_hooks_" + std::to_string(::getpid());
    file.emplace(io_, path, asio::stream_file::read_write | asio::stream_file::create);
    file->async_write_some(asio::buffer("x", 1), [](error_code, std::size_t) {});
    ::unlink(path.c_str());
#endif
  }
  io_.run();
  EXPECT_EQ(byte[0], 'x');
  // Operations on a connection belong to its first user as long as it is open.
  client->close();
  server->close();
  EXPECT_EQ(io_.stats().tasks, tasks);
}

// Composed operations.

TEST_F(HookCoverage, ComposedRead) {
  connect_pair();
  asio::post(io_, [&] { asio::write(far_, asio::buffer("xx", 2)); });
  asio::post(io_, [&] { asio::post(io_, [&] { asio::write(far_, asio::buffer("xx", 2)); }); });
  expect_observed([&] { asio::async_read(near_, asio::buffer(buffer_), handler()); });
}
TEST_F(HookCoverage, ComposedReadUntil) {
  connect_pair();
  std::string line;
  asio::write(far_, asio::buffer("x\n", 2));
  expect_observed(
      [&] { asio::async_read_until(near_, asio::dynamic_buffer(line), '\n', handler()); });
}
TEST_F(HookCoverage, ComposedWrite) {
  connect_pair();
  expect_observed([&] { asio::async_write(near_, asio::buffer("xxxx", 4), handler()); });
}
struct two_turns {
  asio::steady_timer& timer;
  int turn = 0;
  template <class Self>
  void operator()(Self& self, error_code = {}) {
    if (turn++ == 2) {
      self.complete(error_code{});
      return;
    }
    timer.expires_after(milliseconds{1});
    timer.async_wait(std::move(self));
  }
};
TEST_F(HookCoverage, AsyncCompose) {
  auto token = handler();
  expect_observed([&] {
    asio::async_compose<decltype(token), void(error_code)>(two_turns{timer_}, token, io_);
  });
}

// Coroutines.

#if defined(BOOST_ASIO_HAS_CO_AWAIT)
TEST_F(HookCoverage, CoroutineFirstResume) {
  const auto coroutine = [this]() -> asio::awaitable<void> {
    note();
    co_return;
  };
  expect_observed([&] { asio::co_spawn(io_, coroutine, asio::detached); });
}
TEST_F(HookCoverage, CoroutineAfterTimer) {
  timer_.expires_after(milliseconds{1});
  const auto coroutine = [this]() -> asio::awaitable<void> {
    co_await timer_.async_wait(asio::use_awaitable);
    note();
  };
  expect_observed([&] { asio::co_spawn(io_, coroutine, asio::detached); });
}
TEST_F(HookCoverage, CoroutineInStrandAfterTimer) {
  timer_.expires_after(milliseconds{1});
  const auto coroutine = [this]() -> asio::awaitable<void> {
    co_await timer_.async_wait(asio::use_awaitable);
    note();
  };
  expect_observed([&] { asio::co_spawn(asio::make_strand(io_), coroutine, asio::detached); });
}
TEST_F(HookCoverage, CoroutineChildAfterPost) {
  const auto child = [this]() -> asio::awaitable<void> {
    co_await asio::post(io_, asio::use_awaitable);
    note();
  };
  const auto coroutine = [&child]() -> asio::awaitable<void> { co_await child(); };
  expect_observed([&] { asio::co_spawn(io_, coroutine, asio::detached); });
}
TEST_F(HookCoverage, CoroutineCompletionHandler) {
  timer_.expires_after(milliseconds{1});
  const auto coroutine = [this]() -> asio::awaitable<void> {
    co_await timer_.async_wait(asio::use_awaitable);
  };
  expect_observed([&] { asio::co_spawn(io_, coroutine, [this](std::exception_ptr) { note(); }); });
}
#if defined(COMPAT_HAS_CANCELLATION_AND_CHANNELS)
TEST_F(HookCoverage, CoroutineOperators) {
  asio::steady_timer never{io_, hours{1}};
  timer_.expires_after(milliseconds{1});
  const auto coroutine = [&]() -> asio::awaitable<void> {
    using namespace asio::experimental::
        awaitable_operators;  // NOLINT(google-build-using-namespace)
    co_await (timer_.async_wait(asio::use_awaitable) || never.async_wait(asio::use_awaitable));
    note();
  };
  expect_observed([&] { asio::co_spawn(io_, coroutine, asio::detached); });
}
asio::experimental::coro<void> wait_and_note(asio::steady_timer& timer,
                                             const std::function<void()>& note) {
  co_await timer.async_wait(asio::experimental::use_coro);
  note();
}
TEST_F(HookCoverage, ExperimentalCoro) {
  timer_.expires_after(milliseconds{1});
  const std::function<void()> note_it = [this] { note(); };
  auto coroutine = wait_and_note(timer_, note_it);
  expect_observed([&] { coroutine.async_resume(asio::detached); });
}
#endif
#endif

template <class Context, class Function>
void spawn_stackful(Context& context, Function function) {
#if BOOST_ASIO_VERSION >= 102400
  asio::spawn(context, std::move(function), asio::detached);
#else
  asio::spawn(context, std::move(function));
#endif
}
TEST_F(HookCoverage, StackfulFirstResume) {
  expect_observed([&] { spawn_stackful(io_, [this](asio::yield_context) { note(); }); });
}
TEST_F(HookCoverage, StackfulAfterTimer) {
  timer_.expires_after(milliseconds{1});
  expect_observed([&] {
    spawn_stackful(io_, [this](asio::yield_context yield) {
      timer_.async_wait(yield);
      note();
    });
  });
}

// Later additions to Boost.Asio.

#if defined(COMPAT_HAS_CANCELLATION_AND_CHANNELS)
TEST_F(HookCoverage, CancellationSlot) {
  asio::cancellation_signal signal;
  timer_.expires_after(hours{1});
  start([&] { timer_.async_wait(asio::bind_cancellation_slot(signal.slot(), handler())); });
  {
    const asio_pulse::task_scope scope{other_};
    asio::post(io_, [&] { signal.emit(asio::cancellation_type::all); });
  }
  io_.run();
  expect_seen_once();
}
TEST_F(HookCoverage, ChannelReceiveFilledByAnother) {
  asio::experimental::channel<void(error_code, int)> channel{io_, 1};
  start([&] { channel.async_receive(handler()); });
  {
    const asio_pulse::task_scope scope{other_};
    EXPECT_TRUE(channel.try_send(error_code{}, 1));
  }
  io_.run();
  expect_seen_once();
}
TEST_F(HookCoverage, ChannelReceiveOfWhatIsThere) {
  asio::experimental::channel<void(error_code, int)> channel{io_, 1};
  EXPECT_TRUE(channel.try_send(error_code{}, 1));
  expect_observed([&] { channel.async_receive(handler()); });
}
TEST_F(HookCoverage, ChannelSend) {
  asio::experimental::channel<void(error_code, int)> channel{io_, 0};
  start([&] { channel.async_send(error_code{}, 1, handler()); });
  {
    const asio_pulse::task_scope scope{other_};
    channel.async_receive([](error_code, int) {});
  }
  io_.run();
  expect_seen_once();
}
TEST_F(HookCoverage, ConcurrentChannel) {
  asio::experimental::concurrent_channel<void(error_code, int)> channel{io_, 0};
  start([&] { channel.async_receive(handler()); });
  {
    const asio_pulse::task_scope scope{other_};
    channel.async_send(error_code{}, 1, [](error_code) {});
  }
  io_.run();
  expect_seen_once();
}
TEST_F(HookCoverage, ParallelGroup) {
  asio::steady_timer never{io_, hours{1}};
  timer_.expires_after(milliseconds{1});
  expect_observed([&] {
    asio::experimental::make_parallel_group(timer_.async_wait(asio::deferred),
                                            never.async_wait(asio::deferred))
        .async_wait(asio::experimental::wait_for_one(), handler());
  });
}
TEST_F(HookCoverage, Deferred) {
  timer_.expires_after(milliseconds{1});
  auto wait = timer_.async_wait(asio::deferred);
  expect_observed([&] { std::move(wait)(handler()); });
}
TEST_F(HookCoverage, Promise) {
  timer_.expires_after(milliseconds{1});
  expect_observed([&] {
    auto promise = timer_.async_wait(asio::experimental::use_promise);
    promise(handler());
  });
}
TEST_F(HookCoverage, AnyCompletionHandler) {
  timer_.expires_after(milliseconds{1});
  expect_observed(
      [&] { timer_.async_wait(asio::any_completion_handler<void(error_code)>(handler())); });
}
#endif

#if BOOST_ASIO_VERSION >= 102800  // Boost 1.83
// A read that completes at once, and is allowed to call its handler right there.
TEST_F(HookCoverage, ImmediateExecutor) {
  connect_pair();
  asio::write(far_, asio::buffer("x", 1));
  expect_observed([&] {
    asio::post(io_, [&] {
      near_.async_read_some(asio::buffer(buffer_),
                            asio::bind_immediate_executor(io_.get_executor(), handler()));
    });
  });
}
#endif

#if BOOST_ASIO_VERSION >= 103800  // Boost 1.90
// From here on a handler without an associated executor gets inline_executor; before, it was
// system_executor. Neither bypasses the gate: the operation that completes is always that of the
// I/O object, and passes the gate before its handler is called.
TEST_F(HookCoverage, HandlerOnTheInlineExecutor) {
  timer_.expires_after(milliseconds{1});
  expect_observed(
      [&] { timer_.async_wait(asio::bind_executor(asio::inline_executor{}, handler())); });
}
TEST_F(HookCoverage, ReadWhoseHandlerIsOnTheInlineExecutor) {
  connect_pair();
  asio::write(far_, asio::buffer("x", 1));
  expect_observed([&] {
    near_.async_read_some(asio::buffer(buffer_),
                          asio::bind_executor(asio::inline_executor{}, handler()));
  });
}
TEST_F(HookCoverage, CoroutineWhoseCompletionIsOnTheInlineExecutor) {
  timer_.expires_after(milliseconds{1});
  const auto coroutine = [this]() -> asio::awaitable<void> {
    co_await timer_.async_wait(asio::use_awaitable);
  };
  expect_observed([&] {
    asio::co_spawn(
        io_, coroutine,
        asio::bind_executor(asio::inline_executor{}, [this](std::exception_ptr) { note(); }));
  });
}
TEST_F(HookCoverage, ComposedOperationOfNoExecutor) {
  timer_.expires_after(milliseconds{1});
  auto token = handler();
  expect_observed(
      [&] { asio::async_compose<decltype(token), void(error_code)>(two_turns{timer_}, token); });
}
TEST_F(HookCoverage, DispatchToNoExecutorStaysInItsHandler) {
  expect_observed([&] { asio::post(io_, [this] { asio::dispatch(handler()); }); });
}
// The rest of a fiber has no executor to be posted to, and goes back to the queue that its handler
// came from.
TEST_F(HookCoverage, FiberOfAHandlerOnTheInlineExecutor) {
  int checkpoints = 0;
  expect_observed([&] {
    asio::post(io_, asio_pulse::preemptible(asio::bind_executor(asio::inline_executor{}, [&] {
                 for (; checkpoints < 100; ++checkpoints) asio_pulse::checkpoint();
                 note();
               })));
  });
  EXPECT_EQ(checkpoints, 100);
}
#endif

// Contexts that are not asio-pulse's: nothing is charged, but the task is known.

TEST_F(HookCoverage, ThreadPool) {
  asio::thread_pool pool{1};
  start([&] { asio::post(pool, handler()); });
  pool.join();
  io_.run();
  expect_seen_once();
}
TEST_F(HookCoverage, SystemExecutor) {
  std::promise<void> done;
  start([&] {
    asio::post(asio::system_executor{}, [&] {
      note();
      done.set_value();
    });
  });
  done.get_future().wait();
  io_.run();
  expect_seen_once();
}
TEST_F(HookCoverage, PlainIoContext) {
  asio::io_context plain;
  start([&] { asio::post(plain, handler()); });
  plain.run();
  io_.run();
  expect_seen_once();
}

// What a handler starts belongs to its task as well, at any depth.

TEST_F(HookCoverage, ChainOfHandlers) {
  connect_pair();
  timer_.expires_after(milliseconds{1});
  expect_observed([&] {
    asio::post(io_, [&] {
      timer_.async_wait([&](error_code) {
        near_.async_wait(asio::socket_base::wait_write,
                         [&](error_code) { asio::dispatch(asio::make_strand(io_), handler()); });
      });
    });
  });
}

// The rule for accepted connections: what the handler of an accept starts belongs to the new
// connection.

TEST(AcceptRule, EachConnectionIsATaskOfItsOwn) {
  using asio::ip::tcp;
  asio_pulse::io_context io;
  asio_pulse::task listener{io, asio_pulse::task_options{.name = "listener"}};
  tcp::acceptor acceptor{io, {asio::ip::address_v4::loopback(), 0}};
  std::array<tcp::socket, 2> clients{tcp::socket{io}, tcp::socket{io}};
  std::vector<std::uint64_t> reads;
  std::vector<std::uint64_t> accepts;
  std::vector<std::unique_ptr<tcp::socket>> servers;
  std::array<char, 1> byte{};

  const auto serve = [&](tcp::socket socket) {
    servers.push_back(std::make_unique<tcp::socket>(std::move(socket)));
    servers.back()->async_read_some(asio::buffer(byte), [&](error_code, std::size_t) {
      reads.push_back(asio_pulse::this_task::id());
    });
  };
  std::function<void()> accept = [&] {
    acceptor.async_accept([&](error_code, tcp::socket socket) {
      serve(std::move(socket));
      if (servers.size() < clients.size()) accept();
    });
  };
  {
    const asio_pulse::task_scope scope{listener};
    accept();
  }
  for (tcp::socket& client : clients) {
    client.connect(acceptor.local_endpoint());
    asio::write(client, asio::buffer("x", 1));
  }
  io.run();

  ASSERT_THAT(reads, SizeIs(2));
  EXPECT_NE(reads[0], 0u);
  EXPECT_NE(reads[1], 0u);
  EXPECT_NE(reads[0], reads[1]);
  EXPECT_THAT(reads, Each(testing::Ne(listener.id())));
}

// The rules for sockets: an outgoing connection is a task too, and what is done on a connection's
// socket is that connection's, on every back end.

TEST(ConnectRule, WhatIsDoneOnAConnectionsSocketIsTheConnections) {
  using asio::ip::tcp;
  asio_pulse::io_context io;
  tcp::acceptor acceptor{io, {asio::ip::address_v4::loopback(), 0}};
  std::optional<tcp::socket> server;
  std::optional<tcp::socket> client{io};
  std::array<char, 1> byte{};
  std::vector<std::uint64_t> of_server;
  std::vector<std::uint64_t> of_client;
  const auto note = [](std::vector<std::uint64_t>& to) {
    return [&to](auto&&...) { to.push_back(asio_pulse::this_task::id()); };
  };

  acceptor.async_accept([&](error_code, tcp::socket socket) {
    server.emplace(std::move(socket));
    server->async_receive(asio::buffer(byte), note(of_server));
  });
  client->async_connect(acceptor.local_endpoint(), [&](error_code ec) {
    EXPECT_FALSE(ec);
    note(of_client)();
    client->async_send(asio::buffer("x", 1), note(of_client));
  });
  io.run();
  // A handler of no task uses both.
  io.restart();
  asio::post(io, [&] {
    EXPECT_EQ(asio_pulse::this_task::id(), 0u);
    server->async_send(asio::buffer("y", 1), note(of_server));
    client->async_receive(asio::buffer(byte), note(of_client));
  });
  io.run();

  EXPECT_EQ(byte[0], 'y');
  ASSERT_THAT(of_server, SizeIs(2));
  ASSERT_THAT(of_client, SizeIs(3));
  EXPECT_THAT(of_server, Each(of_server[0]));
  EXPECT_THAT(of_client, Each(of_client[0]));
  EXPECT_NE(of_server[0], of_client[0]);
  EXPECT_NE(of_server[0], 0u);
  EXPECT_NE(of_client[0], 0u);
  EXPECT_EQ(io.stats().tasks, 2u);
  server.reset();
  EXPECT_EQ(io.stats().tasks, 1u);
  client.reset();
  EXPECT_EQ(io.stats().tasks, 0u);
}

}  // namespace
