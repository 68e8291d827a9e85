// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/bpf/protocol.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

/// \file
/// A fake loader for tests of the runtime: it speaks the protocol over a real socket, sends real
/// shared memory, writes it as the kernel would, and can give wrong answers and die. The real
/// loader is tested in tests/kernel.

namespace pulse_test {

class fake_loader {
 public:
  /// How the next answers should be. The defaults are those of an honest loader.
  struct manners {
    std::uint16_t abi_version = ASIO_PULSE_ABI_VERSION;
    std::uint32_t refuse_hello = ASIO_PULSE_OK;
    std::uint32_t refuse_attach = ASIO_PULSE_OK;
    std::uint32_t slots = ASIO_PULSE_SLOT_COUNT;
    std::uint32_t first_slot = 1;
    std::uint8_t mode = ASIO_PULSE_MODE_NONE;  ///< no scheduler: no thread must become SCHED_EXT
    /// Of the memory that is sent; without F_SEAL_SHRINK it can be taken away again.
    int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    bool truncates = false;  ///< before the answer to ATTACH; a seal may prevent it
    /// What is sent along instead of the memory, and with the answer to an ATTACH.
    std::optional<std::vector<int>> descriptors = std::nullopt;
    std::vector<int> more_on_attach = {};
    std::size_t trailing_bytes = 0;  ///< behind the longest message that there is
    bool silent = false;
    bool garbage = false;
  };

  /// Each has a name of its own, since the library waits longer and longer before it tries a source
  /// again that misbehaved.
  fake_loader()
      : path_("/tmp/asio_pulse_test_" + std::to_string(::getpid()) + "_" +
              std::to_string(next_number_++) + ".sock") {}
  ~fake_loader() { stop(); }
  fake_loader(const fake_loader&) = delete;
  fake_loader& operator=(const fake_loader&) = delete;

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  manners how;

