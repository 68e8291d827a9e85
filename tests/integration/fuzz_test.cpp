// SPDX-License-Identifier: BSL-1.0

// Random programs, which mix everything that the other tests do separately. Handlers of all kinds
// post, dispatch and defer further ones, spawn coroutines, start and cancel timers, poll the
// context, stop it, throw, and drop tasks. In the end the context runs until it is out of work, or
// is destroyed with everything in it. Each handler must run once or be destroyed once, and in each
// task's executor and each strand they must be first in, first out and never run two at a time.
//
//   ASIO_PULSE_FUZZ_SECONDS   how long it runs (1)
//   ASIO_PULSE_FUZZ_SEED      runs only the program with this seed, which a failure prints

#include <support/sanitizers.hpp>
#include <support/scenario.hpp>
//
#include <asio_pulse/spawn.hpp>

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/defer.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <cstdlib>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <span>

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using boost::system::error_code;

/// What handlers throw. Two at a time, of a nested poll(), leave as Asio's multiple_exceptions: a
/// std::exception too.
struct injected_fault : std::exception {};

// Sanitizers are not notified when Boost.Context changes stacks. A stack that is resumed on another
// thread, or unwound, confuses ThreadSanitizer and AddressSanitizer.
constexpr bool follows_stacks = !pulse_test::sanitized;

/// A queue that promises order: its handlers must run with rising numbers.
struct lane {
  std::mutex giving;  // a number is drawn and the handler given as one step
  int given = 0;
  std::atomic<int> inside{0};
  int last = -1;  // the lane's own handlers only
};

struct books {
  std::atomic<int> made{0};
  std::atomic<int> ran{0};
  std::atomic<int> dropped{0};
  std::atomic<int> twice{0};
  std::atomic<int> out_of_order{0};
  std::atomic<int> overlaps{0};
  std::atomic<int> wrong_task{0};
};

struct last_first : asio_pulse::scheduling_policy {
  std::size_t pick(std::span<const work> waiting, time /*now*/) override {
    return waiting.size() - 1;
  }
};

class program {
 public:
  program(std::uint32_t seed, std::size_t threads) : random_(seed), threads_(threads) {
    auto o = pick(2) == 0 ? steady() : steady_isolating();
    o.quantum = pick(2) == 0 ? 20us : 1ms;
    o.min_slice = 10us;
    o.shadow = pick(10) == 0;
    o.enabled = pick(12) != 0;
    o.isolation_threads = 1 + pick(2);
    if (pick(3) == 0) o.tiers.clean_window = o.tiers.isolate_clean_window = 300us;
    o.custom_policy = [] { return std::make_unique<last_first>(); };
    if (pick(2) == 0) o.policy = static_cast<asio_pulse::scheduling>(pick(5));
    o.saturation = pick(2) == 0 ? 0ns : 10us;
    static constexpr int hints[] = {1, 2, BOOST_ASIO_CONCURRENCY_HINT_SAFE};
    io_ = new asio_pulse::io_context(
        o, threads == 1 ? hints[pick(3)] : BOOST_ASIO_CONCURRENCY_HINT_SAFE);
    for (int i = 0; i < 4; ++i) {
      auto t = pick(2) == 0 ? unlimited("quiet") : stingy("hog");
      if (t.budget > 0ns && pick(2) == 0) t.per = 2ms;  // comes back
      t.isolatable = pick(3) == 0;
      if (pick(3) == 0) {
        t.group = asio_pulse::task_group(*io_, {.weight = 1 + pick(200), .budget = pick(2) * 10us});
      }
      if (pick(3) == 0) t.priority = pick(8);
      if (pick(3) == 0) t.deadline = 1ms * pick(3);
      tasks_.emplace_back(*io_, t);
      strands_.push_back(asio::make_strand(*io_));
    }
    if (pick(3) == 0) {
      hooks_ = io_->hooks().install(
          {.before_poll = [](const auto&) {}, .after_poll = [](const auto&) {}});
    }
    left_ = 100 + static_cast<int>(pick(400));
    destroy_full_ = pick(3) == 0;
    base_ = pick(4) == 0;
  }

  void run() {
    for (std::size_t i = 0; i < 20; ++i) spawn();
    const int rounds = destroy_full_ ? 1 + static_cast<int>(pick(4)) : 1'000'000;
    for (int round = 0; round < rounds && !dry(); ++round) {
      io_->restart();
      on_threads(threads_, [this](std::size_t) { run_once(); });
    }
    if (!destroy_full_) {
      EXPECT_EQ(books_.ran, books_.made) << "run dry";
      run_out();
      EXPECT_EQ(io_->stats().parked, 0U);
    }
    // Isolated handlers may still run after run() has returned, and may be spawning further ones.
    left_ = 0;
    while (acting_ != 0) std::this_thread::yield();
    hooks_ = {};
    strands_.clear();
    tasks_.clear();
    delete io_;
    EXPECT_EQ(books_.ran + books_.dropped, books_.made);
    EXPECT_EQ(books_.twice, 0);
    EXPECT_EQ(books_.out_of_order, 0);
    EXPECT_EQ(books_.overlaps, 0);
    EXPECT_EQ(books_.wrong_task, 0);
    EXPECT_EQ(asio_pulse::this_task::id(), 0U);
  }

