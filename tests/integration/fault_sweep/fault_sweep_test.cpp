// SPDX-License-Identifier: BSL-1.0
//
// Fault injection: each allocation, descriptor, thread, mapping and system call of each scenario
// fails once. After any such failure, no handler is lost unless its caller was told, no handler
// runs twice, the program does not end or hang, nothing is leaked, and the next run works as usual.

#include <support/fake_loader.hpp>
#include <support/scenario.hpp>
//
#include "sweep.hpp"

#include <asio_pulse/preemptible.hpp>
#include <asio_pulse/spawn.hpp>
#include <support/sanitizers.hpp>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/defer.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/write.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <optional>
#include <stdexcept>

namespace {

using namespace pulse_test;
namespace asio = boost::asio;
using asio::ip::tcp;

// ---- what the scenarios have in common

/// The default options, except that reports are discarded.
asio_pulse::options defaults() {
  asio_pulse::options o;
  o.on_report = [](const asio_pulse::report&) {};
  return o;
}

/// Calls run() as a program does that continues after an exception. A refused submission may have
/// held the only work for a moment, at the end of which Asio stops the context (see
/// plain_asio_test.cpp).
void run(tally& t, asio_pulse::io_context& io) {
  io.restart();
  while (!t.attempt([&] { io.run(); })) {
  }
  io.restart();
}

/// Calls `use(io)` if a context can be made. The tasks that it makes must not outlive it.
template <class Use>
void with_context(tally& t, const std::function<asio_pulse::options()>& options, Use use) {
  std::optional<asio_pulse::io_context> io;
  if (!t.attempt([&] { io.emplace(options()); })) return;
  use(*io);
  // A thread of the isolation pool may still be finishing after run() has returned.
  for (int wait = 0; wait != 1000 && io->stats().tasks != 0; ++wait) {
    std::this_thread::sleep_for(1ms);
  }
  if (io->stats().tasks != 0) t.wrong("a task is left");
  if (io->stats().parked != 0) t.wrong("an operation is parked for ever");
}

/// A task that is in Yield, and over its budget for longer than a scenario takes.
std::optional<asio_pulse::task> overspent_task(tally& t, asio_pulse::io_context& io) {
  std::optional<asio_pulse::task> made;
  t.attempt([&] {
    made.emplace(io, asio_pulse::task_options{.name = "slow", .budget = 20us, .per = 1s});
  });
  for (int polls = 0; made && polls < 100 && made->current_tier() < asio_pulse::tier::yield;
       ++polls) {
    t.attempt([&] { asio_pulse::post(*made, [] { burn(60us); }); });
    run(t, io);
  }
  return made;
}

/// Makes a strand, or adds its first handler, without injected failures, because Asio itself does
/// not handle them: with Boost 1.81 a strand without a mutex crashes, and a strand that could not be
/// posted never runs again. plain_asio_test.cpp shows that. What is added to a strand that was
/// posted already is not spared, nor are coroutines.
template <class Start>
decltype(auto) started_by_asio(Start start) {
  const faults::spared mine;
  return start();
}

asio_pulse::options budgets_alone() {
  auto o = steady();
  o.watchdog = false;
  o.quantum = 60us;
  o.min_slice = 20us;
  return o;
}

/// Calls `use(io, slow)` with a task that is over its budget, if it can be made, and runs what was
/// started. Without a failure the scenario must have counted something in `Counter`.
template <auto Counter, class Use>
void with_overspent_task(tally& t, Use use) {
  with_context(t, budgets_alone, [&](auto& io) {
    {
      const auto slow = overspent_task(t, io);
      t.attempt([&] {
        if (slow) use(io, *slow);
      });
      run(t, io);
    }
    t.reached(io.stats().*Counter != 0);
  });
}

/// What a slow handler does that has checkpoints.
void take_three_steps() {
  for (int turn = 0; turn != 3; ++turn) {
    burn(60us);
    asio_pulse::checkpoint();
  }
}

/// The completion handler of a coroutine.
template <class Done>
auto completion(tally& t, Done done) {
  return [&t, done](std::exception_ptr thrown) {
    done();
    if (thrown) t.told();
  };
}

// ---- scenarios

void constructs(tally& t) {
  with_context(t, defaults, [&](auto& io) {
    t.ask([&](auto done) { asio::post(io, done); });
    run(t, io);
  });
}

void submits(tally& t) {
  with_context(t, defaults, [&](auto& io) {
    t.attempt([&] {
      const asio_pulse::task a(io, {.name = "a"});
      const asio_pulse::task b(io, {.name = "a task with a name that needs memory of its own"});
      t.ask([&](auto done) { asio::post(io, done); });
      t.ask([&](auto done) { asio::dispatch(io, done); });
      t.ask([&](auto done) { asio::defer(io, done); });
      t.ask([&](auto done) { asio_pulse::post(a, done); });
      t.ask([&](auto done) { asio_pulse::dispatch(b, done); });
      t.ask([&](auto done) { asio_pulse::defer(b, done); });
      t.ask([&](auto done) { asio::post(a.get_executor(), done); });
      t.ask([&](auto done) { asio::dispatch(b.get_executor(), done); });
      t.ask([&](auto done) {
        asio::post(io, [&t, &io, a, b, done] {
          done();
          t.ask([&](auto inner) { asio::post(io, inner); });
          t.ask([&](auto inner) { asio::dispatch(io, inner); });
          t.ask([&](auto inner) { asio::defer(io, inner); });
          t.ask([&](auto inner) { asio_pulse::post(a, inner); });
          t.ask([&](auto inner) { asio_pulse::dispatch(a, inner); });
          t.ask([&](auto inner) { asio::defer(b.get_executor(), inner); });
        });
      });
    });
    run(t, io);
  });
}

/// Two sockets that exchange a message over loopback.
class loopback {
 public:
  loopback(tally& t, asio_pulse::io_context& io)
      : tally_(t),
        acceptor_(io, tcp::endpoint(asio::ip::address_v4::loopback(), 0)),
        client_(io),
        server_(io) {}

