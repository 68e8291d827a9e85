// SPDX-License-Identifier: BSL-1.0
//
// The cost that asio-pulse adds to a poll, an operation and a round trip. Built as poll_path_stock,
// poll_path_pulse and poll_path_disabled (ASIO_PULSE_DISABLE). The runner interleaves them, and
// takes the median of the differences. Each run checks that the operations have run.

#include "annotations.hpp"
#include "measure.hpp"
#include "poll_loops.hpp"

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

/// How asio-pulse is used. \c plain has neither watchdog nor inspection, whose threads would end
/// the C library's shortcuts for single-threaded programs. \c watched has the defaults. \c off is
/// switched off. \c counted and \c grouped are plain, with a clock that valgrind has, too; in \c
/// grouped the tasks are in a group.
enum class use { plain, watched, off, counted, grouped };

std::unique_ptr<bench::io_context> make_context(bool hint_one, [[maybe_unused]] use how) {
#if !defined(BENCH_STOCK) && !defined(ASIO_PULSE_DISABLE)
  if (how != use::watched) {
    asio_pulse::options o;
    o.watchdog = false;
    o.inspectable = false;
    o.enabled = how != use::off;
    if (how == use::counted || how == use::grouped) {
      o.clock = asio_pulse::timing::clock_kind::steady;
      // Under valgrind each poll is a long one, which must not change what is done.
      o.stall_threshold = o.yield_threshold = o.isolate_threshold = 0ns;
      o.hints = asio_pulse::hint_source::off;
    }
    return hint_one ? std::make_unique<bench::io_context>(o, 1)
                    : std::make_unique<bench::io_context>(o);
  }
#endif
  // What io_context() itself has for a hint, or the hint 1.
  return hint_one ? std::make_unique<bench::io_context>(1) : std::make_unique<bench::io_context>();
}

struct outcome {
  std::uint64_t operations;
  std::uint64_t polls;  ///< that asio-pulse accounted for; 0 in stock
};

// Tasks that may use a whole CPU: they are accounted for at every poll, and never over budget. So
// the difference to stock is the cost of accounting.
constexpr auto budget = 5ms;
constexpr auto window = 5ms;

/// Chains of as many tasks, one poll of each by turns: as connections do, no poll is of the same
/// task as the one before.
outcome post_chains(bench::io_context& io, std::uint64_t count, const bench::task_place& place) {
  constexpr std::uint64_t number = 16;
  std::vector<bench::task> tasks;
  std::array<std::uint64_t, number> left;
  left.fill(count / number);
  for (auto& remaining : left) {
    const bench::task_scope scope{tasks.emplace_back(io, budget, window, place)};
    bench::start_chain(io, remaining);
  }
  io.run();
  outcome result{count, 0};
  for (const auto& remaining : left) result.operations -= remaining;
  for (const auto& task : tasks) result.polls += task.polls();
  return result;
}

outcome run_case(const std::string& name, bench::io_context& io, std::uint64_t count,
                 const bench::task_place& place) {
  if (name == "post_16_tasks") return post_chains(io, count, place);
  const bench::task task{io, budget, window, place};
  const bench::task_scope scope{task};
  static const std::map<std::string, std::uint64_t (*)(bench::io_context&, std::uint64_t)> loops{
      {"post", bench::post_chain},
      {"post_hint_1", bench::post_chain},
      {"strand_post", bench::strand_chain},
      {"any_strand_post", bench::any_strand_chain},
      {"co_await_post", bench::co_await_post},
      {"ping_pong", bench::ping_pong},
      {"poll_idle", bench::idle_polls},
      {"poll_post", bench::posts_and_polls}};
  const auto loop = loops.find(name);
  if (loop == loops.end()) throw std::invalid_argument("no case called " + name);
  const auto operations = loop->second(io, count);
  return {operations, task.polls()};
}

int measure(const std::string& name, std::uint64_t count, int rounds, use how) {
  auto io = make_context(name == "post_hint_1", how);
  std::optional<bench::group> group;
  if (how == use::grouped) group.emplace(*io, "bench", 100U);
  const bench::task_place place{.of = group ? &*group : nullptr};
  outcome last{};
  const double ns = bench::ns_per_operation(count, rounds, [&](std::uint64_t operations) {
    io->restart();
    last = run_case(name, *io, operations, place);
    if (last.operations != operations) throw std::runtime_error(name + ": operations were lost");
  });
  std::printf(R"({"case":"%s","ns":%.4f,"polls":%llu,"pulse":%s})"
              "\n",
              name.c_str(), ns, static_cast<unsigned long long>(last.polls),
              bench::stats_json(*io).c_str());
  return 0;
}

/// The size of an operation, for Asio's own operation types with a handler of one pointer.
int print_sizes() {
  const auto handler = [self = static_cast<void*>(nullptr)](auto&&...) { bench::keep(self); };
  using handler_type = std::remove_const_t<decltype(handler)>;
  const auto nullary = [self = static_cast<void*>(nullptr)] { bench::keep(self); };
  using nullary_type = std::remove_const_t<decltype(nullary)>;
  namespace detail = asio::detail;
  using io_executor = asio::any_io_executor;
  const std::map<std::string, std::size_t> sizes{
      {"scheduler_operation", sizeof(detail::scheduler_operation)},
      {"reactor_op", sizeof(detail::reactor_op)},
      {"post: executor_op",
       sizeof(
           detail::executor_op<nullary_type, std::allocator<void>, detail::scheduler_operation>)},
      {"timer: wait_handler", sizeof(detail::wait_handler<handler_type, io_executor>)},
      {"socket: reactive_socket_recv_op",
       sizeof(detail::reactive_socket_recv_op<asio::mutable_buffer, handler_type, io_executor>)},
      {"socket: reactive_socket_send_op",
       sizeof(detail::reactive_socket_send_op<asio::const_buffer, handler_type, io_executor>)},
  };
  std::string json = "{";
  for (const auto& [name, size] : sizes) {
    json += (json.size() > 1 ? ",\"" : "\"") + name + "\":" + std::to_string(size);
  }
  std::printf("%s}\n", json.c_str());
  return 0;
}

#if !defined(BENCH_STOCK) && !defined(ASIO_PULSE_DISABLE)
int print_task_sizes() {
  std::printf("{\"task_budget\":%zu,\"task\":%zu}\n", sizeof(asio_pulse::task_budget),
              sizeof(asio_pulse::detail::task_state));
  return 0;
}
#else
int print_task_sizes() { throw std::logic_error("no tasks in this program"); }
#endif

}  // namespace

int main(int argc, char** argv) try {
  if (argc == 2 && std::strcmp(argv[1], "sizes") == 0) return print_sizes();
  if (argc == 2 && std::strcmp(argv[1], "task_sizes") == 0) return print_task_sizes();
  if (argc < 4) {
    std::fprintf(stderr,
                 "usage: %s CASE OPERATIONS ROUNDS [watched | off | counted | grouped] | sizes | "
                 "task_sizes\n",
                 argv[0]);
    return 2;
  }
  const std::string word = argc > 4 ? argv[4] : "";
  static const std::map<std::string, use> modes{{"", use::plain},
                                                {"watched", use::watched},
                                                {"off", use::off},
                                                {"counted", use::counted},
                                                {"grouped", use::grouped}};
  const auto mode = modes.find(word);
  if (mode == modes.end()) throw std::invalid_argument("no mode called " + word);
  const use how = mode->second;
  return measure(argv[1], std::strtoull(argv[2], nullptr, 10), std::atoi(argv[3]), how);
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s: %s\n", argv[0], e.what());
  return 1;
}
