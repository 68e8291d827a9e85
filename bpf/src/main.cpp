// SPDX-License-Identifier: BSL-1.0
//
// The command scx_pulse: its options and their rules.
#include "check.hpp"
#include "loader.hpp"
#include "printable.hpp"
#include "service/client.hpp"
#include "settings.hpp"
#include "status.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <exception>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using namespace asio_pulse::scx;  // NOLINT(google-build-using-namespace): this is its program

constexpr const char* description =
    "A sched_ext scheduler that hints to asio-pulse programs when others wait for the CPU.\n"
    "Without a subcommand it loads the scheduler and serves control blocks until SIGINT or "
    "SIGTERM.\n"
    "Only threads that ask for it (policy SCHED_EXT) are scheduled by it.";

constexpr const char* statuses =
    "Exit status:\n"
    "  0  success\n"
    "  1  cannot run here (check: could not; status, set: no answer, or refused)\n"
    "  2  wrong usage\n"
    "  3  the kernel has ended the scheduler; the reason is on stderr";

std::chrono::nanoseconds from_ms(double ms) {
  return std::chrono::nanoseconds{std::llround(ms * 1e6)};
}

std::uint64_t to_u64(std::chrono::nanoseconds value) {
  return static_cast<std::uint64_t>(value.count());
}

// CLI11's own Range accepts "nan".
CLI::Validator within(double least, double most, const char* unit) {
  const std::string rule = fmt::format("must be a number from {:g} to {:g}{}", least, most, unit);
  return {[=](std::string& text) {
            double value = 0;
            const bool number = CLI::detail::lexical_cast(text, value);
            if (number && value >= least && value <= most) return std::string();
            return fmt::format("{}, and is {}", rule, text);
          },
          fmt::format("[{:g} to {:g}{}]", least, most, unit)};
}

CLI::Validator within(const duration_rule& rule) {
  const auto ms = [](std::chrono::nanoseconds value) {
    return std::chrono::duration<double, std::milli>(value).count();
  };
  return within(ms(rule.least), ms(rule.most), " ms");
}

CLI::Validator one_of(const std::vector<std::string>& names) {
  const std::string rule = fmt::format("{}", fmt::join(names, ", "));
  return {[=](std::string& text) {
            if (std::find(names.begin(), names.end(), text) != names.end()) return std::string();
            return fmt::format("must be one of {}, and is {}", rule, text);
          },
          "[" + rule + "]"};
}

CLI::Validator permission_bits() {
  return {[](std::string& text) {
            const bool octal = !text.empty() && text.size() <= 4 &&
                               text.find_first_not_of("01234567") == std::string::npos;
            if (octal && std::stoul(text, nullptr, 8) <= 0777) return std::string();
            return "must be octal permission bits from 0 to 0777, and is " + text;
          },
          "[octal]"};
}

// The settings that can be given at the start and changed later.
struct adjustable {
  std::string mode = "observer";
  double slice_ms = 5;
  double grace_ms = 100;
  double max_critical_ms = 50;
  std::uint32_t throttle_percent = 25;
  double throttle_ms = 1000;

  struct {
    CLI::Option* mode;
    CLI::Option* slice;
    CLI::Option* grace;
    CLI::Option* max_critical;
    CLI::Option* throttle_percent;
    CLI::Option* throttle;
  } given = {};

  void add_to(CLI::App& app, bool with_defaults) {
    const auto add = [&](const char* name, auto& value, const char* what,
                         const CLI::Validator& rule) {
      CLI::Option* const made = app.add_option(name, value, what)->check(rule);
      if (with_defaults) made->capture_default_str();
      return made;
    };
    given.mode =
        add("--mode", mode,
            "observer: send hints only; enforced: also act against workers that agreed to it and "
            "ignore hints",
            one_of({"observer", "enforced"}));
    given.slice = add("--slice-ms", slice_ms, "CPU time without a break while others wait",
                      within(slice_rule));
    given.grace =
        add("--grace-ms", grace_ms, "how long a hint may stay unacknowledged", within(grace_rule));
    given.max_critical = add("--max-critical-ms", max_critical_ms,
                             "how long a critical section protects", within(max_critical_rule));
    given.throttle_percent =
        add("--throttle-percent", throttle_percent, "share of one CPU for a throttled worker",
            within(least_throttle_percent, most_throttle_percent, ""));
    given.throttle =
        add("--throttle-ms", throttle_ms, "how long an escalation lasts", within(throttle_rule));
  }

  [[nodiscard]] asio_pulse_mode chosen_mode() const {
    return mode == "enforced" ? ASIO_PULSE_MODE_ENFORCED : ASIO_PULSE_MODE_OBSERVER_ONLY;
  }

