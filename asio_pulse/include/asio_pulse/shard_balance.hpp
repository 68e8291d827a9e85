// SPDX-License-Identifier: BSL-1.0
//
// Which work moves from one shard to another. Plain values and pure decisions: nothing here reads a clock or
// knows threads.

#pragma once

#include <asio_pulse/hooks/requirements.hpp>
//
#include <asio_pulse/placement.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// \file
/// Each shard publishes a shard_report, reads those of the others now and then, and decides by
/// itself what it gives away. There is no coordinator.
///
/// The *excess* of a shard is how far its load is above the mean of all shards, as a part of that
/// mean. If the excess is above a threshold, the shard gives work away, but not at once: what is
/// above the threshold is summed up over time, and what is below is subtracted (a CUSUM test: Page,
/// "Continuous inspection schemes", Biometrika 41, 1954). So a large imbalance is answered within
/// some windows of measurement, a small one later, and noise around the mean hardly ever: the more
/// the excess varies from one window to the next, the larger the sum has to be.
///
/// Then it gives away its excess, in pieces. The shard that gets a piece is drawn at random; the weight
/// of a shard is how far its load is below the mean. So shards that decide at the same time, without
/// consulting each other, do not all choose the same one.
///
/// *Hogs* are sessions that have stuck a shard. While there are others, they are kept apart: they live
/// on the *homes*, at most half of the shards, and what is no hog is taken off these, and does not come
/// back. So a slow request is waited for by other slow ones only.
///
/// Three rules prevent ping-pong. What was moved counts as load of the shard that has got it at once,
/// and a window in which it arrived is corrected for the time before. A thing moves only if that at least halves the excess
/// that it is moved for: a thing that is the whole load stays where it is. And a shard that has got
/// something a short time ago must have an excess for longer before it gives something away.

namespace asio_pulse {

/// What a shard publishes. All times are on one clock that only moves forward.
struct shard_report {
  /// Measured over the last window.
  shard_load load{};
  /// The part of load.cpu_permille that connections and tasks that may move have used.
  std::uint32_t movable_permille = 0;
  /// How many connections and tasks may move.
  std::uint32_t movable = 0;
  /// How many of these have stuck a shard, and have not had enough short turns since.
  std::uint32_t hogs = 0;
  /// How often what may move has had a turn lately (in about two seconds), and how many of these turns
  /// have stuck the shard.
  std::uint32_t turns = 0;
  std::uint32_t long_turns = 0;
  /// load.delay as it was measured in the window before.
  std::chrono::nanoseconds delay_before{0};
  std::chrono::nanoseconds window_began{0};
  std::chrono::nanoseconds window_ended{0};
  /// When the handler that runs now began. Zero if none runs.
  std::chrono::nanoseconds poll_began{0};
  /// When something last moved to this shard because of an imbalance. Zero if nothing has.
  std::chrono::nanoseconds moved_in{0};
  /// It gives everything away, and gets nothing.
  bool draining = false;
  /// It is draining, and nothing that may move is left.
  bool drained = false;
  /// It does not run, and gets nothing.
  bool stopped = false;

  friend bool operator==(const shard_report&, const shard_report&) = default;
};

/// When the library moves work.
struct balance_settings {
  /// How far above the mean of all shards the load of one must be, in thousandths of the mean.
  /// From 10 to 10000. The default keeps all shards within 15 %: an excess below the threshold is not
  /// corrected, and connections are too coarse to correct the rest exactly.
  std::uint32_t imbalance_permille = 120;
  /// How long the excess must last if it is twice the threshold. A larger one must last for a shorter
  /// time, and a smaller one for longer. At least 1 ms. The default is a guess: with less, the noise of
  /// windows of 20 ms would cause moves; with more, clients wait longer.
  std::chrono::nanoseconds lasting = std::chrono::milliseconds{80};
  /// For a shard to which something has moved in the last second, the time is `again` times as long.
  /// From 1 to 1000.
  std::uint32_t again = 8;
  /// A shard with less load than this keeps what it has, in thousandths of a CPU. 0 to 1000.
  std::uint32_t least_permille = 300;
  /// How many sessions a shard may move in a second; a tenth of them may move at once. At least 10.
  /// Shards that are stuck or drained have no such limit. At 50 us for each move the default takes
  /// half of a CPU at the worst.
  std::uint32_t moves_per_second = 10'000;
  /// A handler that has run for longer makes its shard a *stuck* one. Positive.
  std::chrono::nanoseconds stuck_after = std::chrono::milliseconds{2};
  /// A shard that was stuck gets nothing for as long again, but at most for this time, because the
  /// handler that blocked it may do so again. Each time that this happens within this time, the pause
  /// doubles. If the rule applies to more than half of the shards, it applies to none.
  std::chrono::nanoseconds stuck_memory = std::chrono::seconds{1};

