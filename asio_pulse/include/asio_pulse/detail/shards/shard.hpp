// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/asio/asio_internals.hpp>
#include <asio_pulse/detail/asio/handler_operation.hpp>
#include <asio_pulse/detail/shards/mailbox.hpp>
#include <asio_pulse/detail/shards/shard_figures.hpp>
#include <asio_pulse/detail/shards/shard_threads.hpp>
#include <asio_pulse/hooks/assert.hpp>
#include <asio_pulse/hooks/poll_path.hpp>
#include <asio_pulse/io_context.hpp>
#include <asio_pulse/options.hpp>
#include <asio_pulse/placement.hpp>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

/// \file
/// One shard: a context with one thread, what comes into it from other shards, and what it publishes
/// of its load. sharded_context.hpp puts several together.

namespace asio_pulse::detail {

inline constexpr std::size_t cache_line = 64;
/// The two lines that processors fetch together.
inline constexpr std::size_t apart = 2 * cache_line;

class shard_moves;
class shard_state;

/// A message: an operation that goes through a mailbox, and then through its receiver's queue.
class message : public operation_type {
 public:
  /// The receiver's driver puts it into the receiver's queue.
  inline void deliver(shard_state& receiver, std::size_t sender) noexcept;

 protected:
  using announcement = void (*)(message&, shard_state&);

  explicit message(func_type function) noexcept : operation_type(function) {}
  ~message() = default;
  message(const message&) = delete;
  message& operator=(const message&) = delete;

  /// Sets the function that announces the operation to Asio on the receiver's thread, so that it
  /// belongs to no task of the sender. Null if that was done before.
  void announce_by(announcement how) noexcept { announce_ = how; }
  /// To be called first when the operation completes or is destroyed.
  inline void left_queue() noexcept;

 private:
  announcement announce_ = nullptr;
  shard_state* receiver_ = nullptr;  ///< null until it is in the receiver's queue
  std::size_t sender_ = 0;
};

/// An io_context whose services can be shut down before it is destroyed.
class shard_io_context : public io_context {
 public:
  using io_context::io_context;
  using io_context::shutdown;
#if !defined(ASIO_PULSE_DISABLE)
  using io_context::be_shard;
#endif
};

class shard_state {
 public:
  using clock = std::chrono::steady_clock;
  using scheduler = scheduler_type;

  /// Messages of another shard, in their order, and answers to requests that this shard has made of
  /// it. Each is sent by that shard alone. Answers have a mailbox of their own, so that there always
  /// is room for one: a shard makes no more requests at a time than it holds.
  struct from_shard {
    explicit from_shard(std::size_t capacity) : messages(capacity), answers(capacity) {}
    mailbox<message> messages;
    mailbox<message> answers;
    /// Of `messages`, now in the queue of this shard. Relaxed: it publishes nothing.
    std::atomic<std::size_t> queued{0};
  };

  /// The hint is for one thread, and keeps Asio's locks: other threads post to a shard, too (its
  /// driver, and those that are no shards). BOOST_ASIO_CONCURRENCY_HINT_UNSAFE would forbid that.
  static constexpr int concurrency_hint = 1;
  /// With spare threads, whose contexts must not promise that only one thread runs them.
  static constexpr int rescued_hint = 2;

  shard_state(std::size_t number, std::size_t shards, std::uint64_t set, std::size_t capacity,
              const options& opts, bool rescued)
      : index(number),
        most(capacity),
        requests(shards),
        choices(number),
        shown_(std::make_shared<shard_figures>(number, shards, set)),
        figures(*shown_),
        rescued_(rescued),
        io(opts, rescued ? rescued_hint : concurrency_hint),
        scheduler_(boost::asio::use_service<scheduler>(io)) {
#if !defined(ASIO_PULSE_DISABLE)
    io.be_shard(shown_);
    if (spare_workers* const spares = service_of(io).spares()) spares->tell(&help, this);
#endif
    inbox_.reserve(shards);
    for (std::size_t i = 0; i != shards; ++i) {
      inbox_.push_back(i == number ? nullptr : std::make_unique<from_shard>(capacity));
    }
  }
  shard_state(const shard_state&) = delete;
  shard_state& operator=(const shard_state&) = delete;

