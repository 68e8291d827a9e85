// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <boost/asio/any_io_executor.hpp>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

/// A library of another project, built on plain Boost.Asio, without asio-pulse and without its
/// tracking definition.
namespace word_count {

/// Counts the words of `text` on `executor`, one line a turn, `rounds` times over, and calls `done`
/// there with the sum.
void async_count(boost::asio::any_io_executor executor, std::string text, std::size_t rounds,
                 std::function<void(std::size_t)> done);

/// A TCP server that answers each line it is sent with its number of words.
class server {
 public:
  explicit server(boost::asio::any_io_executor executor);
  ~server();
  server(server&&) noexcept;
  server& operator=(server&&) noexcept;

  [[nodiscard]] unsigned short port() const;
  void stop();

 private:
  struct state;
  std::shared_ptr<state> state_;
};

/// The same as a call that blocks, on an io_context and a thread of the library's own.
std::size_t count_in_background(const std::string& text, std::size_t rounds);

}  // namespace word_count