  void start() {
    const bool accepts = tally_.ask([&](auto done) {
      acceptor_.async_accept(server_, [this, done](auto error) {
        done();
        if (good(error)) greet(server_);
      });
    });
    const bool connects = accepts && tally_.ask([&](auto done) {
      client_.async_connect(acceptor_.local_endpoint(), [this, done](auto error) {
        done();
        if (good(error)) greet(client_);
      });
    });
    if (!connects) give_up();
  }

 private:
  static constexpr std::size_t size = 5;

  bool good(const boost::system::error_code& error) {
    if (!error) return true;
    tally_.told();
    give_up();
    return false;
  }
  void give_up() {
    boost::system::error_code ignored;
    acceptor_.close(ignored);
    client_.close(ignored);
    server_.close(ignored);
  }
  void greet(tcp::socket& by) {
    const bool speaks = tally_.ask([&](auto done) {
      asio::async_write(by, asio::buffer("hello", size), [this, done](auto error, std::size_t) {
        done();
        (void)good(error);
      });
    });
    const bool listens = speaks && tally_.ask([&](auto done) {
      char* const room = &by == &client_ ? client_room_ : server_room_;
      asio::async_read(by, asio::buffer(room, size), [this, &by, done](auto error, std::size_t) {
        done();
        boost::system::error_code ignored;
        if (good(error)) by.close(ignored);
      });
    });
    if (!listens) give_up();
  }