  /// The shard whose thread this is. Out of line: a coroutine or a fiber that has moved to another
  /// thread must not use the address of the old one's variable.
  ASIO_PULSE_DETAIL_NOINLINE static shard_state*& current() noexcept {
    static thread_local shard_state* mine = nullptr;
    return mine;
  }

  /// This thread is a spare one, which runs handlers of a shard whose own thread is stuck. Mailboxes
  /// have one sender, and that is the shard's own thread: it may be about to send.
  ASIO_PULSE_DETAIL_NOINLINE static bool& helps() noexcept {
    static thread_local bool spare = false;
    return spare;
  }

  // ---- sending, on the thread of the shard `sender`

  [[nodiscard]] bool has_room(std::size_t sender) const noexcept {
    return inbox_[sender]->messages.write_available() != 0;
  }
  /// Returns false if the mailbox is full.
  [[nodiscard]] bool send(message& m, std::size_t sender) noexcept {
    if (!inbox_[sender]->messages.push(&m)) return false;
    wake();
    return true;
  }
  /// An answer to a request of this shard. There is room for it.
  void answer(message& m, std::size_t sender) noexcept {
    if (helps()) return enqueue(m);
    [[maybe_unused]] const bool there_was_room = inbox_[sender]->answers.push(&m);
    ASIO_PULSE_ASSERT(there_was_room);
    wake();
  }