 private:
  /// One handler: runs once, or is destroyed.
  class entry {
   public:
    explicit entry(program& p, lane* in = nullptr, int number = 0, std::uint64_t task = 0)
        : p_(&p), in_(in), number_(number), task_(task) {
      ++p.books_.made;
    }
    entry(entry&& o) noexcept
        : p_(std::exchange(o.p_, nullptr)),
          in_(o.in_),
          number_(o.number_),
          task_(o.task_),
          ran_(o.ran_) {}
    entry& operator=(entry&&) = delete;
    ~entry() {
      if (p_ != nullptr && !ran_) ++p_->books_.dropped;
    }
    void operator()(const error_code& = {}) {
      books& b = p_->books_;
      if (std::exchange(ran_, true)) ++b.twice;
      ++b.ran;
      if (task_ != 0 && asio_pulse::this_task::id() != task_) ++b.wrong_task;
      struct leave {
        lane* in;
        ~leave() {
          if (in != nullptr) --in->inside;
        }
      } on_exit{in_};
      if (in_ != nullptr) {
        if (in_->inside++ != 0) ++b.overlaps;
        if (number_ <= in_->last) ++b.out_of_order;
        in_->last = number_;
      }
      p_->act(in_ != nullptr);
    }

   private:
    program* p_;
    lane* in_;
    int number_;
    std::uint64_t task_;
    bool ran_ = false;
  };

  std::uint32_t pick(std::uint32_t below) {
    const std::lock_guard lock(random_mutex_);
    return static_cast<std::uint32_t>(random_() % below);
  }
  bool dry() const { return books_.ran == books_.made; }

  /// Every handler has run. Asio may still have work: the turn of a strand, or the end of a
  /// coroutine.
  void run_out() {
    for (;;) {
      try {
        io_->restart();
        io_->run();
        return;
      } catch (const std::exception&) {
      }
    }
  }

  void run_once() {
    for (int i = 0; i < 50 && !dry(); ++i) {
      try {
        const std::uint32_t how = pick(12);
        switch (how) {
          case 0:
            io_->run_one();
            break;
          case 1:
            io_->poll();
            break;
          case 2:
            io_->poll_one();
            break;
          case 3:
            io_->run_for(1ms);
            break;
          case 4:
            io_->run_one_for(1ms);
            break;
          default:
            if (base_ && how == 5) {
              static_cast<asio::io_context&>(*io_).run();
            } else {
              io_->run();
            }
            return;
        }
      } catch (const std::exception&) {
      }
    }
  }

  /// The actions of a handler.
  void act(bool in_lane) {
    ++acting_;
    struct acted {
      std::atomic<int>& acting;
      ~acted() { --acting; }
    } const on_exit{acting_};
    if (left_ > 0) {
      for (std::uint32_t n = pick(4); n > 0; --n) spawn();
    }
    switch (pick(40)) {
      case 0:
        throw injected_fault{};
      case 1:
        io_->stop();
        break;
      case 2:
        // Inside a lane a nested poll may run the lane's strand elsewhere: not this one.
        if (!in_lane) io_->poll_one();
        break;
      case 3:
        if (!in_lane) io_->poll();
        break;
      case 4:
        burn(isolating + 1ms);
        break;
      case 5:
      case 6:
        burn(300us);
        break;
      case 7: {
        if (pick(4) == 0) io_->update({.policy = static_cast<asio_pulse::scheduling>(pick(5))});
        ASIO_PULSE_PREEMPTION_BUDGET(200us);
        burn(20us);
        if (left_ > 0) spawn();
        break;
      }
      case 8: {
        const asio_pulse::critical_section guard;
        (void)asio_pulse::should_yield();
        break;
      }
      case 9: {
        // A task whose handle is destroyed before its work is done.
        const asio_pulse::task t{*io_, stingy("short-lived")};
        asio_pulse::post(t, entry(*this, nullptr, 0, t.id()));
        asio::post(t.get_executor(), entry(*this, nullptr, 0, t.id()));
        break;
      }
      default:
        (void)asio_pulse::should_yield();
        break;
    }
  }

