// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <asio_pulse/detail/shards/shard.hpp>
#include <asio_pulse/sharded_context.hpp>

#include <cstddef>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

namespace asio_pulse {

/// One instance of a value for each shard, such as a cache or a pool of connections. A shard uses its
/// own instance without a lock, and reaches those of other shards by messages:
///
///     asio_pulse::sharded<cache> caches(shards);
///     caches.local().insert(x);                                      // on a shard
///     n = co_await shards.on(2, [&] { return caches.local().size(); });
///
/// All instances are made by the constructor and destroyed by the destructor, on the threads that
/// call these. So it must outlive run(); handlers that are still queued may refer to it, as they are
/// destroyed without being run. Two instances are never in one cache line.
///
/// \par Thread safety  local(): any shard. at(): whoever knows that the shard does not use it.
template <class T>
class sharded {
 public:
  /// Makes an instance `T(args...)` for each shard.
  ///
  /// \par Errors  What the constructor of T throws; std::bad_alloc.
  template <class... Args>
  explicit sharded(const sharded_context& shards, const Args&... args) : shards_(&shards) {
    instances_.reserve(shards.size());
    for (std::size_t i = 0; i != shards.size(); ++i) {
      instances_.push_back(std::make_unique<instance>(args...));
    }
  }

  /// The instance of this shard.
  ///
  /// \par Errors  std::logic_error if the calling thread is not a shard's.
  [[nodiscard]] T& local() const {
    if (const auto here = shards_->this_shard()) return instances_[*here]->value;
    throw std::logic_error("asio_pulse::sharded: local() must be called on a shard's thread");
  }
  /// The instance of a shard, for use while run() is not active.
  ///
  /// \par Errors  std::out_of_range.
  [[nodiscard]] T& at(std::size_t shard) const { return instances_.at(shard)->value; }
  [[nodiscard]] std::size_t size() const noexcept { return instances_.size(); }

 private:
  struct alignas(detail::apart) instance {
    template <class... Args>
    explicit instance(const Args&... args) : value(args...) {}
    T value;
  };

  const sharded_context* shards_;
  std::vector<std::unique_ptr<instance>> instances_;
};

}  // namespace asio_pulse
