# SPDX-License-Identifier: BSL-1.0
"""The cost of synchronous code that yields, compared with plain Boost.Context and plain handlers."""

import common

TARGETS = {
    "switch there and back": 60,
    "switch there and back, over bare": 2,
    "preemptible over plain": 60,
    "resident KiB a parked fiber, of 10 000": 20,
    "probe beside the hog: p99 ms": 0.25,
}


def main():
    args = common.arguments(__doc__, runs=5)
    results = common.collect(args, "fiber_pulse")
    results["switch there and back, over bare"] = [
        ours / bare for ours, bare in zip(results["switch there and back"],
                                          results["switch there and back, bare Boost.Context"])]
    text = (
        f"Times are CPU time in ns unless the name says otherwise. Each figure is the median of {args.runs}"
        " runs, with the least and the most. The bare\nswitch and the plain handler are measured in "
        "the same run. The probe sleeps 1 ms on the only worker, beside a handler on a fiber that\n"
        "computes without end, with a checkpoint every 20 us and a budget of 100 us. There are no spare "
        "workers.\n\n"
        + common.judged(results, TARGETS))
    common.publish(args, "fiber", text)


if __name__ == "__main__":
    main()
