// SPDX-License-Identifier: BSL-1.0

// Work that reaches a task in any way belongs to the task and is subject to its budget: through the
// task's executor, strands over it, and strands over strands, with and without type erasure.

#include <support/scenario.hpp>
//
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <gmock/gmock.h>

#include <algorithm>
#include <memory>
#include <ostream>

namespace {

namespace asio = boost::asio;
using namespace pulse_test;
using testing::ElementsAreArray;

using handler = std::function<void()>;
/// Posts one handler.
using poster = std::function<void(handler)>;

/// A way to reach a task.
struct way {
  const char* name;
  poster (*make)(asio_pulse::io_context&, const asio_pulse::task&);
  bool by_strand;
};
std::ostream& operator<<(std::ostream& to, const way& w) { return to << w.name; }

template <class Executor>
poster posts_to(Executor executor) {
  return [executor](handler h) { asio::post(executor, std::move(h)); };
}

const way ways[] = {
    {"executor",
     [](asio_pulse::io_context&, const asio_pulse::task& t) { return posts_to(t.get_executor()); },
     false},
    {"any_executor",
     [](asio_pulse::io_context&, const asio_pulse::task& t) {
       return posts_to(asio::any_io_executor(t.get_executor()));
     },
     false},
    {"strand",
     [](asio_pulse::io_context&, const asio_pulse::task& t) {
       return posts_to(asio::make_strand(t.get_executor()));
     },
     true},
    {"strand_over_any",
     [](asio_pulse::io_context&, const asio_pulse::task& t) {
       return posts_to(asio::make_strand(asio::any_io_executor(t.get_executor())));
     },
     true},
    {"any_over_strand",
     [](asio_pulse::io_context&, const asio_pulse::task& t) {
       return posts_to(asio::any_io_executor(asio::make_strand(t.get_executor())));
     },
     true},
    {"strand_over_strand",
     [](asio_pulse::io_context&, const asio_pulse::task& t) {
       return posts_to(asio::make_strand(asio::make_strand(t.get_executor())));
     },
     true},
    {"strand_over_any_over_strand_over_any",
     [](asio_pulse::io_context&, const asio_pulse::task& t) {
       const asio::any_io_executor inner =
           asio::make_strand(asio::any_io_executor(t.get_executor()));
       return posts_to(asio::make_strand(inner));
     },
     true},
    {"bound_to_a_strand",
     [](asio_pulse::io_context& io, const asio_pulse::task& t) -> poster {
       return [&io, strand = asio::make_strand(t.get_executor())](handler h) {
         asio::post(io, asio::bind_executor(strand, std::move(h)));
       };
     },
     true},
    {"scope_and_strand_of_the_context",
     [](asio_pulse::io_context& io, const asio_pulse::task& t) -> poster {
       return [t, strand = asio::make_strand(io)](handler h) {
         const asio_pulse::task_scope scope(t);
         asio::post(strand, std::move(h));
       };
     },
     true},
    {"scope_and_strand_over_any_of_the_context",
     [](asio_pulse::io_context& io, const asio_pulse::task& t) -> poster {
       return [t, strand = asio::make_strand(asio::any_io_executor(io.get_executor()))](handler h) {
         const asio_pulse::task_scope scope(t);
         asio::post(strand, std::move(h));
       };
     },
     true},
};

class executor_storms : public testing::TestWithParam<way> {};
INSTANTIATE_TEST_SUITE_P(ways, executor_storms, testing::ValuesIn(ways),
                         [](const auto& info) { return std::string(info.param.name); });

/// A handler of another task that posts itself while `left` counts down. It records the largest
/// decrease of `left` between two of its turns.
class bystander {
 public:
  bystander(asio_pulse::io_context& io, const int& left)
      : task_(io, unlimited("bystander")), left_(left), before_(left) {}
  void start() {
    asio_pulse::post(task_, [this] {
      most_ = std::max(most_, before_ - left_);
      before_ = left_;
      if (left_ != 0) start();
    });
  }
  [[nodiscard]] int most() const noexcept { return most_; }

