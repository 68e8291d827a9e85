#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Draws pieces of traces (what `pulse_top --trace` writes for Perfetto) below each other as an SVG.

usage: draw_trace.py OUT.svg SECONDS TITLE=TRACE.json[@FROM]...

Of each trace SECONDS from FROM (seconds since its beginning, by default 1) are drawn: on top the polls, each as long
as its CPU time, 5 ms and longer in red; below the queue delay, each probe as a line from when it was ready to when
it ran.
"""
import html
import json
import sys

WIDTH, LEFT, ROW = 800, 8, 70
STYLE = ("text{font:12px sans-serif;fill:#333}.poll{fill:#4a7fb5}.long{fill:#c0392b}.axis{stroke:#999}"
         ".delay{stroke:#d68910;stroke-width:2}svg{background:#fff}")


def read(path):
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    return content["traceEvents"] if isinstance(content, dict) else content


def draw_row(title, events, begin, seconds, top):
    """One trace's piece, in lines of SVG, its upper edge at `top`."""
    scale = (WIDTH - 2 * LEFT) / (seconds * 1e6)

    def place(ts):
        return LEFT + min(max(ts - begin, 0), seconds * 1e6) * scale

    slices, delays = {}, []
    for event in events:
        ts, length = event.get("ts", 0), event.get("dur", 0)
        if event["ph"] == "C" and event["name"] == "queue delay":
            length = event["args"]["us"]
        if ts + length < begin or ts > begin + seconds * 1e6:
            continue
        if event["ph"] == "X":
            left = round(place(ts))  # of those that cannot be told apart the longest
            width = round(max(place(ts + length) - left, 0.5), 1)
            slices[left] = max(slices.get(left, (0, "")), (width, "long" if length >= 5000 else "poll"))
        elif event["ph"] == "C" and event["name"] == "queue delay":
            delays.append((round(place(ts)), round(place(ts + length)), length))
    worst = max((delay[2] for delay in delays), default=0)
    yield f'<text x="{LEFT}" y="{top + 12}">{html.escape(title)}: longest queue delay {worst / 1000:.1f} ms</text>'
    yield f'<line class="axis" x1="{LEFT}" x2="{WIDTH - LEFT}" y1="{top + 44}" y2="{top + 44}"/>'
    for wanted in ("poll", "long"):
        boxes = (f"M{left} {top + 20}h{width}v24h-{width}z"
                 for left, (width, kind) in sorted(slices.items()) if kind == wanted)
        yield f'<path class="{wanted}" d="{"".join(boxes)}"/>'
    probes = (f"M{left} {top + 50}H{max(right, left + 1)}" for left, right, _ in sorted(delays))
    yield f'<path class="delay" d="{"".join(probes)}"/>'


def main(out, seconds, *traces):
    seconds = float(seconds)
    lines = []
    for number, trace in enumerate(traces):
        title, _, source = trace.partition("=")
        path, _, begin = source.partition("@")
        lines += draw_row(title, read(path), float(begin or 1) * 1e6, seconds, number * ROW)
    height = len(traces) * ROW
    lines.append(f'<text x="{LEFT}" y="{height + 12}">{seconds:g} s; red: polls of 5 ms of CPU time or more; '
                 "blue: shorter ones; orange: a probe, from ready to run</text>")
    with open(out, "w", encoding="utf-8") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height + 20}" '
                   f'viewBox="0 0 {WIDTH} {height + 20}"><style>{STYLE}</style>\n' + "\n".join(lines) + "\n</svg>\n")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
