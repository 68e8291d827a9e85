// SPDX-License-Identifier: BSL-1.0
#pragma once

/// \file
/// For servers on Boost.Beast. asio_pulse.hpp does not include this.

#include <asio_pulse/hooks/requirements.hpp>
//
#include <asio_pulse/task_group.hpp>

#include <boost/beast/http/field.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/status.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/verb.hpp>

#include <algorithm>
#include <chrono>
#include <string>
#include <string_view>
#include <vector>

namespace asio_pulse {

/// What a request_guard does.
///
/// The order of the members is stable, so that designated initialisers continue to compile.
struct guard_options {
  /// The name and budget of each request's task. Its group is set by the guard.
  task_options request = {.name = "request"};

  /// Targets that are always served, such as health checks. A query is not compared.
  std::vector<std::string> always = {};

  /// When a client that is refused may try again. At least 1 s, because HTTP cannot say less.
  std::chrono::seconds retry_after = std::chrono::seconds{1};
};

/// Decides whether an HTTP request is served, before its handler runs, and makes it a task of its
/// group if it is.
///
///     const asio_pulse::request_guard guard(tenant, request);
///     if (!guard) return send(guard.refusal());
///
/// An admitted request is a new task of the group: the rest of this poll, and the operations that it
/// creates, are charged to it. So it can be made in a coroutine, too, before or after a co_await. The
/// guard uses this_task::begin(); the connection's own task stays in its group, which
/// options::classify or this_task::join() chooses.
///
/// \par Cost           That of admit() and of a task. For a refused request, that of admit().
/// \par Thread safety  Distinct objects: Safe. Shared objects: Unsafe.
class request_guard {
 public:
  /// \par Errors  std::invalid_argument if options.request is out of range; std::bad_alloc.
  template <class Body, class Fields>
  request_guard(const task_group& group, const boost::beast::http::request<Body, Fields>& request,
                const guard_options& options = {})
      : version_(request.version()),
        keep_alive_(request.keep_alive()),
        head_(request.method() == boost::beast::http::verb::head),
        retry_after_(std::max(options.retry_after, std::chrono::seconds{1})) {
    const auto target = request.target();
    if (!is_one_of(options.always, {target.data(), target.size()})) admitted_ = admit(group);
    if (!admitted_) return;
    task_options its = options.request;
    its.group = group;
    this_task::begin(its);
  }

  /// Whether the request is to be served.
  explicit operator bool() const noexcept { return static_cast<bool>(admitted_); }
  /// Why it is not.
  [[nodiscard]] asio_pulse::refusal why() const noexcept { return admitted_.why(); }

  /// The answer to a refused request: 503 with Retry-After. The connection is kept alive if the
  /// request asked for that. The answer to HEAD has no body.
  ///
  /// \par Errors  std::bad_alloc.
  [[nodiscard]] boost::beast::http::response<boost::beast::http::string_body> refusal() const {
    namespace http = boost::beast::http;
    http::response<http::string_body> answer{http::status::service_unavailable, version_};
    answer.set(http::field::retry_after, std::to_string(retry_after_.count()));
    answer.set(http::field::content_type, "text/plain");
    answer.keep_alive(keep_alive_);
    constexpr std::string_view text = "The server is overloaded.\n";
    if (!head_) answer.body() = text;
    answer.content_length(text.size());
    return answer;
  }

 private:
  static bool is_one_of(const std::vector<std::string>& always, std::string_view target) noexcept {
    const std::string_view path = target.substr(0, target.find('?'));
    return std::find(always.begin(), always.end(), path) != always.end();
  }

  admission admitted_;
  unsigned version_;
  bool keep_alive_;
  bool head_;
  std::chrono::seconds retry_after_;
};

}  // namespace asio_pulse