 private:
  asio_pulse::task task_;
  const int& left_;
  int before_;
  int most_ = 0;
};

TEST_P(executor_storms, of_an_overspent_task_let_others_in_after_a_slice) {
  asio_pulse::io_context io(steady());
  const offender hog(io);
  constexpr int storm = 300;
  int left = storm;
  std::vector<int> order;
  std::vector<std::uint64_t> whose;
  std::atomic<int> inside{0};
  bystander other(io, left);
  const poster post = GetParam().make(io, hog);
  for (int i = 0; i < storm; ++i) {
    post([&, i] {
      const alone here(inside);
      burn(30us);
      order.push_back(i);
      whose.push_back(asio_pulse::this_task::id());
      --left;
    });
  }
  other.start();
  io.run();
  EXPECT_THAT(order, ElementsAreArray(counting_to(storm)));
  EXPECT_THAT(whose, testing::Each(hog.task.id()));
  // Two of them make up a slice; some of the CPU time is charged a moment later, on a busy machine of
  // more handlers. Without a slice it would be all of them.
  EXPECT_LE(other.most(), 12) << "of the storm's handlers between two turns of another task";
  if (GetParam().by_strand) {
    EXPECT_GT(io.stats().strand_breaks, 0U);
  }
}

TEST_P(executor_storms, that_begin_within_the_budget_make_no_timer_wait_for_their_end) {
  asio_pulse::io_context io(steady());
  const asio_pulse::task t(io, stingy("storm"));
  constexpr int storm = 4000;
  int left = storm;
  int left_at_the_timer = storm;
  asio::steady_timer timer(io, 1ms);
  const poster post = GetParam().make(io, t);
  for (int i = 0; i < storm; ++i) {
    post([&] {
      burn(20us);
      --left;
    });
  }
  {
    const asio_pulse::task waits(io, unlimited("timer"));
    const asio_pulse::task_scope scope(waits);
    timer.async_wait([&](boost::system::error_code) { left_at_the_timer = left; });
  }
  io.run();
  EXPECT_EQ(left, 0);
  EXPECT_GT(left_at_the_timer, storm * 3 / 4) << "the timer waited for the storm";
}

TEST(executor_storms, of_coroutines_on_a_strand_over_the_executor) {
  asio_pulse::io_context io(steady());
  const offender hog(io);
  constexpr int coroutines = 20;
  constexpr int rounds = 10;
  int left = coroutines * rounds;
  bystander other(io, left);
  std::vector<std::uint64_t> whose;
  const asio::any_io_executor strand = asio::make_strand(hog.task.get_executor());
  for (int i = 0; i < coroutines; ++i) {
    asio::co_spawn(
        strand,
        [&]() -> asio::awaitable<void> {
          for (int round = 0; round < rounds; ++round) {
            co_await asio::post(asio::use_awaitable);
            burn(30us);
            whose.push_back(asio_pulse::this_task::id());
            --left;
          }
        },
        asio::detached);
  }
  other.start();
  io.run();
  EXPECT_EQ(left, 0);
  EXPECT_THAT(whose, testing::Each(hog.task.id()));
  EXPECT_LE(other.most(), 12);  // as above
  EXPECT_GT(io.stats().strand_breaks, 0U);
}

// Several tasks share a strand of the context, whose type is erased. No two handlers in a row are
// of the task over its budget, and no handler overtakes another one.
TEST(executor_storms, two_tasks_in_one_strand_over_any_io_executor) {
  asio_pulse::io_context io(steady());
  const offender hog(io);
  const asio_pulse::task fine(io, unlimited("fine"));
  const auto strand = asio::make_strand(asio::any_io_executor(io.get_executor()));
  constexpr int each = 100;
  int left = 2 * each;
  std::vector<int> order;
  bystander other(io, left);
  for (int i = 0; i < each; ++i) {
    for (const asio_pulse::task* whose : {&hog.task, &fine}) {
      const asio_pulse::task_scope scope(*whose);
      asio::post(strand, [&, n = 2 * i + (whose == &fine), id = whose->id()] {
        EXPECT_EQ(asio_pulse::this_task::id(), id);
        order.push_back(n);
        burn(20us);
        --left;
      });
    }
  }
  other.start();
  io.run();
  EXPECT_THAT(order, ElementsAreArray(counting_to(2 * each)));
  EXPECT_GT(io.stats().strand_breaks, 0U);
}

}  // namespace
