// SPDX-License-Identifier: BSL-1.0
//
// What the sweep spares (started_by_asio() in fault_sweep_test.cpp), on a plain io_context: there
// the same refusals do harm as well. If one of these tests fails because an Asio does no harm any
// more, the sweep need not spare that any longer.

#include "sweep.hpp"

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/version.hpp>

#include <gtest/gtest.h>

#include <cstdio>
#include <string>

namespace {

using namespace pulse_test;
namespace asio = boost::asio;

void run(tally& t, asio::io_context& io) {
  while (!t.attempt([&] { io.run(); })) {
  }
  io.restart();
}

/// Calls `use(io)` if a plain context can be made.
template <class Use>
void with_plain_context(tally& t, Use use) {
  t.attempt([&] {
    asio::io_context io;
    use(io);
    run(t, io);
  });
}

/// A strand that has a handler, but no memory to post itself with, is never posted again.
void starts_a_strand(tally& t) {
  with_plain_context(t, [&](auto& io) {
    const auto strand = asio::make_strand(io);
    for (int i = 0; i != 2; ++i) t.ask([&](auto done) { asio::post(strand, done); });
  });
}

/// A strand that a handler has added something to posts itself in a destructor.
void adds_to_its_own_strand(tally& t) {
  with_plain_context(t, [&](auto& io) {
    const auto strand = [&] {
      const faults::spared mine;
      return asio::make_strand(io);
    }();
    t.ask([&](auto done) {
      const faults::spared mine;
      asio::post(strand, [&, done] {
        done();
        t.ask([&](auto inner) { asio::post(strand, inner); });
        // These take the memory that Asio has cached on this thread.
        for (int n = 0; n != 2; ++n) t.ask([&](auto inner) { asio::post(io, inner); });
      });
    });
    run(t, io);
  });
}

/// A handler with an executor of its own counts as work before it is accepted. If it is refused, and
/// there is no other work, the context is stopped, and run() returns at once.
void submits_to_an_idle_context(tally& t) {
  with_plain_context(t, [&](auto& io) {
    t.ask([&](auto done) { asio::post(io, asio::bind_executor(io.get_executor(), done)); });
    t.ask([&](auto done) { asio::post(io, done); });
  });
}

class plain_asio : public testing::TestWithParam<scenario> {};

TEST_P(plain_asio, does_harm_as_well) {
  const auto found = harm_without_memory(GetParam());
  for (const std::string& what : found) std::printf("plain Asio: %s\n", what.c_str());
  // Other versions were not looked at.
  EXPECT_TRUE(!found.empty() || BOOST_VERSION != 108100);
}

INSTANTIATE_TEST_SUITE_P(
    of, plain_asio,
    testing::Values(scenario{.name = "strand_start", .run = starts_a_strand},
                    scenario{.name = "strand_turn", .run = adds_to_its_own_strand},
                    scenario{.name = "idle_context", .run = submits_to_an_idle_context}),
    [](const auto& one) { return std::string(one.param.name); });

}  // namespace