  tally& tally_;
  tcp::acceptor acceptor_;
  tcp::socket client_;
  tcp::socket server_;
  char client_room_[size]{};
  char server_room_[size]{};
};

void connects(tally& t) {
  with_context(t, defaults, [&](auto& io) {
    std::optional<loopback> ends;
    if (t.attempt([&] { ends.emplace(t, io); })) ends->start();
    run(t, io);
    ends.reset();
    run(t, io);
  });
}

void waits_for_timers(tally& t) {
  with_context(t, defaults, [&](auto& io) {
    std::vector<std::unique_ptr<asio::steady_timer>> timers;
    t.attempt([&] {
      const asio_pulse::task named(io, {.name = "timers"});
      const asio_pulse::task_scope scope(named);
      for (int i = 0; i != 4; ++i) {
        timers.push_back(std::make_unique<asio::steady_timer>(io, i * 200us));
        t.ask([&](auto done) { timers.back()->async_wait([done](auto) { done(); }); });
      }
      timers.back()->cancel();
    });
    run(t, io);
  });
}

void parks(tally& t) {
  with_overspent_task<&asio_pulse::statistics::yields>(t, [&](auto& io, const auto& slow) {
    for (int i = 0; i != 6; ++i) {
      t.ask([&](auto done) {
        asio_pulse::post(slow, [done] {
          burn(30us);
          done();
        });
      });
      t.ask([&](auto done) { asio::post(io, done); });
    }
  });
}

void breaks_strands(tally& t) {
  with_overspent_task<&asio_pulse::statistics::strand_breaks>(t, [&](auto& io, const auto& slow) {
    const auto of_the_task_itself = slow.get_executor();
    const auto of_the_context = started_by_asio([&] { return asio::make_strand(io); });
    const auto of_the_task = started_by_asio([&] { return asio::make_strand(of_the_task_itself); });
    for (int i = 0; i != 6; ++i) {
      // What the handlers post takes the memory that Asio has cached on this thread. It must not be
      // missing when a strand that was broken posts itself again. The first handler is a batch of
      // its own, after which a strand posts itself on plain Asio as well, so that one posts nothing.
      const auto work = [&](auto done) {
        return [&t, &io, i, done] {
          burn(60us);
          done();
          for (int n = 0; i != 0 && n != 2; ++n) {
            t.ask([&](auto inner) { asio::post(io, inner); });
          }
        };
      };
      const auto post = [&](const auto& strand) {
        t.ask([&](auto done) {
          if (i == 0) return started_by_asio([&] { asio::post(strand, work(done)); });
          asio::post(strand, work(done));
        });
      };
      {
        const asio_pulse::task_scope scope(slow);
        post(of_the_context);
      }
      post(of_the_task);
      t.ask([&](auto done) { asio::post(io, done); });
    }
  });
}

/// Where plain Asio would call the function at once, it must not be refused for want of memory to
/// queue it with.
void dispatches(tally& t) {
  with_overspent_task<&asio_pulse::statistics::checkpoint_yields>(
      t, [&](auto& /*io*/, const auto& slow) {
        const auto executor = slow.get_executor();
        for (int i = 0; i != 3; ++i) {
          t.ask([&](auto done) {
            asio::post(executor, [&t, executor, done] {
              burn(60us);
              done();
              if (!t.ask([&](auto inner) { asio::dispatch(executor, inner); }))
                t.wrong("dispatch() was refused");
            });
          });
        }
      });
}

void yields_in_coroutines(tally& t) {
  with_overspent_task<&asio_pulse::statistics::checkpoint_yields>(
      t, [&](auto& io, const auto& slow) {
        for (int i = 0; i != 2; ++i) {
          t.ask([&](auto done) {
            asio_pulse::co_spawn(
                slow,
                []() -> asio::awaitable<void> {
                  for (int turn = 0; turn != 3; ++turn) {
                    burn(60us);
                    co_await asio_pulse::checkpoint();
                  }
                },
                completion(t, done));
          });
          t.ask([&](auto done) { asio::post(io, done); });
        }
      });
}

void yields_on_fibers(tally& t) {
  with_overspent_task<&asio_pulse::statistics::checkpoint_yields>(
      t, [&](auto& io, const auto& slow) {
        const auto work = [](auto done) {
          return [done](auto&&...) {
            take_three_steps();
            done();
          };
        };
        // What follows is posted to the task's executor, to the context and to a strand.
        t.ask([&](auto done) {
          asio::post(slow.get_executor(),
                     asio_pulse::preemptible(asio::bind_executor(slow.get_executor(), work(done))));
        });
        t.ask([&](auto done) { asio_pulse::post(slow, asio_pulse::preemptible(work(done))); });
        const auto strand = started_by_asio([&] { return asio::make_strand(io); });
        t.ask([&](auto done) {
          const asio_pulse::task_scope scope(slow);
          started_by_asio([&] {
            asio::post(strand, asio_pulse::preemptible(asio::bind_executor(strand, work(done))));
          });
        });
        t.ask([&](auto done) { asio::post(io, done); });
      });
}

#if BOOST_VERSION >= 108000
void yields_in_stackful_coroutines(tally& t) {
  with_overspent_task<&asio_pulse::statistics::checkpoint_yields>(
      t, [&](auto& io, const auto& slow) {
        for (int i = 0; i != 2; ++i) {
          t.ask([&](auto done) {
            asio_pulse::spawn(
                slow, [](asio::yield_context) { take_three_steps(); }, completion(t, done));
          });
          t.ask([&](auto done) { asio::post(io, done); });
        }
      });
}
#endif

/// Thrown by handlers of the scenario, to distinguish it from injected failures.
struct thrown_by_handler {};

void has_a_spare(tally& t) {
  const auto options = [] {
    auto o = steady();
    o.watchdog = false;  // the scenario itself says how many workers are stuck
    o.spare_workers = 2;
    return o;
  };
  with_context(t, options, [&](auto& io) {
    auto& service = asio_pulse::detail::service_of(io);
    std::atomic<bool> stuck{false};
    std::atomic<bool> freed{false};
    int caught = 0;
    const bool all = t.ask([&](auto done) {
      asio::post(io, [&, done] {
        stuck = true;
        // The watchdog calls this again and again as well.
        const auto end = std::chrono::steady_clock::now() + 5s;
        while (!freed && std::chrono::steady_clock::now() < end) {
          service.compensate(1);
          std::this_thread::sleep_for(100us);
        }
        if (!freed) t.wrong("no spare took over");
        service.relieved(0);
        done();
      });
    }) && t.ask([&](auto done) {
      asio::post(io, [done] {
        done();
        throw thrown_by_handler{};
      });
    }) && t.ask([&](auto done) {
      asio::post(io, [&, done] {
        done();
        freed = true;
      });
    });
    if (!all) freed = true;
    for (bool ended = false; !ended;) {
      try {
        ended = t.attempt([&] { io.run(); });
      } catch (const thrown_by_handler&) {
        ++caught;
      }
    }
    if (all && caught != 1) t.wrong("an exception of a handler was lost");
    t.reached(io.stats().spares_started != 0);
  });
}

void isolates(tally& t) {
  const auto options = [] {
    auto o = steady();
    o.watchdog = false;
    o.isolate_threshold = 600us;
    o.isolation_threads = 3;
    return o;
  };
  with_context(t, options, [&](auto& io) {
    t.attempt([&] {
      const asio_pulse::task heavy(io, {.name = "heavy", .budget = 0ns, .isolatable = true});
      const asio_pulse::task light(io, {.name = "light", .budget = 0ns, .isolatable = true});
      for (int polls = 0; polls != 20 && heavy.current_tier() < asio_pulse::tier::isolate;
           ++polls) {
        t.ask([&](auto done) {
          asio_pulse::post(heavy, [done] {
            burn(700us);
            done();
          });
        });
        run(t, io);
      }
      for (int i = 0; i != 4; ++i) {
        t.ask([&](auto done) { asio_pulse::post(heavy, done); });
        t.ask([&](auto done) { asio_pulse::post(light, done); });
      }
      run(t, io);
    });
    run(t, io);
    t.reached(io.stats().isolated != 0);
  });
}

/// A handler that ends when there is a report, or after some time.
template <class Wait>
void stalls(tally& t, Wait wait) {
  std::atomic<int> reports{0};
  const auto options = [&] {
    asio_pulse::options o;
    o.stall_threshold = 1ms;
    o.on_report = [&](const asio_pulse::report& r) {
      if (r.kind == asio_pulse::report_kind::stall) ++reports;
    };
    return o;
  };
  with_context(t, options, [&](auto& io) {
    t.ask([&](auto done) {
      asio::post(io, [&, done] {
        const auto end = std::chrono::steady_clock::now() + 150ms;
        while (reports == 0 && std::chrono::steady_clock::now() < end) wait();
        done();
      });
    });
    t.ask([&](auto done) { asio::post(io, done); });
    run(t, io);
  });
}

void is_stuck_computing(tally& t) {
  stalls(t, [] { burn(200us); });
}
void is_stuck_waiting(tally& t) {
  stalls(t, [] { std::this_thread::sleep_for(20ms); });
}

/// Reports go to a stderr that accepts no data.
void reports_to_a_full_pipe(tally& t) {
  int ends[2] = {-1, -1};
  int before = -1;
  {
    const faults::spared mine;
    if (::pipe(ends) != 0) std::abort();
    ::fcntl(ends[1], F_SETFL, O_NONBLOCK);
    const std::array<char, 4096> filling{};
    while (::write(ends[1], filling.data(), filling.size()) > 0) {
    }
    ::fcntl(ends[1], F_SETFL, 0);
    before = ::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
    ::dup2(ends[1], STDERR_FILENO);
    ::close(ends[1]);
  }
  const auto options = [] {
    asio_pulse::options o;
    o.watchdog = false;
    o.stall_threshold = 500us;
    return o;
  };
  with_context(t, options, [&](auto& io) {
    for (int i = 0; i != 2; ++i) {
      t.ask([&](auto done) {
        asio::post(io, [done] {
          burn(600us);
          done();
        });
      });
    }
    run(t, io);
    t.reached(io.stats().reports != 0);
  });
  const faults::spared mine;
  ::dup2(before, STDERR_FILENO);
  ::close(before);
  ::close(ends[0]);
}

void takes_local_hints(tally& t) {
  const auto options = [] {
    auto o = defaults();
    o.hints = asio_pulse::hint_source::local;
    return o;
  };
  with_context(t, options, [&](auto& io) {
    for (int i = 0; i != 3; ++i) {
      t.ask([&](auto done) {
        asio::post(io, [done] {
          std::this_thread::sleep_for(300us);
          done();
        });
      });
    }
    run(t, io);
  });
}

/// A loader serves control blocks, but the kernel has no such scheduler, so the thread may not join
/// it.
void is_refused_by_a_scheduler(tally& t) {
  std::optional<fake_loader> loader;
  {
    const faults::spared mine;
    loader.emplace();
    loader->how.mode = ASIO_PULSE_MODE_ENFORCED;
    loader->start();
  }
  std::string path;
  {
    const faults::spared mine;
    path = loader->path();
  }
  const auto options = [&] {
    auto o = defaults();
    o.watchdog = false;
    o.hints = asio_pulse::hint_source::kernel;
    o.hint_socket = path;
    return o;
  };
  with_context(t, options, [&](auto& io) {
    t.ask([&](auto done) {
      asio::post(io, [&, done] {
        const auto end = std::chrono::steady_clock::now() + 100ms;
        while (loader->attachments() == 0 && std::chrono::steady_clock::now() < end)
          std::this_thread::sleep_for(100us);
        std::this_thread::sleep_for(200us);
        done();
      });
    });
    // In one of these polls the worker takes its link, or is refused.
    for (int i = 0; i != 3; ++i) {
      t.ask([&](auto done) {
        asio::post(io, [done] {
          std::this_thread::sleep_for(100us);
          done();
        });
      });
    }
    run(t, io);
    t.reached(loader->attachments() != 0);
    t.attempt([&] { (void)asio_pulse::current_hints(); });
  });
  const faults::spared mine;
  loader.reset();
}

void is_measured(tally& t) {
  const auto options = [] {
    auto o = defaults();
    o.metrics = o.trace = asio_pulse::instrument_mode::on;
    return o;
  };
  with_context(t, options, [&](auto& io) {
    t.attempt([&] {
      const asio_pulse::task named(io, {.name = "measured"});
      for (int i = 0; i != 3; ++i) t.ask([&](auto done) { asio_pulse::post(named, done); });
      t.attempt([&] { (void)io.metrics(); });
    });
    run(t, io);
    t.attempt([&] { (void)io.metrics(); });
    t.attempt([&] { (void)io.trace(); });
  });
}

/// The files in a folder, and whether each is a complete recording.
class trace_folder {
 public:
  trace_folder() {
    const faults::spared mine;
    std::string name = "/tmp/asio_pulse_sweep_XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~trace_folder() {
    const faults::spared mine;
    std::filesystem::remove_all(path_);
  }
  trace_folder(const trace_folder&) = delete;
  trace_folder& operator=(const trace_folder&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] bool has_recording() const {
    const faults::spared mine;
    for (const auto& e : std::filesystem::directory_iterator(path_))
      if (e.path().extension() == ".pulse") return true;
    return false;
  }
  [[nodiscard]] bool has_other_files() const {
    const faults::spared mine;
    for (const auto& e : std::filesystem::directory_iterator(path_))
      if (e.path().extension() != ".pulse") return true;
    return false;
  }