  void start() {
    ::unlink(path_.c_str());
    memory_ = ::memfd_create("control blocks", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    const std::size_t bytes = ASIO_PULSE_SLOT_COUNT * sizeof(asio_pulse_scb);
    (void)!::ftruncate(memory_, static_cast<off_t>(bytes));
    if (how.seals != 0) (void)::fcntl(memory_, F_ADD_SEALS, how.seals);
    blocks_ = static_cast<asio_pulse_scb*>(
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory_, 0));
    reinterpret_cast<asio_pulse_system*>(blocks_)->mode = how.mode;
    reinterpret_cast<asio_pulse_system*>(blocks_)->abi_version = how.abi_version;
    listener_ = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.data(), path_.size());
    ::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address);
    ::listen(listener_, 8);
    (void)!::pipe2(stop_, O_CLOEXEC);
    attached_ = 0;
    thread_ = std::thread([this] { serve(); });
  }

  /// As SIGKILL would: every connection is cut.
  void stop() {
    if (!thread_.joinable()) return;
    (void)!::write(stop_[1], "x", 1);
    thread_.join();
    for (const int fd : {listener_, stop_[0], stop_[1], memory_}) ::close(fd);
    ::munmap(blocks_, ASIO_PULSE_SLOT_COUNT * sizeof(asio_pulse_scb));
    ::unlink(path_.c_str());
  }

  /// The number of workers that have a control block now, and that ever had one.
  [[nodiscard]] int attached() const noexcept { return attached_.load(); }
  [[nodiscard]] int attachments() const noexcept { return attachments_.load(); }
  [[nodiscard]] asio_pulse_scb& block(std::uint32_t slot = 1) noexcept { return blocks_[slot]; }

  // The kernel's half.
  void hint(std::uint32_t slot = 1) {
    std::atomic_ref(block(slot).preempt_seq).fetch_add(1, std::memory_order_relaxed);
  }
  void lose(std::uint32_t slot = 1) {
    std::atomic_ref(block(slot).lost_hints).fetch_add(1, std::memory_order_relaxed);
  }
  void press(std::uint8_t pressure, std::uint32_t slot = 1) {
    std::atomic_ref(block(slot).pressure).store(pressure, std::memory_order_relaxed);
  }
  [[nodiscard]] bool acknowledged(std::uint32_t slot = 1) {
    return std::atomic_ref(block(slot).last_ack_seq).load(std::memory_order_acquire) ==
           std::atomic_ref(block(slot).preempt_seq).load(std::memory_order_relaxed);
  }

 private:
  static inline std::atomic<int> next_number_{0};
  void serve() {
    std::vector<pollfd> fds{{stop_[0], POLLIN, 0}, {listener_, POLLIN, 0}};
    for (;;) {
      ::poll(fds.data(), fds.size(), -1);
      if (fds[0].revents != 0) break;
      if (fds[1].revents != 0) {
        fds.push_back({::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC), POLLIN, 0});
      }
      for (std::size_t i = 2; i < fds.size(); ++i) {
        if (fds[i].revents != 0 && !answer(fds[i].fd)) {
          ::close(std::exchange(fds[i].fd, -1));
          attached_ = 0;
        }
        fds[i].revents = 0;
      }
      std::erase_if(fds, [](const pollfd& p) { return p.fd < 0; });
    }
    for (std::size_t i = 2; i < fds.size(); ++i) ::close(fds[i].fd);
  }

  bool answer(int fd) {
    asio_pulse_request request{};
    if (::recv(fd, &request, sizeof request, 0) != sizeof request) return false;
    if (how.silent) return true;
    asio_pulse_reply reply{};
    reply.magic = ASIO_PULSE_PROTOCOL_MAGIC;
    reply.abi_version = how.abi_version;
    reply.kind = request.kind;
    std::vector<int> along;
    switch (request.kind) {
      case ASIO_PULSE_HELLO:
        reply.refusal = how.refuse_hello;
        reply.slots = how.slots;
        if (reply.refusal == ASIO_PULSE_OK) along = how.descriptors.value_or(std::vector{memory_});
        break;
      case ASIO_PULSE_ATTACH:
        reply.refusal = how.refuse_attach;
        if (reply.refusal == ASIO_PULSE_OK) {
          reply.slot = how.first_slot + static_cast<std::uint32_t>(attachments_++ % 100);
          ++attached_;
        }
        along = how.more_on_attach;
        break;
      case ASIO_PULSE_DETACH:
        --attached_;
        break;
      default:
        break;
    }
    if (reply.refusal != ASIO_PULSE_OK) {
      const std::string text = "refused by the test";
      std::memcpy(reply.text, text.data(), text.size());
      reply.text_bytes = static_cast<std::uint32_t>(text.size());
    }
    if (how.garbage) reply.magic ^= 1;
    std::vector<char> bytes(offsetof(asio_pulse_reply, text) + reply.text_bytes);
    std::memcpy(bytes.data(), &reply, bytes.size());
    if (how.trailing_bytes != 0) bytes.resize(sizeof reply + how.trailing_bytes);
    iovec part{bytes.data(), bytes.size()};
    const std::size_t along_bytes = along.size() * sizeof(int);
    std::vector<char> control(CMSG_SPACE(along_bytes));
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (!along.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* const c = CMSG_FIRSTHDR(&message);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(along_bytes);
      std::memcpy(CMSG_DATA(c), along.data(), along_bytes);
    }
    if (how.truncates && request.kind == ASIO_PULSE_ATTACH) (void)!::ftruncate(memory_, 0);
    return ::sendmsg(fd, &message, MSG_NOSIGNAL) > 0;
  }

  std::string path_;
  int listener_ = -1;
  int memory_ = -1;
  int stop_[2] = {-1, -1};
  asio_pulse_scb* blocks_ = nullptr;
  std::atomic<int> attached_{0};
  std::atomic<int> attachments_{0};
  std::thread thread_;
};

}  // namespace pulse_test
