# SPDX-License-Identifier: BSL-1.0
"""What synchronous code that yields costs, beside bare Boost.Context and plain handlers."""

import collections

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
    results = collections.defaultdict(list)
    for number in range(args.runs):
        common.progress(f"round {number + 1} of {args.runs}")
        for name, value in common.run(args.programs / "fiber_pulse").items():
            results[name].append(value)
        results["switch there and back, over bare"].append(
            results["switch there and back"][-1]
            / results["switch there and back, bare Boost.Context"][-1])
    common.progress()

    rows = []
    for name, values in results.items():
        limit = TARGETS.get(name)
        verdict = ["", ""]
        if limit is not None:
            middle = sorted(values)[len(values) // 2]
            verdict = [f"<= {limit}", common.judge(middle, limit)]
        rows.append([name, common.spread(values), *verdict])
    text = (
        f"Times in ns of CPU unless the name says otherwise. Each figure is the median of {args.runs}"
        " runs, with the least and the most; the bare\nswitch and the plain handler are measured in "
        "the same run. The probe sleeps 1 ms on the only worker, beside a handler on a fiber that\n"
        "computes without end, with a checkpoint every 20 us and a budget of 100 us; no spare "
        "workers.\n\n"
        + common.table(["", "median [least .. most]", "target", "met"], rows))
    common.publish(args, "fiber", text)


if __name__ == "__main__":
    main()
