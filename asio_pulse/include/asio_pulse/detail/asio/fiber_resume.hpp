// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/asio/context_service.hpp>
#include <asio_pulse/detail/asio/drain_memory.hpp>
#include <asio_pulse/detail/asio/handler_operation.hpp>
#include <asio_pulse/detail/fiber.hpp>
#include <asio_pulse/hooks/poll_path.hpp>
#include <asio_pulse/task_executor.hpp>

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/detail/call_stack.hpp>
#include <boost/asio/detail/handler_tracking.hpp>
#include <boost/asio/detail/thread_context.hpp>
#include <boost/asio/detail/thread_info_base.hpp>
#include <boost/asio/execution.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/query.hpp>

#include <mutex>
#include <optional>
#include <type_traits>
#include <utility>

/// \file
/// Where the rest of a suspended handler goes: to the handler's associated executor, or to the
/// queue that the handler came from.

namespace asio_pulse::detail {

using run_stack =
    asio_detail::call_stack<asio_detail::thread_context, asio_detail::thread_info_base>;
using legacy_strand_stack = asio_detail::call_stack<asio_detail::strand_service::strand_impl>;

/// Whether Asio's records of what runs on this thread are on the fiber's stack. Then it must not be
/// suspended: the records would go with the fiber while the thread continues to use them.
inline bool asio_runs_on(const fiber_block& b) noexcept {
  return b.holds(run_stack::top()) || b.holds(strand_stack::top()) ||
         b.holds(legacy_strand_stack::top());
}

/// Whether the innermost run function on this thread is that of the context whose handler runs. It is
/// not if the handler runs a context that is not observed: a plain one, or one that is switched off.
/// The rest of that one's handlers would be queued to the wrong context.
inline bool runs_its_context() noexcept {
  auto* const scheduler = static_cast<scheduler_type*>(context_service::here().scheduler());
  const auto* const runs = run_stack::contains(scheduler);
  return runs != nullptr && runs == run_stack::top();
}

/// The innermost strand of which a handler runs on this thread; null for none.
inline strand_impl* strand_here() noexcept {
  const unsigned char* const top = strand_stack::top();
  if (top == nullptr) return nullptr;
  // If a run function was called inside the strand's handler, what that runs does not belong to the
  // strand. Its record is then at a lower address in the same stack, or on a fiber: what is on a fiber
  // is further inside than what is on the stack of its thread.
  const void* const runner = run_stack::top();
  if (runner != nullptr) {
    const fiber_block* const drains = fiber_at(reinterpret_cast<std::uintptr_t>(top));
    const fiber_block* const runs = fiber_at(reinterpret_cast<std::uintptr_t>(runner));
    if (drains == runs ? static_cast<const void*>(top) > runner : drains == nullptr) return nullptr;
  }
  return reinterpret_cast<const strand_stack::context*>(top)->*exposed<"strand.key">;
}

/// Returns false if this code runs in a strand, and there is no memory for the strand's next turn.
[[nodiscard]] inline bool next_turn_provided() noexcept {
  return strand_here() == nullptr || drain_memory::provide();
}

/// In this scope, on this thread, the rest of a handler is offered to an executor. The offer is
/// declined if the executor destroys it, for example because there is no memory.
class fiber_offer {
 public:
  explicit fiber_offer(fiber_block& b) noexcept : block_(&b), outer_(std::exchange(here_, this)) {}
  ~fiber_offer() { here_ = outer_; }
  fiber_offer(const fiber_offer&) = delete;
  fiber_offer& operator=(const fiber_offer&) = delete;

  [[nodiscard]] bool declined() const noexcept { return declined_; }
  /// The rest is being destroyed. Returns false if it is not being offered here.
  [[nodiscard]] static bool decline(const fiber_block& b) noexcept {
    if (here_ == nullptr || here_->block_ != &b) return false;
    return here_->declined_ = true;
  }

 private:
  // NOLINTNEXTLINE(readability-identifier-naming): it takes the member for a global variable
  inline static constinit thread_local fiber_offer* here_ = nullptr;

