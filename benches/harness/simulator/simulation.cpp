// SPDX-License-Identifier: BSL-1.0
#include "simulation.hpp"

#include "queues.hpp"
#include "random.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <memory>
#include <queue>
#include <utility>

namespace simulation {

using asio_pulse::balance_decision;
using asio_pulse::movable_load;
using asio_pulse::shard_balancer;
using asio_pulse::shard_report;

void distribution::add(std::int64_t v) {
  const auto value = static_cast<std::uint64_t>(std::max<std::int64_t>(v, 0));
  const int shift = std::max(static_cast<int>(std::bit_width(value)) - 6, 0);
  ++buckets_[static_cast<std::size_t>(shift) * 32 + (value >> static_cast<unsigned>(shift))];
  ++count_;
  sum_ += static_cast<double>(value);
}

double distribution::quantile(double q) const {
  const auto wanted = static_cast<std::uint64_t>(std::ceil(q * static_cast<double>(count_)));
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i != buckets_.size(); ++i) {
    seen += buckets_[i];
    if (seen < wanted || buckets_[i] == 0) continue;
    if (i < 64) return static_cast<double>(i);
    const std::size_t shift = i / 32 - 1;
    return std::ldexp(static_cast<double>(i - shift * 32) + 0.5, static_cast<int>(shift));
  }
  return 0;
}

namespace {

constexpr double nanoseconds = 1e9;

struct event {
  enum what : std::uint32_t { done, look, wake };
  std::int64_t at;
  what kind;
  std::uint32_t cpu;
  friend bool operator>(const event& a, const event& b) { return a.at > b.at; }
};

struct cpu {
  std::unique_ptr<waiting> queue;
  bool busy = false;
  request current;
  std::int64_t began = 0;       // the current request
  std::int64_t busy_since = 0;  // or since the window began
  std::int64_t busy_ns = 0;     // before that, in this window
  std::int64_t window_ends = 0;
  std::vector<std::uint32_t> touched;         // connections that were served in this window
  std::vector<std::uint32_t> touched_before;  // and in the one before
  std::vector<movable_load> last;             // of both, at the end of a window
};

class machine {
 public:
  explicit machine(const settings& s)
      : s_(s),
        random_(s.seed),
        cpus_(s.cpus),
        reports_(s.cpus),
        offered_(s.cpus),
        things_(s.cpus),
        turns_(s.cpus) {
    for (std::size_t i = 0; i != s.cpus; ++i) {
      cpus_[i].queue = s.fair ? std::unique_ptr<waiting>(std::make_unique<fairly>())
                              : std::make_unique<in_order>();
      idle_.push_back(static_cast<std::uint32_t>(i));
      // Shards do not measure at the same time.
      const std::int64_t first =
          s.look.count() * static_cast<std::int64_t>(i) / static_cast<std::int64_t>(s.cpus);
      cpus_[i].window_ends = first + s.window.count();
      if (!shards()) continue;
      balancers_.emplace_back(i, s.cpus, s.balance);
      if (s.what == kind::moving) events_.push({first, event::look, static_cast<std::uint32_t>(i)});
    }
  }

  result run() {
    make_connections();
    const std::int64_t end = s_.settle.count() + s_.length.count();
    std::int64_t next = arrival_after(0);
    std::int64_t sample = sampling;
    while (now_ < end) {
      const std::int64_t at = std::min({next, sample, events_.empty() ? end : events_.top().at});
      now_ = std::min(at, end);
      if (now_ >= end) break;
      if (!events_.empty() && events_.top().at == at) {
        const event e = events_.top();
        events_.pop();
        handle(e);
      } else if (at == next) {
        arrive();
        next = arrival_after(now_);
      } else {
        look_at_balance();
        sample += sampling;
      }
    }
    return finish();
  }