  /// Puts an operation into the queue; any thread. On this shard's thread, without a lock.
  void enqueue(operation_type& op) noexcept { scheduler_.post_immediate_completion(&op, false); }
  void delivered(std::size_t sender) noexcept { add(inbox_[sender]->queued, 1); }
  void left_queue(std::size_t sender) noexcept { add(inbox_[sender]->queued, minus_one); }
  /// Adds to a figure that only threads that run this shard change.
  void add(std::atomic<std::size_t>& figure, std::size_t n) const noexcept {
    if (rescued_) {
      figure.fetch_add(n, std::memory_order_relaxed);
    } else {
      figure.store(figure.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
    }
  }
  static constexpr std::size_t minus_one = ~std::size_t{0};

  [[nodiscard]] std::size_t shards() const noexcept { return inbox_.size(); }
  /// For waits of the library that are no work of the context.
  void work_started() noexcept { scheduler_.work_started(); }
  void work_finished() noexcept { scheduler_.work_finished(); }
  /// Whether handlers are queued, running or waited for.
  [[nodiscard]] bool has_work() const noexcept { return outstanding_work(scheduler_) > 0; }
  /// A turn of the scheduler in which no handler of the program ran: run() does not count it.
  void uncounted() noexcept {
#if defined(ASIO_PULSE_DISABLE)
    ++uncounted_;
#else
    ++hooks::this_thread().phantom_turns;
#endif
  }

  // ---- load

  /// When the measurement began that is under way; 0 if there is none.
  [[nodiscard]] std::int64_t probe_began() const noexcept {
    return probe_.begun.load(std::memory_order_relaxed);
  }
  /// The load, as the shard has published it. Starts a measurement if the last one is older than
  /// `fresh`. Any thread.
  [[nodiscard]] shard_load load() noexcept { return load(fresh); }
  [[nodiscard]] shard_load load(std::chrono::nanoseconds age) noexcept {
    const std::int64_t now = now_ns();
    const std::int64_t begun = probe_.begun.load(std::memory_order_relaxed);
    const std::int64_t at = figures.load.window_ended().count();
    shard_load l = figures.load.read().load;
    if (begun != 0) {
      l.delay = std::max(l.delay, std::chrono::nanoseconds(now - begun));
    } else if (now - at > age.count()) {
      std::int64_t none = 0;
      // Acquire: pairs with the release at the end of the last measurement, which has finished with
      // the operation.
      if (probe_.begun.compare_exchange_strong(none, now, std::memory_order_acquire,
                                               std::memory_order_relaxed)) {
        enqueue(probe_);
      }
    }
    return l;
  }

  /// Measurements are at least this far apart. They cost about 1 us each, on the shard: 0.02 %.
  /// Between two of them placement takes turns among shards that seem equal.
  static constexpr std::chrono::nanoseconds fresh = std::chrono::milliseconds{5};

  // ---- the shard's thread

  void thread_begins() noexcept {
    current() = this;
    cpu_then_ = thread_cpu_time();
    measured_then_ = now_ns();
  }
  static void thread_ends() noexcept { current() = nullptr; }
  /// Runs the context. Returns the number of the program's handlers and messages that were run.
  std::size_t run() {
    uncounted_ = 0;
    const std::size_t n = io.run();
    return n - std::min(n, uncounted_);
  }

  /// Destroys the messages that are in mailboxes. Nothing runs.
  void destroy_messages() noexcept {
    for (const auto& from : inbox_) {
      if (from == nullptr) continue;
      const auto destroy = [](message* m) { m->destroy(); };
      from->messages.consume_all(destroy);
      from->answers.consume_all(destroy);
    }
  }

  const std::size_t index;
  const std::size_t
      most;  ///< messages of one shard that are in its mailbox, and again in the queue
  /// Requests of this shard to each of the others that are not yet answered. The shard's thread.
  std::vector<std::atomic<std::size_t>> requests;
  placer choices;  ///< of the shard's thread
  shard_moves* moves = nullptr;

 private:
  std::shared_ptr<shard_figures> shown_;  // a reader of its instruments may outlive it

 public:
  shard_figures& figures;  ///< what it publishes of its load, and shows

 private:
  /// Looks into the mailboxes. It has a turn of the scheduler for as long as there are messages.
  struct driver final : operation_type {
    explicit driver(shard_state& s) noexcept : operation_type(&driver::run), shard(s) {}
    static void run(void* owner, operation_type* self, const boost::system::error_code&,
                    std::size_t) {
      if (owner != nullptr) static_cast<driver*>(self)->shard.drive();
    }
    shard_state& shard;
  };

  /// Measures how long an operation waits for its turn, and how much CPU time the shard has used.
  struct probe final : operation_type {
    explicit probe(shard_state& s) noexcept : operation_type(&probe::run), shard(s) {}
    static void run(void* owner, operation_type* self, const boost::system::error_code&,
                    std::size_t) {
      if (owner != nullptr) static_cast<probe*>(self)->shard.measure();
    }
    shard_state& shard;
    alignas(cache_line) std::atomic<std::int64_t> begun{0};  ///< 0: there is none
  };

  static std::int64_t now_ns() noexcept {
    return std::chrono::nanoseconds(clock::now().time_since_epoch()).count();
  }

  void wake() noexcept {
    if (!sleep_.must_wake()) return;
    figures.wakes.fetch_add(1, std::memory_order_relaxed);
    enqueue(driver_);
  }

  /// All messages go into the queue, as those that are posted by other threads would: each is a
  /// handler, with its own poll, exceptions and turn. A sender that is faster than this shard is
  /// held up in its mailbox.
  void drive() noexcept {
    uncounted();
    std::uint64_t found = 0;
    bool left = false;
    for (std::size_t sender = 0; sender != inbox_.size(); ++sender) {
      from_shard* const from = inbox_[sender].get();
      if (from == nullptr) continue;
      message* m = nullptr;
      while (from->answers.pop(m)) {
        m->deliver(*this, sender);
        ++found;
      }
      while (from->queued.load(std::memory_order_relaxed) != most && from->messages.pop(m)) {
        m->deliver(*this, sender);
        delivered(sender);
        ++found;
      }
      left = left || from->queued.load(std::memory_order_relaxed) == most;
    }
    if (found != 0) {
      figures.received.store(figures.received.load(std::memory_order_relaxed) + found,
                             std::memory_order_relaxed);
    }
    // One more turn behind these messages: a sender that continues to send need not wake this shard.
    if (found != 0 || left) return enqueue(driver_);
    sleep_.fall_asleep();
    if (!empty() && sleep_.stay_awake()) enqueue(driver_);
  }

  [[nodiscard]] bool empty() const noexcept {
    for (const auto& from : inbox_) {
      if (from == nullptr) continue;
      if (from->messages.read_available() != 0 || from->answers.read_available() != 0) return false;
    }
    return true;
  }

  void measure() noexcept {
    uncounted();
    const std::int64_t now = now_ns();
    const std::int64_t begun = probe_.begun.load(std::memory_order_relaxed);
    shard_load l = figures.load.read().load;
    l.delay = std::chrono::nanoseconds(now - begun);
    if (current() == this && !helps()) {
      const std::chrono::nanoseconds cpu = thread_cpu_time();
      const std::int64_t wall = now - measured_then_;
      if (wall > 0) {
        const std::int64_t part = (cpu - cpu_then_).count() * 1000 / wall;
        l.cpu_permille = static_cast<std::uint32_t>(std::clamp<std::int64_t>(part, 0, 1000));
      }
      cpu_then_ = cpu;
      measured_then_ = now;
    }
    const shard_report before = figures.load.read();
    figures.load.measured(l, before.movable != 0 ? l.cpu_permille : 0,
                          std::chrono::nanoseconds(now));
    probe_.begun.store(0, std::memory_order_release);  // pairs with load()
  }

  static void help(void* about, bool begins) noexcept {
    current() = begins ? static_cast<shard_state*>(about) : nullptr;
    helps() = begins;
  }

  const bool rescued_;
  // The shard's thread.
  std::chrono::nanoseconds cpu_then_{0};
  std::int64_t measured_then_ = 0;
  std::size_t uncounted_ = 0;  // turns that run() of Asio's own context counts

  std::vector<std::unique_ptr<from_shard>> inbox_;  // by sender; null for the shard itself
  alignas(apart) sleep_flag sleep_;
  driver driver_{*this};
  alignas(apart) probe probe_{*this};

 public:
  // Last, so that it is destroyed first: operations in its queue use the members above.
  shard_io_context io;
  std::optional<boost::asio::executor_work_guard<boost::asio::io_context::executor_type>> work;

 private:
  scheduler& scheduler_;
};

/// Work of a shard that is on its way to it, or away from it: join() waits for that.
class shard_work {
 public:
  explicit shard_work(shard_state& s) noexcept : shard_(s) { shard_.work_started(); }
  ~shard_work() { shard_.work_finished(); }
  shard_work(const shard_work&) = delete;
  shard_work& operator=(const shard_work&) = delete;

 private:
  shard_state& shard_;
};

inline void message::deliver(shard_state& receiver, std::size_t sender) noexcept {
  if (announce_ != nullptr) {
    announce_(*this, receiver);
    receiver_ = &receiver;
    sender_ = sender;
  }
  receiver.enqueue(*this);
}

inline void message::left_queue() noexcept {
  if (receiver_ != nullptr) std::exchange(receiver_, nullptr)->left_queue(sender_);
}

/// A message that calls a function.
template <class Function>
class posted final : public handler_operation<posted<Function>, message> {
 public:
  explicit posted(Function f) : function_(std::move(f)) { this->announce_by(&introduce); }

  void completed(void* owner) {
    std::unique_ptr<posted> self(this);
    this->left_queue();
    Function f(std::move(function_));
    self.reset();  // as in Asio: the memory is free when the function runs
    if (owner != nullptr) std::move(f)();
  }

 private:
  static void introduce(message& m, [[maybe_unused]] shard_state& to) {
    [[maybe_unused]] auto& self = static_cast<posted&>(m);
    BOOST_ASIO_HANDLER_CREATION((to.io, self, "shard", &to, 0, "message"));
  }

  Function function_;
};

}  // namespace asio_pulse::detail