  const fiber_block* block_;
  fiber_offer* outer_;
  bool declined_ = false;
};

/// Whether the fiber was suspended at an automatic checkpoint, and must be resumed by another thread
/// that runs the context.
[[nodiscard]] inline bool belongs_elsewhere(const fiber_block& b,
                                            const context_service& of) noexcept {
  return b.automatic && of.core()->belongs_elsewhere(b.pinned);
}

template <class T>
concept reference_to_context = std::is_lvalue_reference_v<T> &&
    std::is_convertible_v<T, const boost::asio::execution_context&>;

/// Whether what is posted to the executor arrives in the context whose handler runs here. Executors
/// that do not tell their context do not.
template <class Executor>
[[nodiscard]] bool leads_home(const Executor& executor) noexcept {
  const boost::asio::execution_context* where = nullptr;
  try {
    if constexpr (requires {
                    requires reference_to_context<decltype(boost::asio::query(
                        executor, boost::asio::execution::context))>;
                  }) {
      const boost::asio::execution_context& c =
          boost::asio::query(executor, boost::asio::execution::context);
      where = &c;
    } else if constexpr (requires {
                           requires reference_to_context<decltype(executor.context())>;
                         }) {
      const boost::asio::execution_context& c = executor.context();
      where = &c;
    }
  } catch (...) {  // NOLINT(bugprone-empty-catch): an any_io_executor without an executor
  }
  return where == &context_service::here().home();
}

/// Whether the handler that runs here is one of a task's executor that may run the next one on the
/// isolation pool.
[[nodiscard]] inline bool leaves_thread() noexcept {
  const hooks::thread_state& ts = hooks::this_thread();
  auto* const t = static_cast<task_state*>(ts.top.load(std::memory_order_relaxed)->task());
  if (t == nullptr || t->serial.load(std::memory_order_acquire) == nullptr ||
      !driver_of(*t).running_in_this_thread()) {
    return false;
  }
  return static_cast<const context_core*>(ts.arbiter)->wants_isolation(*t);
}

/// Stands for the executor of a handler that has no associated one. What Asio uses in this case
/// differs by version.
struct no_executor {};

/// Whether the handler has an associated executor to which its rest can be posted.
template <class Handler>
concept names_executor =
    !std::is_same_v<typename boost::asio::associated_executor<Handler, no_executor>::type,
                    no_executor> &&
    requires(typename boost::asio::associated_executor<Handler>::type executor, void (*f)()) {
  boost::asio::post(executor, f);
};

template <class Handler, bool = names_executor<Handler>>
class fiber_suspension;

/// The rest of a handler, as given to an executor. If the executor destroys it, the fiber is
/// unwound, unless it is still being offered.
template <class Handler>
class fiber_rest {
 public:
  explicit fiber_rest(fiber_block& b) noexcept : block_(&b) {}
  fiber_rest(fiber_rest&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  fiber_rest& operator=(fiber_rest&&) = delete;
  ~fiber_rest() {
    if (block_ != nullptr && !fiber_offer::decline(*block_)) unwind_fiber(*block_);
  }

  void operator()() {
    ready_fiber_thread();
    fiber_block& b = *std::exchange(block_, nullptr);
    if (b.automatic && fiber_suspension<Handler>::sent_on(b)) return;
    run_fiber(b);
  }

 private:
  fiber_block* block_;
};

/// The source location of the running handler's operation, which its rest gets as well.
class location_of_poll {
 public:
  explicit location_of_poll(const hooks::location& l) noexcept
      : scope_(l.file, l.line, l.function) {}

 private:
  hooks::location_scope scope_;
};

/// The rest of a suspended handler, in the queue that the handler came from. It is on the fiber's
/// stack, so that there is no allocation and nothing can fail. The caller has called
/// next_turn_provided().
///
/// Rest::resume() continues it, and Rest::discard() ends it; both may end this object. Reports use
/// the name of Site for it.
template <class Site, class Rest>
class queued_rest {
 public:
  template <class... Args>
  explicit queued_rest(Args&&... args) : rest_(std::forward<Args>(args)...) {}

