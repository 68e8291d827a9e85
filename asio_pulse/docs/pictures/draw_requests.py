#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Draws the requests of groups over time as an SVG, from what `pulse_top NAME --json --count N` prints.

usage: draw_requests.py OUT.svg READINGS.jsonl

For each group a row: the requests per second, admitted ones in blue and refused ones in red on top of them. Below the
99th percentile of the context's queue delay. All rows have the same time.
"""
import html
import json
import sys

WIDTH, LEFT, ROW, HIGH = 800, 8, 96, 60
STYLE = ("text{font:12px sans-serif;fill:#333}.admitted{fill:#4a7fb5}.refused{fill:#c0392b}.axis{stroke:#999}"
         ".delay{fill:#d68910}svg{background:#fff}")


def read(path):
    """Pairs of the beginning and the end of an interval, in seconds, and what was read of its context at its end."""
    with open(path, encoding="utf-8") as file:
        readings = [json.loads(line) for line in file]
    for reading in readings:
        if reading["interval_ns"] and reading["contexts"]:
            end = reading["at_unix_ns"] / 1e9
            yield end - reading["interval_ns"] / 1e9, end, reading["contexts"][0]


def bars(kind, boxes, most):
    """Boxes (left, right, from, to) as one path, `most` as high as a row."""
    scale = HIGH / most if most else 0
    path = "".join(f"M{left:.1f} {-low * scale:.1f}H{right:.1f}V{-high * scale:.1f}H{left:.1f}z"
                   for left, right, low, high in boxes if high > low)
    return f'<path class="{kind}" d="{path}"/>'


def row(title, top, content):
    """A row whose lower edge is the axis."""
    yield f'<text x="{LEFT}" y="{top + 14}">{html.escape(title)}</text>'
    yield f'<g transform="translate(0 {top + 20 + HIGH})">'
    yield from content
    yield f'<line class="axis" x1="{LEFT}" x2="{WIDTH - LEFT}" y1="0" y2="0"/></g>'


def main(out, source):
    intervals = list(read(source))
    if not intervals:
        sys.exit("there are no two readings of a context")
    begin, end = intervals[0][0], intervals[-1][1]

    def place(at):
        return LEFT + (at - begin) / (end - begin) * (WIDTH - 2 * LEFT)

    names = list(dict.fromkeys(group["path"] for _, _, context in intervals for group in context["groups"]))
    rows = []
    for name in sorted(names):
        admitted, refused = [], []
        for first, last, context in intervals:
            for group in context["groups"]:
                if group["path"] == name and group["admitted_per_second"] is not None:
                    base, more = group["admitted_per_second"], group["refused_per_second"]
                    admitted.append((place(first), place(last), 0, base))
                    refused.append((place(first), place(last), base, base + more))
        most = max((box[3] for box in refused), default=0)
        title = f"{name}: requests admitted (blue) and refused (red), up to {most:.0f} a second"
        rows.append((title, [bars("admitted", admitted, most), bars("refused", refused, most)]))
    delays = [(place(first), place(last), 0, context["queue_delay"]["p99_ns"]) for first, last, context in intervals]
    most = max(box[3] for box in delays)
    rows.append((f"queue delay, 99th percentile, up to {most / 1e6:.1f} ms", [bars("delay", delays, most)]))
    lines = [line for n, (title, content) in enumerate(rows) for line in row(title, n * ROW, content)]
    height = len(rows) * ROW + 24
    lines.append(f'<text x="{LEFT}" y="{height - 8}">{end - begin:.1f} s</text>')
    with open(out, "w", encoding="utf-8") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
                   f'viewBox="0 0 {WIDTH} {height}"><style>{STYLE}</style>\n' + "\n".join(lines) + "\n</svg>\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
