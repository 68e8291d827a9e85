// SPDX-License-Identifier: BSL-1.0
//
// An HTTP server on Boost.Beast that gets more requests than it can serve. The server has one
// thread, the clients another.

#include "../../../measure.hpp"
#include "../open_loop.hpp"
#include "../server.hpp"
#include "shares.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#if !defined(BENCH_STOCK)
#include <asio_pulse/beast.hpp>
#endif

#include <algorithm>
#include <stdexcept>
#include <thread>

namespace worker {

namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using namespace std::chrono_literals;

/// A request is answered in time if its answer comes this soon after the time at which it should
/// have been sent. Goodput counts such answers.
constexpr std::chrono::nanoseconds in_time = 100ms;
/// What is due earlier is not measured: for one interval nothing is refused.
constexpr std::chrono::milliseconds settling = 300ms;
constexpr std::chrono::milliseconds patience = 300ms;

struct site_options {
  std::chrono::microseconds work;  ///< of the CPU for each request that is served
  std::chrono::microseconds admission_target;
  std::chrono::microseconds admission_interval;
};

/// The server, with one group for each tenant. It runs on a thread of its own until it is destroyed.
class site {
 public:
  site(const site_options& o, const std::vector<std::string>& tenants)
      : work_{o.work},
        server_{
            {.admission_target = o.admission_target, .admission_interval = o.admission_interval}},
        acceptor_{server_.io(), {asio::ip::address_v4::loopback(), 0}} {
    for (const std::string& name : tenants) {
      groups_.emplace(name, bench::group{server_.io(), name, 100});
    }
    asio::co_spawn(server_.io(), listen(), asio::detached);
    thread_ = std::thread{[this] { server_.run(); }};
  }
  ~site() { stop(); }
  site(const site&) = delete;
  site& operator=(const site&) = delete;

  std::uint16_t port() const { return acceptor_.local_endpoint().port(); }

  void stop() {
    if (!thread_.joinable()) return;
    server_.io().stop();
    thread_.join();
  }

  // After stop().
  std::uint64_t served() const { return served_; }
  std::uint64_t refused() const { return refused_; }
  const server& counts() const { return server_; }

 private:
  asio::awaitable<void> listen() {
    for (;;) {
      tcp::socket socket = co_await acceptor_.async_accept(asio::use_awaitable);
      socket.set_option(tcp::no_delay{true});
      // A client that closes its connection ends the session with an exception.
      asio::co_spawn(acceptor_.get_executor(), session(std::move(socket)), asio::detached);
    }
  }

  asio::awaitable<void> session(tcp::socket socket) {
    boost::beast::flat_buffer buffer;
    for (;;) {
      http::request<http::string_body> request;
      co_await http::async_read(socket, buffer, request, asio::use_awaitable);
      [[maybe_unused]] const bench::group& group = groups_.at(std::string(request["X-Tenant"]));
#if !defined(BENCH_STOCK)
      const asio_pulse::request_guard guard{group, request};
      if (!guard) {
        ++refused_;
        co_await http::async_write(socket, guard.refusal(), asio::use_awaitable);
        continue;
      }
#endif
      bench::spin(work_);
      ++served_;
      http::response<http::string_body> answer{http::status::ok, request.version()};
      answer.body() = "done\n";
      answer.prepare_payload();
      co_await http::async_write(socket, answer, asio::use_awaitable);
    }
  }

  const std::chrono::microseconds work_;
  server server_;
  std::map<std::string, bench::group> groups_;
  tcp::acceptor acceptor_;
  std::uint64_t served_ = 0;
  std::uint64_t refused_ = 0;
  std::thread thread_;
};

/// How many requests a second the server serves when it always has one, and never a queue.
double capacity(const site_options& o, std::chrono::milliseconds duration) {
  site s{{.work = o.work, .admission_target = 1s, .admission_interval = 1s}, {"one"}};
  const sent_requests sent = send_requests(s.port(), {{"one", 0, 2}}, duration, patience);
  const std::size_t first = sent.of[0].size() / 4;
  s.stop();
  if (!sent.fault.empty() || first == 0 || s.refused() != 0) {
    throw std::runtime_error("the capacity was not measured: " + sent.fault);
  }
  const auto span = static_cast<double>(sent.of[0].back().done - sent.of[0][first].done);
  return static_cast<double>(sent.of[0].size() - 1 - first) / span * 1e9;
}

/// What one tenant got for the requests that were due while it was measured.
struct tally {
  tally(const std::vector<request_times>& requests, std::int64_t end_of_wait,
        std::chrono::nanoseconds from, std::chrono::nanoseconds to)
      : seconds{std::chrono::duration<double>(to - from).count()} {
    for (const request_times& r : requests) {
      if (r.due < from.count() || r.due >= to.count()) continue;
      ++offered;
      const std::int64_t latency = r.latency(end_of_wait);
      late_to_send.push_back((r.sent < 0 ? end_of_wait : r.sent) - r.due);
      if (r.status == 503) {
        refused.push_back(latency);
      } else {
        not_refused.push_back(latency);
        good += r.status == 200 && latency <= in_time.count();
      }
    }
  }

