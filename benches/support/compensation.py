# SPDX-License-Identifier: BSL-1.0
"""How late a 1 ms sleeper wakes beside a hog on the only worker: stock and asio-pulse."""

import collections
import statistics

import common

TARGETS = {"p99_ms": 1, "max_ms": 5}


def main():
    args = common.arguments(__doc__, runs=5, seconds=8)
    results = collections.defaultdict(list)
    for number, arm in common.by_turns(["stock", "pulse"], args.runs):
        common.progress(f"round {number + 1} of {args.runs}, {arm}")
        results[arm].append(common.run(args.programs / f"compensation_{arm}", args.seconds))
    common.progress()

    rows = []
    for arm, runs in results.items():
        middle = {key: statistics.median(run[key] for run in runs)
                  for key in ("p50_ms", "p99_ms", "max_ms")}
        worst = [run["max_ms"] for run in runs]
        rows.append([arm, f"{statistics.median(run['probes'] for run in runs):.0f}",
                     *(f"{value:.2f}" for value in middle.values()),
                     f"{min(worst):.2f} .. {max(worst):.2f}",
                     *(common.judge(middle[key], limit) if arm == "pulse" else ""
                       for key, limit in TARGETS.items())])
    text = ("The lateness in ms of a probe that sleeps 1 ms, beside a handler of 500 ms that posts itself "
            f"again, on one worker. Each program ran\n{args.runs} times for {args.seconds} s, and the runs "
            "were interleaved; the figures are the medians of the runs. pulse: a threshold of 1 ms, one spare\n"
            "worker. A run is valid only if run() has counted every handler.\n\n"
            + common.table(["", "probes", "p50", "p99", "max", "max, from .. to", "p99 <= 1",
                            "max <= 5"], rows))
    common.publish(args, "compensation", text)


if __name__ == "__main__":
    main()
