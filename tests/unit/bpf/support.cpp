// SPDX-License-Identifier: BSL-1.0
#include "support.hpp"

#include "service/socket_file.hpp"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace bpf_test {
namespace {

constexpr std::size_t array_bytes = std::size_t{ASIO_PULSE_SLOT_COUNT} * ASIO_PULSE_SCB_BYTES;

asio_pulse_scb* map(int fd) {
  void* const at = ::mmap(nullptr, array_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) throw std::system_error(errno, std::system_category(), "mmap");
  return static_cast<asio_pulse_scb*>(at);
}

// One descriptor and some bytes over a socket pair; -1 where there is none.
ssize_t receive_with_fd(int socket, void* bytes, std::size_t size, int flags, int& fd) {
  iovec part{.iov_base = bytes, .iov_len = size};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t got = ::recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
  fd = -1;
  if (got < 0) return got;
  for (cmsghdr* one = CMSG_FIRSTHDR(&message); one != nullptr; one = CMSG_NXTHDR(&message, one)) {
    if (one->cmsg_level == SOL_SOCKET && one->cmsg_type == SCM_RIGHTS) {
      std::memcpy(&fd, CMSG_DATA(one), sizeof fd);
    }
  }
  return got;
}

ssize_t send_with_fds(int socket, const void* bytes, std::size_t size, std::span<const int> fds) {
  iovec part{.iov_base = const_cast<void*>(bytes), .iov_len = size};
  std::vector<char> control(CMSG_SPACE(fds.size_bytes()));
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(fds.size_bytes());
  std::memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  return ::sendmsg(socket, &message, MSG_NOSIGNAL);
}

constexpr std::size_t most_tids = 160;

// Runs in the child: connects, starts its threads, sends everything to its parent, and waits to be
// killed.
[[noreturn]] void be_other_process(int report, const std::string& path, unsigned more_threads) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  // Closes inherited connections of other processes, which must end with their owners.
  ::syscall(SYS_close_range, 3, report - 1, 0);
  ::syscall(SYS_close_range, report + 1, ~0U, 0);
  std::array<pid_t, most_tids> tids{};
  try {
    unique_fd connected = connect_to_service(path);
    tids[0] = ::gettid();
    std::mutex mutex;
    std::condition_variable changed;
    unsigned started = 0;
    std::vector<std::thread> threads;
    for (unsigned i = 1; i <= more_threads; ++i) {
      threads.emplace_back([&, i] {
        {
          const std::lock_guard lock(mutex);
          tids[i] = ::gettid();
          ++started;
        }
        changed.notify_all();
        for (;;) ::pause();
      });
    }
    {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return started == more_threads; });
    }
    const int fd = connected.release();
    if (send_with_fds(report, tids.data(), (1 + more_threads) * sizeof(pid_t), {&fd, 1}) < 0) {
      ::_exit(1);
    }
    ::close(fd);
    ::close(report);  // signals that it has no copy any more
    for (;;) ::pause();
  } catch (...) {
    ::_exit(1);
  }
}

bool enter_pid_namespace() {
  return ::unshare(CLONE_NEWPID) == 0 || ::unshare(CLONE_NEWUSER | CLONE_NEWPID) == 0;
}

}  // namespace

memory_store::~memory_store() {
  while (!processes.empty()) close_process(processes.begin()->first);
}

process_blocks memory_store::open_process(pid_t tgid) {
  if (fail_open) throw std::runtime_error("the store is full");
  const int fd = ::memfd_create("control blocks", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(array_bytes)) != 0 ||
      ::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    throw std::system_error(errno, std::system_category(), "memfd");
  }
  process_blocks made{.fd = fd, .blocks = {map(fd), ASIO_PULSE_SLOT_COUNT}};
  processes[tgid] = made;
  calls.emplace_back("open_process");
  return made;
}

void memory_store::close_process(pid_t tgid) noexcept {
  calls.emplace_back("close_process");
  const auto found = processes.find(tgid);
  if (found == processes.end()) return;
  ::munmap(found->second.blocks.data(), array_bytes);
  ::close(found->second.fd);
  processes.erase(found);
}

void memory_store::add_worker(pid_t tid, const scx_pulse_registration& worker) {
  if (fail_add) throw std::runtime_error("the map is full");
  calls.emplace_back("add_worker");
  workers[tid] = worker;
}

void memory_store::remove_worker(pid_t tid) noexcept {
  calls.emplace_back("remove_worker");
  workers.erase(tid);
}

client client::to(const std::string& path) { return client(connect_to_service(path)); }

bool client::send_bytes(const void* bytes, std::size_t size) {
  return ::send(socket_.get(), bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT) ==
         static_cast<ssize_t>(size);
}

bool client::send(std::uint16_t kind, pid_t tid, unsigned slot, unsigned abi) {
  const asio_pulse_request request{.magic = ASIO_PULSE_PROTOCOL_MAGIC,
                                   .abi_version = static_cast<std::uint16_t>(abi),
                                   .kind = static_cast<std::uint16_t>(kind),
                                   .tid = static_cast<std::uint32_t>(tid),
                                   .slot = slot};
  return send_bytes(&request, sizeof request);
}

bool client::send(asio_pulse_set_request change) {
  change.request = {.magic = ASIO_PULSE_PROTOCOL_MAGIC,
                    .abi_version = ASIO_PULSE_ABI_VERSION,
                    .kind = ASIO_PULSE_SET,
                    .tid = 0,
                    .slot = 0};
  return send_bytes(&change, sizeof change);
}