  friend bool operator==(const balance_settings&, const balance_settings&) = default;
};

/// Empty if the settings are in range. Otherwise a text that names the field and the rule.
///
/// \par Errors  std::bad_alloc.
[[nodiscard]] std::string invalid_reason(const balance_settings&);

/// Why something moves.
enum class move_reason : std::uint8_t {
  imbalance,  ///< its shard had more load than others
  stuck,      ///< a handler of its shard does not end
  drain,      ///< its shard is being drained
  ordered,    ///< the program ordered it
};
inline constexpr std::size_t move_reasons = 4;

/// "imbalance", "stuck", "drain", "ordered"; "unknown" for a value that is not an enumerator.
std::string_view to_string(move_reason) noexcept;

/// Why nothing moves.
enum class stay_reason : std::uint8_t {
  moves,            ///< something does
  balanced,         ///< no excess that matters
  too_short,        ///< there is one, but not for long enough
  nothing_movable,  ///< there is one, and nothing that may move causes it
  too_large,        ///< there is one, and moving what causes it would only move the excess
  limited,          ///< as much as is allowed in a second has moved
  no_target,        ///< no other shard may receive anything
};

/// "moves", "balanced", "too_short", ...; "unknown" for a value that is not an enumerator.
std::string_view to_string(stay_reason) noexcept;

/// What a shard does now.
struct balance_decision {
  enum class kind : std::uint8_t {
    stay,  ///< nothing; see `why`
    give,  ///< this shard moves things of its own to `shard`
    /// This shard takes over things of `shard`, which is stuck: those that wait for something, or
    /// have something to do.
    take,
  };
  /// No limit for the load that moves.
  static constexpr std::uint32_t any = 0xffffffffU;

  kind what = kind::stay;
  stay_reason why = stay_reason::balanced;
  move_reason reason = move_reason::imbalance;
  std::size_t shard = 0;
  /// How many sessions move at the most.
  std::uint32_t things = 0;
  /// How much CPU they should use together, in millionths of a CPU. `any` unless the reason is
  /// imbalance.
  std::uint32_t load_ppm = any;
  /// How much they may use at the most: more would not help.
  std::uint32_t most_ppm = any;
  /// Whether hogs may move for it.
  bool hogs = true;

  friend bool operator==(const balance_decision&, const balance_decision&) = default;
};

/// Something that may move.
///
/// `before` and `ppm` are measured in two windows, one after the other. Of many sessions that have run
/// once or twice, those that used most did so by chance, and will use less afterwards. So one window
/// decides which are chosen, and the other one shows what they use.
struct movable_load {
  /// Only one measurement is known. For things whose load is known well, that is enough.
  static constexpr std::uint32_t unknown = 0xffffffffU;

  std::uint64_t id = 0;            ///< the caller's
  std::uint32_t ppm = 0;           ///< CPU that it used in the last window, in millionths of a CPU
  std::uint32_t before = unknown;  ///< and in the window before that

  friend bool operator==(const movable_load&, const movable_load&) = default;
};

/// Chooses what moves. It is put at the front of `things`, whose order changes; the rest follows.
/// Returns how many were chosen, and none if each is too large.
///
/// Those that used most in the window before come first, so that few of them move. Those that used
/// nothing in both windows only move if there is no limit for the load. For those that used nothing in the
/// window before, `ppm` is halved. The sum of the chosen `ppm` is the argument of shard_balancer::moved().
///
/// \par Cost  Sorts `things`.
[[nodiscard]] std::size_t choose_moves(std::span<movable_load> things,
                                       const balance_decision& d) noexcept;

/// The decisions of one shard.
///
/// Usage, on the shard's thread, about every window of measurement (and more often to see stuck
/// shards early: the sum only changes with new windows):
///
///     for (;;) {
///       const balance_decision d = balancer.decide(reports, now);
///       if (d.what == balance_decision::kind::stay) break;
///       n = choose_moves(...), move them, correct `movable` of the reports;
///       balancer.moved(d, n, their load, now);
///     }
///
/// The loop ends, because each time something moves, or moved() is called with 0: then decide() does
/// not return the same decision again for 10 ms.
///
/// A spare thread that works for a stuck shard may use that shard's balancer, while the shard's own
/// thread does not: decide() of a shard that is stuck itself gives everything away.
///
/// \par Cost           decide(): linear in the number of shards. About 2 ns for each if this shard has
///                     not measured since the last call and none is stuck, otherwise about 20 ns. No
///                     allocation after the constructor.
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
class shard_balancer {
 public:
  using time = std::chrono::nanoseconds;

  /// The load that a shard is offered, in thousandths of a CPU. That is the CPU that it has used;
  /// more if the queue delay has grown in the window, and less if the shard works off a backlog.
  /// A constant delay counts as well, 1 for each 100 us up to 1000: of two shards that use all of
  /// their CPU, the one whose clients wait for longer has more load.
  [[nodiscard]] static double load_of(const shard_report& r) noexcept;
  [[nodiscard]] static bool is_stuck(const shard_report& r, const balance_settings& s,
                                     time now) noexcept {
    return !r.stopped && r.poll_began.count() != 0 && now - r.poll_began >= s.stuck_after;
  }

