// SPDX-License-Identifier: BSL-1.0
//
// The clients use plain system calls, so that they cost the same in each arm.

#include "open_loop.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <deque>
#include <memory>
#include <random>
#include <string_view>
#include <system_error>

namespace worker {

namespace {

constexpr std::size_t none = static_cast<std::size_t>(-1);

int checked(int result, const char* what) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), what);
  return result;
}

class descriptor {
 public:
  explicit descriptor(int fd) : fd_{fd} {}
  ~descriptor() { ::close(fd_); }
  descriptor(const descriptor&) = delete;
  descriptor& operator=(const descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

struct connection {
  explicit connection(int fd, std::size_t its_tenant) : socket{fd}, tenant{its_tenant} {}
  descriptor socket;
  std::size_t tenant;
  std::size_t request = none;  ///< whose answer it waits for
  std::string answer;
};

int connect_to(std::uint16_t port) {
  const int fd = checked(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int on = 1;
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0 ||
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0) {
    const int error = errno;
    ::close(fd);
    throw std::system_error(error, std::generic_category(), "cannot connect to the server");
  }
  return fd;
}

/// The length of the whole answer; 0 if its header is not complete; negative if it is not HTTP.
long length_of(std::string_view answer) {
  const std::size_t header = answer.find("\r\n\r\n");
  if (header == std::string_view::npos) return 0;
  constexpr std::string_view name = "Content-Length: ";
  const std::size_t at = answer.find(name);
  std::size_t body = 0;
  if (at > header ||
      std::from_chars(answer.data() + at + name.size(), answer.data() + header, body).ec !=
          std::errc()) {
    return -1;
  }
  return static_cast<long>(header + 4 + body);
}

int status_of(std::string_view answer) {
  constexpr std::string_view version = "HTTP/1.1 ";
  int status = 0;
  if (!answer.starts_with(version)) return 0;
  std::from_chars(answer.data() + version.size(), answer.data() + version.size() + 3, status);
  // A refusal says when the client may try again.
  const bool whole = status != 503 || answer.find("\r\nRetry-After: ") != std::string_view::npos;
  return whole ? status : 0;
}

/// The requests of one tenant.
class sender {
 public:
  sender(const tenant_load& load, std::chrono::nanoseconds duration, std::uint64_t seed)
      : text_{"GET / HTTP/1.1\r\nHost: bench\r\nX-Tenant: " + load.name + "\r\n\r\n"},
        duration_{duration.count()},
        closed_loop_{load.rate <= 0} {
    if (closed_loop_) return;
    std::mt19937_64 random{seed};
    std::exponential_distribution<double> gap{load.rate / 1e9};
    for (double at = gap(random); at < static_cast<double>(duration_); at += gap(random)) {
      requests.push_back({.due = static_cast<std::int64_t>(at)});
    }
  }

  /// The request that can be sent now; \c none if there is none.
  std::size_t take(std::int64_t now) {
    if (closed_loop_) {
      if (now >= duration_) return none;
      requests.push_back({.due = now});
      return next_++;
    }
    return next_ < requests.size() && requests[next_].due <= now ? next_++ : none;
  }

  bool all_sent(std::int64_t now) const {
    return closed_loop_ ? now >= duration_ : next_ == requests.size();
  }
  const std::string& text() const { return text_; }

  std::vector<request_times> requests;
  std::vector<connection*> idle;

 private:
  std::string text_;
  std::int64_t duration_;
  bool closed_loop_;
  std::size_t next_ = 0;
};

class clients {
 public:
  clients(std::uint16_t port, const std::vector<tenant_load>& tenants,
          std::chrono::nanoseconds duration)
      : epoll_{checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")} {
    for (const tenant_load& load : tenants) {
      senders_.emplace_back(load, duration, senders_.size() + 1);
      for (unsigned n = 0; n < load.connections; ++n) {
        connection& c = *connections_.emplace_back(
            std::make_unique<connection>(connect_to(port), senders_.size() - 1));
        senders_.back().idle.push_back(&c);
        epoll_event wanted{};
        wanted.events = EPOLLIN;
        wanted.data.ptr = &c;
        checked(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, c.socket.get(), &wanted), "epoll_ctl");
      }
    }
  }

  sent_requests run(std::chrono::nanoseconds until) {
    start_ = clock_type::now();
    sent_requests result;
    while (result.fault.empty()) {
      const std::int64_t now = since_start();
      bool over = waiting_ == 0;
      for (sender& s : senders_) {
        send_due(s, now);
        over = over && s.all_sent(now);
      }
      if ((over && waiting_ == 0) || now > until.count()) break;
      read_answers(result.fault);
    }
    result.end = since_start();
    for (sender& s : senders_) result.of.push_back(std::move(s.requests));
    return result;
  }

 private:
  std::int64_t since_start() const {
    return std::chrono::nanoseconds{clock_type::now() - start_}.count();
  }

  void send_due(sender& s, std::int64_t now) {
    while (!s.idle.empty()) {
      const std::size_t request = s.take(now);
      if (request == none) return;
      connection& c = *s.idle.back();
      s.idle.pop_back();
      c.request = request;
      s.requests[request].sent = now;
      ++waiting_;
      const ssize_t sent = ::send(c.socket.get(), s.text().data(), s.text().size(), MSG_NOSIGNAL);
      if (sent != static_cast<ssize_t>(s.text().size())) {
        throw std::system_error(errno, std::generic_category(), "a request was not sent");
      }
    }
  }

  void read_answers(std::string& fault) {
    std::array<epoll_event, 64> ready;
    const int count =
        checked(::epoll_wait(epoll_.get(), ready.data(), ready.size(), 0), "epoll_wait");
    for (int n = 0; n < count; ++n) {
      read(*static_cast<connection*>(ready[static_cast<std::size_t>(n)].data.ptr), fault);
    }
  }

  void read(connection& c, std::string& fault) {
    std::array<char, 1024> bytes;
    const ssize_t got = ::recv(c.socket.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got <= 0) {
      fault = "the server closed a connection";
      return;
    }
    c.answer.append(bytes.data(), static_cast<std::size_t>(got));
    const long length = length_of(c.answer);
    if (length == 0 || static_cast<long>(c.answer.size()) < length) return;
    const int status = status_of(c.answer);
    if (c.request == none || static_cast<long>(c.answer.size()) != length || status == 0) {
      fault = "an answer is not what a server may send: " + c.answer.substr(0, 60);
      return;
    }
    sender& s = senders_[c.tenant];
    s.requests[c.request].done = since_start();
    s.requests[c.request].status = status;
    c.request = none;
    c.answer.clear();
    s.idle.push_back(&c);
    --waiting_;
  }

  descriptor epoll_;
  std::deque<sender> senders_;
  std::vector<std::unique_ptr<connection>> connections_;
  clock_type::time_point start_;
  std::size_t waiting_ = 0;
};

}  // namespace

sent_requests send_requests(std::uint16_t port, const std::vector<tenant_load>& tenants,
                            std::chrono::milliseconds duration,
                            std::chrono::milliseconds patience) {
  return clients{port, tenants, duration}.run(duration + patience);
}

}  // namespace worker
