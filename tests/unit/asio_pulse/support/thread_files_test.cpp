// SPDX-License-Identifier: BSL-1.0

#include "threads/thread_files.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <latch>
#include <string>
#include <thread>
#include <vector>

namespace {

using asio_pulse::detail::thread_files;
using file = thread_files::file;

/// Threads that wait until they are released.
class waiting_threads {
 public:
  explicit waiting_threads(std::size_t count) : begun_(static_cast<std::ptrdiff_t>(count)) {
    tids.resize(count);
    for (std::size_t n = 0; n != count; ++n) {
      threads_.emplace_back([this, n] {
        tids[n] = ::gettid();
        begun_.count_down();
        over_.wait();
      });
    }
    begun_.wait();
  }
  ~waiting_threads() { end(); }
  void end() {
    if (threads_.empty()) return;
    over_.count_down();
    for (std::thread& t : threads_) t.join();
    threads_.clear();
  }
  std::vector<pid_t> tids;

 private:
  std::latch begun_;
  std::latch over_{1};
  std::vector<std::thread> threads_;
};

/// Descriptors of this process that are files of a thread's.
std::size_t open_files_of_threads() {
  std::size_t found = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;  // the iterator's own
    const std::string target = std::filesystem::read_symlink(entry.path(), gone).string();
    if (target.find("/task/") != target.npos) ++found;
  }
  return found;
}

TEST(thread_files, keeps_few_open_for_many_threads) {
  waiting_threads many(20);
  thread_files files;
  std::array<char, 1024> text{};
  for (int round = 0; round != 2; ++round) {
    for (const pid_t tid : many.tids) {
      for (const file f : {file::stat, file::status, file::schedstat}) {
        EXPECT_FALSE(files.read(tid, f, text).empty());
        EXPECT_LE(open_files_of_threads(), thread_files::most_kept);
      }
    }
  }
  EXPECT_EQ(open_files_of_threads(), thread_files::most_kept);
  EXPECT_EQ(files.take_fault(), 0);
  files.close_all();
  EXPECT_EQ(open_files_of_threads(), 0U);
}

TEST(thread_files, are_of_the_thread_that_was_asked_for) {
  waiting_threads two(2);
  thread_files files;
  std::array<char, 1024> text{};
  for (int round = 0; round != 3; ++round) {
    for (const pid_t tid : two.tids) {
      for (const file f : {file::stat, file::schedstat, file::stat}) {
        const std::string read(files.read(tid, f, text));
        if (f == file::stat) {
          EXPECT_TRUE(read.starts_with(std::to_string(tid) + ' ')) << read;
        }
      }
    }
  }
}

TEST(thread_files, close_those_of_threads_that_have_left) {
  waiting_threads stays(1);
  waiting_threads leaves(1);
  thread_files files;
  std::array<char, 1024> text{};
  EXPECT_FALSE(files.read(stays.tids[0], file::stat, text).empty());
  EXPECT_FALSE(files.read(leaves.tids[0], file::stat, text).empty());
  EXPECT_FALSE(files.read(leaves.tids[0], file::status, text).empty());
  const pid_t gone = leaves.tids[0];
  EXPECT_TRUE(files.any_of(gone));
  leaves.end();
  // The kernel wakes the thread that joins before it removes the thread's files.
  while (::syscall(SYS_tgkill, ::getpid(), gone, 0) == 0) std::this_thread::yield();
  EXPECT_TRUE(files.read(gone, file::stat, text).empty());  // and it cannot be opened
  EXPECT_NE(files.take_fault(), 0);
  files.close_unless([gone](pid_t tid) { return tid != gone; });
  EXPECT_FALSE(files.any_of(gone));
  EXPECT_TRUE(files.any_of(stays.tids[0]));
  EXPECT_EQ(open_files_of_threads(), 1U);
}

TEST(thread_files, take_nobodys_place_for_what_is_not_needed) {
  waiting_threads four(4);
  thread_files files;
  std::array<char, 1024> text{};
  for (std::size_t n = 0; n != 3; ++n) {
    EXPECT_FALSE(files.read_if_room(four.tids[n], file::stat, text).empty());
  }
  EXPECT_TRUE(files.read_if_room(four.tids[3], file::stat, text).empty());
  for (std::size_t n = 0; n != 3; ++n) {
    EXPECT_FALSE(files.read_if_room(four.tids[n], file::stat, text).empty());
  }
  EXPECT_FALSE(files.read_once(four.tids[3], file::stat, text).empty());
  EXPECT_FALSE(files.any_of(four.tids[3]));
  EXPECT_FALSE(files.read(four.tids[3], file::stat, text).empty());  // the first one's place
  EXPECT_FALSE(files.any_of(four.tids[0]));
}

TEST(thread_files, without_a_descriptor_say_so) {
  thread_files files;
  std::array<char, 1024> text{};
  const auto self = ::gettid();
  EXPECT_FALSE(files.read(self, file::schedstat, text).empty());
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit none = before;
  none.rlim_cur = 0;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  EXPECT_FALSE(files.read(self, file::schedstat, text).empty()) << "an open file can be read";
  EXPECT_EQ(files.take_fault(), 0);
  EXPECT_TRUE(files.read(self, file::stat, text).empty());
  const int fault = files.take_fault();
  EXPECT_TRUE(files.read_once(self, file::stat, text).empty());
  const int again = files.take_fault();
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(fault, EMFILE);
  EXPECT_EQ(again, EMFILE);
  EXPECT_EQ(files.take_fault(), 0);
  EXPECT_FALSE(files.read(self, file::stat, text).empty()) << "tried again";
}

}  // namespace