  distribution replay(const std::vector<traced>& trace) {
    work_of_.assign(1, 0);
    for (std::size_t i = 0; i != trace.size();) {
      const std::int64_t at = trace[i].at.count();
      if (!events_.empty() && events_.top().at <= at) {
        const event e = events_.top();
        events_.pop();
        now_ = e.at;
        handle(e);
        continue;
      }
      now_ = at;
      const request r{at, trace[i].work.count(), 0};
      to_cpu(asio_pulse::placer::by_key(std::uint64_t{trace[i].key}, s_.cpus), r);
      ++i;
    }
    while (!events_.empty()) {
      const event e = events_.top();
      events_.pop();
      now_ = e.at;
      handle(e);
    }
    return out_.delay;
  }

 private:
  static constexpr std::int64_t sampling = 10'000'000;

  [[nodiscard]] bool shards() const { return s_.what == kind::still || s_.what == kind::moving; }
  [[nodiscard]] bool measured() const { return now_ >= s_.settle.count(); }

  // ---- connections

  void make_connections() {
    const std::size_t n = s_.load.connections;
    rates_.resize(n);
    home_.resize(n);
    work_of_.assign(n, 0);
    before_.assign(n, 0);
    hogs_.assign(n, false);
    none_.assign(n, false);
    double total = 0;
    for (std::size_t i = 0; i != n; ++i) {
      rates_[i] = std::pow(static_cast<double>(i + 1), -s_.load.zipf);
      if (s_.load.flood > 0 && fairly::tenant_of(static_cast<std::uint32_t>(i)) == 1)
        rates_[i] *= s_.load.flood;
      total += rates_[i];
    }
    const double all = s_.load.utilisation * static_cast<double>(s_.cpus) * nanoseconds /
                       static_cast<double>(s_.load.work.count());  // requests a second
    // No connection has more than a third of a CPU: then nothing could be balanced.
    const double most = nanoseconds / 3 / static_cast<double>(s_.load.work.count());
    for (double& r : rates_) r = std::min(r / total * all, most);
    const std::size_t slow = std::min(s_.load.slow_connections, n);
    std::fill_n(rates_.begin(), slow,
                nanoseconds / 2 / static_cast<double>(s_.load.slow_work.count()));
    for (std::uint32_t i = 0; i != n; ++i) place(i);
    rates_changed();
  }
  void place(std::uint32_t connection) {
    if (!shards()) return;
    std::size_t to = 0;
    if (s_.by_key) {
      to = asio_pulse::placer::by_key(std::uint64_t{connection} + generation_, s_.cpus);
    } else if (s_.placement == asio_pulse::placement_rule::round_robin) {
      to = placer_.round_robin(s_.cpus);
    } else {
      loads_.clear();
      for (const shard_report& r : reports_) loads_.push_back(r.load);
      to = placer_.least_loaded(loads_);
    }
    home_[connection] = static_cast<std::uint32_t>(to);
    offered_[to] += rates_[connection];
    ++things_[to];
  }
  void rates_changed() {
    by_rate_.set(rates_);
    rate_ = 0;
    for (const double r : rates_) rate_ += r;
  }
  [[nodiscard]] bool is_slow(std::uint32_t connection) const {
    return connection < s_.load.slow_connections;
  }
  void get_hot() {
    offered_[0] = 0;
    for (std::size_t i = 0; i != rates_.size(); ++i) {
      if (home_[i] != 0) continue;
      rates_[i] *= s_.load.hot_factor;
      offered_[0] += rates_[i];
    }
    rates_changed();
  }
  void replace_some() {
    replacements_ +=
        s_.load.replaced_a_second * static_cast<double>(rates_.size()) * sampling / nanoseconds;
    for (; replacements_ >= 1; --replacements_) {
      const auto c = static_cast<std::uint32_t>(random_.below(rates_.size()));
      offered_[home_[c]] -= rates_[c];
      --things_[home_[c]];
      if (hogs_[c]) --reports_[home_[c]].hogs;
      hogs_[c] = false;  // it is a new one
      generation_ += rates_.size();
      place(c);
    }
  }
  void move(std::uint32_t connection, std::size_t to, asio_pulse::move_reason why) {
    const std::size_t from = home_[connection];
    offered_[from] -= rates_[connection];
    offered_[to] += rates_[connection];
    --things_[from];
    ++things_[to];
    if (hogs_[connection]) {
      --reports_[from].hogs;
      ++reports_[to].hogs;
    }
    home_[connection] = static_cast<std::uint32_t>(to);
    work_of_[connection] = before_[connection] = 0;
    if (why == asio_pulse::move_reason::imbalance) reports_[to].moved_in = ns(now_);
    ++out_.moves;
    const bool counts =
        s_.load.hot_factor > 1 ? now_ > s_.load.hot_at.count() + 1'000'000'000 : measured();
    if (counts) ++counted_moves_;
    moving_ += s_.cost.move.count();
    to_cpu(to, {now_, s_.cost.move.count() / 2, no_connection});
  }

