// SPDX-License-Identifier: BSL-1.0

// Every byte arrives on each back end of Boost.Asio (epoll, select, io_uring, files on io_uring
// beside epoll) while operations of tasks over their budget are put back. Asio's internal objects
// pass through the same queues. None of them may be taken for an operation of such a task, and none
// may keep a task alive.

#include <support/io_uring.hpp>
#include <support/scenario.hpp>
//
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/connect_pair.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#if defined(BOOST_ASIO_HAS_IO_URING)
#include <boost/asio/random_access_file.hpp>
#include <boost/asio/stream_file.hpp>
#endif

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using namespace pulse_test;

constexpr std::size_t size = std::size_t{4} << 20;
constexpr std::size_t piece = 16 * 1024;

/// The byte at `position` of a transfer.
char byte_at(std::size_t position, std::size_t which) noexcept {
  return static_cast<char>((position * 2654435761U >> 13) + which);
}

std::vector<char> contents(std::size_t which) {
  std::vector<char> all(size);
  for (std::size_t i = 0; i < size; ++i) all[i] = byte_at(i, which);
  return all;
}

/// Sends and receives everything at the same time through one socket, with a little work for each
/// piece.
template <class Socket>
class peer {
 public:
  peer(Socket socket, std::size_t which, std::chrono::nanoseconds work)
      : socket_(std::move(socket)), data_(contents(which)), received_(size), work_(work) {}

  void start() {
    read();
    write();
  }
  void expect_complete(const char* who) const {
    EXPECT_EQ(sent_, size) << who;
    EXPECT_EQ(got_, size) << who;
    EXPECT_TRUE(received_ == data_) << who << ": other bytes than were sent";
    EXPECT_EQ(failure_, error_code{}) << who << ": " << failure_.message();
    EXPECT_EQ(empty_, 0) << who << ": operations that ended early";
  }

 private:
  void read() {
    const std::size_t most = std::min(piece, size - got_);
    if (most == 0) return finish();
    socket_.async_read_some(asio::buffer(received_.data() + got_, most),
                            [this](error_code ec, std::size_t n) {
                              burn(work_);
                              got_ += n;
                              if (more(ec, n)) read();
                            });
  }
  void write() {
    const std::size_t most = std::min(piece, size - sent_);
    if (most == 0) return finish();
    socket_.async_write_some(asio::buffer(data_.data() + sent_, most),
                             [this](error_code ec, std::size_t n) {
                               burn(work_);
                               sent_ += n;
                               if (more(ec, n)) write();
                             });
  }
  bool more(error_code ec, std::size_t n) {
    if (ec && !failure_) failure_ = ec;
    if (!ec && n == 0) ++empty_;
    if (!ec && n != 0) return true;
    socket_.close();
    return false;
  }
  void finish() {
    if (got_ == size && sent_ == size) socket_.close();
  }

  Socket socket_;
  const std::vector<char> data_;
  std::vector<char> received_;
  const std::chrono::nanoseconds work_;
  std::size_t sent_ = 0;
  std::size_t got_ = 0;
  error_code failure_;
  int empty_ = 0;
};

class transfers : public testing::TestWithParam<std::size_t> {
 protected:
  static constexpr std::size_t sessions = 3;

  /// Each session belongs to a task that is over its budget at once and stays so. The objects that
  /// Asio makes when it opens the session's socket belong to it as well. The other ends belong to
  /// no task.
  template <class Socket, class MakePair>
  void expect_all_arrives(MakePair make_pair) {
    std::vector<std::unique_ptr<peer<Socket>>> servers;
    std::vector<std::unique_ptr<peer<Socket>>> clients;
    for (std::size_t which = 0; which < sessions; ++which) {
      const asio_pulse::task session(io_, stingy("session"));
      Socket near(io_);
      Socket far(io_);
      {
        const asio_pulse::task_scope scope(session);
        make_pair(near, far);
        servers.push_back(std::make_unique<peer<Socket>>(std::move(near), which, 20us));
        servers.back()->start();
      }
      clients.push_back(std::make_unique<peer<Socket>>(std::move(far), which, 0us));
      clients.back()->start();
    }
    on_threads(GetParam(), [&](std::size_t) { io_.run_for(100s); });
    EXPECT_TRUE(io_.stopped()) << "operations that never ended";
    for (const auto& server : servers) server->expect_complete("task over its budget");
    for (const auto& client : clients) client->expect_complete("the other end");
    EXPECT_GT(io_.stats().yields, 0U) << "nothing was put back: this tests nothing";
    servers.clear();
    clients.clear();
    EXPECT_EQ(io_.stats().tasks, 0U) << "kept alive by Asio's own objects";
  }

  asio_pulse::io_context io_{steady()};
};
INSTANTIATE_TEST_SUITE_P(threads, transfers, testing::Values(1, 2),
                         testing::PrintToStringParamName());

