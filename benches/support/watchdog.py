# SPDX-License-Identifier: BSL-1.0
"""How soon a stall is reported, and what the watchdog costs."""

import common

TARGETS = {
    "detection, the report with its stack: p99 ms": 2,
    "stack: p99 us": 100,
    "beside a busy server: CPU %": 0.5,
    "beside a server with pauses: CPU %": 0.5,
    "beside an idle server: wakeups": 0,
}


def main():
    args = common.arguments(__doc__, runs=5, seconds=3)
    results = common.collect(args, "watchdog_pulse", args.seconds)
    text = (
        f"Each figure is the median of {args.runs} runs, with the least and the most. Detection: the "
        "time from when a handler has run for the\nthreshold of 1 ms to the call of on_report with the "
        f"stack. Each run has {100 * args.seconds} stalls, which begin at random times after the "
        "watchdog's\nlast look. Stack: how long the signal delays the stuck thread. CPU: the watchdog's "
        "share of one CPU with the default threshold of\n5 ms, beside handlers of 1 to 400 us that run "
        "back to back, or with pauses of up to 4 ms between them.\n\n"
        + common.judged(results, TARGETS))
    common.publish(args, "watchdog", text)


if __name__ == "__main__":
    main()
