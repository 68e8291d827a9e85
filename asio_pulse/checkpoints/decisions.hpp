#ifndef ASIO_PULSE_CHECKPOINTS_DECISIONS_HPP
#define ASIO_PULSE_CHECKPOINTS_DECISIONS_HPP

// The algorithm of the automatic checkpoints, without a compiler: what a statement costs, which loop gets which check, which functions
// may run into themselves. The plugin for LLVM and the plugin for GCC describe their code in these terms, and do
// what the answers say. C++17, for the compilers that build plugins for GCC 12.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace asio_pulse::checkpoints {

/// Work is counted in statements of the compiler's intermediate language that become instructions.
using work = std::uint64_t;

/// What a statement is, as far as its cost goes.
enum class statement {
  free,   ///< becomes no instruction of its own: a phi, an address, a debug marker
  plain,  ///< about one instruction
  slow,   ///< a division, a square root
  bulk,   ///< copies or fills a known number of bytes
  scattered,  ///< a load whose result is the address of a next load (a list), which may miss every cache
  call        ///< a call that may take any time
};

// The figures sit between the time that a check costs and the time without one. 4096 units are 0.3 to 1 us in most code (measured on
// the kernels of benches/checkpoints), a check is 1 to 2 ns, so a check per chunk is below half a per cent.
inline constexpr work chunk_work = 4096;  ///< between two checks in one loop
inline constexpr work small_work =
    4096;  ///< a loop that does no more than this in all gets no check
inline constexpr work largest_bulk = 4096;  ///< bytes; a larger copy is a call
inline constexpr work slow_cost = 16;
inline constexpr work scattered_cost =
    32;  ///< 128 loads a chunk: 13 us, if each of them goes to memory (100 ns)
inline constexpr work call_cost = 8;
inline constexpr work entry_cost = 16;  ///< of a function that may run into itself
/// Strip-mining copies nothing, but the chunks must be long enough to hide their ends.
inline constexpr work least_chunk = 8;
/// A loop whose length is not known in advance has a test in its body. Smaller bodies are repeated, up to so many times, until the
/// body is so large: the test is then 2 instructions of 24. Their exits stay where they are.
inline constexpr work body_to_reach = 24;
inline constexpr unsigned most_copies = 4;
/// In a body of so many units the count may stay in memory: a subtraction from memory takes 5 to 8 cycles before the next one.
inline constexpr work body_that_hides_memory = 24;

constexpr work cost_of(statement s, work bytes = 0) {
  switch (s) {
    case statement::free:
      return 0;
    case statement::plain:
      return 1;
    case statement::slow:
      return slow_cost;
    case statement::bulk:
      return 1 + bytes / 32;
    case statement::scattered:
      return scattered_cost;
    case statement::call:
      return call_cost;
  }
  return 1;
}

inline constexpr std::size_t no_loop = ~std::size_t{0};

/// A loop, as a compiler sees it.
struct loop_facts {
  work own = 0;                  ///< an iteration, without the loops inside
  work size = 0;                 ///< its statements that become instructions
  bool calls = false;            ///< its own statements contain a call
  std::uint64_t most_trips = 0;  ///< an upper bound; 0: unknown
  bool counted = false;  ///< the plugin can strip-mine it: it ends when a number reaches another
  bool may_carry =
      true;  ///< the function can keep a counter in a register (no setjmp, no computed goto)
  bool may_repeat = false;       ///< the plugin can repeat its body
  std::size_t parent = no_loop;  ///< the loop around it, by index
};

enum class check {
  none,      ///< all its work is small
  strip,     ///< runs in chunks, with no test in between
  counter,   ///< a counter in a register, which all loops of the nest share
  each_time  ///< subtracts from the fuel in each iteration
};

struct loop_decision {
  check what = check::none;
  work charge = 0;      ///< units an iteration (after `copies`)
  work chunk = 0;       ///< strip: iterations
  unsigned copies = 1;  ///< how many times the body stands in the loop
  const char* why = "";
};

/// What a remark says about a loop.
inline std::string remark_on(const loop_decision& d) {
  const std::string often =
      d.copies > 1 ? "every " + std::to_string(d.copies) + " iterations" : "each iteration";
  switch (d.what) {
    case check::none:
      return "none: " + std::string(d.why) + " (" + std::to_string(d.charge) + " units)";
    case check::strip:
      return "strip-mined: a check every " + std::to_string(d.chunk) + " iterations";
    case check::counter:
      return "a counter in a register, " + std::to_string(d.charge) + " units " + often + " (" +
             d.why + ")";
    case check::each_time:
      return "a check " + often + " (" + d.why + ")";
  }
  return "";
}

