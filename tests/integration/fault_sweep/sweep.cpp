// SPDX-License-Identifier: BSL-1.0

#include "sweep.hpp"

#include <dirent.h>
#include <execinfo.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

namespace pulse_test {

bool tally::undisturbed() const noexcept {
  bool refused = false;
  for (const auto& r : refused_) refused = refused || r;
  return !refused && told_ == 0;
}

const char* tally::fault() const noexcept {
  if (const char* const what = wrong_) return what;
  int lost = 0;
  for (std::size_t i = 0; i != asked_; ++i) {
    if (ran_[i] > 1) return "a handler ran twice";
    if (ran_[i] == 1 && refused_[i]) return "a handler ran that had been refused";
    if (ran_[i] == 0 && !refused_[i]) ++lost;
  }
  return lost > told_ ? "a handler was lost, and nobody was told" : nullptr;
}

namespace {

constexpr unsigned hangs_after = 20;  // seconds; a run takes milliseconds

/// The open descriptors of a process. Files of /proc are apart: the watchdog keeps those of the thread
/// that it looked at last, so whether they are open depends on the machine's load.
struct open_files {
  int of_proc = 0;
  int others = 0;
};
constexpr int kept_of_proc = 5;  // docs/install.md, "Threads, descriptors and signals"

/// The result of a child process, in shared memory.
struct legacy {
  std::array<std::uint64_t, faults::kinds> counts{};
  faults::failure failure{};
  open_files descriptors;
  char names[1024]{};  // of the descriptors, one on each line
  long live = 0;
  bool reached = false;
  char message[160]{};
};

open_files descriptors_of_this_process(std::span<char> names) {
  open_files n;
  std::size_t used = 0;
  DIR* const folder = ::opendir("/proc/self/fd");
  while (const dirent* const entry = ::readdir(folder)) {
    char target[100]{};
    if (::readlinkat(::dirfd(folder), entry->d_name, target, sizeof target - 1) < 0) continue;
    const std::string_view name = target;
    const bool is_listing = name.starts_with("/proc/") && name.ends_with("/fd");
    if (is_listing) continue;
    ++(name.starts_with("/proc/") ? n.of_proc : n.others);
    const std::span<char> rest = names.subspan(used);
    const int length =
        std::snprintf(rest.data(), rest.size(), "\n    %s: %s", entry->d_name, target);
    used += std::min(static_cast<std::size_t>(length), rest.size() - 1);
  }
  ::closedir(folder);
  return n;
}

// The open descriptors, after a short wait for threads of the library that still close some. `usual`
// is the expected number of others, or negative if it is not known.
void settle_descriptors(int usual, legacy& to) {
  for (int wait = 0; wait != 50; ++wait) {
    ::usleep(usual < 0 || wait != 0 ? 2000 : 0);
    to.descriptors = descriptors_of_this_process(to.names);
    if (usual >= 0 && to.descriptors.others <= usual) break;
  }
}

void say(legacy& to, const char* when, const char* what) {
  std::snprintf(to.message, sizeof to.message, "%s%s", when, what);
}

// Runs the scenario with the failure in a new process, and then again without a failure.
[[noreturn]] void child(const scenario& s, faults::kind k, std::uint64_t n, int usual, legacy& to) {
  ::alarm(hangs_after);
  const long before = faults::live();
  {
    tally t;
    faults::arm(k, n, to.failure);
    s.run(t);
    faults::disarm();
    for (std::size_t i = 0; i != faults::kinds; ++i)
      to.counts[i] = faults::count(faults::all_kinds[i]);
    to.reached = t.has_reached();
    if (t.fault() != nullptr) say(to, "", t.fault());
  }
  tally again;
  s.run(again);
  if (to.message[0] == '\0') {
    if (again.fault() != nullptr) say(to, "in the next run ", again.fault());
    if (!again.undisturbed()) say(to, "in the next run ", "something is refused still");
  }
  to.live = faults::live() - before;
  settle_descriptors(usual, to);
  ::_exit(0);
}

/// One run, in its own process.
class trial {
 public:
  trial(const scenario& s, faults::kind k, std::uint64_t n, int usual = -1) {
    to_ = new (::mmap(nullptr, sizeof(legacy), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                      -1, 0)) legacy;
    std::fflush(nullptr);
    const pid_t pid = ::fork();
    if (pid == 0) child(s, k, n, usual, *to_);
    int status = 0;
    if (pid < 0 || ::waitpid(pid, &status, 0) != pid) std::abort();
    if (WIFSIGNALED(status)) {
      end_ = WTERMSIG(status) == SIGALRM
                 ? "it hangs"
                 : "it was ended by signal " + std::to_string(WTERMSIG(status));
    } else if (WEXITSTATUS(status) != 0) {
      end_ = "it exited with " + std::to_string(WEXITSTATUS(status));
    } else {
      end_ = to_->message;
    }
  }
  ~trial() { ::munmap(to_, sizeof(legacy)); }
  trial(const trial&) = delete;
  trial& operator=(const trial&) = delete;

