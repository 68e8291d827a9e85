// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <asio_pulse/detail/asio_port.hpp>

#include <cstddef>
#include <cstdint>

namespace asio_pulse::detail {

/// The port of a context whose queue is empty, and in which nothing is ever parked.
class empty_port : public asio_port {
 public:
  virtual ~empty_port() = default;
  void* scheduler() const noexcept override { return const_cast<empty_port*>(this); }
  void append(parked_work&, void*, std::uint32_t) noexcept override {}
  std::size_t sweep(const hooks::task_record&, parked_work&, const void*,
                    std::uint32_t) noexcept override {
    return 0;
  }
  void* take(parked_work&) noexcept override { return nullptr; }
  std::uint32_t first_number(const parked_work&) const noexcept override { return 0; }
  std::size_t put_in_front(parked_work&) noexcept override { return 0; }
  void read_queue(queue_reader&) noexcept override {}
  void put_driver(queue_reader&, bool) noexcept override {}
  void put_driver_in_front() noexcept override {}
  bool drains_strand(void*) const noexcept override { return false; }
  bool put_back_rest(void*) noexcept override { return false; }
  strand_break break_strand(void*, void*) noexcept override { return strand_break::refused; }
  bool in_legacy_strand() const noexcept override { return false; }
};

}  // namespace asio_pulse::detail
