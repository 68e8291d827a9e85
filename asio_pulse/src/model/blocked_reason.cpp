// SPDX-License-Identifier: BSL-1.0

#include "blocked_reason.hpp"

#include <algorithm>
#include <array>
#include <span>

namespace asio_pulse::detail {
namespace {

using std::string_view;

constexpr blocked_reason dns{waits_for::name_resolution, "for a name to be resolved",
                             "Use boost::asio::ip::tcp::resolver::async_resolve, which waits on a "
                             "background thread, and cache the result."};
constexpr blocked_reason lock{
    waits_for::lock, "for a lock",
    "Hold the lock for a shorter time, and never across I/O; or protect the state with a strand "
    "instead; or do the work that needs the lock on another thread pool."};
constexpr blocked_reason condition{
    waits_for::lock, "for another thread's result (a condition variable or a future)",
    "Do not wait for the result: let the other thread post it as a handler, or co_await it."};
constexpr blocked_reason sleep{
    waits_for::call, "in a sleep",
    "Wait with a boost::asio::steady_timer, so that other handlers run meanwhile."};
constexpr blocked_reason child{
    waits_for::call, "for another process to end",
    "Wait for SIGCHLD with a boost::asio::signal_set, or use Boost.Process with the context."};
constexpr blocked_reason readiness{
    waits_for::call, "for a descriptor to become ready",
    "Use the asynchronous operation of the socket or descriptor instead of waiting inside a "
    "handler; call a library that can only wait from a thread pool."};
constexpr blocked_reason network{
    waits_for::call, "for a peer",
    "Use the asynchronous operation (async_connect, async_read_some, async_write_some ...), or a "
    "thread pool for a library that has only blocking calls."};
constexpr blocked_reason io{
    waits_for::call, "for a file, a pipe or a peer",
    "Use the asynchronous operation: for files boost::asio::stream_file if io_uring is available, "
    "otherwise a thread pool (boost::asio::thread_pool)."};
constexpr blocked_reason disk{
    waits_for::call, "for the disk",
    "Do it on a thread pool (boost::asio::thread_pool) and post the result back."};
constexpr blocked_reason unknown{
    waits_for::call, "in the kernel, but in no known system call",
    "If its stack shows plain computation, it waited for memory that is read from disk: keep the "
    "memory that handlers use resident (mlock, less swapping). Otherwise do it on a thread pool "
    "(boost::asio::thread_pool) and post the result back."};
constexpr blocked_reason undescribed{
    waits_for::call, "in the kernel; no stack was taken, because reports are limited",
    "Look again while it lasts, or allow more reports (options::report_interval, "
    "options::reports_per_second): each report has the stack."};
constexpr blocked_reason other{
    waits_for::call, "in a system call",
    "Do it on a thread pool (boost::asio::thread_pool) and post the result back."};

struct call_rule {
  string_view call;
  const blocked_reason& why;
};
constexpr call_rule calls[] = {{"futex", lock},
                               {"futex_waitv", lock},
                               {"futex_wait", lock},
                               {"nanosleep", sleep},
                               {"clock_nanosleep", sleep},
                               {"pause", sleep},
                               {"wait4", child},
                               {"waitid", child},
                               {"poll", readiness},
                               {"ppoll", readiness},
                               {"select", readiness},
                               {"pselect6", readiness},
                               {"epoll_wait", readiness},
                               {"epoll_pwait", readiness},
                               {"epoll_pwait2", readiness},
                               {"connect", network},
                               {"accept", network},
                               {"accept4", network},
                               {"recvfrom", network},
                               {"recvmsg", network},
                               {"recvmmsg", network},
                               {"sendto", network},
                               {"sendmsg", network},
                               {"sendmmsg", network},
                               {"read", io},
                               {"readv", io},
                               {"write", io},
                               {"writev", io},
                               {"sendfile", io},
                               {"splice", io},
                               {"flock", lock},
                               {"pread64", disk},
                               {"preadv", disk},
                               {"pwrite64", disk},
                               {"pwritev", disk},
                               {"fsync", disk},
                               {"fdatasync", disk},
                               {"sync", disk},
                               {"syncfs", disk},
                               {"msync", disk},
                               {"open", disk},
                               {"openat", disk},
                               {"rename", disk},
                               {"renameat2", disk},
                               {"unlink", disk},
                               {"unlinkat", disk},
                               {"getdents64", disk},
                               {"ftruncate", disk}};

constexpr bool word_char(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/// Whether `wanted` is true for one of the words in the text.
template <typename Predicate>
bool any_word(string_view text, Predicate wanted) noexcept {
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = at;
    while (end < text.size() && word_char(text[end])) ++end;
    if (end != at && wanted(text.substr(at, end - at))) return true;
    at = std::max(end, at + 1);
  }
  return false;
}

bool resolver_word(string_view word) noexcept {
  static constexpr std::array names{
      string_view{"getaddrinfo"},    string_view{"gethostbyname"}, string_view{"gethostbyname_r"},
      string_view{"gethostbyname2"}, string_view{"gethostbyaddr"}, string_view{"gethostbyaddr_r"},
      string_view{"getnameinfo"},    string_view{"gaih_inet"},     string_view{"res_query"},
      string_view{"res_search"},     string_view{"res_nquery"},    string_view{"res_nsearch"},
      string_view{"res_nsend"},      string_view{"res_send"}};
  return word.starts_with("__res_") || word.starts_with("_nss_dns_") ||
         std::find(names.begin(), names.end(), word) != names.end();
}

bool condition_word(string_view word) noexcept {
  return word.starts_with("pthread_cond_") || word.starts_with("__pthread_cond_") ||
         word == "condition_variable" || word == "__atomic_futex_unsigned_base" ||
         word == "_State_baseV2" || word == "condition_variable_any";
}

bool lock_word(string_view word) noexcept {
  static constexpr std::array names{
      string_view{"__lll_lock_wait"},       string_view{"__lll_lock_wait_private"},
      string_view{"pthread_mutex_lock"},    string_view{"__pthread_mutex_lock"},
      string_view{"__GI___lll_lock_wait"},  string_view{"___pthread_mutex_lock"},
      string_view{"pthread_rwlock_rdlock"}, string_view{"pthread_rwlock_wrlock"}};
  return std::find(names.begin(), names.end(), word) != names.end();
}

const blocked_reason& why_blocked_in(string_view system_call, std::span<const stack_frame> stack,
                                     std::size_t blamed) noexcept {
  // Only frames up to the one to blame count, because its callers do not show why it waits.
  const auto frames = blamed < stack.size() ? stack.first(blamed + 1) : stack;
  const auto in_stack = [&](bool (*word)(string_view) noexcept) {
    return std::any_of(frames.begin(), frames.end(),
                       [&](const stack_frame& f) { return any_word(f.function, word); });
  };
  if (in_stack(resolver_word)) return dns;
  // As in "read fd 5", the name comes first.
  const string_view call = system_call.substr(0, system_call.find(' '));
  if (call.empty()) return in_stack(lock_word) ? lock : unknown;
  for (const call_rule& rule : calls) {
    if (call != rule.call) continue;
    return rule.why.kind == waits_for::lock && in_stack(condition_word) ? condition : rule.why;
  }
  return other;
}

}  // namespace

bool described(const stall_metrics& stall) noexcept {
  return !stall.stack.empty() || !stall.system_call.empty();
}

blocked_reason why_blocked(const stall_metrics& stall) noexcept {
  if (!described(stall)) return undescribed;
  return why_blocked_in(stall.system_call, stall.stack, stall.blamed);
}

namespace {

/// Whether the program can do something about a missing stack.
bool curable(no_stack why) noexcept {
  switch (why) {
    case no_stack::signal_blocked:
    case no_stack::handler_replaced:
    case no_stack::not_permitted:
    case no_stack::small_stack:
    case no_stack::no_descriptor:
    case no_stack::filtered:
      return true;
    case no_stack::none:
    case no_stack::switched_off:
    case no_stack::moved_on:
    case no_stack::no_answer:
    case no_stack::no_memory:
    case no_stack::unreadable:
    case no_stack::unsupported:
      break;
  }
  return false;
}

}  // namespace

string_view remedy_of(const report& r) noexcept {
  constexpr string_view long_poll = "asio_pulse/docs/lints.md#long_poll";
  if (r.kind == report_kind::slow_poll) return long_poll;
  if (r.kind != report_kind::stall) return {};
  // First the reason why the report does not name the function.
  if (curable(r.why_no_stack)) return "asio_pulse/docs/lints.md#no_stack";
  if (r.cause == stall_cause::spinning) return long_poll;
  // Other causes come from the kernel, or are not known.
  if (r.cause != stall_cause::blocked || (r.stack.empty() && r.system_call.empty())) return {};
  switch (why_blocked_in(r.system_call, r.stack, blamed_frame(r.stack)).kind) {
    case waits_for::lock:
      return "asio_pulse/docs/lints.md#blocked_lock";
    case waits_for::name_resolution:
      return "asio_pulse/docs/lints.md#blocked_dns";
    case waits_for::call:
      return "asio_pulse/docs/lints.md#blocked_call";
  }
  return {};
}

}  // namespace asio_pulse::detail
