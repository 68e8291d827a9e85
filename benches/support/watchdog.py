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
        f"Each figure is the median of {args.runs} runs, with the least and the most. Detection: "
        "from the instant at which a handler has run for\nthe threshold, 1 ms, to the call of "
        f"on_report with the stack in it, over {100 * args.seconds} stalls a run at any distance "
        "from the watchdog's last\nlook. Stack: how long the stuck thread is held up by the signal."
        " CPU: of one, with the default threshold of 5 ms, beside handlers of\n1 to 400 us back to "
        "back, or with pauses of up to 4 ms between them.\n\n"
        + common.judged(results, TARGETS))
    common.publish(args, "watchdog", text)


if __name__ == "__main__":
    main()
