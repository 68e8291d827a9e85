// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/hooks/registry.hpp>
#include <asio_pulse/hooks/thread_state.hpp>

#include <array>
#include <mutex>
#include <utility>

namespace asio_pulse::hooks {

namespace {

// Each node counts its calls in progress in this many counters, which are chosen by thread, so that
// workers that call hooks at the same time do not share a cache line. Eight is a guess: more take
// more memory (8 take 512 bytes), fewer are shared by more workers.
constexpr std::size_t shard_count = 8;

struct alignas(64) shard {
  std::atomic<std::uint32_t> calls{0};
};

std::size_t this_shard() noexcept {
  static std::atomic<std::size_t> threads{0};
  static thread_local const std::size_t index =
      threads.fetch_add(1, std::memory_order_relaxed) % shard_count;
  return index;
}

enum : unsigned {
  kind_task_spawned = 1U << 0U,
  kind_before_poll = 1U << 1U,
  kind_after_poll = 1U << 2U,
  kind_tier_changed = 1U << 3U,
  kind_stall = 1U << 4U,
  kind_yielded = 1U << 5U,
  kind_completed = 1U << 6U,
  kind_options_changed = 1U << 7U,
  installed = 1U << 8U,  // so that an empty hook_set counts as installed, too
};

unsigned kinds_of(const hook_set& hooks) noexcept {
  return installed | (hooks.task_spawned ? kind_task_spawned : 0U) |
         (hooks.before_poll ? kind_before_poll : 0U) | (hooks.after_poll ? kind_after_poll : 0U) |
         (hooks.tier_changed ? kind_tier_changed : 0U) | (hooks.stall ? kind_stall : 0U) |
         (hooks.yielded ? kind_yielded : 0U) | (hooks.completed ? kind_completed : 0U) |
         (hooks.options_changed ? kind_options_changed : 0U);
}

/// The calls that this thread is in, innermost first. A removal inside a call must not wait for
/// that call.
struct frame {
  const void* node;
  const poll_frame* poll;  ///< in which the call is made; null for none
  const frame* outer;
};

const poll_frame* this_poll() noexcept { return this_thread().top.load(std::memory_order_relaxed); }

constinit thread_local const frame* innermost = nullptr;

bool inside(const void* node) noexcept {
  for (const frame* f = innermost; f != nullptr; f = f->outer) {
    if (f->node == node) {
      return true;
    }
  }
  return false;
}

}  // namespace

std::string_view to_string(yield_reason why) noexcept {
  switch (why) {
    case yield_reason::hint:
      return "hint";
    case yield_reason::quantum:
      return "quantum";
    case yield_reason::budget:
      return "budget";
    case yield_reason::held:
      return "held";
    case yield_reason::queued:
      return "queued";
    case yield_reason::deferred:
      return "deferred";
    case yield_reason::strand:
      return "strand";
    case yield_reason::turn:
      return "turn";
    case yield_reason::forced:
      return "forced";
  }
  return "unknown";
}

/// One hook_set. `hooks` may be used by a caller that has counted itself in `calls` and then seen
/// its bit in `kinds`. Otherwise it may be used by the owner of the node: install() if `use` is
/// unused, and the removal when `kinds` is zero and every count was zero at some time after that.
struct registry::node {
  enum class use : std::uint8_t { unused, installed, removing, abandoned };

  std::atomic<unsigned> kinds{0};
  std::array<shard, shard_count> shards;
  hook_set hooks;
  node* next = nullptr;    // constant once published
  use used = use::unused;  // under the registry's mutex

  [[nodiscard]] bool quiet() const noexcept {
    for (const shard& s : shards) {
      if (s.calls.load(std::memory_order_seq_cst) != 0) {
        return false;
      }
    }
    return true;
  }
};

class registry::state {
 public:
  state() noexcept = default;
  state(const state&) = delete;
  state& operator=(const state&) = delete;

  ~state() {
    for (node* n = first_.load(std::memory_order_relaxed); n != nullptr;) {
      delete std::exchange(n, n->next);
    }
  }

  node* install(hook_set&& hooks) {
    const std::lock_guard lock(mutex_);
    node* n = first_.load(std::memory_order_relaxed);
    while (n != nullptr && n->used != node::use::unused) {
      n = n->next;
    }
    const bool fresh = n == nullptr;
    if (fresh) {
      n = new node;
    }
    const unsigned kinds = kinds_of(hooks);
    n->hooks = std::move(hooks);
    n->used = node::use::installed;
    if (fresh) {
      n->next = first_.load(std::memory_order_relaxed);
      first_.store(n, std::memory_order_release);  // pairs with the acquire in fire()
    }
    // Publishes the hooks. Pairs with the loads in fire().
    n->kinds.store(kinds, std::memory_order_seq_cst);
    update_wanted();
    return n;
  }

  void remove(node* n) noexcept {
    {
      const std::lock_guard lock(mutex_);
      // Sequentially consistent, as the count in fire(): either the caller sees the zero here, or
      // this thread sees the caller in the count.
      n->kinds.store(0, std::memory_order_seq_cst);
      update_wanted();
      n->used = inside(n) ? node::use::abandoned : node::use::removing;
      if (n->used == node::use::abandoned) {
        return;  // the last call that returns frees it
      }
    }
    // The lock is not held here, because the running hooks may install and remove others. Each
    // count has to be zero only once: a caller that counts itself later sees that nothing is
    // installed.
    for (shard& s : n->shards) {
      std::uint32_t calls = s.calls.load(std::memory_order_seq_cst);
      while (calls != 0) {
        s.calls.wait(calls, std::memory_order_seq_cst);
        calls = s.calls.load(std::memory_order_seq_cst);
      }
    }
    release(n, node::use::removing);
  }

