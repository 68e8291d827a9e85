#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Checks the report's page: that its parts join into one file which fetches nothing, and, where
chromium is installed, that pages made from a result and from odd input render without an error.

  check.py                       the parts, and the pages of odd inputs
  check.py --json result.json    the same, and the page of this result
           --output page.html    which is written there
"""
import argparse
import html.parser
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
MARKER = "/*RESULT*/"
SCHEMA = "asio-pulse-bench/1"


def template():
    """The page with its style and its scripts, joined as report.cmake does it."""
    page = (HERE / "template.html").read_text(encoding="utf-8")
    for placeholder, ending in (("/*CSS*/", "css"), ("/*JS*/", "js")):
        parts = sorted(HERE.glob(f"*.{ending}"))
        page = page.replace(placeholder, "".join(f.read_text(encoding="utf-8") for f in parts))
    return page


def page_of(text):
    """The page of a result. "<" is escaped, so that no name in it can end the script element."""
    return template().replace(MARKER, text.replace("<", "\\u003c"))


def static_faults(page):
    """What is wrong with the template as text, one sentence each."""
    faults = []
    if page.count(MARKER) != 1:
        faults.append(f"the template must have {MARKER} once, not {page.count(MARKER)} times")
    if f'<script id="result" type="application/json">{MARKER}</script>' not in page:
        faults.append("the template has no script element for the result")
    for placeholder in ("/*CSS*/", "/*JS*/"):
        if placeholder in page:
            faults.append(f"{placeholder} was not replaced")
    for pattern, what in (
        (r"(?:src|href)\s*=\s*[\"']?\s*(?:https?:)?//", "src or href"),
        (r"@import", "@import"),
        (r"\burl\(\s*[\"']?(?!#|data:)", "url()"),
        (r"<link(?![^>]*href=\"data:)", "link"),
        (
            r"\b(?:fetch|XMLHttpRequest|WebSocket|EventSource|sendBeacon|importScripts)\b",
            "a request",
        ),
    ):
        for found in re.finditer(pattern, page, re.IGNORECASE):
            faults.append(
                f"the template must not use the network: {what} in {page[found.start():][:40]!r}"
            )
    for pattern in (
        r"\.innerHTML",
        r"\.outerHTML",
        r"insertAdjacentHTML",
        r"document\.write",
        r"\beval\(",
        r"new Function",
    ):
        if re.search(pattern, page):
            faults.append(f"text must not be parsed as markup or code: {pattern}")
    if page.count("</script") != 2 or page.count("</style") != 1:
        faults.append("a script or style ends its own element")
    return faults


def has_points(arms, read):
    return isinstance(arms, dict) and any(read(arm) for arm in arms.values())


def is_constant(metric):
    """A counter without any spread is given as text, and not drawn."""
    arms = [arm for arm in (metric.get("arms") or {}).values() if arm]
    values = {v for arm in arms for v in [*arm.get("samples", []), arm.get("median")]} - {None}
    return metric.get("better") not in ("lower", "higher") and len(values) == 1


def expected_charts(result):
    """How many charts of each kind the page of a well-formed result must hold."""
    count = {"distribution": 0, "timeline": 0, "series": 0, "metric": 0}
    for scenario in result.get("scenarios", []):
        for variant in scenario.get("variants", []):
            for kind, part, read in (
                ("distribution", "distributions", lambda a: a.get("samples") or a.get("buckets")),
                (
                    "timeline",
                    "timelines",
                    lambda a: a.get("probe") or a.get("spans") or a.get("marks"),
                ),
                ("series", "series", len),
                ("metric", "metrics", lambda a: a.get("samples") or a.get("median") is not None),
            ):
                for item in variant.get(part) or []:
                    drawn = has_points(item.get("arms"), read)
                    count[kind] += drawn and not (kind == "metric" and is_constant(item))
    return count


class Page(html.parser.HTMLParser):
    """A rendered page: its charts by kind, its text but for scripts, and the parts that failed."""

    def __init__(self, dom):
        super().__init__()
        self.charts, self.text, self.broken, self.foreign, self.raw = {}, [], 0, [], False
        self.feed(dom)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.raw = tag in ("script", "style")
        classes = (attrs.get("class") or "").split()
        if tag == "svg" and "chart" in classes:
            self.charts[attrs.get("data-chart")] = self.charts.get(attrs.get("data-chart"), 0) + 1
        self.broken += "broken" in classes
        # Markup from a name would show as an element or an attribute that the page never makes.
        if tag in ("img", "iframe", "b-injected") or any(name.startswith("on") for name in attrs):
            self.foreign.append(tag)

    def handle_endtag(self, tag):
        self.raw = False

    def handle_data(self, data):
        if not self.raw:
            self.text.append(data)


def render(chromium, path, arguments=""):
    """(page, messages of its console) after its scripts have run."""
    with tempfile.TemporaryDirectory() as profile:
        command = [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--enable-logging=stderr",
            "--virtual-time-budget=4000",
            f"--user-data-dir={profile}",
            "--window-size=1280,1000",
            "--dump-dom",
            f"{path.as_uri()}{arguments}",
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, errors="replace", check=False
        )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Page(done.stdout), console


def odd_inputs():
    """(name, text of the result, what the page must say).

    The numbers are made up for the tests of the page.
    """

    def result(**more):
        return json.dumps({"schema": SCHEMA, **more})

    headline = {
        "headline": True,
        "better": "lower",
        "arms": {"stock": {"median": 2}, "pulse": {"median": 1}},
    }
    hostile = "</script><b-injected><img src=x onerror=alert(1)>\u202egnp\u0000\u001b[31m"
    arms = [
        {"name": "stock", "label": hostile},
        {"name": "__proto__", "label": "x" * 10000},
        {"name": "constructor"},
    ]
    numbers = {
        "stock": {"samples": [1, 2, 3], "median": 2, "low": 1, "high": 3},
        "__proto__": {"samples": [4], "median": 4},
        "constructor": {"samples": [None, "a", 1e308], "median": None},
    }
    variant = {
        "name": hostile,
        "title": hostile,
        "arms": arms,
        "verified": True,
        "verification": hostile,
        "parameters": {hostile: hostile, "nested": {"a": [1]}},
        "metrics": [
            {
                "name": hostile,
                "label": hostile,
                "unit": hostile,
                "better": hostile,
                "headline": True,
                "arms": numbers,
            }
        ],
        "distributions": [
            {
                "name": hostile,
                "unit": "ms",
                "arms": {
                    "stock": {"samples": [3, None, 1, -2, 0]},
                    "__proto__": {"samples": [0, 0]},
                    "constructor": {"buckets": [[1, 2], [None], [0.5, -1], "x"]},
                },
            }
        ],
        "timelines": [
            {
                "label": hostile,
                "arms": {
                    "stock": {
                        "probe": [[0, -1], [1, 2], ["a", 1]],
                        "spans": [[0, 1, hostile], [1, -4, "hog"]],
                        "marks": [[1, hostile, hostile], [2], None],
                    }
                },
            }
        ],
        "series": [
            {
                "x_label": hostile,
                "x_log": True,
                "y_label": hostile,
                "arms": {"stock": [[0, 1], [10, 2, None, 3], "x"]},
            }
        ],
    }
    nulls = dict.fromkeys(
        (
            "arms",
            "metrics",
            "distributions",
            "timelines",
            "series",
            "parameters",
            "verified",
            "name",
            "title",
        )
    )
    return [
        ("the empty template", MARKER, "This page holds no result"),
        ("text that is not JSON", '{"schema": ', "not valid JSON"),
        ("a list", "[]", "not a JSON object"),
        (
            "another schema",
            json.dumps({"schema": "asio-pulse-bench/2", "scenarios": []}),
            "asio-pulse-bench/2",
        ),
        ("no schema", json.dumps({"scenarios": []}), "no schema"),
        ("no scenarios", result(), "nothing was measured"),
        ("no variants", result(scenarios=[{"name": "unknown"}]), "has no variants"),
        (
            "nulls everywhere",
            result(
                machine=None,
                duration_s=None,
                scenarios=[None, {"variants": [None, nulls], "targets": [None], "notes": [None]}],
            ),
            "Nothing was measured here",
        ),
        (
            "numbers for objects",
            result(
                machine=7,
                scenarios=[
                    {"name": 1, "variants": [{"arms": 5, "metrics": [3], "series": {"a": 1}}]}
                ],
            ),
            "scenario 1",
        ),
        (
            "a failed verification",
            result(scenarios=[{"variants": [{"verified": False}]}]),
            "Verification failed",
        ),
        (
            "a failed verification with a figure",
            result(scenarios=[{"variants": [{"verified": False, "metrics": [headline]}]}]),
            "verification failed",
        ),
        (
            "a noisy machine",
            result(machine={"noisy": True, "noise": [hostile]}, scenarios=[{}]),
            "not quiet",
        ),
        (
            "hostile names",
            result(
                scenarios=[
                    {
                        "name": hostile,
                        "title": hostile,
                        "question": hostile,
                        "variants": [variant, variant],
                        "targets": [{"text": hostile, "value": 1, "limit": "x", "met": False}],
                        "notes": [hostile],
                    }
                ]
            ),
            "\\u{202e}gnp\\u{0}\\u{1b}[31m",
        ),
    ]


def rendered_faults(chromium, name, text, wanted, charts, directory, arguments=""):
    path = pathlib.Path(directory) / "page.html"
    path.write_text(page_of(text), encoding="utf-8", errors="surrogatepass")
    page, console = render(chromium, path, arguments)
    faults = [f"{name}: the console says {line[-200:]!r}" for line in console]
    if wanted not in " ".join(page.text):
        faults.append(f"{name}: the page must say {wanted!r}")
    if page.broken or page.foreign:
        faults.append(
            f"{name}: {page.broken} parts failed, {len(page.foreign)} elements came from the data"
        )
    for kind, count in (charts or {}).items():
        if page.charts.get(kind, 0) != count:
            faults.append(f"{name}: {page.charts.get(kind, 0)} charts of kind {kind}, not {count}")
    return faults


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=pathlib.Path, help="a result of pulse_bench")
    parser.add_argument("--output", type=pathlib.Path, help="where to write its page")
    parser.add_argument(
        "--chromium",
        default=shutil.which("chromium") or shutil.which("chromium-browser") or "",
        help="the browser to render with (default: the installed one)",
    )
    options = parser.parse_args()
    if options.output and not options.json:
        parser.error("--output: needs --json, the result to make the page of")
    cases = [(*case, None) for case in odd_inputs()]
    if options.json:
        try:
            text = options.json.read_text(encoding="utf-8")
            charts = expected_charts(json.loads(text))
        except (OSError, ValueError, AttributeError) as error:
            parser.error(f"--json: {options.json}: {error}")
        cases.append((str(options.json), text, "Measured on", charts))
        if options.output:
            options.output.write_text(page_of(text), encoding="utf-8")
    faults = static_faults(template())
    print(f"template: {len(template())} characters, {len(faults)} faults")
    if options.chromium:
        with tempfile.TemporaryDirectory() as directory:
            for name, text, wanted, charts in cases:
                found = rendered_faults(options.chromium, name, text, wanted, charts, directory)
                print(f"{'FAILED' if found else 'ok'}: {name}" + (f" {charts}" if charts else ""))
                faults += found
    else:
        print("not rendered: chromium is not installed")
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    os.environ.pop("DISPLAY", None)
    sys.exit(main())