  [[nodiscard]] asio_pulse_set_request as_request() const {
    asio_pulse_set_request request{};
    const auto named = [&](const CLI::Option* option, asio_pulse_setting field) {
      if (option->count() > 0) request.fields |= static_cast<std::uint32_t>(field);
    };
    named(given.mode, ASIO_PULSE_SET_MODE);
    named(given.slice, ASIO_PULSE_SET_SLICE);
    named(given.grace, ASIO_PULSE_SET_GRACE);
    named(given.max_critical, ASIO_PULSE_SET_MAX_CRITICAL);
    named(given.throttle, ASIO_PULSE_SET_THROTTLE);
    named(given.throttle_percent, ASIO_PULSE_SET_THROTTLE_PERCENT);
    request.mode = static_cast<std::uint32_t>(chosen_mode());
    request.slice_ns = to_u64(from_ms(slice_ms));
    request.grace_ns = to_u64(from_ms(grace_ms));
    request.max_critical_ns = to_u64(from_ms(max_critical_ms));
    request.throttle_ns = to_u64(from_ms(throttle_ms));
    request.throttle_percent = throttle_percent;
    return request;
  }
};

void print(const std::string& text) {
  if (std::fputs(text.c_str(), stdout) == EOF || std::fflush(stdout) != 0) {
    throw std::runtime_error("the output cannot be written");
  }
}

int print_status(const std::string& socket, bool json) {
  const std::string answer = ask_status(socket);
  print(json ? printable_json(answer) + "\n" : status_text(answer));
  return exit_fine;
}

int print_check(const std::string& socket, bool json) {
  const check_report report = judge(look_at_machine(socket));
  print(json ? check_json(report) + "\n" : check_text(report));
  return report.can_run ? exit_fine : exit_cannot_run;
}

int run_command(int argc, char** argv) {
  CLI::App app(description, "scx_pulse");
  app.footer(statuses);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::Throw);

  loader_options options;
  adjustable start;
  start.add_to(app, true);
  std::string policy(local_policy_name(options.scheduler.policy));
  const auto policies = local_policy_names();
  app.add_option("--policy", policy, "how the threads of a CPU take turns")
      ->check(one_of({policies.begin(), policies.end()}))
      ->capture_default_str();
  std::string socket_mode = "0666";
  app.add_option("--socket-mode", socket_mode, "permission bits of the socket: who may connect")
      ->check(permission_bits())
      ->capture_default_str();
  double statistics = 0;
  app.add_option("--stats", statistics, "print statistics at this interval in seconds")
      ->check(within(0.1, 86400, " s"));
  app.add_flag("--debug", options.scheduler.debug, "print every hint, and libbpf's messages");
  CLI::Option* const socket =
      app.add_option("--socket", options.service.path, "the unix socket that is served, or asked")
          ->envname(ASIO_PULSE_SOCKET_VARIABLE)
          ->capture_default_str();
  CLI::Option* const json =
      app.add_flag("--json", options.json, "JSON, one object a line, instead of text");

  CLI::App* const status =
      app.add_subcommand("status", "print the status of the running scx_pulse");
  CLI::App* const check =
      app.add_subcommand("check", "print what this machine lacks for scx_pulse; loads nothing");
  CLI::App* const set = app.add_subcommand(
      "set", "change settings of the running scx_pulse; for root and its own user only");
  for (CLI::App* sub : {status, check, set}) sub->fallthrough();  // --socket and --json may follow
  app.require_subcommand(0, 1);
  adjustable change;
  change.add_to(*set, false);

  try {
    app.parse(argc, argv);
    const auto chosen = app.get_subcommands();
    for (const CLI::Option* option : app.get_options()) {
      if (!chosen.empty() && option->count() > 0 && option != socket && option != json) {
        throw CLI::ValidationError(option->get_name(),
                                   "does not go with the subcommand " + chosen.front()->get_name());
      }
    }
    if (set->parsed() && change.as_request().fields == 0) {
      throw CLI::ValidationError("set", "names nothing to change; see scx_pulse set --help");
    }
  } catch (const CLI::ParseError& wrong) {
    if (app.exit(wrong) != 0) return exit_usage;
    if (!std::cout.flush()) throw std::runtime_error("the output cannot be written");
    return exit_fine;
  }

  if (status->parsed()) return print_status(options.service.path, options.json);
  if (check->parsed()) return print_check(options.service.path, options.json);
  if (set->parsed()) {
    ask_change(options.service.path, change.as_request());
    return exit_fine;
  }
  options.scheduler.mode = start.chosen_mode();
  options.scheduler.policy = local_policy_of(policy).value();
  options.scheduler.slice = from_ms(start.slice_ms);
  options.scheduler.grace = from_ms(start.grace_ms);
  options.scheduler.max_critical = from_ms(start.max_critical_ms);
  options.scheduler.throttle = from_ms(start.throttle_ms);
  options.scheduler.throttle_percent = start.throttle_percent;
  options.service.mode = static_cast<mode_t>(std::stoul(socket_mode, nullptr, 8));
  options.statistics_every = std::chrono::duration<double>(statistics);
  return run_loader(options);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run_command(argc, argv);
  } catch (const std::exception& why) {
    std::fprintf(stderr, "scx_pulse: %s\n", why.what());
    return exit_cannot_run;
  }
}
