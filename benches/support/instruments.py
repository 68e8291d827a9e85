# SPDX-License-Identifier: BSL-1.0
"""The cost of metrics, traces, snapshots and pulse_top's requests."""

import common

TARGETS = {
    "metrics and histograms on: ns a poll": 4,
    "metrics and trace ring on: ns a poll": 10,
    "snapshot of 100 000 tasks: ms": 10,
    "instruments of one worker: KiB": 2048,
    "looked at once a second: CPU %": 0.5,
}


def main():
    args = common.arguments(__doc__, runs=5, seconds=3)
    results = common.collect(args, "instruments_pulse", args.seconds)
    text = (
        f"Each figure is the median of {args.runs} runs, with the least and the most. A poll: the difference for a handler "
        "that posts\nitself 200 000 times, alternately with and without the instruments, 15 times a run. Snapshot: taken "
        "while a worker\npolls tasks all over the list. Looked at: CPU time of the thread that answers inspectors, beside a "
        "busy server with\n1000 tasks.\n\n"
        + common.judged(results, TARGETS))
    common.publish(args, "instruments", text)


if __name__ == "__main__":
    main()
