// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <boost/lockfree/spsc_queue.hpp>

#include <atomic>
#include <cstddef>

namespace asio_pulse::detail {

/// The way from one shard to another: a bounded queue with one sender and one receiver.
///
/// \par Cost  Wait-free on both sides, no allocation after the constructor.
template <class T>
using mailbox = boost::lockfree::spsc_queue<T*>;

/// Whether the receiver of mailboxes has to be woken because something is in one of them. There is one
/// for each receiver. The receiver is *awake* while its driver is in its queue or has its turn, and
/// then looks into all of its mailboxes by itself.
///
/// No wake-up is lost. A sender pushes, then calls must_wake(). The receiver calls fall_asleep(),
/// then looks into its mailboxes once more, and calls stay_awake() if one is not empty. Both have a
/// sequentially consistent fence between their store and their load:
///
///     sender                                receiver
///     S1  store the mailbox's write index   R1  asleep = true
///         fence                                 fence
///     S2  load asleep                       R2  load the mailbox's write index
///
/// One of the fences comes first in the order of all sequentially consistent operations. If it is
/// the sender's, R2 sees S1 or later, and the receiver stays awake. If it is the receiver's, S2
/// sees R1 or a later value. A later value is `false` if a sender or the receiver has exchanged it,
/// which is then the one that posts the driver. If that driver falls asleep again before it has
/// seen this message, it stores `true` after S2's value in the order of `asleep`, so that the
/// sender's fence comes before the one of that store, and the first case applies.
/// (C++20 [atomics.order] 4.3: a read that a fence precedes, and a later write that a fence
/// follows.) Of several that exchange `true` only one gets it, so the driver is posted once.
///
/// The flag publishes no data. That is done by the mailbox's indices (release and acquire) and, for
/// the state of the driver, by the exchange (acquire and release) and Asio's queue.
///
/// \par Thread safety  must_wake(): any thread. The others: the receiver.
class sleep_flag {
 public:
  /// Whether the caller, who has just pushed, has to post the receiver's driver.
  ///
  /// \par Cost  A fence and a load of a cache line that only changes when the receiver falls asleep
  ///            or is woken.
  [[nodiscard]] bool must_wake() noexcept {
    std::atomic_thread_fence(std::memory_order_seq_cst);  // pairs with fall_asleep()
    return asleep_.load(std::memory_order_relaxed) &&
           asleep_.exchange(false, std::memory_order_acq_rel);
  }

  /// To be followed by a look into all mailboxes.
  void fall_asleep() noexcept {
    // Release: whoever exchanges it gets the driver as its last turn has left it.
    asleep_.store(true, std::memory_order_release);
    std::atomic_thread_fence(std::memory_order_seq_cst);  // pairs with must_wake()
  }
  /// After fall_asleep(): something was found. Returns false if a sender has seen the receiver
  /// asleep meanwhile, and posts the driver.
  [[nodiscard]] bool stay_awake() noexcept {
    return asleep_.exchange(false, std::memory_order_acq_rel);
  }

 private:
  std::atomic<bool> asleep_{true};
};

}  // namespace asio_pulse::detail
