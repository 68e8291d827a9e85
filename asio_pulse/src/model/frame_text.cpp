// SPDX-License-Identifier: BSL-1.0

#include "frame_text.hpp"

#include <asio_pulse/report.hpp>

#include <fmt/core.h>

#include <string_view>

namespace asio_pulse::detail {
namespace {

constexpr std::size_t function_bytes = 512;
constexpr std::size_t file_bytes = 256;
constexpr std::size_t module_bytes = 128;

std::string place_in_module(const stack_frame& frame) {
  return fmt::format("{}+0x{:x}", escape(frame.module, module_bytes), frame.offset);
}

}  // namespace

std::string name_of(const stack_frame& frame) {
  if (!frame.function.empty()) return escape(frame.function, function_bytes);
  if (!frame.module.empty()) return place_in_module(frame);
  return fmt::format("0x{:x}", frame.address);
}

std::string text_of(const stack_frame& frame) {
  std::string text;
  if (!frame.function.empty()) text = escape(frame.function, function_bytes);
  const auto add = [&text](std::string_view word, std::string_view place) {
    if (!text.empty()) text += ' ';
    text += word;
    text += place;
  };
  if (!frame.file.empty()) {
    add("at ", fmt::format("{}:{}", escape(frame.file, file_bytes), frame.line));
  } else if (!frame.module.empty()) {
    add(text.empty() ? "" : "in ", place_in_module(frame));
  } else if (text.empty()) {
    text = name_of(frame);
  }
  if (frame.inlined) text += " (inlined)";
  if (frame.awaiting) text += " (awaiting)";
  return text;
}

std::string short_text_of(const stack_frame& frame) {
  constexpr std::size_t short_function_bytes = 80;
  constexpr std::size_t place_bytes = 100;
  if (frame.function.empty()) return name_of(frame);
  const std::string_view function = frame.function;
  // A long name is cut where its parameters or template arguments begin.
  const std::string_view name = function.size() <= short_function_bytes
                                    ? function
                                    : function.substr(0, function.find_first_of("(<[", 1));
  std::string text = escape(name, short_function_bytes);
  if (name.size() < function.size()) text += "...";
  if (frame.file.empty()) return text;
  const std::string place = fmt::format(" at {}:{}", escape(frame.file, place_bytes), frame.line);
  if (place.size() <= place_bytes) text += place;
  return text;
}

}  // namespace asio_pulse::detail