  // ---- requests

  std::int64_t arrival_after(std::int64_t t) {
    return t + 1 + static_cast<std::int64_t>(random_.exponential(nanoseconds / rate_));
  }
  void arrive() {
    const std::uint32_t c = by_rate_.draw(random_);
    request r{now_,
              1 + static_cast<std::int64_t>(
                      random_.exponential(static_cast<double>(s_.load.work.count()))),
              c};
    if (is_slow(c)) r.work = s_.load.slow_work.count();
    if (measured()) ++out_.arrived;
    switch (s_.what) {
      case kind::one_queue:
        return to_one_queue(r);
      case kind::stealing:
        return to_any(r);
      default:
        return to_cpu(home_[c], r);
    }
  }
  void to_one_queue(const request& r) {
    // If the mutex cannot serve what arrives, the rest is lost, so that it does not keep the threads
    // from their work.
    constexpr std::int64_t longest_wait = 1000;
    if (lock_free_ - now_ > longest_wait) return;
    lock_free_ = std::max(lock_free_, now_) + s_.cost.lock.count();
    overhead_ += s_.cost.lock.count();
    if (idle_.empty()) return cpus_[0].queue->push(r, now_);
    const std::uint32_t which = idle_.back();
    idle_.pop_back();
    begin(which, r, lock_free_ + s_.cost.wake.count());
  }
  void to_any(const request& r) {
    const auto which = static_cast<std::uint32_t>(random_.below(s_.cpus));
    if (!cpus_[which].busy) {
      idle_.erase(std::find(idle_.begin(), idle_.end(), which));
      return begin(which, r, now_ + s_.cost.wake.count());
    }
    cpus_[which].queue->push(r, now_);
    if (idle_.empty()) return;
    const std::uint32_t thief = idle_.back();
    idle_.pop_back();
    cpus_[thief].busy = true;
    cpus_[thief].busy_since = cpus_[thief].began = now_ + s_.cost.wake.count();
    events_.push({now_ + s_.cost.wake.count(), event::wake, thief});
  }
  void to_cpu(std::size_t which, const request& r) {
    if (cpus_[which].busy) return cpus_[which].queue->push(r, now_);
    begin(static_cast<std::uint32_t>(which), r, now_ + s_.cost.wake.count());
  }
  void begin(std::uint32_t which, const request& r, std::int64_t at) {
    cpu& c = cpus_[which];
    if (!c.busy) c.busy_since = at;
    c.busy = true;
    c.current = r;
    c.began = at;
    reports_[which].poll_began = ns(at);
    if (r.connection != no_connection) {
      overhead_ += s_.cost.handler.count();
      if (measured()) {
        if (!is_slow(r.connection)) out_.delay.add(at - r.at);
        if (s_.load.flood > 0 && fairly::tenant_of(r.connection) == 0)
          out_.small_delay.add(at - r.at);
        work_ += r.work;
        ++out_.served;
      }
    }
    events_.push({at + r.work, event::done, which});
  }
  void done(std::uint32_t which) {
    cpu& c = cpus_[which];
    const std::uint32_t connection = c.current.connection;
    c.queue->served(c.current, c.current.work);
    if (s_.what == kind::moving && connection != no_connection) {
      if (work_of_[connection] == 0) c.touched.push_back(connection);
      work_of_[connection] += static_cast<std::uint32_t>(c.current.work + s_.cost.handler.count());
    }
    if (s_.what == kind::moving && connection != no_connection) turn_ends(which, connection);
    find_work(which);
  }
  void turn_ends(std::uint32_t which, std::uint32_t connection) {
    ++turns_[which].all;
    if (cpus_[which].current.work < s_.balance.stuck_after.count()) return;
    ++turns_[which].slow;
    show_turns(which);
    if (!hogs_[connection]) ++reports_[home_[connection]].hogs;
    hogs_[connection] = true;
    // Its next request was taken over meanwhile. (A real session moves between two requests only.)
    if (home_[connection] != which) return;
    reports_[which].poll_began = ns(0);
    const std::size_t home = balancers_[which].home_of_hog(reports_, ns(now_));
    if (home != which) move(connection, home, asio_pulse::move_reason::stuck);
  }
  void show_turns(std::uint32_t which) {
    turns& t = turns_[which];
    while (now_ - t.forgotten >= 1'000'000'000) {
      t.all /= 2;
      t.slow /= 2;
      t.forgotten += 1'000'000'000;
    }
    reports_[which].turns = t.all;
    reports_[which].long_turns = t.slow;
  }
  void find_work(std::uint32_t which) {
    cpu& c = cpus_[which];
    if (s_.what == kind::one_queue) {
      const std::int64_t got = std::max(lock_free_, now_) + s_.cost.lock.count();
      if (cpus_[0].queue->size() != 0) {
        lock_free_ = got;
        overhead_ += got - now_;
        return begin(which, cpus_[0].queue->pop(now_), got + s_.cost.handler.count());
      }
    } else if (c.queue->size() != 0) {
      return begin(which, c.queue->pop(now_), now_ + s_.cost.handler.count());
    } else if (s_.what == kind::stealing) {
      if (steal(which)) return;
    }
    c.busy = false;
    c.busy_ns += std::max<std::int64_t>(now_ - c.busy_since, 0);
    reports_[which].poll_began = ns(0);
    if (!shards()) idle_.push_back(which);
  }
  bool steal(std::uint32_t which) {
    const std::size_t first = random_.below(s_.cpus);
    std::int64_t cost = 0;
    for (std::size_t i = 0; i != s_.cpus; ++i) {
      cpu& victim = cpus_[(first + i) % s_.cpus];
      cost += s_.cost.steal.count();
      if (victim.queue->size() == 0) continue;
      const std::size_t half = (victim.queue->size() + 1) / 2;
      const request r = victim.queue->pop(now_);
      for (std::size_t k = 1; k < half; ++k)
        cpus_[which].queue->push(victim.queue->pop(now_), now_);
      overhead_ += cost;
      begin(which, r, now_ + cost + s_.cost.handler.count());
      return true;
    }
    return false;
  }

