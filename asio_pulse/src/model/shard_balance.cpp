// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/shard_balance.hpp>

#include <algorithm>
#include <cmath>

namespace asio_pulse {
namespace {

using namespace std::chrono_literals;

constexpr double most_growth = 2000;
constexpr double most_delay = 1000;
// If a queue grows or shrinks this fast, in thousandths of a CPU, its length is not part of the load.
constexpr double changing = 200;
// A moved session takes about this long to arrive.
constexpr auto journey = 1ms;
constexpr auto recently = 1s;
constexpr auto shortly = 500ms;
constexpr auto pause_after_refusal = 10ms;
// A longer window, in which the shard slept or was stuck, counts as one of this length.
constexpr auto longest_load_window = 100ms;
// An excess as small as this, in thousandths of a CPU, is not worth a move.
constexpr double least_excess = 5;

// Hogs are kept apart unless more than this part of all turns is long. A guess: with one half, a few
// others that are kept from their turns by hogs would not be enough to be counted. With all, a single
// other one would leave half of the CPUs idle.
constexpr std::uint64_t nearly_all_of_four = 3;

// What is left of `things` without the hogs.
std::uint32_t others_of(const shard_report& r) noexcept {
  return r.movable - std::min(r.movable, r.hogs);
}

double permille_of(std::uint32_t ppm) noexcept { return ppm / 1000.0; }

std::uint32_t ppm_of(double permille) noexcept {
  constexpr double most = 4e9;
  return static_cast<std::uint32_t>(std::clamp(permille * 1000, 0.0, most));
}

std::string refused(const char* field, const char* rule) {
  return std::string("asio_pulse::balance_settings.") + field + " must be " + rule;
}

}  // namespace

std::string_view to_string(move_reason r) noexcept {
  switch (r) {
    case move_reason::imbalance:
      return "imbalance";
    case move_reason::stuck:
      return "stuck";
    case move_reason::drain:
      return "drain";
    case move_reason::ordered:
      return "ordered";
  }
  return "unknown";
}

std::string_view to_string(stay_reason r) noexcept {
  switch (r) {
    case stay_reason::moves:
      return "moves";
    case stay_reason::balanced:
      return "balanced";
    case stay_reason::too_short:
      return "too_short";
    case stay_reason::nothing_movable:
      return "nothing_movable";
    case stay_reason::too_large:
      return "too_large";
    case stay_reason::limited:
      return "limited";
    case stay_reason::no_target:
      return "no_target";
  }
  return "unknown";
}

std::string invalid_reason(const balance_settings& s) {
  if (s.imbalance_permille < 10 || s.imbalance_permille > 10000) {
    return refused("imbalance_permille", "from 10 to 10000");
  }
  if (s.lasting < 1ms || s.lasting > 1h) return refused("lasting", "from 1 ms to 1 h");
  if (s.again < 1 || s.again > 1000) return refused("again", "from 1 to 1000");
  if (s.least_permille > 1000) return refused("least_permille", "at most 1000");
  if (s.moves_per_second < 10) return refused("moves_per_second", "at least 10");
  if (s.stuck_after <= 0ns || s.stuck_after > 1h)
    return refused("stuck_after", "positive, and at most 1 h");
  if (s.stuck_memory < 0ns || s.stuck_memory > 1h) {
    return refused("stuck_memory", "from 0 to 1 h");
  }
  return {};
}

std::size_t choose_moves(std::span<movable_load> things, const balance_decision& d) noexcept {
  const std::size_t most = std::min<std::size_t>(things.size(), d.things);
  if (d.load_ppm == balance_decision::any) return most;
  // It used nothing in the window before, so as far as is known it uses that much in half of the windows.
  const auto load_of_one = [](const movable_load& m) {
    return m.before == 0 ? m.ppm - m.ppm / 2 : m.ppm;
  };
  const auto rank = [](const movable_load& m) {
    return m.before == movable_load::unknown ? m.ppm : m.before;
  };
  std::sort(things.begin(), things.end(), [rank](const movable_load& a, const movable_load& b) {
    return rank(a) != rank(b) ? rank(a) > rank(b) : a.id < b.id;
  });
  // A longer search for smaller ones would find those that are small by chance.
  constexpr int most_passed_over = 8;
  int passed_over = 0;
  std::size_t chosen = 0;
  std::uint64_t total = 0;
  for (std::size_t i = 0; i != things.size() && chosen != most; ++i) {
    const std::uint32_t its = load_of_one(things[i]);
    if (total >= d.load_ppm || (its == 0 && rank(things[i]) == 0)) break;
    if (total + its > d.most_ppm) continue;
    // It must bring the total nearer to what is wanted.
    if (2 * total + its > 2 * std::uint64_t{d.load_ppm}) {
      if (++passed_over > most_passed_over) break;
      continue;
    }
    total += its;
    things[i].ppm = its;
    std::swap(things[chosen++], things[i]);
  }
  if (total != 0 || most == 0) return chosen;
  // Each is too large for that. The smallest may still be better than nothing.
  const auto key = [](const movable_load& m) { return m.ppm != 0 ? m.ppm : 0xffffffffU; };
  const auto least = std::min_element(
      things.begin(), things.end(),
      [&](const movable_load& a, const movable_load& b) { return key(a) < key(b); });
  if (key(*least) > d.most_ppm) return 0;
  std::iter_swap(things.begin(), least);
  return 1;
}

double shard_balancer::load_of(const shard_report& r) noexcept {
  const auto delay = static_cast<double>(std::max<time::rep>(r.load.delay.count(), 0));
  const auto before = static_cast<double>(std::max<time::rep>(r.delay_before.count(), 0));
  const auto length = static_cast<double>((r.window_ended - r.window_began).count());
  const double growth = length > 0 ? std::min((delay - before) / length * 1000, most_growth) : 0;
  const double stays = std::max(1 - std::abs(growth) / changing, 0.0);
  return std::max(r.load.cpu_permille + growth, 0.0) + std::min(delay / 1e5, most_delay) * stays;
}

shard_balancer::shard_balancer(std::size_t me, std::size_t shards, const balance_settings& s)
    : settings_(s),
      me_(me),
      others_(shards),
      tokens_(s.moves_per_second / 10.0),
      random_(0x9e3779b97f4a7c15U * (me + 1)) {}

bool shard_balancer::nothing_new(std::span<const shard_report> all, time now) const noexcept {
  const shard_report& mine = all[me_];
  if (left_ > 0 || mine.draining || mine.window_ended != last_window_) return false;
  return std::none_of(all.begin(), all.end(),
                      [&](const shard_report& r) { return is_stuck(r, settings_, now); });
}

void shard_balancer::estimate(other& o, const shard_report& r) noexcept {
  if (r.window_ended == o.seen) return;
  const bool first = o.seen.count() == 0;
  o.seen = r.window_ended;
  o.measured = load_of(r);
  if (o.moved != 0) {
    // A session that arrived in the middle of the window has used half of its usual CPU time in it.
    const auto length = static_cast<double>((r.window_ended - r.window_began).count());
    const auto before = static_cast<double>((o.moved_at + journey - r.window_began).count());
    const double part = length > 0 ? std::clamp(before / length, 0.0, 1.0) : 1;
    o.measured = std::max(o.measured + part * o.moved, 0.0);
    o.moved = 0;
  }
  // A mean, because windows are noisy; but a load that has changed for good is seen at once.
  constexpr double newest = 0.25;
  constexpr double jump = 0.25;
  constexpr double least_jump = 100;
  const bool jumped = std::abs(o.measured - o.load) > std::max(jump * o.load, least_jump);
  o.load += (first || jumped ? 1 : newest) * (o.measured - o.load);
}

void shard_balancer::see_stuck(other& o, const shard_report& r, time now) const noexcept {
  const bool was = o.stuck;
  o.stuck = is_stuck(r, settings_, now);
  if (!o.stuck) return;
  if (!was) {
    const bool again = o.stuck_at.count() != 0 && now - o.stuck_at < settings_.stuck_memory;
    o.hold = again ? std::min(2 * o.hold, settings_.stuck_memory) : time{0};
  }
  o.stuck_at = now;
  o.hold = std::min(std::max(o.hold, now - r.poll_began), settings_.stuck_memory);
  o.no_target = now + o.hold;
}

// By the reports alone, so that all shards find the same ones.
void shard_balancer::find_homes(std::span<const shard_report> all) noexcept {
  std::uint64_t turns = 0;
  std::uint64_t long_turns = 0;
  std::size_t able = 0;
  for (const shard_report& r : all) {
    turns += r.turns;
    long_turns += r.long_turns;
    if (!r.stopped && !r.draining) ++able;
  }
  apart_ = able > 1 && 4 * long_turns <= nearly_all_of_four * turns;
  most_homes_ = std::max<std::size_t>(able / 2, 1);
  homes_ = 0;
  for (std::size_t i = 0; i != others_.size(); ++i) {
    const shard_report& r = all[i];
    const bool lately = r.hogs != 0 && r.long_turns != 0;
    others_[i].home = apart_ && lately && !r.stopped && !r.draining && homes_ != most_homes_;
    if (others_[i].home) ++homes_;
  }
}

void shard_balancer::look(std::span<const shard_report> all, time now) noexcept {
  std::size_t able = 0;
  std::size_t were_stuck = 0;
  std::size_t no_homes = 0;
  find_homes(all);
  for (std::size_t i = 0; i != others_.size(); ++i) {
    const shard_report& r = all[i];
    other& o = others_[i];
    estimate(o, r);
    see_stuck(o, r, now);
    o.target = i != me_ && !r.draining && !r.stopped && !o.stuck;
    if (!o.target) continue;
    ++able;
    if (!o.home) ++no_homes;
    if (now < o.no_target) ++were_stuck;
  }
  targets_ = 0;
  double loads = others_[me_].load;
  const bool spare_them = 2 * were_stuck <= able;
  // A shard that is drained has to be left, wherever its things go.
  const bool spare_homes = no_homes != 0 || !all[me_].draining;
  for (other& o : others_) {
    if ((spare_them && now < o.no_target) || (spare_homes && o.home)) o.target = false;
    if (!o.target) continue;
    loads += o.load;
    ++targets_;
  }
  mean_ = loads / static_cast<double>(targets_ + 1);
  const double unmoved = load_of(all[me_]);
  per_load_ = unmoved > 0 ? all[me_].load.cpu_permille / unmoved : 1;
  sum_up(all[me_]);
}

balance_decision shard_balancer::decide(std::span<const shard_report> all, time now) noexcept {
  const shard_report& mine = all[me_];
  balance_decision d;
  d.why = last_;
  if (mine.stopped || nothing_new(all, now)) return d;
  look(all, now);
  refill(now);
  if (is_stuck(mine, settings_, now)) {
    d = empty(mine, move_reason::stuck, now);
  } else if (mine.draining) {
    d = empty(mine, move_reason::drain, now);
  } else {
    d = take_over(all, now);
    if (d.what == balance_decision::kind::stay) d = balance(mine, now);
  }
  last_ = d.what == balance_decision::kind::stay ? d.why : stay_reason::too_short;
  return d;
}

balance_decision shard_balancer::take_over(std::span<const shard_report> all, time now) noexcept {
  if (others_[me_].home) return {};  // what it took would be stuck again soon
  for (std::size_t i = 0; i != others_.size(); ++i) {
    const std::uint32_t things = apart_ ? others_of(all[i]) : all[i].movable;
    if (i == me_ || things == 0 || now < others_[i].retry_at) continue;
    if (!is_stuck(all[i], settings_, now)) continue;
    const auto takers = static_cast<std::uint32_t>(targets_ + 1);
    balance_decision d;
    d.what = balance_decision::kind::take;
    d.why = stay_reason::moves;
    d.reason = move_reason::stuck;
    d.shard = i;
    d.things = (things + takers - 1) / takers;
    d.hogs = !apart_;
    return d;
  }
  return {};
}

balance_decision shard_balancer::empty(const shard_report& mine, move_reason why,
                                       time now) noexcept {
  balance_decision d;
  d.hogs = why == move_reason::drain || !apart_;
  const std::uint32_t things = d.hogs ? mine.movable : others_of(mine);
  if (things == 0 || now < retry_at_) {
    d.why = stay_reason::nothing_movable;
    return d;
  }
  // Each target's weight is its distance to the most loaded one, and a little more for that one.
  double most = 0;
  std::uint32_t able = 0;
  for (const other& o : others_) {
    if (!o.target) continue;
    most = std::max(most, o.load);
    ++able;
  }
  constexpr double least_part = 100;
  const std::size_t to = draw(most + least_part);
  if (to == nobody) {
    d.why = stay_reason::no_target;
    return d;
  }
  d.what = balance_decision::kind::give;
  d.why = stay_reason::moves;
  d.reason = why;
  d.shard = to;
  // In several parts, so that the second one goes elsewhere.
  d.things = able == 1 ? things : (things + 2 * able - 1) / (2 * able);
  return d;
}

void shard_balancer::sum_up(const shard_report& mine) noexcept {
  const double reference = std::max({mean_, static_cast<double>(settings_.least_permille), 1.0});
  if (mine.window_ended == last_window_) {
    excess_ = (others_[me_].load - mean_) / reference;
    return;
  }
  const time length = std::min<time>(mine.window_ended - std::max(mine.window_began, last_window_),
                                     longest_load_window);
  const bool own_doing = gave_at_ > mine.window_began - journey;
  last_window_ = mine.window_ended;
  excess_ = (others_[me_].measured - mean_) / reference;
  const auto ns = static_cast<double>(length.count());
  constexpr double largest_jump = 0.25;  // a larger change is not noise
  constexpr double newest = 1 / 32.0;
  const double jump = std::min(std::abs(excess_ - excess_before_), largest_jump);
  excess_before_ = excess_;
  if (!own_doing) variance_ += newest * (jump * jump / 2 - variance_);
  sum_ += (excess_ - threshold()) * ns;
  summed_ns_ += ns;
  ++windows_;
  if (sum_ > 0 && others_[me_].load >= settings_.least_permille) return;
  sum_ = summed_ns_ = 0;
  windows_ = 0;
}

bool shard_balancer::has_lasted(const shard_report& mine, time now) const noexcept {
  const bool reverses = mine.moved_in.count() != 0 && now - mine.moved_in < recently;
  // The mean time until noise alone exceeds a sum s is about exp(2 s threshold / variance), in
  // windows (Siegmund, "Sequential Analysis", 1985): here exp(10), or some minutes.
  constexpr double certainty = 5;
  const double noise = certainty * variance_ / threshold() * summed_ns_ / windows_;
  // An excess that is left after a move was not seen before, or was not measured completely.
  const bool goes_on = gave_at_.count() != 0 && now - gave_at_ < shortly;
  const double wanted = threshold() * static_cast<double>(settings_.lasting.count()) *
                        (reverses  ? settings_.again
                         : goes_on ? 0.25
                                   : 1);
  return sum_ >= std::max(wanted, noise);
}

balance_decision shard_balancer::balance(const shard_report& mine, time now) noexcept {
  balance_decision d;
  if (excess_ <= threshold() || others_[me_].load < settings_.least_permille) {
    end_of_moves();
    refused_ = stay_reason::moves;
    return d;
  }
  if (left_ == 0 && now >= retry_at_ && windows_ >= 2 && has_lasted(mine, now)) {
    left_ = others_[me_].load - mean_;
    const auto below = std::count_if(others_.begin(), others_.end(),
                                     [this](const other& o) { return o.target && o.load < mean_; });
    piece_ = below > 1 ? left_ / static_cast<double>(2 * below) : left_;
  }
  left_ = std::min(left_, others_[me_].load - mean_);
  if (left_ < least_excess) {
    left_ = 0;
    d.why = refused_ != stay_reason::moves ? refused_ : stay_reason::too_short;
    return d;
  }
  d.why = stay_reason::moves;
  const std::size_t to = targets_ == 0 ? nobody : draw(mean_);
  if ((apart_ ? others_of(mine) : mine.movable) == 0 || mine.movable_permille == 0) {
    d.why = stay_reason::nothing_movable;
  } else if (to == nobody) {
    d.why = stay_reason::no_target;
  } else if (tokens_ < 1) {
    d.why = stay_reason::limited;
    return d;
  }
  if (d.why != stay_reason::moves) {
    refused_ = d.why;
    end_of_moves();
    return d;
  }
  const double below = mean_ - others_[to].load;
  const double wanted = std::min({left_, below, std::max(piece_, least_excess)});
  d.what = balance_decision::kind::give;
  d.reason = move_reason::imbalance;
  d.hogs = !apart_;
  d.shard = to;
  d.things = static_cast<std::uint32_t>(std::min<double>(tokens_, mine.movable));
  d.load_ppm = ppm_of(wanted * per_load_);
  // Then the more loaded of the two shards is above the mean by at most half of the present excess.
  d.most_ppm = ppm_of((wanted + left_ / 2) * per_load_);
  return d;
}

void shard_balancer::moved(const balance_decision& d, std::uint32_t things, std::uint32_t load_ppm,
                           time now) noexcept {
  const bool takes = d.what == balance_decision::kind::take;
  if (things == 0) {
    if (takes) {
      others_[d.shard].retry_at = now + pause_after_refusal;
    } else {
      retry_at_ = now + pause_after_refusal;
      if (d.reason == move_reason::imbalance) {
        refused_ = stay_reason::too_large;
        end_of_moves();
      }
    }
    return;
  }
  const double moved_load = permille_of(load_ppm) / (per_load_ > 0 ? per_load_ : 1);
  const std::size_t to = takes ? me_ : d.shard;
  const std::size_t from = takes ? d.shard : me_;
  count(to, moved_load, now);
  count(from, -moved_load, now);
  if (d.reason != move_reason::imbalance) return;
  refused_ = stay_reason::moves;
  gave_at_ = now;
  tokens_ -= things;
  left_ -= moved_load;
  // Moving sessions that have used nothing would not help.
  if (left_ < least_excess || load_ppm == 0) end_of_moves();
}

std::size_t shard_balancer::home_of_hog(std::span<const shard_report> all, time now) noexcept {
  find_homes(all);
  if (!apart_) return me_;
  const other& mine = others_[me_];
  std::size_t best = nobody;
  if (homes_ != most_homes_ && all[me_].hogs > 1) {
    // One more home: the shard with the least load.
    for (std::size_t i = 0; i != others_.size(); ++i) {
      other& o = others_[i];
      see_stuck(o, all[i], now);
      if (i == me_ || o.home || o.stuck || all[i].stopped || all[i].draining) continue;
      if (best == nobody || o.load < others_[best].load) best = i;
    }
    if (best != nobody) return best;
  }
  for (std::size_t i = 0; i != others_.size(); ++i) {
    if (!others_[i].home) continue;
    if (best == nobody || all[i].hogs < all[best].hogs) best = i;
  }
  if (best == nobody) return me_;
  // One more or less is the same, and would go back and forth.
  return mine.home && all[me_].hogs <= all[best].hogs + 1 ? me_ : best;
}

void shard_balancer::ordered(std::size_t to, std::uint32_t load_ppm, time now) noexcept {
  const double moved_load = permille_of(load_ppm) / (per_load_ > 0 ? per_load_ : 1);
  count(to, moved_load, now);
  count(me_, -moved_load, now);
}

void shard_balancer::count(std::size_t shard, double permille, time now) noexcept {
  other& o = others_[shard];
  o.load = std::max(o.load + permille, 0.0);
  const double total = std::abs(o.moved) + std::abs(permille);
  if (total <= 0) return;
  const double newest = std::abs(permille) / total;
  o.moved_at +=
      time(static_cast<time::rep>(newest * static_cast<double>((now - o.moved_at).count())));
  o.moved += permille;
}

void shard_balancer::end_of_moves() noexcept {
  left_ = sum_ = summed_ns_ = 0;
  windows_ = 0;
}

void shard_balancer::refill(time now) noexcept {
  const double most = settings_.moves_per_second / 10.0;
  if (refilled_.count() != 0 && now > refilled_) {
    const double seconds = static_cast<double>((now - refilled_).count()) / 1e9;
    tokens_ = std::min(most, tokens_ + seconds * settings_.moves_per_second);
  }
  refilled_ = now;
}

// Draws one of the targets. The weight of each is how far its load is below the reference.
std::size_t shard_balancer::draw(double reference) noexcept {
  double total = 0;
  for (const other& o : others_) {
    if (o.target) total += std::max(reference - o.load, 0.0);
  }
  if (total <= 0) return nobody;
  // xorshift64* (Vigna, 2016)
  random_ ^= random_ >> 12U;
  random_ ^= random_ << 25U;
  random_ ^= random_ >> 27U;
  constexpr double scale = 1.0 / 9007199254740992.0;  // 2^-53
  double at = static_cast<double>((random_ * 0x2545f4914f6cdd1dU) >> 11U) * scale * total;
  std::size_t last = nobody;
  for (std::size_t i = 0; i != others_.size(); ++i) {
    if (!others_[i].target || others_[i].load >= reference) continue;
    last = i;
    at -= reference - others_[i].load;
    if (at < 0) break;
  }
  return last;
}

}  // namespace asio_pulse