  double goodput() const { return static_cast<double>(good) / seconds; }
  double percent(std::size_t count) const {
    return offered == 0 ? 0 : 100 * static_cast<double>(count) / static_cast<double>(offered);
  }
  /// Neither answered in time nor refused.
  std::size_t lost() const { return not_refused.size() - good; }

  double seconds;
  std::size_t offered = 0;
  std::size_t good = 0;
  std::vector<std::int64_t> refused;      ///< latencies of the answers 503
  std::vector<std::int64_t> not_refused;  ///< of all others
  std::vector<std::int64_t> late_to_send;
};

/// Each request that the clients saw served or refused, the server has served or refused.
void check_answers(const sent_requests& sent, const site& s, outcome& to) {
  std::uint64_t served = 0;
  std::uint64_t refused = 0;
  std::uint64_t others = 0;
  for (const auto& requests : sent.of) {
    for (const request_times& r : requests) {
      served += r.status == 200;
      refused += r.status == 503;
      others += r.status != 200 && r.status != 503 && r.done >= 0;
    }
  }
  to.check(sent.fault.empty(), sent.fault);
  to.check(others == 0, "each answer is 200 or 503");
  to.check(served > 0 && s.served() >= served && s.refused() >= refused,
           "the clients got the answers that the server sent");
}

}  // namespace

outcome shares_flood(const request& r) {
  // A target of some handlers: the longest wait of a tenant that keeps within its share.
  const site_options o{.work = 200us, .admission_target = 500us, .admission_interval = 10ms};
  outcome result;
  const double share = capacity(o, settling) / 2;
  site s{o, {"small", "flood"}};
  const auto end = settling + r.duration;
  const sent_requests sent = send_requests(
      s.port(), {{"small", 0.8 * share, 64}, {"flood", 10 * share, 256}}, end, patience);
  s.stop();
  check_answers(sent, s, result);

  const tally small{sent.of[0], sent.end, settling, end};
  const tally flood{sent.of[1], sent.end, settling, end};
  result.samples_ns["small_latency"] = small.not_refused;
  result.samples_ns["flood_refused_latency"] = flood.refused;
  result.samples_ns["flood_latency"] = flood.not_refused;
  result.samples_ns["small_late_to_send"] = small.late_to_send;
  result.values["share_per_s"] = share;
  result.values["small_offered_per_s"] = static_cast<double>(small.offered) / small.seconds;
  result.values["flood_offered_per_s"] = static_cast<double>(flood.offered) / flood.seconds;
  result.values["small_goodput_percent"] = small.percent(small.good);
  result.values["small_refused_percent"] = small.percent(small.refused.size());
  result.values["flood_goodput_per_s"] = flood.goodput();
  result.values["goodput_per_s"] = small.goodput() + flood.goodput();
  result.values["flood_refused_percent"] = flood.percent(flood.refused.size());
  result.values["flood_lost_percent"] = flood.percent(flood.lost());
  s.counts().add_counts(result, clock_type::now());
  if (result.verified) {
    result.verification =
        "each answer was one that the server sent; latencies count from the "
        "scheduled times, also of requests without an answer";
  }
  return result;
}

outcome shares_overload(const request& r) {
  const site_options o{.work = 500us, .admission_target = 5ms, .admission_interval = 100ms};
  outcome result;
  const double most = capacity(o, settling);
  result.values["capacity_per_s"] = most;
  double peak = 0;
  double last = 0;
  for (const double load : {0.8, 1.0, 1.2, 2.0}) {
    site s{o, {"one"}};
    const auto end = settling + r.duration;
    const sent_requests sent = send_requests(s.port(), {{"one", load * most, 256}}, end, patience);
    s.stop();
    check_answers(sent, s, result);
    const tally all{sent.of[0], sent.end, settling, end};
    last = all.goodput();
    peak = std::max(peak, last);
    const std::string suffix = "/" + std::to_string(load).substr(0, 3);
    result.values["goodput" + suffix] = last;
    result.values["lost" + suffix] = all.percent(all.lost());
    result.samples_ns["refused_latency"] = all.refused;
    result.samples_ns["latency"] = all.not_refused;
  }
  result.values["peak_per_s"] = peak;
  result.values["goodput_per_s"] = last;
  result.values["goodput_of_peak_percent"] = 100 * last / peak;
  if (result.verified) result.verification = "each answer was one that the server sent";
  return result;
}

}  // namespace worker