TEST_P(transfers, tcp_connections) {
  tcp::acceptor acceptor(io_, {asio::ip::address_v4::loopback(), 0});
  expect_all_arrives<tcp::socket>([&](tcp::socket& near, tcp::socket& far) {
    near.connect(acceptor.local_endpoint());
    far = acceptor.accept();
  });
}

TEST_P(transfers, local_sockets) {
  using asio::local::stream_protocol;
  expect_all_arrives<stream_protocol::socket>(
      [](stream_protocol::socket& near, stream_protocol::socket& far) {
        asio::local::connect_pair(near, far);
      });
}

#if defined(BOOST_ASIO_HAS_IO_URING)

/// A task over its budget that writes a file in pieces and reads it back, while it has a storm of
/// handlers queued. Operations that complete meanwhile are queued between them.
template <class Start>
void in_a_storm(asio_pulse::io_context& io, std::size_t threads, Start start) {
  {
    const asio_pulse::task session(io, stingy("session"));
    int left = 2000;
    std::function<void()> storm = [&] {
      burn(20us);
      if (--left > 0) asio_pulse::post(session, [&] { storm(); });
    };
    const asio_pulse::task_scope scope(session);
    for (int i = 0; i < 4; ++i) asio_pulse::post(session, [&] { storm(); });
    start();
    on_threads(threads, [&](std::size_t) { io.run_for(100s); });
    EXPECT_TRUE(io.stopped()) << "operations that never ended";
    EXPECT_GT(io.stats().yields, 0U) << "nothing was put back: this tests nothing";
  }
  EXPECT_EQ(io.stats().tasks, 0U) << "kept alive by Asio's own objects";
}

class files : public testing::Test {
 protected:
  files() : path_(testing::TempDir() + "asio_pulse_files_" + std::to_string(::getpid())) {}
  ~files() override { std::remove(path_.c_str()); }

  asio_pulse::io_context io_{steady()};
  std::string path_;
};

TEST_F(files, stream_file_written_and_read_back) {
  using asio::stream_file;
  const std::vector<char> data = contents(1);
  std::vector<char> read_back(size);
  std::size_t written = 0;
  std::size_t got = 0;
  error_code failure;
  std::optional<stream_file> file;
  std::function<void()> write;
  std::function<void()> read;
  write = [&] {
    file->async_write_some(asio::buffer(data.data() + written, std::min(piece, size - written)),
                           [&](error_code ec, std::size_t n) {
                             written += n;
                             if (ec) {
                               failure = ec;
                             } else if (written < size) {
                               write();
                             } else {
                               file->seek(0, stream_file::seek_set);
                               read();
                             }
                           });
  };
  read = [&] {
    file->async_read_some(asio::buffer(read_back.data() + got, std::min(piece, size - got)),
                          [&](error_code ec, std::size_t n) {
                            got += n;
                            if (ec) {
                              failure = ec;
                            } else if (got < size) {
                              read();
                            } else {
                              file.reset();
                            }
                          });
  };
  in_a_storm(io_, 1, [&] {
    file.emplace(io_, path_, stream_file::read_write | stream_file::create);
    write();
  });
  EXPECT_EQ(failure, error_code{}) << failure.message();
  EXPECT_EQ(written, size);
  EXPECT_EQ(got, size);
  EXPECT_TRUE(read_back == data) << "other bytes than were written";
}

TEST_F(files, random_access_file_with_several_reads_at_a_time) {
  using asio::random_access_file;
  const std::vector<char> data = contents(2);
  std::vector<char> read_back(size);
  std::FILE* const made = std::fopen(path_.c_str(), "wb");
  ASSERT_NE(made, nullptr);
  ASSERT_EQ(std::fwrite(data.data(), 1, size, made), size);
  ASSERT_EQ(std::fclose(made), 0);
  std::optional<random_access_file> file;
  std::size_t next = 0;
  std::size_t got = 0;
  error_code failure;
  std::function<void()> read = [&] {
    const std::size_t at = next;
    next += piece;
    file->async_read_some_at(at, asio::buffer(read_back.data() + at, piece),
                             [&](error_code ec, std::size_t n) {
                               got += n;
                               if (ec) failure = ec;
                               if (n != piece) failure = asio::error::message_size;
                               if (next < size) {
                                 read();
                               } else if (got == size) {
                                 file.reset();
                               }
                             });
  };
  in_a_storm(io_, 1, [&] {
    file.emplace(io_, path_, random_access_file::read_only);
    for (int i = 0; i < 4; ++i) read();
  });
  EXPECT_EQ(failure, error_code{}) << failure.message();
  EXPECT_EQ(got, size);
  EXPECT_TRUE(read_back == data) << "other bytes than were written";
}

#endif

}  // namespace