  /// Queues the rest. Called in the poll that was suspended, when it no longer runs. Not for a
  /// legacy strand, which cannot queue an operation of ours.
  void queue() {
    const hooks::poll_frame& frame = *hooks::this_thread().top;
    const location_of_poll here(frame.where());
    if (strand_impl* const strand = strand_here()) {
      // The drain of the strand, which is our caller on this stack, finds it when the batch is
      // done.
      operation& op = make_operation(context_service::here());
      const std::lock_guard lock(as_mutex(strand->*exposed<"strand.mutex">));
      (strand->*exposed<"strand.waiting">).push(&op);
      return;
    }
    auto* const t = static_cast<task_state*>(frame.task());
    if (t != nullptr && t->serial.load(std::memory_order_acquire) != nullptr &&
        driver_of(*t).running_in_this_thread()) {
      queue_in(*t);
      return;
    }
    context_service& service = context_service::here();
    operation& op = make_operation(service);
    static_cast<scheduler_type*>(service.scheduler())->post_immediate_completion(&op, false);
  }

 private:
  class operation final : public handler_operation<operation> {
   public:
    operation(Rest& r, context_service& s) noexcept : rest_(r), service_(s) {}
    void completed(void* owner) { owner == nullptr ? rest_.discard() : rest_.resume(); }
    /// If it has to run on another thread: puts it back to where it was. No poll has begun, so this
    /// thread need not know yet whose handlers it runs.
    [[nodiscard]] bool sent_on(void* owner) noexcept {
      const fiber_block& b = *fiber_at(reinterpret_cast<std::uintptr_t>(this));
      return belongs_elsewhere(b, service_) && service_.send_on(*this, owner, b.pinned);
    }

   private:
    Rest& rest_;
    context_service& service_;
  };

  class node final : public serial_node {
   public:
    explicit node(queued_rest& whole) noexcept
        : serial_node(&node::call_or_destroy, hooks::detail::site_of<Site>), whole_(whole) {}

   private:
    static void call_or_destroy(serial_node* base, bool call) {
      queued_rest& whole = static_cast<node*>(base)->whole_;
      if (!call) return whole.rest_.discard();
      if (!whole.sent_on()) whole.rest_.resume();
    }

    queued_rest& whole_;
  };

  void queue_in(task_state& t) {
    const label_scope label(&t);
    serial_driver& driver = driver_of(t);
    if (driver.push(&node_.emplace(*this))) driver.send(t);
  }
  /// In a turn of the task's executor, which ends if the rest has to run on another thread.
  [[nodiscard]] bool sent_on() noexcept {
    const fiber_block& b = *fiber_at(reinterpret_cast<std::uintptr_t>(this));
    if (!b.automatic) return false;
    auto& t =
        *static_cast<task_state*>(hooks::this_thread().top.load(std::memory_order_relaxed)->task());
    if (!belongs_elsewhere(b, service_of(t)) || !driver_of(t).turn_over_to(b.pinned)) return false;
    queue_in(t);
    return true;
  }

  operation& make_operation(context_service& service) {
    operation& made = operation_.emplace(rest_, service);
    fiber_at(reinterpret_cast<std::uintptr_t>(this))->queued = &made;
    BOOST_ASIO_HANDLER_CREATION((service.home(), made, "fiber", this, 0, "suspend"));
    return made;
  }

  Rest rest_;
  std::optional<operation> operation_;  // or the next member
  std::optional<node> node_;
};

/// A suspended fiber.
class suspended_fiber {
 public:
  explicit suspended_fiber(fiber_block& b) noexcept : block_(b) {}
  void resume() {
    ready_fiber_thread();
    run_fiber(block_);
  }
  void discard() noexcept { unwind_fiber(block_); }

