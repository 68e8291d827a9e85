// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/hooks/locked_word.hpp>
#include <asio_pulse/hooks/sockets.hpp>

#include <array>
#include <atomic>
#include <new>

namespace asio_pulse::hooks {
namespace {

/// An entry of the table: the task of a descriptor, to which it holds one reference, and flags in
/// the bits that a task's alignment leaves free.
///
/// Asio requires that the program serialises the operations on a socket, including its closing. But
/// a connect may complete while a time-out closes the socket, hence the lock.
class entry {
 public:
  static constexpr std::uintptr_t locked = locked_word::locked;
  static constexpr std::uintptr_t fresh = 2;  ///< no operation was started on it yet

  static task_record* task_in(std::uintptr_t word) noexcept {
    return reinterpret_cast<task_record*>(word & ~(locked | fresh));
  }
  static std::uintptr_t word_of(task_record* t, bool is_fresh) noexcept {
    return reinterpret_cast<std::uintptr_t>(t) | (is_fresh ? fresh : 0);
  }

  /// The word without the lock, to be compared and not to be followed. Relaxed: if it equals a task
  /// of the caller, the caller has a reference of its own.
  [[nodiscard]] std::uintptr_t peek() const noexcept {
    return word_.peek(std::memory_order_relaxed);
  }
  [[nodiscard]] std::uintptr_t lock() noexcept { return word_.lock(); }
  void unlock(std::uintptr_t word) noexcept { word_.unlock(word); }

  /// Returns the old word, with its reference.
  [[nodiscard]] task_record* exchange(std::uintptr_t word) noexcept {
    const std::uintptr_t before = lock();
    unlock(word);
    return task_in(before);
  }

 private:
  locked_word word_;
};

// Two levels, because descriptors are small numbers and most programs have few. Chunks are never
// freed, because readers of the table take no lock.
constexpr std::size_t chunk_bits = 10;
constexpr std::size_t chunk_size = std::size_t{1} << chunk_bits;
constexpr std::size_t chunks = 1024;  // for a million descriptors; others are not in the table
using chunk = std::array<entry, chunk_size>;

// Acquire and release: a thread that finds a chunk finds it constructed.
constinit std::array<std::atomic<chunk*>, chunks> table{};

bool in_table(descriptor socket) noexcept {
  return socket >= 0 && static_cast<std::size_t>(socket) < chunks * chunk_size;
}

/// Null if the table has no chunk for it.
entry* find(descriptor socket) noexcept {
  if (!in_table(socket)) return nullptr;
  const auto index = static_cast<std::size_t>(socket);
  chunk* const c = table[index >> chunk_bits].load(std::memory_order_acquire);
  return c == nullptr ? nullptr : &(*c)[index & (chunk_size - 1)];
}

/// Null if there is no memory.
entry* make(descriptor socket) noexcept {
  if (!in_table(socket)) return nullptr;
  const auto index = static_cast<std::size_t>(socket);
  std::atomic<chunk*>& place = table[index >> chunk_bits];
  chunk* c = place.load(std::memory_order_acquire);
  if (c == nullptr) {
    auto* const fresh = new (std::nothrow) chunk{};
    if (fresh == nullptr) return nullptr;
    if (place.compare_exchange_strong(c, fresh, std::memory_order_acq_rel)) {
      c = fresh;
    } else {
      delete fresh;  // another thread was first
    }
  }
  return &(*c)[index & (chunk_size - 1)];
}

bool declared(const task_record* t) noexcept { return t != nullptr && t->home->declared(*t); }

/// The operation belongs to another task than the socket, or no task has used the socket yet.
ASIO_PULSE_DETAIL_NOINLINE void decide_owner(tracked_operation& op, entry& at) noexcept {
  task_record* const mine = op.task();
  const bool keeps = declared(mine);
  const std::uintptr_t word = at.lock();
  task_record* const owner = entry::task_in(word);
  if (owner == nullptr || owner == mine) {
    at.unlock(entry::word_of(owner, false));
    return;
  }
  if (!keeps) {
    acquire(*owner);
    at.unlock(entry::word_of(owner, false));
    op.assign(owner);
  } else if ((word & entry::fresh) != 0) {
    acquire(*mine);
    at.unlock(entry::word_of(mine, false));
    release(*owner);
  } else {
    at.unlock(word);
  }
}

}  // namespace

void socket_operation_created(tracked_operation& op, descriptor socket) noexcept {
  op.announce();
  entry* const at = find(socket);
  if (at == nullptr) return;
  const std::uintptr_t word = at->peek();
  if (word == 0 || word == reinterpret_cast<std::uintptr_t>(op.task())) return;
  decide_owner(op, *at);
}

void connect_created(tracked_operation& op, descriptor socket, void* scheduler) noexcept {
  op.announce();
  task_record* const t = op.task();
  if (declared(t)) {
    own_socket(socket, *t, false);
    return;
  }
  task_record* const made = connecting(scheduler, t);
  if (made == nullptr) return;
  own_socket(socket, *made, false);
  op.assign(made);
}

void own_socket(descriptor socket, task_record& t, bool fresh) noexcept {
  entry* const at = make(socket);
  if (at == nullptr) return;
  acquire(t);
  if (task_record* const before = at->exchange(entry::word_of(&t, fresh))) release(*before);
}

task_record* owner_of_socket(descriptor socket) noexcept {
  entry* const at = find(socket);
  if (at == nullptr) return nullptr;
  const std::uintptr_t word = at->lock();
  task_record* const t = entry::task_in(word);
  if (t != nullptr) acquire(*t);
  at->unlock(word);
  return t;
}

void socket_released(descriptor socket) noexcept {
  entry* const at = find(socket);
  if (at == nullptr || at->peek() == 0) return;
  if (task_record* const t = at->exchange(0)) release(*t);
}

void socket_closing(descriptor socket) noexcept {
  entry* const at = find(socket);
  if (at == nullptr || at->peek() == 0) return;
  task_record* const t = at->exchange(0);
  if (t == nullptr) return;
  t->home->connection_closed(*t);
  release(*t);
}

}  // namespace asio_pulse::hooks
