# SPDX-License-Identifier: BSL-1.0
"""What asio-pulse adds to a poll and to an operation, and the cost of its parts."""

import collections
import re
import statistics

import common

# Operations a round, and the limit: ("added", ns) or ("ratio", times stock); None is no target.
CASES = {
    "post_hint_1": (200_000, ("added", 10)),
    "post": (200_000, ("added", 10)),
    "post_16_tasks": (160_000, None),
    "co_await_post": (50_000, ("ratio", 1.10)),
    "strand_post": (50_000, ("ratio", 1.35)),
    "any_strand_post": (50_000, ("ratio", 1.35)),
    "ping_pong": (4_000, ("ratio", 1.02)),
}
TITLES = {
    "post_hint_1": "post chain, concurrency hint 1",
    "post": "post chain, default hint",
    "post_16_tasks": "post chains of 16 tasks by turns, default hint",
    "co_await_post": "co_await post loop",
    "strand_post": "post chain in strand<io_context::executor_type>",
    "any_strand_post": "post chain in strand<any_io_executor>",
    "ping_pong": "coroutine ping-pong over a socket pair (4 polls)",
}
POLLS = {"ping_pong": 4, "strand_post": 2, "any_strand_post": 2}
OFF_LIMIT_NS = 2
PART_LIMITS = {"budget charge": 3, "poll clock, start+stop (chained)": 10,
               "should_yield(), not wanted": 1,
               "should_yield(), not wanted, with a control block": 1, "co_await checkpoint(), not wanted": 1,
               "ASIO_PULSE_CHECKPOINT(), not wanted": 1,
               "accuracy: worst error beyond 1 %, ns": 1000}


def watched(result, arm, count):
    """Whether nothing but watching was measured: every poll accounted for, none held back. A virtual
    CPU that its host stops for 5 ms makes a slow poll of any: such a run is repeated."""
    if arm not in ("pulse", "watched"):
        return result["polls"] == 0
    return result["polls"] >= count and not result["pulse"]["promotions"]


def poll_path(args):
    rows = []
    for case, (count, limit) in CASES.items():
        results = collections.defaultdict(list)
        for number, arm in common.by_turns(["stock", "pulse", "watched", "off"],
                                           args.runs):
            common.progress(f"{case}, round {number + 1} of {args.runs}, {arm}")
            program = args.programs / f"poll_path_{'stock' if arm == 'stock' else 'pulse'}"
            for _ in range(5):
                result = common.run(program, case, count, 5,
                                    *([arm] if arm in ("watched", "off") else []))
                if watched(result, arm, count):
                    break
            else:
                common.fail(f"{case}, {arm}: not what was to be measured: {result}")
            results[arm].append(result["ns"])
        stock = results["stock"]
        added = [a - b for a, b in zip(results["pulse"], stock)]
        ratio = [a / b for a, b in zip(results["pulse"], stock)]
        seen = [a - b for a, b in zip(results["watched"], stock)]
        off = [(a - b) / POLLS.get(case, 1) for a, b in zip(results["off"], stock)]
        verdict = ["", ""]
        if limit:
            value = statistics.median(added if limit[0] == "added" else ratio)
            verdict = [f"{limit[0]} <= {limit[1]}", common.judge(value, limit[1])]
        rows.append([TITLES[case], f"{statistics.median(stock):.1f}",
                     f"{statistics.median(results['pulse']):.1f}", common.spread(added, "{:.1f}"),
                     common.spread(ratio, "{:.3f}"), *verdict, common.spread(seen, "{:.1f}"),
                     common.spread(off, "{:.1f}"),
                     common.judge(statistics.median(off), OFF_LIMIT_NS)])
    return common.table(["ns an operation", "stock", "pulse", "added", "ratio", "target", "met",
                         "watched, added", "off, added a poll", "<= 2"], rows)


def parts(args):
    runs = []
    for number in range(args.part_runs):
        common.progress(f"parts, round {number + 1} of {args.part_runs}")
        runs.append(common.run(args.programs / "primitives_pulse"))
    rows = []
    for name in runs[0]:
        if name == "clock":
            continue
        values = [run[name] for run in runs]
        limit = PART_LIMITS.get(name)
        rows.append([name, common.spread(values), f"<= {limit}" if limit else "",
                     common.judge(statistics.median(values), limit) if limit else ""])
    cheaper = [run["CLOCK_THREAD_CPUTIME_ID"] / run["poll clock, start+stop (chained)"]
               for run in runs]
    rows.append(["CLOCK_THREAD_CPUTIME_ID over the poll clock, ratio", common.spread(cheaper),
                 ">= 15", common.judge(statistics.median(cheaper), 15, at_least=True)])
    code = common.capture("objdump", "--no-show-raw-insn", "--disassemble=bench_should_yield",
                          str(args.programs / "primitives_pulse"))
    fast = re.findall(r"^ +[0-9a-f]+:\s+(.*)", code, re.M)
    fast = fast[:next((i + 1 for i, line in enumerate(fast) if line.startswith("ret")), 0)]
    clean = fast and not any(line.startswith(("call", "lock")) for line in fast)
    rows.append(["should_yield(): instructions, call and return, no call, no lock prefix", len(fast),
                 "", "yes" if clean else "NO"])
    return (f"The poll clock here is {runs[0]['clock']}.\n\n"
            + common.table(["ns, the empty loop subtracted", "median [from .. to]", "target",
                            "met"], rows))


def sizes(args):
    stock, disabled, pulse = (common.run(args.programs / f"poll_path_{arm}", "sizes")
                              for arm in ("stock", "disabled", "pulse"))
    rows = [[name, size, disabled[name], pulse[name], common.judge(pulse[name] - size, 8),
             "yes" if disabled[name] == size else "NO"] for name, size in stock.items()]
    budget = common.run(args.programs / "poll_path_pulse", "task_sizes")
    return "\n\n".join([
        common.table(["bytes of an operation", "stock", "disabled", "pulse", "<= 8 more",
                      "disabled equal"], rows),
        common.table(["bytes of", "", "target", "met"], [
            ["task_budget", budget["task_budget"], "= 16",
             "yes" if budget["task_budget"] == 16 else "NO"],
            ["a whole task", budget["task"], "<= 192", common.judge(budget["task"], 192)]])])


def main():
    args = common.arguments(__doc__, runs=9, part_runs=5)
    text = "\n\n".join([
        f"CPU time: {args.runs} interleaved runs of each program (the median of 5 rounds each). The columns "
        "have the median [from .. to] of\nthe differences and ratios, computed pair by pair. `pulse` has no "
        "watchdog. `watched` has one, which is the default: its thread\ndisables the C library's shortcuts "
        "for single-threaded programs. `off` is asio-pulse switched off in the options.",
        poll_path(args), parts(args), sizes(args)])
    common.progress()
    common.publish(args, "micro", text)


if __name__ == "__main__":
    main()
