// SPDX-License-Identifier: BSL-1.0
//
// pulse_bench runs the scenarios with plain Boost.Asio and with asio-pulse, compares and reports.

#include "catalogue/catalogue.hpp"
#include "compare.hpp"
#include "document.hpp"
#include "process.hpp"
#include "report_page.hpp"
#include "runner.hpp"
#include "table.hpp"

#include <boost/json.hpp>

#include <CLI/CLI.hpp>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <exception>

namespace {

using namespace pulse_bench;

struct run_arguments {
  std::vector<std::string> scenarios;
  settings with;
  std::string out;
  std::string html;
};

/// CLI11's range accepts "nan"; this refuses it.
std::string refuse_nan(std::string& text) {
  return text.find_first_of("nN") == std::string::npos ? "" : "must be a number (got " + text + ")";
}

/// Shows the progress in one line, which is overwritten.
void show_progress(const std::string& text, double share) {
  static const bool terminal = isatty(STDERR_FILENO) != 0;
  if (!terminal) return;
  fmt::print(stderr, "\r\x1b[K{}",
             text.empty() ? "" : fmt::format("{:3.0f} % {}", 100 * share, text));
  std::fflush(stderr);
}

void write_results(const boost::json::object& result, const std::string& out,
                   const std::string& html) {
  if (!out.empty()) write_file(out, boost::json::serialize(result) + "\n");
  if (!html.empty()) write_file(html, report_page(result));
}

int run(run_arguments args, const std::string& command) {
  if (args.scenarios.empty()) {
    for (const scenario_name& one : scenario_names()) {
      if (one.in_default_set) args.scenarios.push_back(one.name);
    }
  }
  if (args.with.quick) args.with.repetitions = std::min(args.with.repetitions, 3);
  for (const std::string& place : {args.out, args.html}) {
    if (!place.empty()) check_place(place);
  }
  const auto peers = args.with.programs / "peers";
  if (args.with.peers && !std::filesystem::is_directory(peers)) {
    throw std::runtime_error(
        "no peers were built: configure with -DASIO_PULSE_BUILD_PEERS=ON, or use benches/run "
        "--peers");
  }
  catch_interrupts();
  const boost::json::object result =
      run_scenarios(args.scenarios, args.with, command, show_progress);
  show_progress("", 1);
  // The files are written first, because stdout may have no reader any more. The tables are printed
  // even if the disk is full.
  std::exception_ptr unwritten;
  try {
    write_results(result, args.out, args.html);
  } catch (const std::exception&) {
    unwritten = std::current_exception();
  }
  fmt::print("{}", tables(result));
  std::fflush(stdout);
  if (unwritten) std::rethrow_exception(unwritten);
  for (const std::string& written : {args.out, args.html}) {
    if (!written.empty()) fmt::print("written: {}\n", for_terminal(written));
  }
  const std::vector<std::string> wrong = failures(result);
  for (const std::string& line : wrong) {
    fmt::print(stderr, "pulse_bench: not verified: {}\n", for_terminal(line));
  }
  return wrong.empty() ? 0 : 1;
}

/// Flushes the output, which may still be buffered, and returns the status.
int once_printed(int status) {
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    throw std::runtime_error("the output could not be written");
  }
  return status;
}

int list() {
  for (const scenario_name& one : scenario_names()) {
    fmt::print("{:<12} {}{}\n", one.name, one.question,
               one.in_default_set ? "" : " (only when named)");
  }
  return 0;
}

int compare_files(const std::string& a, const std::string& b, double limit) {
  const auto before = load_document(a);
  const auto after = load_document(b);
  const comparison c = compare(before, after, limit);
  if (c.differences.empty()) {
    throw bad_document("the two results have no figure in common");
  }
  fmt::print("{}", table(c, limit));
  return c.regression ? 1 : 0;
}

void add_run(CLI::App& app, run_arguments& args) {
  std::vector<std::string> known;
  for (const scenario_name& one : scenario_names()) known.push_back(one.name);
  app.add_option("SCENARIO", args.scenarios,
                 "the scenarios to run (default: all except soak and shares)")
      ->check(CLI::IsMember(known));
  app.add_option("--repetitions", args.with.repetitions,
                 "repetitions of each arm, interleaved (default: 6)")
      ->check(CLI::Range(1, 1000));
  app.add_option("--seconds", args.with.seconds,
                 "length of one repetition, for scenarios that can have any length")
      ->check(CLI::Range(0.05, 86400.0))
      ->check(CLI::Validator(refuse_nan, ""));
  app.add_flag("--peers", args.with.peers, "also run tokio, Go and Erlang, if they were built");
  app.add_option("--out", args.out, "write the result to this file, as JSON")->take_last();
  app.add_option("--html", args.html, "write the report to this file, as one page of HTML")
      ->take_last();
  app.add_flag("--quick", args.with.quick, "three short repetitions, to try it out");
  app.add_option("--programs", args.with.programs, "the folder with the benches' programs")
      ->check(CLI::ExistingDirectory);
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app{"Measures asio-pulse beside plain Boost.Asio."};
  app.name("pulse_bench");
  app.require_subcommand(1);
  run_arguments args;
  args.with.programs = built_programs();
  args.with.source = source_folder();
  CLI::App* const run_command = app.add_subcommand("run", "measure, and print tables");
  add_run(*run_command, args);
  CLI::App* const list_command = app.add_subcommand("list", "the scenarios");
  CLI::App* const compare_command =
      app.add_subcommand("compare",
                         "compare two results; the exit status is 1 if asio-pulse got worse, and 2 "
                         "if a file is not a result");
  std::string a;
  std::string b;
  double limit = 10;
  compare_command->add_option("A", a, "the earlier result")->required();
  compare_command->add_option("B", b, "the later result")->required();
  compare_command
      ->add_option("--limit", limit, "ignore changes up to this many percent (default: 10)")
      ->check(CLI::Range(0.0, 1e6))
      ->check(CLI::Validator(refuse_nan, ""));
  CLI::App* const report_command = app.add_subcommand("report", "write a result as a page of HTML");
  report_command->add_option("RESULT", a, "a result")->required();
  report_command->add_option("--html", args.html, "where to write the page")->required();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help
    fmt::print(stderr, "pulse_bench: {}; see --help\n", for_terminal(e.what()));
    return 2;
  }

  if (*list_command) return once_printed(list());
  if (*compare_command) return once_printed(compare_files(a, b, limit));
  if (*report_command) {
    write_file(args.html, report_page(load_document(a)));
    return 0;
  }
  if (!*run_command) return 0;
  std::string command = "pulse_bench";
  for (int n = 1; n < argc; ++n) command += std::string(" ") + argv[n];
  return once_printed(run(std::move(args), command));
} catch (const interrupted&) {
  fmt::print(stderr, "\npulse_bench: interrupted; nothing was written\n");
  return 130;
} catch (const bad_document& e) {
  fmt::print(stderr, "pulse_bench: {}\n", e.what());
  return 2;
} catch (const std::exception& e) {
  fmt::print(stderr, "pulse_bench: {}\n", e.what());
  return 1;
}