  // ---- shards

  void handle(const event& e) {
    switch (e.kind) {
      case event::done:
        return done(e.cpu);
      case event::wake:
        return find_work(e.cpu);
      case event::look:
        look(e.cpu);
        events_.push({now_ + s_.look.count(), event::look, e.cpu});
    }
  }
  void measure(std::uint32_t which) {
    cpu& c = cpus_[which];
    shard_report& r = reports_[which];
    if (c.busy) {
      c.busy_ns += std::max<std::int64_t>(now_ - c.busy_since, 0);
      c.busy_since = std::max(now_, c.busy_since);
    }
    const std::int64_t began = r.window_ended.count();
    const auto length = static_cast<double>(std::max<std::int64_t>(now_ - began, 1));
    r.load.cpu_permille =
        static_cast<std::uint32_t>(std::min(static_cast<double>(c.busy_ns) / length, 1.0) * 1000);
    r.delay_before = r.load.delay;
    r.load.delay = ns(c.queue->size() == 0 ? 0 : now_ - c.queue->oldest());
    r.window_began = r.window_ended;
    r.window_ended = ns(now_);
    c.busy_ns = 0;
    c.last.clear();
    double movable = 0;
    const auto ppm = [length](std::uint32_t work) {
      return static_cast<std::uint32_t>(work / length * 1e6);
    };
    for (const std::uint32_t id : c.touched) {
      if (home_[id] != which) continue;
      movable += work_of_[id] / length;
      c.last.push_back({id, ppm(work_of_[id]), ppm(before_[id])});
      before_[id] = 0;  // so that it is not listed twice
    }
    for (const std::uint32_t id : c.touched_before) {
      if (home_[id] != which || before_[id] == 0) continue;
      c.last.push_back({id, 0, ppm(before_[id])});
      before_[id] = 0;
    }
    for (const std::uint32_t id : c.touched) {
      if (home_[id] == which) before_[id] = std::exchange(work_of_[id], 0U);
    }
    c.touched_before.swap(c.touched);
    c.touched.clear();
    r.movable_permille = static_cast<std::uint32_t>(std::min(movable, 1.0) * 1000);
    c.window_ends = now_ + s_.window.count();
  }
  void look(std::uint32_t which) {
    cpu& c = cpus_[which];
    // A thread in a long handler cannot look at anything.
    if (c.busy && now_ - c.began > s_.look.count()) return;
    if (now_ >= c.window_ends) measure(which);
    show_turns(which);
    // Of a stuck shard only what waits is taken over.
    for (std::size_t i = 0; i != cpus_.size(); ++i) {
      const bool stuck = shard_balancer::is_stuck(reports_[i], s_.balance, ns(now_));
      reports_[i].movable =
          stuck ? static_cast<std::uint32_t>(cpus_[i].queue->size()) + reports_[i].hogs
                : things_[i];
    }
    for (;;) {
      const auto start = std::chrono::steady_clock::now();
      const balance_decision d = balancers_[which].decide(reports_, ns(now_));
      deciding_ +=
          std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start)
              .count();
      ++decisions_;
      if (d.what == balance_decision::kind::stay) break;
      d.what == balance_decision::kind::give ? give(which, d) : take(which, d);
    }
  }
  void give(std::uint32_t which, const balance_decision& d) {
    std::vector<movable_load>& last = cpus_[which].last;
    if (!d.hogs) std::erase_if(last, [this](const movable_load& m) { return hogs_[m.id]; });
    const std::size_t n = choose_moves(last, d);
    std::uint64_t ppm = 0;
    for (std::size_t i = 0; i != n; ++i) {
      ppm += last[i].ppm;
      move(static_cast<std::uint32_t>(last[i].id), d.shard, d.reason);
      to_cpu(which, {now_, s_.cost.move.count() / 2, no_connection});
    }
    last.erase(last.begin(), last.begin() + static_cast<std::ptrdiff_t>(n));
    balancers_[which].moved(d, static_cast<std::uint32_t>(n), static_cast<std::uint32_t>(ppm),
                            ns(now_));
  }
  void take(std::uint32_t which, const balance_decision& d) {
    cpu& victim = cpus_[d.shard];
    std::uint32_t n = 0;
    for (const request& r : victim.queue->take(d.things, now_, d.hogs ? none_ : hogs_)) {
      if (home_[r.connection] != which) {
        move(r.connection, which, d.reason);
        ++n;
      }
      to_cpu(which, r);
    }
    reports_[d.shard].movable =
        n == 0 ? 0 : static_cast<std::uint32_t>(victim.queue->size()) + reports_[d.shard].hogs;
    balancers_[which].moved(d, n, 0, ns(now_));
  }
  void look_at_balance() {
    if (s_.load.hot_factor > 1 && hot_ == 0 && now_ >= s_.load.hot_at.count()) {
      get_hot();
      hot_ = now_;
    }
    replace_some();
    if (!shards()) return;
    const double mean = rate_ / static_cast<double>(s_.cpus);
    const double excess = *std::max_element(offered_.begin(), offered_.end()) / mean - 1;
    out_.worst_settled = excess;
    if (excess > 0.15) last_bad_ = now_;
    if (!measured()) return;
    excesses_ += excess;
    ++samples_;
  }
  result finish() {
    const auto length = static_cast<double>(s_.length.count());
    out_.imbalance = samples_ == 0 ? 0 : excesses_ / samples_;
    if (hot_ != 0 && now_ - last_bad_ > 500'000'000) {
      out_.within_15_ms =
          static_cast<double>(std::max(last_bad_ + sampling - hot_, std::int64_t{0})) / 1e6;
    }
    const double counted = hot_ != 0 ? static_cast<double>(now_ - hot_ - 1'000'000'000) : length;
    out_.moves_a_second =
        counted > 0 ? static_cast<double>(counted_moves_) / counted * nanoseconds : 0;
    out_.decide_ns = decisions_ == 0 ? 0 : deciding_ / static_cast<double>(decisions_);
    const double all = length + static_cast<double>(s_.settle.count());
    const double looks = s_.what == kind::moving ? all / static_cast<double>(s_.look.count()) *
                                                       static_cast<double>(s_.cpus)
                                                 : 0;
    const double part = length / all;  // of what was counted from the beginning
    out_.overhead = (static_cast<double>(overhead_ + moving_) + looks * out_.decide_ns) * part /
                    std::max(static_cast<double>(work_), 1.0);
    out_.work_a_cpu = static_cast<double>(work_) / length / static_cast<double>(s_.cpus);
    return out_;
  }

  settings s_;
  generator random_;
  weighted by_rate_;
  std::vector<cpu> cpus_;
  std::vector<shard_report> reports_;
  std::vector<shard_balancer> balancers_;
  asio_pulse::placer placer_;
  std::vector<asio_pulse::shard_load> loads_;
  std::vector<double> rates_;           // requests a second, by connection
  std::vector<std::uint32_t> home_;     // by connection
  std::vector<std::uint32_t> work_of_;  // ns in this window, by connection
  hog_list hogs_;                       // those that have stuck a shard
  hog_list none_;                       // no hogs
  std::vector<std::uint32_t> before_;   // and in the one before
  std::vector<double> offered_;         // requests a second, by shard
  std::vector<std::uint32_t> things_;   // connections, by shard
  struct turns {
    std::uint32_t all = 0;
    std::uint32_t slow = 0;
    std::int64_t forgotten = 0;
  };
  std::vector<turns> turns_;         // lately, by shard
  std::vector<std::uint32_t> idle_;  // threads; not of shards
  std::priority_queue<event, std::vector<event>, std::greater<>> events_;
  double rate_ = 0;
  double replacements_ = 0;
  std::uint64_t generation_ = 0;
  std::int64_t now_ = 0;
  std::int64_t lock_free_ = 0;
  std::int64_t overhead_ = 0;
  std::int64_t moving_ = 0;
  std::int64_t work_ = 0;
  std::int64_t hot_ = 0;
  std::int64_t last_bad_ = 0;
  std::uint64_t counted_moves_ = 0;
  double excesses_ = 0;
  int samples_ = 0;
  double deciding_ = 0;
  std::uint64_t decisions_ = 0;
  result out_;
};

}  // namespace

result run(const settings& s) { return machine(s).run(); }

std::vector<traced> make_trace(const load& l, std::size_t cpus, ns length, std::uint64_t seed) {
  generator random(seed);
  std::vector<double> weights(l.connections);
  for (std::size_t i = 0; i != weights.size(); ++i)
    weights[i] = std::pow(static_cast<double>(i + 1), -l.zipf);
  weighted by_weight;
  by_weight.set(weights);
  const auto work = static_cast<double>(l.work.count());
  const double between = work / (l.utilisation * static_cast<double>(cpus));
  std::vector<traced> trace;
  for (double at = 0; at < static_cast<double>(length.count());) {
    at += random.exponential(between);
    trace.push_back({ns(static_cast<std::int64_t>(at)), by_weight.draw(random),
                     ns(1 + static_cast<std::int64_t>(random.exponential(work)))});
  }
  return trace;
}

distribution replay(const std::vector<traced>& trace, const settings& s) {
  settings still = s;
  still.what = kind::still;
  still.settle = ns(0);
  return machine(still).replay(trace);
}

}  // namespace simulation
