# SPDX-License-Identifier: BSL-1.0
"""What the profiles of options trade: work done against the lateness of a timer beside it, and requests
served against how long they wait."""

import collections

import common

PROFILES = ["latency", "balanced", "throughput"]


def main():
    args = common.arguments(__doc__, runs=7, seconds=2)
    results = collections.defaultdict(lambda: collections.defaultdict(list))
    for number, arm in common.by_turns(PROFILES, args.runs):
        common.progress(f"round {number + 1} of {args.runs}, {arm}")
        for name, value in common.run(args.programs / "profiles_pulse", arm, args.seconds).items():
            results[arm][name].append(value)
    for number, arm in common.by_turns(PROFILES, args.runs):
        common.progress(f"admission, round {number + 1} of {args.runs}, {arm}")
        for name, value in common.run(args.programs / "profiles_pulse", arm, "admission").items():
            results[arm][name].append(value)
    common.progress()
    # The rounds are pairs: the machine's drift affects all profiles of a round alike.
    rows = []
    for arm in PROFILES:
        ratios = [a / b for a, b in zip(results[arm]["pieces_per_ms"],
                                        results["balanced"]["pieces_per_ms"])]
        rows.append([arm, common.spread(results[arm]["pieces_per_ms"], "{:.0f}"),
                     common.spread(ratios), common.spread(results[arm]["p50_us"], "{:.0f}"),
                     common.spread(results[arm]["p99_us"], "{:.0f}")])
    text = (f"One thread, eight coroutines that compute in 192 KiB each, with a checkpoint after every 4 KiB (a piece), and a "
            f"timer of 1 ms\nbeside them. Each profile ran {args.runs} times for {args.seconds} s, and the runs were "
            "interleaved: the median, and the least and the most.\n\n"
            + common.table(["", "pieces in a ms of CPU time", "beside balanced", "timer late, p50 us",
                            "timer late, p99 us"], rows)
            + "\n\nRequests that take 200 us come every 100 us, and ask admit(): for 2 s, and in a burst of 200 ms. The wait counts "
              "from when a\nrequest is due. The cost of admit() is that of one which is admitted while nothing waits.\n\n"
            + common.table(["", "admit(), ns", "wait of those admitted, p99 ms", "served a second",
                            "of the burst refused, %"],
                           [[arm, common.spread(results[arm]["admit_ns"], "{:.0f}"),
                             common.spread(results[arm]["wait_p99_ms"], "{:.1f}"),
                             common.spread(results[arm]["served_per_s"], "{:.0f}"),
                             common.spread(results[arm]["burst_refused_percent"], "{:.0f}")]
                            for arm in PROFILES]))
    common.publish(args, "profiles", text)


if __name__ == "__main__":
    main()