  template <class Event>
  void fire(unsigned kind, std::function<void(const Event&)> hook_set::*which,
            const Event& event) noexcept {
    for (node* n = first_.load(std::memory_order_acquire); n != nullptr; n = n->next) {
      if ((n->kinds.load(std::memory_order_relaxed) & kind) == 0) {
        continue;
      }
      std::atomic<std::uint32_t>& calls = n->shards[this_shard()].calls;
      calls.fetch_add(1, std::memory_order_seq_cst);
      // The second check decides: from here on a removal waits for this call.
      if ((n->kinds.load(std::memory_order_seq_cst) & kind) != 0) {
        const frame here{n, this_poll(), innermost};
        innermost = &here;
        try {
          (n->hooks.*which)(event);
        } catch (...) {
          errors_.fetch_add(1, std::memory_order_relaxed);
        }
        innermost = here.outer;
      }
      calls.fetch_sub(1, std::memory_order_seq_cst);
      if (n->kinds.load(std::memory_order_seq_cst) == 0) [[unlikely]] {
        left_removed(n, calls);
      }
    }
  }

  void listen(void (*changed)(void*, bool), void* context) noexcept {
    const std::lock_guard lock(mutex_);
    changed_ = changed;
    context_ = context;
    if (changed_ != nullptr) {
      changed_(context_, wants.polls.load(std::memory_order_relaxed));
    }
  }

  [[nodiscard]] std::uint64_t errors() const noexcept {
    return errors_.load(std::memory_order_relaxed);
  }

  wanted wants;

 private:
  /// A call of a removed hook has returned. Wakes the removal that waits for it, or frees the hooks
  /// if none does.
  void left_removed(node* n, std::atomic<std::uint32_t>& calls) noexcept {
    calls.notify_all();
    release(n, node::use::abandoned);
  }

  void release(node* n, node::use expected) noexcept {
    hook_set old;  // destroyed after the lock is released, because its destructors are user code
    const std::lock_guard lock(mutex_);
    if (n->used == expected && (expected == node::use::removing || n->quiet())) {
      old = std::exchange(n->hooks, hook_set{});
      n->used = node::use::unused;
    }
  }

  void update_wanted() noexcept {
    unsigned all = 0;
    for (const node* n = first_.load(std::memory_order_relaxed); n != nullptr; n = n->next) {
      all |= n->kinds.load(std::memory_order_relaxed);
    }
    wants.yields.store((all & kind_yielded) != 0, std::memory_order_relaxed);
    wants.completions.store((all & kind_completed) != 0, std::memory_order_relaxed);
    const bool polls = (all & (kind_before_poll | kind_after_poll)) != 0;
    if (wants.polls.exchange(polls, std::memory_order_relaxed) != polls && changed_ != nullptr) {
      changed_(context_, polls);
    }
  }

  std::atomic<node*> first_{nullptr};
  std::atomic<std::uint64_t> errors_{0};
  std::mutex mutex_;
  void (*changed_)(void*, bool) = nullptr;
  void* context_ = nullptr;
};

registry::connection::connection(std::shared_ptr<state> owner, node* where) noexcept
    : state_(std::move(owner)), node_(where) {}

registry::connection::connection(connection&& other) noexcept
    : state_(std::move(other.state_)), node_(std::exchange(other.node_, nullptr)) {}

registry::connection& registry::connection::operator=(connection&& other) noexcept {
  if (this != &other) {
    disconnect();
    state_ = std::move(other.state_);
    node_ = std::exchange(other.node_, nullptr);
  }
  return *this;
}

registry::connection::~connection() { disconnect(); }

void registry::connection::disconnect() noexcept {
  // Reset first, because the hooks' destructors are user code and may call this again.
  node* const n = std::exchange(node_, nullptr);
  const std::shared_ptr<state> owner = std::move(state_);
  if (n != nullptr) {
    owner->remove(n);
  }
}

registry::registry() : state_(std::make_shared<state>()), wanted_(&state_->wants) {}

registry::~registry() { state_->listen(nullptr, nullptr); }

registry::connection registry::install(hook_set hooks) {
  return {state_, state_->install(std::move(hooks))};
}

void registry::set_listener(void (*changed)(void*, bool), void* context) noexcept {
  state_->listen(changed, context);
}

void registry::task_spawned(const task_event& event) noexcept {
  state_->fire(kind_task_spawned, &hook_set::task_spawned, event);
}

void registry::before_poll(const poll_event& event) noexcept {
  state_->fire(kind_before_poll, &hook_set::before_poll, event);
}

void registry::after_poll(const poll_event& event) noexcept {
  state_->fire(kind_after_poll, &hook_set::after_poll, event);
}

void registry::tier_changed(const tier_event& event) noexcept {
  state_->fire(kind_tier_changed, &hook_set::tier_changed, event);
}

void registry::stall(const stall_event& event) noexcept {
  state_->fire(kind_stall, &hook_set::stall, event);
}

void registry::yielded(const yield_event& event) noexcept {
  state_->fire(kind_yielded, &hook_set::yielded, event);
}

void registry::completed(const completion_event& event) noexcept {
  state_->fire(kind_completed, &hook_set::completed, event);
}

bool registry::calling() noexcept { return innermost != nullptr && innermost->poll == this_poll(); }

void registry::options_changed(const options_event& event) noexcept {
  state_->fire(kind_options_changed, &hook_set::options_changed, event);
}

std::uint64_t registry::hook_errors() const noexcept { return state_->errors(); }

}  // namespace asio_pulse::hooks
