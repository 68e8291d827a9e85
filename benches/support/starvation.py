# SPDX-License-Identifier: BSL-1.0
"""How late a 1 ms timer fires beside a storm on its thread, stock beside asio-pulse."""

import collections
import statistics

import common

SCENARIOS = {
    "posts": "posts",
    "strand": "posts to one strand",
    "dispatch": "dispatch recursion with a checkpoint",
    "children": "coroutine child loop with a checkpoint",
}


def main():
    args = common.arguments(__doc__, runs=7, handlers=20000)
    rows = []
    for scenario, title in SCENARIOS.items():
        results = collections.defaultdict(list)
        for number, arm in common.by_turns(["stock", "pulse"], args.runs):
            common.progress(f"{scenario}, round {number + 1} of {args.runs}, {arm}")
            results[arm].append(common.run(args.programs / f"starvation_{arm}", scenario,
                                           args.handlers))
        for arm, runs in results.items():
            worst = [run["max_ms"] for run in runs]
            middle = {key: statistics.median(run[key] for run in runs)
                      for key in ("p50_ms", "max_ms", "took_ms")}
            counts = {key: statistics.median(run["pulse"].get(key, 0) for run in runs)
                      for key in ("yields", "strand_breaks")}
            rows.append([title, arm, f"{middle['p50_ms']:.2f}", f"{middle['max_ms']:.2f}",
                         f"{min(worst):.2f} .. {max(worst):.2f}", f"{middle['took_ms']:.0f}",
                         f"{counts['yields']:.0f}", f"{counts['strand_breaks']:.0f}",
                         common.judge(middle["max_ms"], 1) if arm == "pulse" else ""])
    common.progress()
    text = (f"Lateness in ms of a 1 ms timer beside {args.handlers} handlers of 10 us, one thread. "
            f"Each program ran {args.runs} times,\nby turns; p50 and worst are the medians over the "
            "runs. Every handler ran, in order, or the run would not count.\n\n"
            + common.table(["storm", "", "p50", "worst", "worst, from .. to", "took ms", "yields",
                            "strand breaks", "<= 1 ms"], rows))
    common.publish(args, "starvation", text)


if __name__ == "__main__":
    main()
