// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/poll_path.hpp>

#include <cstddef>
#include <cstdint>

namespace asio_pulse::detail {

struct parked_work;

/// One entry of Asio's queue, as the gate sees it.
struct queued {
  enum class kind : std::uint8_t {
    handler,
    reactor,  ///< the reactor's turn
    internal  ///< an internal object of Asio, whose handlers are not known
  } what;
  hooks::task_record* task;  ///< of a handler; null if it belongs to no task
};

/// Reads Asio's queue from its front. Called with the scheduler's mutex held.
class queue_reader {
 public:
  virtual ~queue_reader() = default;
  struct answer {
    bool enough;      ///< the next entry need not be shown
    bool put_behind;  ///< see asio_port::put_driver()
  };
  [[nodiscard]] virtual answer see(const queued& entry) noexcept = 0;
};

/// Takes operations out of Asio's queue, for asio_port::sweep_new(). Called with the scheduler's mutex
/// held.
class queue_sweeper {
 public:
  virtual ~queue_sweeper() = default;
  struct answer {
    parked_work* to = nullptr;  ///< where the operation goes; null: it stays in the queue
    std::uint32_t number = 0;   ///< its number, if it goes
    /// It stays, and has to get its turn soon: the gate sees only then what it brings.
    bool soon = false;
  };
  /// `kind_of_operation` is the same for operations of the same type.
  [[nodiscard]] virtual answer see(const queued& entry, const void* kind_of_operation) noexcept = 0;
};

/// The part of a context that knows Asio, as its core sees it. It is implemented in a header, so
/// that the compiled library works with every version of Asio.
class asio_port {
 public:
  /// Asio's scheduler of this context.
  [[nodiscard]] virtual void* scheduler() const noexcept = 0;
  /// Whether Asio locks everything that it shares between handlers. If not, it may be inside a
  /// change without holding a lock that can be counted.
  [[nodiscard]] virtual bool locks() const noexcept { return false; }
  /// Appends the operation, which gets a number, to the parked work, and keeps the context's count
  /// of work. The gate's mutex is held, as in the next seven functions.
  virtual void append(parked_work& to, void* operation, std::uint32_t number) noexcept = 0;
  /// Moves the task's operations in the queue behind the parked ones, as long as they are of the
  /// same kind as the operation `like`. Returns how many. They get numbers from `number` on.
  virtual std::size_t sweep(const hooks::task_record& t, parked_work& to, const void* like,
                            std::uint32_t number) noexcept = 0;
  /// Removes the oldest parked operation from the list, which must not be empty, and returns it.
  [[nodiscard]] virtual void* take(parked_work& from) noexcept = 0;
  /// The number of the oldest parked operation.
  [[nodiscard]] virtual std::uint32_t first_number(const parked_work& of) const noexcept = 0;
  /// Moves all parked operations back to the front of the queue, and returns how many. They run
  /// without asking the gate again.
  virtual std::size_t put_in_front(parked_work& from) noexcept = 0;
  /// Shows the queue to `r` until it has seen enough.
  virtual void read_queue(queue_reader& r) noexcept = 0;
  /// Puts the driver into the queue: at the end if `at_the_end`; otherwise behind the last entry
  /// for which `r` returned `put_behind`, or to the front if there is none. The driver's turn
  /// releases at most one parked operation; see parking::release().
  virtual void put_driver(queue_reader& r, bool at_the_end) noexcept = 0;
  virtual void put_driver_in_front() noexcept = 0;
  /// What is in the queue after sweep_new().
  struct queue_state {
    bool soon = false;     ///< an entry that was seen has to get its turn soon
    bool others = false;   ///< entries that stay, besides the reactor's
    bool reactor = false;  ///< the reactor's turn, which is at the front now
  };
  /// Shows the entries that were added since the last call to `s`, which may take them out. Each entry
  /// is shown once, so this costs nothing for those that stay in the queue for long.
  [[nodiscard]] virtual queue_state sweep_new(queue_sweeper& /*s*/) noexcept { return {}; }
  /// What queue_sweeper::see() gets as the kind of this operation.
  [[nodiscard]] virtual const void* kind_of(const void* /*operation*/) const noexcept {
    return nullptr;
  }
  enum class place : std::uint8_t {
    reactor,  ///< behind the reactor's turn, which is at the front
    next,     ///< behind the first other entry
    end       ///< behind all entries
  };
  /// Puts the driver into the queue, after sweep_new().
  virtual void put_driver_behind(place /*where*/) noexcept {}
  enum class strand_break : std::uint8_t {
    refused,  ///< `owner` is not a strand
    rest,     ///< the rest of the batch gets a turn of its own
    joined,   ///< the rest runs together with what was waiting for the next turn
  };
  /// Puts the operation and the rest of the batch back in front of its strand.
  [[nodiscard]] virtual strand_break break_strand(void* owner, void* operation) noexcept = 0;
  /// Whether `owner` is a strand that this thread is draining.
  [[nodiscard]] virtual bool drains_strand(void* owner) const noexcept = 0;
  /// Puts the rest of the batch back to the front of the strand that this thread is draining.
  /// Returns false if there is no rest.
  [[nodiscard]] virtual bool put_back_rest(void* strand) noexcept = 0;
  /// Whether this is inside a handler of a legacy io_context::strand, whose operations complete
  /// with the scheduler as the owner.
  [[nodiscard]] virtual bool in_legacy_strand() const noexcept = 0;
  /// Called by the watchdog: this many of the context's workers for which another thread could take
  /// over are stuck in a handler. Called at every look while it is not zero. It may start a thread,
  /// but must not block.
  virtual void compensate(std::size_t /*stuck*/) noexcept {}
  /// Called by the watchdog: a stall has ended, and this many workers are still stuck.
  virtual void relieved(std::size_t /*still_stuck*/) noexcept {}
  /// Puts an operation at the end of the scheduler's queue that calls context_core::probed() when
  /// it runs, unless the last one has not run yet. Returns false if this is not possible: the
  /// scheduler uses no locks, and the caller is not `on_worker`, one of its threads.
  virtual bool post_probe(bool /*on_worker*/) noexcept { return false; }

 protected:
  ~asio_port() = default;
};

}  // namespace asio_pulse::detail
