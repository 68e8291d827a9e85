// SPDX-License-Identifier: BSL-1.0
#include "loader.hpp"

#include "check.hpp"
#include "line_output.hpp"
#include "service/socket_file.hpp"
#include "settings.hpp"
#include "status.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/json.hpp>

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace asio_pulse::scx {
namespace {

namespace json = boost::json;
using boost::system::error_code;

// How soon the end of the scheduler is noticed. Programs continue meanwhile in the fair class. A
// guess: with less, the loader wakes up for nothing more often; with more, it notices later.
constexpr std::chrono::milliseconds exit_look{200};
// /proc/pressure is read at most this often. The kernel updates its averages every two seconds.
constexpr std::chrono::milliseconds pressure_age{400};

line_output& output() noexcept {
  static line_output out(STDOUT_FILENO);
  return out;
}

void say(const std::string& line) { output().say(line); }

// The same on stderr. What cannot be written does not change the exit status.
void complain(const std::string& sentence) { std::fputs((sentence + "\n").c_str(), stderr); }

json::string to_json(std::string_view text) { return json::string(text.data(), text.size()); }

// One run of the scheduler, from its load to its end.
class run {
 public:
  run(boost::asio::io_context& context, const loader_options& options)
      : options_(options),
        scheduler_(options.scheduler),
        settings_(scheduler_.settings()),
        // A duplicate, because Asio closes the descriptor.
        hints_(context, ::fcntl(scheduler_.hints_fd(), F_DUPFD_CLOEXEC, 0)),
        exit_timer_(context),
        statistics_timer_(context),
        service_(context, scheduler_, options.service,
                 {.look = [this] { return look(); },
                  .describe = [this](json::object& out) { describe(out); },
                  .change = [this](const scx_pulse_settings& to, uid_t uid) { change(to, uid); },
                  .may_change = {}}),
        context_(context) {
    tell_start();
    wait_for_hints();
    wait_for_exit();
    last_statistics_ = std::chrono::steady_clock::now();
    last_counts_ = scheduler_.counts();
    if (options_.statistics_every.count() > 0) wait_for_statistics();
  }
  ~run() = default;
  run(const run&) = delete;
  run& operator=(const run&) = delete;

  [[nodiscard]] const std::optional<scheduler_exit>& ended() const noexcept { return ended_; }
  [[nodiscard]] const scx_pulse_settings& settings() const noexcept { return settings_; }

  void tell_end(std::string_view why) {
    const scx_pulse_counts counts = scheduler_.counts();
    if (options_.json) {
      json::object line;
      line["event"] = "stopped";
      line["why"] = to_json(why);
      line["connections"] = service_.connections();
      line["processes"] = service_.processes();
      line["workers"] = service_.workers();
      line["hints_seen"] = hints_seen_;
      line["total"] = counts_json(counts);
      return say(std::string(json::serialize(line)));
    }
    say(
        fmt::format("scx_pulse: {}: gave {} process(es) with {} worker(s) back to the kernel's own "
                    "scheduling, and removed {}; {} hint(s), {} acknowledged, {} kick(s), {} "
                    "throttle(s) in all",
                    why, service_.processes(), service_.workers(), options_.service.path,
                    counts.hints, counts.acknowledged, counts.kicks, counts.throttles));
  }

 private:
  system_state look() {
    const auto now = std::chrono::steady_clock::now();
    if (!pressure_read_ || now - *pressure_read_ >= pressure_age) {
      pressure_read_ = now;
      pressure_ = read_pressure();
      if (settings_.pressure != pressure_.cpu) {
        settings_.pressure = pressure_.cpu;
        scheduler_.set(settings_);
      }
    }
    return {.settings = settings_,
            .pressure = pressure_,
            .queued = scheduler_.queued(),
            .cpus = scheduler_.cpus()};
  }

  void describe(json::object& out) {
    out["policy"] = to_json(local_policy_name(options_.scheduler.policy));
    out["counts"] = counts_json(scheduler_.counts());
  }

  void change(const scx_pulse_settings& to, uid_t uid) {
    scheduler_.set(to);
    settings_ = to;
    if (options_.json) {
      json::object line;
      line["event"] = "changed";
      line["uid"] = uid;
      line["mode"] = to_json(mode_name(to.mode));
      line["slice_ns"] = to.slice_ns;
      line["grace_ns"] = to.grace_ns;
      line["max_critical_ns"] = to.max_critical_ns;
      line["throttle_ns"] = to.throttle_ns;
      line["throttle_percent"] = to.throttle_percent;
      return say(std::string(json::serialize(line)));
    }
    say(fmt::format("scx_pulse: settings changed by user {}: {}", uid, in_words(to)));
  }

  static std::string in_words(const scx_pulse_settings& s) {
    const auto ms = [](std::uint64_t ns) {
      return in_ms(std::chrono::nanoseconds{static_cast<std::int64_t>(ns)});
    };
    return fmt::format("mode={} slice={} grace={} max_critical={} throttle={}%/{}",
                       mode_name(s.mode), ms(s.slice_ns), ms(s.grace_ns), ms(s.max_critical_ns),
                       s.throttle_percent, ms(s.throttle_ns));
  }

  void tell_start() {
    const system_state state = look();
    const std::string_view policy = local_policy_name(options_.scheduler.policy);
    if (options_.json) {
      json::object line;
      line["event"] = "started";
      line["socket"] = to_json(options_.service.path);
      line["mode"] = to_json(mode_name(settings_.mode));
      line["policy"] = to_json(policy);
      line["cpus"] = state.cpus;
      line["pressure_known"] = state.pressure.known;
      return say(std::string(json::serialize(line)));
    }
    say(fmt::format("scx_pulse: attached on {} CPUs, serving {}: {} policy={}", state.cpus,
                    options_.service.path, in_words(settings_), policy));
    if (!state.pressure.known) {
      say("scx_pulse: this kernel reports no pressure (/proc/pressure): programs see a pressure of "
          "0");
    }
  }

  void wait_for_hints() {
    hints_.async_wait(boost::asio::posix::stream_descriptor::wait_read, [this](error_code ec) {
      if (ec) return;
      scheduler_.consume_hints([this](const asio_pulse_hint& hint) {
        ++hints_seen_;
        if (options_.scheduler.debug) say(hint_line(hint, options_.json));
      });
      wait_for_hints();
    });
  }

  void wait_for_exit() {
    exit_timer_.expires_after(exit_look);
    exit_timer_.async_wait([this](error_code ec) {
      if (ec) return;
      ended_ = scheduler_.exited();
      if (ended_) return context_.stop();
      wait_for_exit();
    });
  }

  void wait_for_statistics() {
    statistics_timer_.expires_after(
        std::chrono::duration_cast<std::chrono::nanoseconds>(options_.statistics_every));
    statistics_timer_.async_wait([this](error_code ec) {
      if (ec) return;
      const auto now = std::chrono::steady_clock::now();
      const scx_pulse_counts counts = scheduler_.counts();
      const std::chrono::duration<double> passed = now - last_statistics_;
      say(statistics_line(last_counts_, counts, passed.count(), look(), service_.processes(),
                          service_.workers(), options_.json));
      last_counts_ = counts;
      last_statistics_ = now;
      wait_for_statistics();
    });
  }

  const loader_options& options_;
  scheduler scheduler_;
  scx_pulse_settings settings_;
  pressure pressure_;
  std::optional<std::chrono::steady_clock::time_point> pressure_read_;
  boost::asio::posix::stream_descriptor hints_;
  boost::asio::steady_timer exit_timer_;
  boost::asio::steady_timer statistics_timer_;
  service service_;
  boost::asio::io_context& context_;
  scx_pulse_counts last_counts_{};
  std::chrono::steady_clock::time_point last_statistics_;
  std::uint64_t hints_seen_ = 0;
  std::optional<scheduler_exit> ended_;
};

void tell_exit(const scheduler_exit& why, bool as_json) {
  if (as_json) {
    json::object line;
    line["event"] = why.restart ? "restarting" : "thrown_out";
    line["kind"] = why.kind;
    line["code"] = why.code;
    line["reason"] = to_json(why.reason);
    line["message"] = to_json(why.message);
    return say(std::string(json::serialize(line)));
  }
  const std::string words =
      fmt::format("{}{}{} (kind {}, code {})", why.reason, why.message.empty() ? "" : ": ",
                  why.message, why.kind, why.code);
  if (why.restart) return say("scx_pulse: loading again, as the kernel asks: " + words);
  complain("scx_pulse: the kernel has ended the scheduler: " + words);
}

// Prints why it cannot run and, if the machine lacks something, what to do about it.
exit_status cannot_run(const loader_options& options, const std::exception& why) {
  complain(fmt::format("scx_pulse: {}", why.what()));
  const std::string missing = what_is_missing(judge(look_at_machine(options.service.path)));
  if (!missing.empty()) complain(missing);
  return exit_cannot_run;
}

// The settings as they were when the kernel asked for another load.
void keep(const scx_pulse_settings& last, scheduler_options& options) {
  const auto ns = [](std::uint64_t value) {
    return std::chrono::nanoseconds{static_cast<std::int64_t>(value)};
  };
  options.mode = static_cast<asio_pulse_mode>(last.mode);
  options.slice = ns(last.slice_ns);
  options.grace = ns(last.grace_ns);
  options.max_critical = ns(last.max_critical_ns);
  options.throttle = ns(last.throttle_ns);
  options.throttle_percent = last.throttle_percent;
}

// As many descriptors as this process may have, which is more than it starts with.
std::size_t raise_descriptor_limit() noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  const rlim_t before = limit.rlim_cur;
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = before;
  return static_cast<std::size_t>(limit.rlim_cur);
}

exit_status serve(loader_options options) {
  options.service.bounds = within_descriptors(options.service.bounds, raise_descriptor_limit());

  // One context for all lives of the scheduler: a signal that comes between two is not lost.
  boost::asio::io_context context(1);
  boost::asio::signal_set signals(context, SIGINT, SIGTERM, SIGHUP);
  int signal = 0;
  signals.async_wait([&](error_code ec, int which) {
    if (ec) return;
    signal = which;
    context.stop();
  });
  for (;;) {
    std::optional<run> life;
    try {
      socket_file::check_free(options.service.path);
      life.emplace(context, options);
    } catch (const std::exception& why) {
      return cannot_run(options, why);
    }
    context.restart();
    if (signal == 0) context.run();
    if (signal != 0) {
      life->tell_end(signal == SIGINT ? "interrupted" : "terminated");
      return exit_fine;
    }
    const std::optional<scheduler_exit> ended = life->ended();
    if (!ended) throw std::runtime_error("there is nothing left to wait for");
    tell_exit(*ended, options.json);
    if (!ended->restart) return exit_thrown_out;
    keep(life->settings(), options.scheduler);
  }
}

}  // namespace

exit_status run_loader(const loader_options& options) {
  output().use_json(options.json);
  std::signal(SIGPIPE, SIG_IGN);  // the reader of our lines may go; the scheduler stays
  try {
    return serve(options);
  } catch (const std::exception& why) {
    complain(fmt::format("scx_pulse: cannot continue: {}", why.what()));
    return exit_cannot_run;
  }
}

}  // namespace asio_pulse::scx
