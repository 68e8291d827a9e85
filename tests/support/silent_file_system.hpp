// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

/// \file
/// A file system in user space (FUSE) with one file, control_blocks, that can be opened and closed,
/// and never answers anything else that is asked about it.

namespace pulse_test {

class silent_file_system {
 public:
  silent_file_system() {
    std::string name = "/tmp/asio_pulse_fuse_XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) return;
    folder_ = name;
    device_ = ::open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (device_ < 0) return;
    const std::string options =
        "fd=" + std::to_string(device_) + ",rootmode=40755,user_id=0,group_id=0";
    if (::mount("silent", folder_.c_str(), "fuse.silent", MS_NODEV | MS_NOSUID, options.c_str()) !=
        0) {
      return;
    }
    mounted_ = true;
    thread_ = std::thread([this] { serve(); });
    file_ = ::open((folder_ + "/control_blocks").c_str(), O_RDWR | O_CLOEXEC);
    opened_ = true;
  }
  ~silent_file_system() {
    // Requests that wait get an error, and the thread's read() ends.
    if (mounted_) ::umount2(folder_.c_str(), MNT_FORCE | MNT_DETACH);
    if (file_ >= 0) ::close(file_);
    if (device_ >= 0 && !thread_.joinable()) ::close(device_);
    if (thread_.joinable()) thread_.join();
    if (!folder_.empty()) ::rmdir(folder_.c_str());
  }
  silent_file_system(const silent_file_system&) = delete;
  silent_file_system& operator=(const silent_file_system&) = delete;

  [[nodiscard]] bool mounted() const noexcept { return file_ >= 0; }
  [[nodiscard]] int file() const noexcept { return file_; }
  /// Requests since the file was opened that were never answered.
  [[nodiscard]] int asked() const noexcept { return asked_.load(); }

 private:
  static constexpr std::uint64_t file_node = 2;

  void serve() {
    std::array<char, 1 << 17> request;
    for (;;) {
      const ssize_t n = ::read(device_, request.data(), request.size());
      if (n < 0 && errno == ENODEV) break;  // unmounted
      if (n < static_cast<ssize_t>(sizeof(fuse_in_header))) continue;
      fuse_in_header head;
      std::memcpy(&head, request.data(), sizeof head);
      answer(head);
    }
    ::close(device_);
  }

  void answer(const fuse_in_header& to) {
    switch (to.opcode) {
      case FUSE_INIT: {
        fuse_init_out out{};
        out.major = FUSE_KERNEL_VERSION;
        out.minor = 31;
        out.max_write = 4096;
        return reply(to, 0, &out, sizeof out);
      }
      case FUSE_LOOKUP: {
        fuse_entry_out out{};
        out.nodeid = file_node;
        out.entry_valid = 3600;
        out.attr = attributes(file_node);  // valid for no time: fstat() would have to ask
        return reply(to, 0, &out, sizeof out);
      }
      case FUSE_OPEN: {
        const fuse_open_out out{};
        return reply(to, 0, &out, sizeof out);
      }
      case FUSE_GETATTR:
        if (!opened_) {
          fuse_attr_out out{};
          out.attr_valid = 3600;
          out.attr = attributes(to.nodeid);
          return reply(to, 0, &out, sizeof out);
        }
        break;
      case FUSE_FLUSH:
      case FUSE_RELEASE:
      case FUSE_ACCESS:
        return reply(to, -ENOSYS, nullptr, 0);
      default:
        break;
    }
    if (opened_) ++asked_;
  }

  static fuse_attr attributes(std::uint64_t node) {
    fuse_attr a{};
    a.ino = node;
    a.mode = node == file_node ? S_IFREG | 0666 : S_IFDIR | 0755;
    a.nlink = 1;
    a.size = 1 << 20;
    a.blksize = 4096;
    return a;
  }

  void reply(const fuse_in_header& to, int error, const void* body, std::size_t size) {
    std::array<char, 512> bytes{};
    const fuse_out_header head{.len = static_cast<std::uint32_t>(sizeof(fuse_out_header) + size),
                               .error = error,
                               .unique = to.unique};
    std::memcpy(bytes.data(), &head, sizeof head);
    if (size != 0) std::memcpy(bytes.data() + sizeof head, body, size);
    (void)!::write(device_, bytes.data(), head.len);
  }

  std::string folder_;
  int device_ = -1;
  int file_ = -1;
  bool mounted_ = false;
  std::atomic<bool> opened_{false};
  std::atomic<int> asked_{0};
  std::thread thread_;
};

}  // namespace pulse_test
