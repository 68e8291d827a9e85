// SPDX-License-Identifier: BSL-1.0
#include <asio_pulse/detail/isolation_threads.hpp>
#include <asio_pulse/detail/shards/shard_threads.hpp>

#include <algorithm>
#include <array>
#include <fstream>
#include <sstream>
#include <string_view>
#include <thread>

#if defined(__linux__)
#include "process/cpu_quota.hpp"
#include "threads/thread_usage.hpp"

#include <pthread.h>
#include <sched.h>
#endif
#include <ctime>

namespace asio_pulse::detail {

#if defined(__linux__)
namespace {

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// The smallest quota of the process's group and of those above it. In a container with a cgroup
// namespace of its own, the path is "/", and /sys/fs/cgroup is the container's group.
std::size_t quota() {
  std::string group = unified_group(text_of("/proc/self/cgroup"));
  std::size_t least = no_quota;
  for (;;) {
    least = std::min(least, cpus_of_quota(text_of("/sys/fs/cgroup" + group + "/cpu.max")));
    const std::size_t slash = group.rfind('/');
    if (slash == std::string::npos) return least;
    group.resize(slash);
  }
}

// The mask is as large as the kernel's: with more than 1024 CPUs a cpu_set_t is too small.
class cpu_mask {
 public:
  cpu_mask() {
    for (words_.resize(16); words_.size() <= 1024; words_.resize(words_.size() * 2)) {
      known_ = ::sched_getaffinity(0, bytes(), data()) == 0;
      if (known_) return;
    }
  }
  [[nodiscard]] std::vector<int> cpus() const {
    std::vector<int> found;
    if (!known_) return found;
    const int end = static_cast<int>(bytes() * 8);
    for (int cpu = 0; cpu != end; ++cpu) {
      if (CPU_ISSET_S(static_cast<std::size_t>(cpu), bytes(), data())) found.push_back(cpu);
    }
    return found;
  }

 private:
  [[nodiscard]] std::size_t bytes() const noexcept { return words_.size() * sizeof(words_[0]); }
  [[nodiscard]] cpu_set_t* data() noexcept { return reinterpret_cast<cpu_set_t*>(words_.data()); }
  [[nodiscard]] const cpu_set_t* data() const noexcept {
    return reinterpret_cast<const cpu_set_t*>(words_.data());
  }

  std::vector<unsigned long> words_;
  bool known_ = false;
};

}  // namespace

std::vector<int> allowed_cpus() { return cpu_mask().cpus(); }

std::size_t usable_cpus() {
  const std::size_t allowed = allowed_cpus().size();
  const std::size_t cpus = allowed != 0 ? allowed : std::thread::hardware_concurrency();
  return std::max<std::size_t>(std::min(cpus, quota()), 1);
}

bool pin_this_thread(int cpu) noexcept {
  constexpr int most = 16384;
  if (cpu < 0 || cpu >= most || own_seccomp_filters() != 0) return false;
  std::array<unsigned long, most / (8 * sizeof(unsigned long))> words{};
  auto* const mask = reinterpret_cast<cpu_set_t*>(words.data());
  CPU_SET_S(static_cast<std::size_t>(cpu), sizeof words, mask);
  return ::pthread_setaffinity_np(::pthread_self(), sizeof words, mask) == 0;
}

std::chrono::nanoseconds thread_cpu_time() noexcept {
  timespec t{};
  (void)::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}
#else
std::vector<int> allowed_cpus() { return {}; }
std::size_t usable_cpus() { return std::max(std::thread::hardware_concurrency(), 1U); }
bool pin_this_thread(int) noexcept { return false; }
std::chrono::nanoseconds thread_cpu_time() noexcept { return {}; }
#endif

std::string invalid_cpus(const std::vector<int>& cpus) {
  const std::vector<int> allowed = allowed_cpus();
  if (allowed.empty()) return {};
  for (const int cpu : cpus) {
    if (!std::binary_search(allowed.begin(), allowed.end(), cpu)) {
      return "CPU " + std::to_string(cpu) + " does not exist, or this process may not run on it";
    }
  }
  return {};
}

void name_shard_thread(std::size_t shard) noexcept {
  std::array<char, 16> name{"shard/"};
  std::size_t end = 6;
  std::array<char, 8> digits{};
  std::size_t count = 0;
  do digits[count++] = static_cast<char>('0' + shard % 10);
  while ((shard /= 10) != 0 && count != digits.size());
  while (count != 0) name[end++] = digits[--count];
  name_thread(name.data());
}

}  // namespace asio_pulse::detail