bool client::send_with_fds(std::span<const int> fds) {
  const asio_pulse_request request{.magic = ASIO_PULSE_PROTOCOL_MAGIC,
                                   .abi_version = ASIO_PULSE_ABI_VERSION,
                                   .kind = ASIO_PULSE_HELLO,
                                   .tid = 0,
                                   .slot = 0};
  return bpf_test::send_with_fds(socket_.get(), &request, sizeof request, fds) > 0;
}

std::optional<received> client::receive() {
  received result;
  int fd = -1;
  const ssize_t got =
      receive_with_fd(socket_.get(), &result.head, sizeof result.head, MSG_DONTWAIT, fd);
  result.fd = unique_fd(fd);
  if (got <= 0) return std::nullopt;
  constexpr std::size_t head = offsetof(asio_pulse_reply, text);
  EXPECT_GE(static_cast<std::size_t>(got), head);
  EXPECT_EQ(static_cast<std::size_t>(got), head + result.head.text_bytes);
  EXPECT_EQ(result.head.magic, ASIO_PULSE_PROTOCOL_MAGIC);
  EXPECT_EQ(result.head.abi_version, ASIO_PULSE_ABI_VERSION);
  result.text.assign(result.head.text, static_cast<std::size_t>(got) - head);
  return result;
}

bool client::closed() {
  char byte = 0;
  return ::recv(socket_.get(), &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0 || errno == ECONNRESET;
}

other_process::other_process(const std::string& path, unsigned more_threads, bool own_namespace) {
  int pair[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return;
  const unique_fd ours(pair[0]);
  unique_fd theirs(pair[1]);
  child_ = ::fork();
  if (child_ == 0) {
    if (!own_namespace) be_other_process(theirs.get(), path, more_threads);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!enter_pid_namespace()) ::_exit(1);
    const pid_t inner = ::fork();
    if (inner == 0) be_other_process(theirs.get(), path, more_threads);
    ::close(theirs.release());
    ::close(ours.get());
    int status = 0;
    ::waitpid(inner, &status, 0);
    ::_exit(0);
  }
  theirs.reset();
  tids_.resize(most_tids);
  int fd = -1;
  const ssize_t got =
      receive_with_fd(ours.get(), tids_.data(), tids_.size() * sizeof(pid_t), 0, fd);
  if (got <= 0) {
    kill();
    return;
  }
  tids_.resize(static_cast<std::size_t>(got) / sizeof(pid_t));
  char end = 0;
  static_cast<void>(::recv(ours.get(), &end, 1, 0));
  connection = client(unique_fd(fd));
  made_ = true;
}

other_process::other_process(other_process&& other) noexcept
    : connection(std::move(other.connection)),
      made_(other.made_),
      child_(std::exchange(other.child_, 0)),
      tids_(std::move(other.tids_)) {}

void other_process::kill() {
  const pid_t child = std::exchange(child_, 0);
  if (child <= 0) return;
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
}

parked_thread::parked_thread() {
  thread_ = std::thread([this] {
    std::unique_lock lock(mutex_);
    tid_ = ::gettid();
    changed_.notify_all();
    changed_.wait(lock, [this] { return leave_; });
  });
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return tid_ != 0; });
}

void parked_thread::end() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    leave_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

temporary_folder::temporary_folder() {
  std::string name = (std::filesystem::temp_directory_path() / "scx_pulse_XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) {
    throw std::system_error(errno, std::system_category(), "mkdtemp");
  }
  path_ = name;
}

temporary_folder::~temporary_folder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

service_test::service_test() {
  options_.path = folder_ / "socket";
  // The user of the tests has no limit on the service's time; tests of the limits change this.
  options_.bounds.exempt = ::getuid();
  options_.update_every = std::chrono::hours{1};
  state_.settings = {.slice_ns = 5'000'000,
                     .grace_ns = 100'000'000,
                     .max_critical_ns = 50'000'000,
                     .throttle_ns = 1'000'000'000,
                     .throttle_percent = 25,
                     .mode = ASIO_PULSE_MODE_OBSERVER_ONLY,
                     .imbalance = 2,
                     .pressure = 0};
  state_.cpus = 2;
  hooks_.look = [this] { return state_; };
}

service_test::~service_test() { service_.reset(); }

void service_test::start() {
  service_ = std::make_unique<service>(context_, store_, options_, hooks_);
}

void service_test::pump() {
  context_.restart();
  while (context_.poll() > 0) {
  }
}

received service_test::after_pump(client& from) {
  pump();
  auto reply = from.receive();
  if (reply) return std::move(*reply);
  received none;
  none.head.kind = 0xffff;
  return none;
}

received service_test::ask(client& from, std::uint16_t kind, pid_t tid, unsigned slot,
                           unsigned abi) {
  EXPECT_TRUE(from.send(kind, tid, slot, abi));
  return after_pump(from);
}

received service_test::ask_patiently(client& from, std::uint16_t kind, pid_t tid) {
  EXPECT_TRUE(from.send(kind, tid));
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{20};
  received reply;
  do {
    reply = after_pump(from);
  } while (reply.head.kind == 0xffff && std::chrono::steady_clock::now() < end);
  return reply;
}

mapping::mapping(int fd) : blocks_(map(fd)) {}
mapping::~mapping() { ::munmap(blocks_, array_bytes); }
const asio_pulse_system& mapping::system() const {
  return reinterpret_cast<const asio_pulse_system&>(blocks_[0]);
}

}  // namespace bpf_test
