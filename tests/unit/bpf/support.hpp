// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "service/block_store.hpp"
#include "service/service.hpp"

#include <asio_pulse/bpf/protocol.h>

#include <boost/asio/io_context.hpp>

#include <gtest/gtest.h>
#include <sys/types.h>

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

namespace bpf_test {

using namespace asio_pulse::scx;

/// Control blocks in memory files, and a record of the calls.
class memory_store final : public block_store {
 public:
  ~memory_store() override;

  process_blocks open_process(pid_t tgid) override;
  void close_process(pid_t tgid) noexcept override;
  void add_worker(pid_t tid, const scx_pulse_registration& worker) override;
  void remove_worker(pid_t tid) noexcept override;

  std::map<pid_t, process_blocks> processes;
  std::map<pid_t, scx_pulse_registration> workers;
  std::vector<std::string> calls;  ///< in their order, without the numbers
  bool fail_open = false;
  bool fail_add = false;
};

struct received {
  asio_pulse_reply head = {};
  std::string text = {};
  unique_fd fd;
};

/// The program's end of a connection. No member blocks.
class client {
 public:
  explicit client(unique_fd connected) : socket_(std::move(connected)) {}
  static client to(const std::string& path);

  bool send_bytes(const void* bytes, std::size_t size);
  bool send(std::uint16_t kind, pid_t tid = 0, unsigned slot = 0,
            unsigned abi = ASIO_PULSE_ABI_VERSION);
  bool send(asio_pulse_set_request change);
  /// Sends descriptors as well; returns false if the kernel refuses them.
  bool send_with_fds(std::span<const int> fds);
  std::optional<received> receive();
  /// The other end has closed, and nothing is left to read.
  bool closed();
  void close() { socket_.reset(); }
  [[nodiscard]] int fd() const { return socket_.get(); }

 private:
  unique_fd socket_;
};

/// Another process, which has connected and then handed its end over to us. Its threads wait until
/// the object goes.
class other_process {
 public:
  explicit other_process(const std::string& path, unsigned more_threads = 0,
                         bool own_namespace = false);
  ~other_process() { kill(); }
  other_process(other_process&& other) noexcept;
  other_process(const other_process&) = delete;
  other_process& operator=(const other_process&) = delete;

  /// Returns false if this machine does not allow such a process.
  [[nodiscard]] bool made() const { return made_; }
  [[nodiscard]] pid_t pid() const { return tids_.at(0); }  ///< as it knows itself
  [[nodiscard]] const std::vector<pid_t>& tids() const { return tids_; }
  client connection{unique_fd()};
  void kill();

 private:
  bool made_ = false;
  pid_t child_ = 0;
  std::vector<pid_t> tids_;
};

/// A thread of this process that waits until the object is destroyed.
class parked_thread {
 public:
  parked_thread();
  ~parked_thread() { end(); }
  parked_thread(const parked_thread&) = delete;
  parked_thread& operator=(const parked_thread&) = delete;
  [[nodiscard]] pid_t tid() const { return tid_; }
  void end();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  pid_t tid_ = 0;
  bool leave_ = false;
  std::thread thread_;
};

class temporary_folder {
 public:
  temporary_folder();
  ~temporary_folder();
  temporary_folder(const temporary_folder&) = delete;
  temporary_folder& operator=(const temporary_folder&) = delete;
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

/// A service in this process. pump() runs all handlers that are ready, and returns.
class service_test : public ::testing::Test {
 protected:
  service_test();
  ~service_test() override;

  void start();
  void stop() { service_.reset(); }
  void pump();
  /// Sends, pumps and returns the reply; a reply of kind 0xffff where there is none.
  received ask(client& from, std::uint16_t kind, pid_t tid = 0, unsigned slot = 0,
               unsigned abi = ASIO_PULSE_ABI_VERSION);
  /// The same for a service that pauses for a moment after refusals: pumps until there is a reply.
  received ask_patiently(client& from, std::uint16_t kind, pid_t tid = 0);
  received after_pump(client& from);
  client connect() { return client::to(options_.path); }

  temporary_folder folder_;
  memory_store store_;
  boost::asio::io_context context_{1};
  system_state state_;
  service_options options_;
  service_hooks hooks_;
  std::unique_ptr<service> service_;
};

/// A program's view of its array.
class mapping {
 public:
  explicit mapping(int fd);
  ~mapping();
  mapping(const mapping&) = delete;
  mapping& operator=(const mapping&) = delete;
  [[nodiscard]] asio_pulse_scb& operator[](std::size_t slot) const { return blocks_[slot]; }
  [[nodiscard]] const asio_pulse_system& system() const;

 private:
  asio_pulse_scb* blocks_;
};

}  // namespace bpf_test
