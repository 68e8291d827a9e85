// SPDX-License-Identifier: BSL-1.0
#include "service/socket_file.hpp"
// Included first, to check that the header is self-contained.

#include "support.hpp"

#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <thread>

namespace bpf_test {
namespace {

using ::testing::HasSubstr;

std::string refusal_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const std::runtime_error& why) {
    return why.what();
  }
  return "was accepted";
}

mode_t permissions(const std::string& path) {
  struct stat found {};
  EXPECT_EQ(::lstat(path.c_str(), &found), 0);
  EXPECT_TRUE(S_ISSOCK(found.st_mode));
  return found.st_mode & 0777U;
}

// A socket's file without a socket.
void leave_stale_socket(const std::string& path, int type = SOCK_SEQPACKET) {
  const unique_fd made(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  ASSERT_EQ(::bind(made.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
}

TEST(socket_file, has_the_permissions_asked_for_and_goes_with_its_object) {
  const temporary_folder folder;
  const std::string path = folder / "socket";
  for (const mode_t mode : {mode_t{0666}, mode_t{0600}, mode_t{0}}) {
    {
      const mode_t before = ::umask(0077);
      const socket_file file(path, mode);
      EXPECT_EQ(::umask(before), 0077U) << "as it was";
      EXPECT_EQ(permissions(path), mode);
    }
    EXPECT_FALSE(std::filesystem::exists(path));
  }
}

TEST(socket_file, is_listened_on_from_its_first_moment_and_nothing_else_is_left) {
  const temporary_folder folder;
  const std::string path = folder / "socket";
  std::atomic<bool> stop{false};
  std::atomic<int> connected{0}, stale{0};
  std::thread impatient([&] {
    while (!stop) {
      const std::string why = refusal_of([&] { static_cast<void>(connect_to_service(path)); });
      if (why == "was accepted") ++connected;
      // Between closing the socket and removing its file, no process listens either.
      if (why.find("no process serves") != std::string::npos) ++stale;
    }
  });
  for (int i = 0; i < 200 || connected < 20; ++i) {
    const socket_file file(path, 0666);
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder / ""), {}), 1);
  }
  stop = true;
  impatient.join();
  EXPECT_EQ(stale, 0);
  EXPECT_TRUE(std::filesystem::is_empty(folder / ""));
}

TEST(socket_file, is_refused_while_another_is_served) {
  const temporary_folder folder;
  const std::string path = folder / "socket";
  const socket_file first(path, 0666);
  EXPECT_THAT(refusal_of([&] { socket_file second(path, 0666); }),
              HasSubstr("another scx_pulse serves " + path));
  EXPECT_THAT(refusal_of([&] { socket_file::check_free(path); }), HasSubstr("another scx_pulse"));
  EXPECT_NO_THROW(static_cast<void>(connect_to_service(path))) << "the first one is served on";
}

TEST(socket_file, replaces_what_a_killed_one_left) {
  const temporary_folder folder;
  const std::string path = folder / "socket";
  leave_stale_socket(path);
  EXPECT_NO_THROW(socket_file::check_free(path));
  const socket_file file(path, 0666);
  EXPECT_NO_THROW(static_cast<void>(connect_to_service(path)));
}

TEST(socket_file, leaves_alone_what_is_no_socket) {
  const temporary_folder folder;
  const std::string file = folder / "file";
  std::ofstream(file) << "precious";
  const std::string link = folder / "link";
  std::filesystem::create_symlink(file, link);
  const std::string directory = folder / "directory";
  std::filesystem::create_directory(directory);
  const std::string nowhere = folder / "nowhere";
  std::filesystem::create_symlink(folder / "missing", nowhere);
  for (const std::string& path : {file, link, directory, nowhere}) {
    EXPECT_THAT(refusal_of([&] { socket_file never(path, 0666); }),
                HasSubstr("is not a socket, so it is not replaced"))
        << path;
  }
  std::stringstream content;
  content << std::ifstream(file).rdbuf();
  EXPECT_EQ(content.str(), "precious");
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_TRUE(std::filesystem::is_directory(directory));
  EXPECT_TRUE(std::filesystem::is_symlink(nowhere));
}

TEST(socket_file, leaves_alone_another_programs_socket) {
  const temporary_folder folder;
  const std::string path = folder / "socket";
  const unique_fd other(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  ASSERT_EQ(::bind(other.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(other.get(), 1), 0);
  EXPECT_THAT(refusal_of([&] { socket_file never(path, 0666); }), HasSubstr("another program"));
  EXPECT_TRUE(std::filesystem::is_socket(path));
}

TEST(socket_file, removes_only_its_own) {
  const temporary_folder folder;
  const std::string path = folder / "socket";
  {
    const socket_file first(path, 0666);
    std::filesystem::remove(path);
    leave_stale_socket(path);
  }
  EXPECT_TRUE(std::filesystem::is_socket(path));
  std::filesystem::remove(path);
  {
    const socket_file second(path, 0666);
    std::filesystem::remove(path);
    std::ofstream(path) << "precious";
  }
  EXPECT_TRUE(std::filesystem::is_regular_file(path));
}

TEST(socket_file, paths_that_cannot_be_are_refused_with_the_rule) {
  const temporary_folder folder;
  EXPECT_THAT(refusal_of([] { socket_file never("", 0666); }), HasSubstr("must not be empty"));
  EXPECT_THAT(refusal_of([] { socket_file never(std::string("/tmp/a\0b", 8), 0666); }),
              HasSubstr("zero byte"));
  EXPECT_THAT(refusal_of([&] { socket_file never(folder / std::string(200, 'x'), 0666); }),
              HasSubstr("the limit is 107"));
  EXPECT_THAT(refusal_of([&] { socket_file never(folder / "no/such/folder", 0666); }),
              HasSubstr("No such file"));
}

TEST(socket_file, who_connects_is_told_why_not) {
  const temporary_folder folder;
  const std::string path = folder / "socket";
  EXPECT_THAT(refusal_of([&] { connect_to_service(path); }), HasSubstr("scx_pulse is not running"));
  leave_stale_socket(path);
  EXPECT_THAT(refusal_of([&] { connect_to_service(path); }), HasSubstr("no process serves"));
}

using service_socket = service_test;

TEST_F(service_socket, a_second_service_is_refused_and_the_first_goes_on) {
  start();
  EXPECT_THAT(refusal_of([&] { const service second(context_, store_, options_, hooks_); }),
              HasSubstr("another scx_pulse serves"));
  client program = connect();
  EXPECT_EQ(ask(program, ASIO_PULSE_HELLO).head.refusal, ASIO_PULSE_OK);
}

TEST_F(service_socket, has_the_mode_of_the_options) {
  options_.mode = 0660;
  start();
  EXPECT_EQ(permissions(options_.path), 0660U);
}

}  // namespace
}  // namespace bpf_test