 private:
  fiber_block& block_;
};

/// What a handler on a fiber needs in order to be suspended. It is on the fiber's stack.
template <class Handler, bool>
class fiber_suspension {
 public:
  explicit fiber_suspension(const Handler& handler) noexcept
      : executor_(boost::asio::get_associated_executor(handler)) {}

  /// See fiber_block::may_suspend.
  static bool may_suspend(const fiber_block& b) noexcept {
    const auto& executor = static_cast<const fiber_suspension*>(b.suspension)->executor_;
    if constexpr (std::is_same_v<executor_type, task_executor>) {
      const task_state& t = state_of(executor);
      if (t.core().wants_isolation(t)) return false;
    }
    return !asio_runs_on(b) && runs_its_context() && !leaves_thread() && leads_home(executor);
  }
  static bool suspend(fiber_block& b) {
    if (b.automatic ? !may_suspend(b) : asio_runs_on(b)) return false;
    if (b.automatic) {
      static_cast<fiber_suspension*>(b.suspension)->service_ = &context_service::here();
    }
    suspend_fiber(b, &fiber_suspension::park);
    return true;
  }
  /// If another thread has to resume the fiber: queues the rest once more. Returns false otherwise,
  /// and if there is no memory for that.
  static bool sent_on(fiber_block& b) {
    context_service& service = *static_cast<fiber_suspension*>(b.suspension)->service_;
    if (!belongs_elsewhere(b, service)) return false;
    const thread_pin whose = b.pinned;
    const bool alone = service.only_waits();
    if (!park(b)) return false;
    ++hooks::this_thread().phantom_turns;
    service.let_others_look(alone, whose);
    return true;
  }

 private:
  using executor_type = typename boost::asio::associated_executor<Handler>::type;

  static bool park(fiber_block& b) {
    // The fiber may run again, and end, before post() has returned. So the executor is copied.
    executor_type executor(static_cast<fiber_suspension*>(b.suspension)->executor_);
    const hooks::poll_frame* const frame = hooks::this_thread().top;
    const location_of_poll here(frame != nullptr ? frame->where() : hooks::location{});
    // If the handler runs in a strand, it is probably the one that the rest is posted to.
    std::optional<drain_memory> next_turn;
    if (strand_here() != nullptr && !next_turn.emplace()) return false;
    const fiber_offer offer(b);
    try {
      boost::asio::post(executor, fiber_rest<Handler>(b));
    } catch (...) {
      if (offer.declined()) return false;
      throw;
    }
    if (offer.declined()) unwind_fiber(b);  // the executor does not run anything any more
    return true;
  }

  executor_type executor_;
  context_service* service_ = nullptr;  ///< set before it is suspended at an automatic checkpoint
};

/// For a handler without an associated executor: it goes back to the queue that it came from.
template <class Handler>
class fiber_suspension<Handler, false> {
 public:
  explicit fiber_suspension(const Handler&) noexcept {}

  /// See fiber_block::may_suspend.
  static bool may_suspend(const fiber_block& b) noexcept {
    return !asio_runs_on(b) && legacy_strand_stack::top() == nullptr && runs_its_context() &&
           !leaves_thread();
  }
  static bool suspend(fiber_block& b) {
    if (b.automatic ? !may_suspend(b) : asio_runs_on(b) || legacy_strand_stack::top() != nullptr) {
      return false;
    }
    auto& self = *static_cast<fiber_suspension*>(b.suspension);
    struct clear {
      fiber_suspension& suspension;
      ~clear() { suspension.rest_.reset(); }
    } const on_exit{self};
    suspend_fiber(b, &fiber_suspension::park);
    return true;
  }

 private:
  using rest_type = queued_rest<fiber_rest<Handler>, suspended_fiber>;

  static bool park(fiber_block& b) {
    if (!next_turn_provided()) return false;
    static_cast<fiber_suspension*>(b.suspension)->rest_.emplace(b).queue();
    return true;
  }

  std::optional<rest_type> rest_;
};

}  // namespace asio_pulse::detail
