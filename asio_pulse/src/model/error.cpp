// SPDX-License-Identifier: BSL-1.0

#include <asio_pulse/error.hpp>

namespace asio_pulse {

std::string_view to_string(error e) noexcept {
  switch (e) {
    case error::invalid_option:
      return "an option is out of range";
    case error::fixed_option:
      return "an option cannot change any more";
    case error::mailbox_full:
      return "too many messages from this shard wait to run on the other one";
    case error::no_such_shard:
      return "there is no shard with this number";
    case error::shard_drained:
      return "the shard is being drained, and takes nothing";
    case error::shards_stopped:
      return "the shards were stopped";
    case error::already_moving:
      return "an earlier order to move was not carried out yet";
    case error::session_ended:
      return "the session that should move has ended";
    case error::move_forbidden:
      return "the session must not move now";
    case error::not_movable:
      return "the handler is bound to an executor that is not the shard's own";
  }
  return {};
}

}  // namespace asio_pulse