  asio::awaitable<void> coroutine(entry last) {
    for (std::uint32_t n = pick(4); n > 0; --n) {
      switch (pick(4)) {
        case 0:
          co_await asio_pulse::checkpoint();
          break;
        case 1:
          co_await asio::post(co_await asio::this_coro::executor, asio::use_awaitable);
          break;
        case 2: {
          asio::steady_timer timer(co_await asio::this_coro::executor, 50us);
          co_await timer.async_wait(asio::use_awaitable);
          break;
        }
        default:
          ASIO_PULSE_CHECKPOINT();
      }
    }
    try {
      last({});
    } catch (const std::exception&) {
    }
  }

  /// Creates one more handler, of some kind.
  void spawn() {
    --left_;
    const std::size_t n = pick(4);
    const asio_pulse::task& t = tasks_[n];
    std::optional<asio_pulse::task_scope> scope;
    if (pick(2) == 0) scope.emplace(tasks_[pick(4)]);
    switch (pick(12)) {
      case 0:
        asio::post(*io_, entry(*this));
        break;
      case 1:
        asio::defer(*io_, entry(*this));
        break;
      case 2:
        asio_pulse::post(t, entry(*this, nullptr, 0, t.id()));
        break;
      case 3:
        asio_pulse::defer(t, entry(*this, nullptr, 0, t.id()));
        break;
      case 4:
        if (depth_of_this_thread() < 20) {
          const deeper down;
          asio_pulse::dispatch(t, entry(*this, nullptr, 0, t.id()));
        }
        break;
      case 5:
      case 6: {
        lane& in = strand_lanes_[n];
        const std::lock_guard lock(in.giving);
        asio::post(strands_[n], entry(*this, &in, in.given++));
        break;
      }
      case 7:
      case 8: {
        lane& in = task_lanes_[n];
        const std::lock_guard lock(in.giving);
        asio::post(t.get_executor(), entry(*this, &in, in.given++, t.id()));
        break;
      }
      case 9: {
        auto timer = std::make_shared<asio::steady_timer>(*io_, pick(3) * 50us);
        auto done = std::make_shared<entry>(*this);
        timer->async_wait([timer, done](const error_code& ec) { (*done)(ec); });
        if (pick(3) == 0) timer->cancel();
        break;
      }
      case 10:
        asio_pulse::co_spawn(t, coroutine(entry(*this)), asio::detached);
        break;
      default: {
        if (!follows_stacks) {
          asio::post(*io_, entry(*this));
          break;
        }
        auto done = std::make_shared<entry>(*this);
        asio_pulse::spawn(
            t,
            [this, done](asio::yield_context yield) {
              if (pick(2) == 0) asio::post(*io_, yield);
              try {
                (*done)({});
              } catch (const std::exception&) {
              }
            },
            asio::detached);
        break;
      }
    }
  }

  static int& depth_of_this_thread() {
    thread_local int depth = 0;
    return depth;
  }
  struct deeper {
    deeper() { ++depth_of_this_thread(); }
    ~deeper() { --depth_of_this_thread(); }
  };

  std::mutex random_mutex_;
  std::mt19937 random_;
  const std::size_t threads_;
  books books_;
  lane strand_lanes_[4];
  lane task_lanes_[4];
  std::atomic<int> left_{0};
  std::atomic<int> acting_{0};
  bool destroy_full_ = false;
  bool base_ = false;
  /// A plain pointer, because the destructor waits for isolated handlers, which still use the
  /// context, and the smart pointers of the standard library are empty before they destroy the
  /// object. run() deletes it.
  asio_pulse::io_context* io_ = nullptr;
  std::vector<asio_pulse::task> tasks_;
  std::vector<asio::strand<asio_pulse::io_context::executor_type>> strands_;
  asio_pulse::hooks::registry::connection hooks_;
};

std::uint32_t number_from(const char* variable, std::uint32_t otherwise) {
  const char* const text = std::getenv(variable);
  return text == nullptr ? otherwise : static_cast<std::uint32_t>(std::strtoul(text, nullptr, 10));
}

class fuzz : public testing::TestWithParam<std::size_t> {};
INSTANTIATE_TEST_SUITE_P(threads, fuzz, testing::Values(1, 2), testing::PrintToStringParamName());

TEST_P(fuzz, random_programs_run_every_handler_once_and_in_order) {
  const std::chrono::seconds how_long{number_from("ASIO_PULSE_FUZZ_SECONDS", 1)};
  const auto end = std::chrono::steady_clock::now() + how_long;
  const bool one = std::getenv("ASIO_PULSE_FUZZ_SEED") != nullptr;
  std::uint32_t seed = number_from("ASIO_PULSE_FUZZ_SEED", std::random_device{}());
  int programs = 0;
  do {
    SCOPED_TRACE("ASIO_PULSE_FUZZ_SEED=" + std::to_string(seed));
    program(seed, GetParam()).run();
    if (HasFailure()) return;
    ++programs;
    ++seed;
  } while (!one && std::chrono::steady_clock::now() < end);
  RecordProperty("programs", programs);
}

}  // namespace
