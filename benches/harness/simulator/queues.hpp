// SPDX-License-Identifier: BSL-1.0
//
// The requests that wait for a thread, and which of them is next.

#pragma once

#include "fair_policy.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <vector>

namespace simulation {

inline constexpr std::uint32_t no_connection = 0xffffffffU;  // work of the scheduler itself

struct request {
  std::int64_t at = 0;
  std::int64_t work = 0;
  std::uint32_t connection = no_connection;
};

using hog_list = std::vector<bool>;  // by connection

/// The requests that wait for one thread.
class waiting {
 public:
  virtual ~waiting() = default;
  virtual void push(const request& r, std::int64_t now) = 0;
  virtual request pop(std::int64_t now) = 0;
  virtual void served(const request&, std::int64_t) {}
  [[nodiscard]] virtual std::size_t size() const = 0;
  /// When the oldest of them arrived.
  [[nodiscard]] virtual std::int64_t oldest() const = 0;
  /// Takes away the requests of at most so many connections, all of each.
  virtual std::vector<request> take(std::size_t connections, std::int64_t now,
                                    const hog_list& not_these) = 0;
};

inline std::vector<request> split(std::deque<request>& from, std::vector<std::uint32_t>& chosen,
                                  std::size_t most, const hog_list& not_these) {
  std::vector<request> taken;
  std::deque<request> rest;
  for (const request& r : from) {
    const bool known = std::find(chosen.begin(), chosen.end(), r.connection) != chosen.end();
    const bool may = r.connection != no_connection && !not_these[r.connection];
    if (may && (known || chosen.size() < most)) {
      if (!known) chosen.push_back(r.connection);
      taken.push_back(r);
    } else {
      rest.push_back(r);
    }
  }
  from.swap(rest);
  return taken;
}

class in_order final : public waiting {
 public:
  void push(const request& r, std::int64_t) override { queue_.push_back(r); }
  request pop(std::int64_t) override {
    const request r = queue_.front();
    queue_.pop_front();
    return r;
  }
  [[nodiscard]] std::size_t size() const override { return queue_.size(); }
  [[nodiscard]] std::int64_t oldest() const override { return queue_.front().at; }
  std::vector<request> take(std::size_t connections, std::int64_t, const hog_list& hogs) override {
    std::vector<std::uint32_t> chosen;
    return split(queue_, chosen, connections, hogs);
  }

 private:
  std::deque<request> queue_;
};

/// Two tenants of equal weight, by the library's policy. Requests of no tenant come first.
class fairly final : public waiting {
 public:
  fairly() {
    for (tenant& t : tenants_) t.turn.group = &t.group;
  }
  fairly(const fairly&) = delete;
  fairly& operator=(const fairly&) = delete;
  ~fairly() override {
    for (tenant& t : tenants_) {
      if (!t.queue.empty()) policy_.remove(t.turn, 0);
    }
  }
  static std::size_t tenant_of(std::uint32_t connection) { return connection % 2; }

  void push(const request& r, std::int64_t now) override {
    if (r.connection == no_connection) return own_.push_back(r);
    tenant& t = tenants_[tenant_of(r.connection)];
    if (t.queue.empty()) {
      t.turn.cost = t.group.cost.load();
      policy_.add(t.turn, static_cast<std::uint64_t>(now));
    }
    t.queue.push_back(r);
  }
  request pop(std::int64_t now) override {
    if (!own_.empty()) return from(own_);
    const auto choice = policy_.next(static_cast<std::uint64_t>(now));
    tenant& t = choice.next == &tenants_[0].turn ? tenants_[0] : tenants_[1];
    const request r = from(t.queue);
    if (t.queue.empty()) policy_.remove(t.turn, static_cast<std::uint64_t>(now));
    return r;
  }
  void served(const request& r, std::int64_t cost) override {
    if (r.connection == no_connection) return;
    tenant& t = tenants_[tenant_of(r.connection)];
    t.group.cost.add_alone(static_cast<std::uint64_t>(cost));
    t.turn.cost = t.group.cost.load();
  }
  [[nodiscard]] std::size_t size() const override {
    return own_.size() + tenants_[0].queue.size() + tenants_[1].queue.size();
  }
  [[nodiscard]] std::int64_t oldest() const override {
    std::int64_t first = std::numeric_limits<std::int64_t>::max();
    for (const auto* q : {&own_, &tenants_[0].queue, &tenants_[1].queue}) {
      if (!q->empty()) first = std::min(first, q->front().at);
    }
    return first;
  }
  std::vector<request> take(std::size_t connections, std::int64_t now,
                            const hog_list& hogs) override {
    std::vector<std::uint32_t> chosen;
    std::vector<request> taken;
    for (tenant& t : tenants_) {
      if (t.queue.empty()) continue;
      const auto part = split(t.queue, chosen, connections, hogs);
      taken.insert(taken.end(), part.begin(), part.end());
      if (t.queue.empty()) policy_.remove(t.turn, static_cast<std::uint64_t>(now));
    }
    return taken;
  }

 private:
  struct tenant {
    asio_pulse::detail::fair_group group{nullptr, 100};
    asio_pulse::detail::turn turn;
    std::deque<request> queue;
  };
  static request from(std::deque<request>& q) {
    const request r = q.front();
    q.pop_front();
    return r;
  }

  std::deque<request> own_;
  std::array<tenant, 2> tenants_;
  asio_pulse::detail::fair_policy policy_{100'000'000};  // ticks are nanoseconds here
};

}  // namespace simulation
