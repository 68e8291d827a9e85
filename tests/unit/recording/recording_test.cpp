// SPDX-License-Identifier: BSL-1.0

#include <asio_pulse/recording.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <string>
#include <system_error>
#include <vector>

#if defined(__linux__)
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#include "sample.hpp"

namespace asio_pulse {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using test::everything;
using test::poll_at;
using testing::HasSubstr;
using testing::StartsWith;

struct decoded {
  recording value;
  std::error_code ec;
  std::string why;
};

decoded decode(std::string_view bytes) {
  decoded d;
  d.value = decode_recording(bytes, d.ec, &d.why);
  return d;
}

std::string little_endian(std::uint64_t value, std::size_t bytes) {
  std::string text;
  for (std::size_t i = 0; i < bytes; ++i) text.push_back(static_cast<char>(value >> (8 * i) & 255));
  return text;
}

// ---- events

TEST(recorded_event, keeps_what_it_was_made_of) {
  const auto e = recorded_event::make(event_kind::poll, 123456789ns, 77, 0xfffffffe, 4294967295ns);
  EXPECT_EQ(e.kind(), event_kind::poll);
  EXPECT_EQ(e.start(), 123456789ns);
  EXPECT_EQ(e.site(), 77U);
  EXPECT_EQ(e.task(), 0xfffffffeU);
  EXPECT_EQ(e.duration(), 4294967295ns);
}

TEST(recorded_event, lies_in_memory_as_documented) {
  const auto e = recorded_event::make(event_kind::tier, 0x123456789abcns, 0x7ff, 0x11223344,
                                      std::uint32_t{0x55667788});
  EXPECT_EQ(e.first, 0x123456789abc'ffe1ULL);
  EXPECT_EQ(e.second, 0x55667788'11223344ULL);
  EXPECT_EQ(e.value(), 0x55667788U);
}

// Old recordings have four tiers and the value from * 4 + to. More tiers use the bits above.
TEST(recorded_event, says_which_tiers_a_task_left_and_entered) {
  EXPECT_EQ(recorded_event::tier_change(tier::monitor, tier::yield), 0U * 4 + 2);
  EXPECT_EQ(recorded_event::tier_change(tier::isolate, tier::yield), 3U * 4 + 2);
  for (unsigned from = 0; from < 16; ++from) {
    for (unsigned to = 0; to < 16; ++to) {
      const auto e = recorded_event::make(
          event_kind::tier, 0ns, 0, 0,
          recorded_event::tier_change(static_cast<tier>(from), static_cast<tier>(to)));
      EXPECT_EQ(e.tier_before(), static_cast<tier>(from));
      EXPECT_EQ(e.tier_after(), static_cast<tier>(to));
    }
  }
}

TEST(recorded_event, keeps_long_durations_to_1024_ns_and_cuts_those_above_73_minutes) {
  const auto first_coarse = poll_at(0ns, 1, 4294967296ns);
  EXPECT_EQ(first_coarse.duration(), 4294967296ns);
  EXPECT_EQ(poll_at(0ns, 1, 10s).duration(), 9765625 * 1024ns);
  EXPECT_EQ(poll_at(0ns, 1, 10s + 1023ns).duration(), 9765625 * 1024ns);
  EXPECT_EQ(poll_at(0ns, 1, 10h).duration(), 4294967295ns * 1024);
}

TEST(recorded_event, meets_what_does_not_fit_with_the_nearest) {
  EXPECT_EQ(poll_at(-5ns, 1, -7ns), poll_at(0ns, 1, 0ns));
  EXPECT_EQ(poll_at(std::chrono::nanoseconds::max(), 1, 0ns).start(), 281474976710655ns);
  EXPECT_EQ(poll_at(0ns, 1, 0ns, 0xffffffff).site(), recorded_event::no_site);
  EXPECT_EQ(recorded_event::make(static_cast<event_kind>(0xff), 0ns, 0, 1, 1ns).start(), 0ns);
}

TEST(event_kind, has_names) {
  EXPECT_EQ(to_string(event_kind::poll), "poll");
  EXPECT_EQ(to_string(event_kind::queue_delay), "queue_delay");
  EXPECT_EQ(to_string(event_kind::updated), "updated");
  EXPECT_EQ(to_string(event_kind::refused), "refused");
  EXPECT_EQ(to_string(static_cast<event_kind>(10)), "unknown");
}

// ---- bytes

TEST(recording_bytes, bring_everything_back) {
  const recording made = everything();
  const decoded d = decode(encode(made));
  EXPECT_FALSE(d.ec) << d.why;
  EXPECT_EQ(d.why, "");
  EXPECT_TRUE(d.value == made);
}

TEST(recording_bytes, of_nothing_are_a_recording_too) {
  const decoded d = decode(encode({}));
  EXPECT_FALSE(d.ec) << d.why;
  EXPECT_TRUE(d.value == recording{});
}

// Other programs read the format, so it must not change unnoticed.
TEST(recording_bytes, are_as_documented) {
  recording r;
  r.pid = 0x0102030405060708;
  r.program = "p";
  r.workers = {{5, 6, {poll_at(1ns, 2, 3ns, 4)}}};
  const std::string bytes = encode(r);
  EXPECT_THAT(bytes, StartsWith("\x89pulse\r\n" + little_endian(2, 4) + "head" +
                                little_endian(8 + 5 + 4 + 8 + 8 + 1, 8) +
                                little_endian(0x0102030405060708, 8) + little_endian(1, 4) + "p"));
  EXPECT_THAT(bytes, HasSubstr("work" + little_endian(4 + 8 + 8 + 8 + 16, 8) + little_endian(1, 4) +
                               little_endian(5, 8) + little_endian(6, 8) + little_endian(1, 8) +
                               little_endian(1 << 16 | 4 << 5, 8) +
                               little_endian(3ULL << 32 | 2, 8) + "stal"));
}

TEST(recording_bytes, cut_what_the_format_cannot_hold) {
  recording r;
  r.program = std::string(70'000, 'x');
  r.sites.resize(3000);
  r.length = -1ns;
  r.stalls.resize(1);
  r.stalls[0].blamed = 3;
  const decoded d = decode(encode(r));
  EXPECT_FALSE(d.ec) << d.why;
  EXPECT_EQ(d.value.program.size(), 65535U);
  EXPECT_EQ(d.value.sites.size(), 2047U);
  EXPECT_EQ(d.value.length, 0ns);
  EXPECT_EQ(d.value.stalls.at(0).blamed, no_frame);
}

TEST(recording_bytes, that_are_foreign_are_refused) {
  EXPECT_EQ(decode("").why, "recording: magic: this is not a recording of asio-pulse");
  EXPECT_EQ(decode("{\"traceEvents\":[]}").why,
            "recording: magic: this is not a recording of asio-pulse");
  std::string bytes = encode(everything());
  bytes[8] = 1;
  const decoded d = decode(bytes);
  EXPECT_EQ(d.ec, std::errc::bad_message);
  EXPECT_EQ(d.why, "recording: version: must be 2 (got 1)");
  EXPECT_TRUE(d.value == recording{});
}

TEST(recording_bytes, name_the_field_and_the_rule_when_a_count_lies) {
  recording r;
  r.workers.resize(3);
  r.workers[2].events.resize(2);
  std::string bytes = encode(r);
  // The last section, of no stalls, takes 4 + 8 + 4 bytes.
  const std::size_t count_at = bytes.size() - 16 - 2 * 16 - 8;
  ASSERT_EQ(bytes.substr(count_at, 8), little_endian(2, 8));
  bytes.replace(count_at, 8, little_endian(99'999, 8));
  EXPECT_EQ(decode(bytes).why,
            "recording: workers[2].events: 99999 events do not fit in the 32 bytes that are left");
  bytes.replace(count_at, 8, little_endian(~0ULL, 8));
  EXPECT_EQ(decode(bytes).ec, std::errc::bad_message);
  bytes.replace(count_at, 8, little_endian(1, 8));
  EXPECT_EQ(decode(bytes).why,
            "recording: section work: has bytes that do not belong to any field");
}

TEST(recording_bytes, with_frames_that_no_program_has_are_refused) {
  recording r;
  r.stalls.emplace_back().stack = {{.inlined = true}};
  std::string bytes = encode(r);
  EXPECT_TRUE(decode(bytes).value == r) << decode(bytes).why;
  // After `inlined` come `awaiting` and the four bytes of `blamed`.
  const std::size_t inlined_at = bytes.size() - 6;
  ASSERT_EQ(bytes[inlined_at], 1);
  bytes[inlined_at] = 2;
  EXPECT_EQ(decode(bytes).why, "recording: stalls[0].stack.inlined: must be at most 1 (got 2)");
  bytes[inlined_at] = 0;
  const std::size_t count_at = bytes.size() - 4 - 34 - 4;
  ASSERT_EQ(bytes.substr(count_at, 4), little_endian(1, 4));
  bytes.replace(count_at, 4, little_endian(2, 4));
  EXPECT_EQ(decode(bytes).why,
            "recording: stalls[0].stack: 2 frames do not fit in the 38 bytes that are left");
}

TEST(recording_bytes, with_values_that_no_program_has_are_refused) {
  recording r;
  r.settings.stall_threshold = 0x0122334455667788ns;
  r.begin = std::chrono::system_clock::time_point{0x0123'4567'89ab'cdefns};
  std::string bytes = encode(r);
  const auto at = bytes.find(little_endian(0x0122334455667788, 8));
  bytes.replace(at, 8, little_endian(~0ULL, 8));
  EXPECT_EQ(decode(bytes).why, "recording: settings.stall_threshold: must not be negative");
  bytes.replace(at, 8, little_endian((1ULL << 60) + 1, 8));
  EXPECT_EQ(decode(bytes).why, "recording: settings.stall_threshold: must be at most 2^60 ns");
  bytes.replace(at, 8, little_endian(1ULL << 60, 8));
  EXPECT_EQ(decode(bytes).why, "");
  bytes.replace(bytes.find(little_endian(0x0123'4567'89ab'cdef, 8)), 8,
                little_endian(1ULL << 63, 8));
  EXPECT_EQ(decode(bytes).why, "recording: begin: must be within 2^62 ns of 1970");

  bytes = encode({});
  const auto shadow_at = bytes.find("site") - 1;
  bytes[shadow_at] = 2;
  EXPECT_EQ(decode(bytes).why, "recording: settings.shadow: must be at most 1 (got 2)");
}

TEST(recording_bytes, cut_short_anywhere_are_refused_with_a_sentence) {
  const std::string bytes = encode(everything());
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    const decoded d = decode(std::string_view(bytes).substr(0, length));
    ASSERT_EQ(d.ec, std::errc::bad_message) << length;
    ASSERT_THAT(d.why, StartsWith("recording: ")) << length;
  }
  const decoded d = decode(bytes + "x");
  EXPECT_EQ(d.why, "recording: the end: 1 bytes follow it");
}

// The decoded recording is never much larger than the bytes, whatever they claim.
std::size_t footprint(const recording& r) {
  std::size_t bytes =
      r.sites.capacity() * sizeof(recorded_site) + r.tasks.capacity() * sizeof(recorded_task) +
      r.workers.capacity() * sizeof(recorded_worker) + r.stalls.capacity() * sizeof(stall_metrics);
  for (const recorded_worker& w : r.workers) bytes += w.events.capacity() * sizeof(recorded_event);
  for (const stall_metrics& s : r.stalls) bytes += s.stack.capacity() * sizeof(stack_frame);
  return bytes;
}

TEST(recording_bytes, with_flipped_bits_decode_or_are_refused_with_a_sentence) {
  const std::string bytes = encode(everything());
  std::mt19937 random(20'261'121);  // NOLINT(cert-msc32-c,cert-msc51-cpp): the same each time
  std::uniform_int_distribution<std::size_t> place(0, bytes.size() - 1);
  std::uniform_int_distribution<int> byte(0, 255);
  int refused = 0;
  int read = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string broken = bytes;
    for (int flips = 1 + round % 4; flips > 0; --flips) {
      broken[place(random)] = static_cast<char>(byte(random));
    }
    const decoded d = decode(broken);
    if (d.ec) {
      ++refused;
      ASSERT_EQ(d.ec, std::errc::bad_message);
      ASSERT_THAT(d.why, StartsWith("recording: "));
      ASSERT_TRUE(d.value == recording{});
    } else {
      ++read;
      ASSERT_EQ(d.why, "");
      ASSERT_LE(footprint(d.value), 8 * broken.size());
      const decoded again = decode(encode(d.value));
      ASSERT_TRUE(again.value == d.value) << again.why;
    }
  }
  EXPECT_GT(refused, 1000);
  EXPECT_GT(read, 1000);
}

TEST(recording_bytes, without_a_place_for_the_sentence) {
  std::error_code ec;
  EXPECT_TRUE(decode_recording("?", ec) == recording{});
  EXPECT_EQ(ec, std::errc::bad_message);
  EXPECT_TRUE(decode_recording(encode(everything()), ec) == everything());
  EXPECT_FALSE(ec);
}

// ---- files

class recording_file : public testing::Test {
 protected:
  recording_file() {
    folder_ = fs::temp_directory_path() /
              ("asio_pulse_recording_" + std::to_string(std::random_device{}()));
    fs::create_directory(folder_);
    path_ = (folder_ / "a.pulse").string();
  }
  ~recording_file() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  [[nodiscard]] std::size_t files() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }
  void write(const recording& r, const std::string& path) { write_recording(r, path, ec_, &why_); }

  fs::path folder_;
  std::string path_;
  std::error_code ec_;
  std::string why_;
};

TEST_F(recording_file, brings_everything_back) {
  write(everything(), path_);
  EXPECT_FALSE(ec_) << why_;
  EXPECT_EQ(files(), 1U);
  const recording r = read_recording(path_, ec_, &why_);
  EXPECT_FALSE(ec_) << why_;
  EXPECT_TRUE(r == everything());
}

TEST_F(recording_file, replaces_an_older_one) {
  std::ofstream(path_) << "old";
  write(everything(), path_);
  EXPECT_FALSE(ec_) << why_;
  EXPECT_TRUE(read_recording(path_, ec_) == everything());
  EXPECT_EQ(files(), 1U);
}

TEST_F(recording_file, leaves_what_another_program_is_writing_or_left_behind) {
  std::ofstream(path_ + ".0.tmp") << "theirs";
  fs::create_symlink("elsewhere", path_ + ".1.tmp");
  write(everything(), path_);
  EXPECT_FALSE(ec_) << why_;
  EXPECT_EQ(files(), 3U);
  EXPECT_FALSE(fs::exists(folder_ / "elsewhere"));
  std::string text;
  std::ifstream(path_ + ".0.tmp") >> text;
  EXPECT_EQ(text, "theirs");
}

#if defined(__linux__)
/// What happens to the entries of a folder while it is watched, as the kernel counts it.
class folder_events {
 public:
  explicit folder_events(const fs::path& folder) : fd_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
    ::inotify_add_watch(fd_, folder.c_str(), IN_CREATE | IN_OPEN | IN_MOVED_FROM);
  }
  ~folder_events() { ::close(fd_); }
  folder_events(const folder_events&) = delete;
  folder_events& operator=(const folder_events&) = delete;

  struct event {
    std::uint32_t what;
    std::string name;
  };
  [[nodiscard]] std::vector<event> read() const {
    std::vector<event> all;
    alignas(inotify_event) char bytes[65536];
    const ssize_t n = ::read(fd_, bytes, sizeof bytes);
    for (ssize_t at = 0; at < n;) {
      const auto* const e = reinterpret_cast<const inotify_event*>(bytes + at);
      all.push_back({e->mask, e->len != 0 ? e->name : ""});
      at += static_cast<ssize_t>(sizeof *e + e->len);
    }
    return all;
  }

 private:
  int fd_;
};

// In a folder that everybody may write to, another user could replace the file with a link between
// two openings.
TEST_F(recording_file, is_opened_once_and_under_a_name_that_differs_each_time) {
  std::set<std::string> names;
  for (int n = 0; n < 8; ++n) {
    const folder_events events(folder_);
    write(everything(), path_);
    EXPECT_FALSE(ec_) << why_;
    std::string name;
    int opened = 0;
    for (const auto& e : events.read()) {
      if ((e.what & IN_CREATE) != 0) name = e.name;
      if ((e.what & IN_OPEN) != 0) {
        ++opened;
        EXPECT_EQ(e.name, name);
      }
    }
    EXPECT_EQ(opened, 1);
    EXPECT_TRUE(name.starts_with("a.pulse.")) << name;
    names.insert(name);
  }
  EXPECT_EQ(names.size(), 8U);
}
#endif

TEST_F(recording_file, replaces_a_link_and_not_what_it_points_to) {
  const fs::path precious = folder_ / "precious";
  std::ofstream(precious) << "precious";
  fs::create_symlink(precious, path_);
  write(everything(), path_);
  EXPECT_FALSE(ec_) << why_;
  EXPECT_FALSE(fs::is_symlink(path_));
  EXPECT_TRUE(read_recording(path_, ec_) == everything());
  EXPECT_EQ(fs::file_size(precious), 8U);
}

TEST_F(recording_file, that_is_not_there_is_named) {
  (void)read_recording(path_ + "\x1b[2J", ec_, &why_);
  EXPECT_EQ(ec_, std::errc::no_such_file_or_directory);
  EXPECT_EQ(why_,
            "recording: file: \"" + path_ + "\\x1b[2J\" cannot be read: No such file or directory");
}

TEST_F(recording_file, in_a_folder_that_is_not_there_is_an_error) {
  write(everything(), (folder_ / "none" / "a.pulse").string());
  EXPECT_EQ(ec_, std::errc::no_such_file_or_directory);
  EXPECT_THAT(why_, HasSubstr("cannot be created: No such file or directory"));
  EXPECT_EQ(files(), 0U);
}

TEST_F(recording_file, in_place_of_a_folder_or_a_pipe_is_refused) {
  write(everything(), folder_.string());
  EXPECT_EQ(ec_, std::errc::is_a_directory);
  EXPECT_THAT(why_, HasSubstr("exists and is not a regular file"));
  (void)read_recording(folder_.string(), ec_, &why_);
  EXPECT_EQ(ec_, std::errc::is_a_directory);
#if defined(__linux__)
  // Neither waits for a process at the other end.
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  write(everything(), path_);
  EXPECT_EQ(ec_, std::errc::invalid_argument);
  EXPECT_TRUE(fs::is_fifo(path_));
  (void)read_recording(path_, ec_, &why_);
  EXPECT_EQ(ec_, std::errc::invalid_argument);
  EXPECT_EQ(why_, "recording: file: \"" + path_ + "\" must be a regular file: Invalid argument");
#endif
}

TEST_F(recording_file, without_a_name_is_refused) {
  write(everything(), "");
  EXPECT_EQ(ec_, std::errc::invalid_argument);
  write(everything(), path_ + std::string(1, '\0') + "b");
  EXPECT_EQ(ec_, std::errc::invalid_argument);
  EXPECT_EQ(files(), 0U);
}

TEST_F(recording_file, of_no_recording_says_so) {
  std::ofstream(path_) << "no recording";
  (void)read_recording(path_, ec_, &why_);
  EXPECT_EQ(ec_, std::errc::bad_message);
  EXPECT_EQ(why_,
            "recording: file: \"" + path_ + "\": magic: this is not a recording of asio-pulse");
}

#if defined(__linux__)
// As a full disk, by the limit on a file's size.
TEST_F(recording_file, that_does_not_fit_leaves_the_old_one_and_no_half) {
  recording large = everything();
  large.workers[0].events.resize(10'000);
  write(everything(), path_);
  ASSERT_FALSE(ec_) << why_;

  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit little = before;
  little.rlim_cur = 4096;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &little), 0);
  write(large, path_);
  setrlimit(RLIMIT_FSIZE, &before);
  (void)std::signal(SIGXFSZ, handler);

  EXPECT_EQ(ec_, std::errc::file_too_large) << why_;
  EXPECT_THAT(why_, HasSubstr("could not be written completely, and was removed"));
  EXPECT_EQ(files(), 1U);
  EXPECT_TRUE(read_recording(path_, ec_) == everything());
}
#endif

}  // namespace
}  // namespace asio_pulse