  [[nodiscard]] const legacy& left() const { return *to_; }
  /// What is wrong, or empty.
  [[nodiscard]] const std::string& fault() const { return end_; }

 private:
  legacy* to_;
  std::string end_;
};

/// The counts and leftovers of runs in which nothing fails.
struct norm {
  std::array<std::uint64_t, faults::kinds> counts{};
  int descriptors = 0;  // none of /proc
  long live = 0;
};

norm measure(const scenario& s) {
  norm n;
  for (int i = 0; i != 3; ++i) {
    std::optional<trial> last(std::in_place, s, faults::kind::allocation, 0);
    // On a busy machine what the scenario waits for may come too late.
    for (int more = 20; more != 0 && last->fault().empty() && !last->left().reached; --more)
      last.emplace(s, faults::kind::allocation, 0);
    const trial& t = *last;
    EXPECT_EQ(t.fault(), "") << "without a fault";
    EXPECT_TRUE(t.left().reached) << "the scenario did not take the path that it tests";
    for (std::size_t k = 0; k != faults::kinds; ++k)
      n.counts[k] = std::max(n.counts[k], t.left().counts[k]);
    n.descriptors = std::max(n.descriptors, t.left().descriptors.others);
    n.live = std::max(n.live, t.left().live);
  }
  return n;
}

std::string fault_of(const scenario& s, const trial& t, const norm& usual) {
  if (!t.fault().empty()) return t.fault();
  const open_files now = t.left().descriptors;
  if (const int more = now.others - usual.descriptors; more > 0) {
    return "descriptors are left: " + std::to_string(more) + " of" + t.left().names;
  }
  if (now.of_proc > kept_of_proc) {
    return "files of /proc are left: " + std::to_string(now.of_proc) + " of" + t.left().names;
  }
  // A run that was cut short may have cached one allocation for the next run. A leaked task would
  // be two.
  if (s.exact && t.left().live > usual.live + 1) {
    return "memory is left: " + std::to_string(t.left().live - usual.live) + " allocations";
  }
  return {};
}

std::string describe(const legacy& l) {
  std::ostringstream text;
  text << (l.failure.what != nullptr ? l.failure.what : "nothing") << " failed at";
  char** const names =
      ::backtrace_symbols(l.failure.stack.data(), static_cast<int>(l.failure.depth));
  for (std::size_t i = 0; names != nullptr && i != l.failure.depth; ++i)
    text << "\n    " << names[i];
  std::free(names);
  return text.str();
}

}  // namespace

void sweep(const scenario& s) {
  void* warm[1];
  (void)::backtrace(warm, 1);  // the first call loads a library
  const auto begin = std::chrono::steady_clock::now();
  const norm usual = measure(s);
  if (testing::Test::HasFailure()) return;
  int findings = 0;
  std::size_t trials = 0;
  std::string counts;
  for (const faults::kind k : faults::all_kinds) {
    const std::uint64_t all = usual.counts[static_cast<std::size_t>(k)];
    counts += std::string(counts.empty() ? "" : ", ") + std::to_string(all) + " " + to_string(k);
    const std::uint64_t step = std::max<std::uint64_t>(1, (all + s.most - 1) / s.most);
    for (std::uint64_t n = 1; n <= all; n += step) {
      std::string fault;
      // Leftovers may depend on other threads. A leak is found each time.
      for (int attempt = 0; attempt != 3; ++attempt) {
        const trial t(s, k, n, usual.descriptors);
        ++trials;
        const std::string now = fault_of(s, t, usual);
        if (now.empty()) {
          fault.clear();
          break;
        }
        fault = now + "\n  " + describe(t.left());
        if (!t.fault().empty()) break;
      }
      if (fault.empty()) continue;
      ADD_FAILURE() << s.name << ", " << to_string(k) << " " << n << ": " << fault;
      if (++findings == 12) return;
    }
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  std::printf("%s: %s; %zu refusals in %.1f s\n", s.name, counts.c_str(), trials, took.count());
}

std::vector<std::string> harm_without_memory(const scenario& s) {
  void* warm[1];
  (void)::backtrace(warm, 1);
  const norm usual = measure(s);
  std::vector<std::string> found;
  constexpr auto allocation = faults::kind::allocation;
  for (std::uint64_t n = 1; n <= usual.counts[static_cast<std::size_t>(allocation)]; ++n) {
    const trial t(s, allocation, n, usual.descriptors);
    const std::string fault = fault_of(s, t, usual);
    if (!fault.empty()) found.push_back("allocation " + std::to_string(n) + ": " + fault);
  }
  return found;
}

}  // namespace pulse_test