 private:
  std::filesystem::path path_;
};

void records(tally& t) {
  const trace_folder folder;
  std::string name;
  {
    const faults::spared mine;
    name = folder.path();
  }
  const auto options = [&] {
    auto o = defaults();
    o.watchdog = false;
    o.trace = asio_pulse::instrument_mode::on;
    o.trace_events = 256;
    o.trace_folder = name;
    o.trace_signal = SIGUSR2;
    return o;
  };
  // If the library could not install its handler, the signal would end the program, as it should.
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  {
    const faults::spared mine;
    ::sigaction(SIGUSR2, &ignore, nullptr);
  }
  with_context(t, options, [&](auto& io) {
    t.ask([&](auto done) {
      asio::post(io, [&, done] {
        ::raise(SIGUSR2);
        const auto end = std::chrono::steady_clock::now() + 60ms;
        while (!folder.has_recording() && std::chrono::steady_clock::now() < end)
          std::this_thread::sleep_for(200us);
        done();
      });
    });
    run(t, io);
  });
  t.reached(folder.has_recording());
  if (folder.has_other_files()) t.wrong("half a recording is left in the folder");
}

/// Forks as the documentation of notify_fork() says. Parent and child both continue.
void forks(tally& t) {
  const auto options = [] {
    auto o = steady();
    o.watchdog = true;
    o.stall_threshold = 5ms;
    o.spare_workers = 1;
    o.isolation_threads = 1;
    o.hints = asio_pulse::hint_source::local;
    return o;
  };
  with_context(t, options, [&](auto& io) {
    t.attempt([&] {
      const asio_pulse::task heavy(io, {.name = "heavy", .budget = 0ns, .isolatable = true});
      t.ask([&](auto done) { asio_pulse::post(heavy, done); });
      t.ask([&](auto done) { asio::post(io, done); });
      run(t, io);
      io.notify_fork(asio::execution_context::fork_prepare);
      const pid_t pid = ::fork();
      if (pid == 0) {
        ::alarm(5);
        try {
          io.notify_fork(asio::execution_context::fork_child);
          tally mine;
          mine.ask([&](auto done) { asio_pulse::post(heavy, done); });
          mine.ask([&](auto done) { asio::post(io, done); });
          run(mine, io);
          ::_exit(mine.fault() == nullptr ? 0 : 1);
        } catch (const std::exception&) {
          ::_exit(0);  // the program was told
        }
      }
      io.notify_fork(asio::execution_context::fork_parent);
      int status = 0;
      if (::waitpid(pid, &status, 0) != pid || status != 0) t.wrong("the child has come to harm");
      t.ask([&](auto done) { asio_pulse::post(heavy, done); });
    });
    run(t, io);
  });
}

/// Handlers that never ran are destroyed with the context.
void is_destroyed_with_work_left(tally& t) {
  auto const witness = [] {
    const faults::spared mine;
    return std::make_shared<int>();
  }();
  t.attempt([&] {
    asio_pulse::io_context io(budgets_alone());
    const auto slow = overspent_task(t, io);
    asio::steady_timer timer(io, 1h);
    timer.async_wait([witness](auto) {});
    if (!slow) return;
    const auto executor = slow->get_executor();
    const auto strand = started_by_asio([&] { return asio::make_strand(executor); });
    for (int i = 0; i != 3; ++i) {
      asio_pulse::post(*slow, [witness] { burn(60us); });
      asio::post(io, [witness, &io] { io.stop(); });
      asio::post(executor, [witness] {});
      // There is no coroutine here, because Asio posts the rest of one from a destructor.
      const auto post = [&] { asio::post(strand, [witness] {}); };
      i == 0 ? started_by_asio(post) : post();
    }
    t.attempt([&] { io.run(); });
  });
  if (witness.use_count() != 1) t.wrong("a handler has outlived its context");
}

// ---- the sweep

class fault_sweep : public testing::TestWithParam<scenario> {};

TEST_P(fault_sweep, hurts_nobody) {
  if (thread_sanitizer) {
    GTEST_SKIP() << "each refusal has a forked process of its own, in which ThreadSanitizer "
                    "starts no threads";
  }
#if defined(PULSE_TEST_ASAN)
  std::printf("AddressSanitizer has the C library's malloc(): only operator new fails here.\n");
#endif
  sweep(GetParam());
}

std::vector<scenario> scenarios() {
  // A scenario is not exact if the number of allocations depends on other threads.
  return {
    {.name = "construction", .run = constructs, .most = 200, .exact = false},
        {.name = "submission", .run = submits, .most = 200, .exact = false},
        {.name = "connections", .run = connects, .most = 200, .exact = false},
        {.name = "timers", .run = waits_for_timers, .most = 100, .exact = false},
        {.name = "parking", .run = parks, .most = 100},
        {.name = "strands", .run = breaks_strands, .most = 120},
        {.name = "dispatch", .run = dispatches, .most = 100},
        {.name = "coroutines", .run = yields_in_coroutines, .most = 100},
        {.name = "fibers", .run = yields_on_fibers, .most = 120},
#if BOOST_VERSION >= 108000
        {.name = "stackful_coroutines", .run = yields_in_stackful_coroutines, .most = 100},
#endif
        {.name = "spares", .run = has_a_spare, .most = 100, .exact = false},
        {.name = "isolation", .run = isolates, .most = 100, .exact = false},
        {.name = "stall_computing", .run = is_stuck_computing, .most = 12, .exact = false},
        {.name = "stall_waiting", .run = is_stuck_waiting, .most = 12, .exact = false},
        {.name = "full_stderr", .run = reports_to_a_full_pipe, .most = 8, .exact = false},
        {.name = "local_hints", .run = takes_local_hints, .most = 80, .exact = false},
        {.name = "refused_by_a_scheduler",
         .run = is_refused_by_a_scheduler,
         .most = 60,
         .exact = false},
        {.name = "metrics", .run = is_measured, .most = 120, .exact = false},
        {.name = "recording", .run = records, .most = 80, .exact = false},
        {.name = "fork", .run = forks, .most = 100, .exact = false},
        {.name = "destruction", .run = is_destroyed_with_work_left, .most = 100},
  };
}

INSTANTIATE_TEST_SUITE_P(of, fault_sweep, testing::ValuesIn(scenarios()),
                         [](const auto& one) { return std::string(one.param.name); });

}  // namespace
