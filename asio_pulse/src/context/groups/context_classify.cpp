// SPDX-License-Identifier: BSL-1.0
//
// The groups of accepted connections: options::classify.
#include "current_poll.hpp"
#include "task_groups.hpp"

#include <asio_pulse/detail/context_core.hpp>

#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <string_view>
#include <utility>

namespace asio_pulse::detail {
namespace {

constexpr std::string_view threw = "options::classify threw an exception";
constexpr std::string_view foreign = "options::classify returned a group of another context";
constexpr std::string_view no_memory = "no memory for the group that options::classify returned";

std::string with_reason(std::string_view fault, const char* reason) noexcept {
  try {
    return std::string(fault) + ": " + reason;
  } catch (const std::bad_alloc&) {
    return {};  // then the report has no reason
  }
}

}  // namespace

std::shared_ptr<const context_core::classifier> context_core::keep(classifier chooses,
                                                                   classifier& refers) {
  auto kept = std::make_shared<const classifier>(std::move(chooses));
  refers = [kept](const accepted_connection& c) { return (*kept)(c); };
  return kept;
}

void context_core::classify_by(classifier chooses) {
  std::shared_ptr<const classifier> fresh;
  classifier refers;
  if (chooses) fresh = keep(std::move(chooses), refers);
  const bool wanted = fresh != nullptr;
  std::unique_lock lock(update_mutex_);
  current_.classify.swap(refers);
  {
    const std::lock_guard held(classify_mutex_);
    classifier_.swap(fresh);
    classifies.store(wanted, std::memory_order_relaxed);
  }
  const std::uint64_t number = count_update();
  lock.unlock();
  show_update();
  // The program's function ends where no lock is held.
  refers = nullptr;
  fresh.reset();
  announce_update(number, nullptr, "classify");
}

// Returns what is wrong, or nothing.
std::string_view context_core::join_chosen(task_state& t, const group_ref& chosen) noexcept {
  if (&chosen.get()->core != this) return foreign;
  try {
    move(t, chosen);
    return {};
  } catch (const std::bad_alloc&) {
    return no_memory;
  }
}

void context_core::classify(hooks::task_record& connection, std::intptr_t socket) noexcept {
  if (closed()) return;
  std::shared_ptr<const classifier> chooses;
  {
    const std::lock_guard held(classify_mutex_);
    chooses = classifier_;
  }
  if (chooses == nullptr) return;
  task_state& t = state_of(connection);
  task_state* const listener = t.listener;
  accepted_connection c{.socket = socket, .task_id = t.id()};
  if (listener != nullptr) {
    c.listener_id = listener->id();
    c.listener_name = listener->name.get();
  }
  std::string_view fault;
  std::string reasoned;
  group_ref chosen;
  try {
    chosen = (*chooses)(c);
  } catch (const std::exception& e) {
    fault = threw;
    reasoned = with_reason(threw, e.what());
  } catch (...) {
    fault = threw;
  }
  if (fault.empty()) fault = chosen ? join_chosen(t, chosen) : std::string_view();
  if (fault.empty()) return;
  counters_.add<&statistics::classify_failures>();
  // About the listener, whose reports are limited: each connection is another task.
  send_report(report_kind::misuse, listener != nullptr ? *listener : *unnamed_,
              poll_of(hooks::this_thread()), std::chrono::nanoseconds{0},
              reasoned.empty() ? fault : reasoned);
}

}  // namespace asio_pulse::detail