  /// \pre         me < shards, and the settings are in range.
  /// \par Errors  std::bad_alloc.
  shard_balancer(std::size_t me, std::size_t shards, const balance_settings& s);

  /// What this shard does now. `all` has a report of each shard, its own included.
  [[nodiscard]] balance_decision decide(std::span<const shard_report> all, time now) noexcept;

  /// What was done for a decision to give or take: `things` were moved, which use `load_ppm`
  /// together. Zero things: nothing could be moved.
  void moved(const balance_decision& d, std::uint32_t things, std::uint32_t load_ppm,
             time now) noexcept;

  /// Where a hog of this shard lives, which has just stuck it: the shard to which it moves, or this
  /// one. `all` counts it as a hog of this shard. To be told with moved() or ordered() is not needed.
  ///
  /// Hogs are spread over the homes. A shard becomes one when it has a hog, as long as at most half of
  /// the shards are homes. If hogs are on more of them than that, the first half are the homes.
  ///
  /// This shard, if hogs are not kept apart: if nearly all turns are long, nobody would gain, and half of
  /// the CPUs would be idle.
  [[nodiscard]] std::size_t home_of_hog(std::span<const shard_report> all, time now) noexcept;

  /// As moved(), for a move that the program has ordered.
  void ordered(std::size_t to, std::uint32_t load_ppm, time now) noexcept;

  /// How many turns that are not long, one after the other, a hog needs to be none any more. A guess:
  /// one in so many requests may be slow, and the session is a hog all the same; and a session that
  /// has become harmless waits for slow ones so many times.
  static constexpr std::uint32_t short_turns_of_hog = 32;

  /// How far this shard is above the mean, in thousandths of the mean; negative if it is below. As
  /// decide() has seen it last.
  [[nodiscard]] double excess_permille() const noexcept { return excess_ * 1000; }

 private:
  struct other {
    double load = 0;      ///< estimated
    double measured = 0;  ///< in the last window, corrected
    time seen{0};         ///< the end of that window
    double moved = 0;     ///< load that was moved to it since (from it, if negative)
    time moved_at{0};     ///< when, on average
    bool stuck = false;   ///< when it was last looked at
    time stuck_at{0};     ///< when it was last seen stuck
    time hold{0};         ///< for how long it is no target after that
    time no_target{0};    ///< it was stuck, and is no target before then
    time retry_at{0};     ///< nothing of it could be taken over; not before then again
    bool target = false;
    bool home = false;  ///< hogs live there, and others do not
  };
  static constexpr std::size_t nobody = static_cast<std::size_t>(-1);

  [[nodiscard]] bool nothing_new(std::span<const shard_report> all, time now) const noexcept;
  void look(std::span<const shard_report> all, time now) noexcept;
  void see_stuck(other& o, const shard_report& r, time now) const noexcept;
  void find_homes(std::span<const shard_report> all) noexcept;
  static void estimate(other& o, const shard_report& r) noexcept;
  void count(std::size_t shard, double permille, time now) noexcept;
  [[nodiscard]] balance_decision take_over(std::span<const shard_report> all, time now) noexcept;
  [[nodiscard]] balance_decision empty(const shard_report& mine, move_reason why,
                                       time now) noexcept;
  [[nodiscard]] balance_decision balance(const shard_report& mine, time now) noexcept;
  void sum_up(const shard_report& mine) noexcept;
  [[nodiscard]] bool has_lasted(const shard_report& mine, time now) const noexcept;
  void refill(time now) noexcept;
  void end_of_moves() noexcept;
  [[nodiscard]] std::size_t draw(double reference) noexcept;
  [[nodiscard]] double threshold() const noexcept { return settings_.imbalance_permille / 1000.0; }

  balance_settings settings_;
  std::size_t me_;
  std::vector<other> others_;  ///< by shard, also this one
  std::size_t targets_ = 0;    ///< of others_
  bool apart_ = false;         ///< hogs are kept apart
  std::size_t homes_ = 0;      ///< of them
  std::size_t most_homes_ = 1;
  double mean_ = 0;  ///< load of the targets and of this shard
  double excess_ = 0;
  double per_load_ = 1;  ///< CPU that was used for each unit of this shard's load
  // The test: the sum of what is above the threshold, times ns.
  double sum_ = 0;
  double summed_ns_ = 0;       ///< since it was zero
  std::uint32_t windows_ = 0;  ///< since then
  double variance_ = 0;        ///< of the excess, from one window to the next
  double excess_before_ = 0;
  time last_window_{0};
  // What it has led to.
  double left_ = 0;   ///< to be moved, in thousandths of a CPU; 0: nothing
  double piece_ = 0;  ///< to one shard at a time
  time retry_at_{0};
  time gave_at_{0};
  stay_reason refused_ = stay_reason::moves;  ///< why nothing could be moved; `moves`: it could
  stay_reason last_ = stay_reason::balanced;  ///< the last decision
  double tokens_ = 0;                         ///< moves that are allowed now
  time refilled_{0};
  std::uint64_t random_;
};

}  // namespace asio_pulse