/// Decides for all loops of a function. The facts are in the order in which an inner loop stands before the one around it.
inline std::vector<loop_decision> decide(const std::vector<loop_facts>& loops) {
  const std::size_t n = loops.size();
  struct state {
    work once = 0;       // an iteration, with the loops inside that get no check
    bool open = false;   // calls, at any depth
    bool inner = false;  // has loops inside
    bool mixed = false;  // has loops inside that have checks
  };
  std::vector<state> states(n);
  std::vector<loop_decision> result(n);
  for (std::size_t i = 0; i < n; ++i) {
    const loop_facts& f = loops[i];
    state& s = states[i];
    loop_decision& d = result[i];
    s.once += std::max<work>(f.own, 1);
    s.open |= f.calls;
    const bool bounded =
        !s.open && !s.mixed && f.most_trips != 0 && f.most_trips <= small_work / s.once;
    d.charge = s.once;
    if (bounded) {
      d.what = check::none;
      d.charge = f.most_trips * s.once;
      d.why = "all its work is small";
    } else if (const work chunk = chunk_work / s.once;
               !s.open && !s.mixed && f.counted && chunk >= least_chunk) {
      d.what = check::strip;
      d.chunk = chunk;
      d.charge = chunk_work;
      d.why = "counted";
    } else if (!s.open && f.may_carry && (s.mixed || s.once < body_that_hides_memory)) {
      d.what = check::counter;
      d.why = s.mixed ? "around loops with checks"
                      : "a short body whose length is not known before it runs";
    } else {
      d.what = check::each_time;
      d.why = s.open ? "it calls functions" : "a long body";
    }
    if ((d.what == check::counter || d.what == check::each_time) && !s.inner && !s.open &&
        f.may_repeat && f.size <= body_to_reach / 2) {
      d.copies = static_cast<unsigned>(
          std::min<work>(body_to_reach / std::max<work>(f.size, 1), most_copies));
      d.charge *= d.copies;
    }
    if (f.parent != no_loop) {
      state& p = states[f.parent];
      p.inner = true;
      p.open |= s.open;
      if (d.what == check::none)
        p.once += d.charge;
      else
        p.mixed = true;
    }
  }
  // A counter that no short body needs is not worth a register: around strip-mined loops the fuel itself is counted.
  std::vector<bool> needed(n, false);
  const auto top = [&](std::size_t i) {
    while (loops[i].parent != no_loop && !states[loops[i].parent].open) i = loops[i].parent;
    return i;
  };
  for (std::size_t i = 0; i < n; ++i)
    if (result[i].what == check::counter && !states[i].mixed) needed[top(i)] = true;
  for (std::size_t i = 0; i < n; ++i)
    if (result[i].what == check::counter && !needed[top(i)]) result[i].what = check::each_time;
  return result;
}

/// The outermost loop that shares a counter with this one: no call is in it.
inline std::size_t nest_of(const std::vector<loop_facts>& loops, std::size_t i) {
  std::vector<bool> open(loops.size(), false);
  for (std::size_t k = 0; k < loops.size(); ++k) {
    if (loops[k].calls) open[k] = true;
    if (open[k] && loops[k].parent != no_loop) open[loops[k].parent] = true;
  }
  while (loops[i].parent != no_loop && !open[loops[i].parent]) i = loops[i].parent;
  return i;
}

/// Numbers the strongly connected components of a call graph (Tarjan, without recursion: call graphs are deep). Two functions
/// that have the same number call each other, in a cycle. A function that is alone with its number, and does not call itself, gets 0.
inline std::vector<unsigned> cycles_of(const std::vector<std::vector<std::size_t>>& calls) {
  const std::size_t n = calls.size();
  std::vector<unsigned> cycle(n, 0);
  std::vector<std::size_t> index(n, 0), low(n, 0), stack;
  std::vector<bool> on_stack(n, false);
  struct frame {
    std::size_t node, next;
  };
  std::vector<frame> frames;
  std::size_t count = 0;
  unsigned cycles = 0;
  for (std::size_t root = 0; root < n; ++root) {
    if (index[root] != 0) continue;
    frames.push_back({root, 0});
    while (!frames.empty()) {
      const std::size_t v = frames.back().node;
      if (frames.back().next == 0 && index[v] == 0) {
        index[v] = low[v] = ++count;
        stack.push_back(v);
        on_stack[v] = true;
      }
      if (frames.back().next < calls[v].size()) {
        const std::size_t w = calls[v][frames.back().next++];
        if (index[w] == 0)
          frames.push_back({w, 0});
        else if (on_stack[w])
          low[v] = std::min(low[v], index[w]);
        continue;
      }
      frames.pop_back();
      if (!frames.empty()) low[frames.back().node] = std::min(low[frames.back().node], low[v]);
      if (low[v] != index[v]) continue;
      const bool itself = std::find(calls[v].begin(), calls[v].end(), v) != calls[v].end();
      const bool several = stack.back() != v;
      const unsigned number = several || itself ? ++cycles : 0;
      for (std::size_t w = no_loop; w != v;) {
        w = stack.back();
        stack.pop_back();
        on_stack[w] = false;
        cycle[w] = number;
      }
    }
  }
  return cycle;
}

}  // namespace asio_pulse::checkpoints

#endif
