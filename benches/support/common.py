# SPDX-License-Identifier: BSL-1.0
"""Common parts of the runners: running a program, medians with their spread, tables, and RESULTS.md."""

import argparse
import collections
import json
import math
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys

BENCHES = pathlib.Path(__file__).resolve().parent.parent
ROOT = BENCHES.parent
# How busy the machine was with other work: read before any of ours.
LOAD = pathlib.Path("/proc/loadavg").read_text().split()[0]


def fail(message):
    sys.exit(f"benches: {message}")


def run(*command):
    """Runs a program that ends by printing one line of JSON."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        fail(f"{' '.join(map(str, command))} failed ({done.returncode})\n"
             f"{done.stdout}{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def by_turns(arms, rounds):
    """The arms, round by round, with alternating order, so that drift affects all alike."""
    for number in range(rounds):
        for arm in arms if number % 2 == 0 else reversed(arms):
            yield number, arm


def spread(values, form="{:.2f}"):
    """median [least .. most]"""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{form} [{form} .. {form}]".format(middle, low, high)


def geomean(ratios):
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def table(header, rows):
    """A Markdown table that reads as plain text too. The first column is a name."""
    rows = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    cells = [[c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))]
             for row in rows]
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    rule = "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths))
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


def progress(text=""):
    if sys.stderr.isatty():
        print(f"\r{text:70}\r{text}", end="", file=sys.stderr, flush=True)


def judge(value, limit, at_least=False):
    return "yes" if (value >= limit if at_least else value <= limit) else "NO"


def collect(args, program, *arguments):
    """What args.runs runs of a program print: the figures of each name, run by run."""
    results = collections.defaultdict(list)
    for number in range(args.runs):
        progress(f"round {number + 1} of {args.runs}")
        for name, value in run(args.programs / program, *arguments).items():
            results[name].append(value)
    progress()
    return results


def judged(results, targets):
    """Each name's spread, and its median against its target, where it has one."""
    rows = []
    for name, values in results.items():
        limit = targets.get(name)
        verdict = ["", ""]
        if limit is not None:
            verdict = [f"<= {limit}", judge(statistics.median(values), limit)]
        rows.append([name, spread(values), *verdict])
    return table(["", "median [least .. most]", "target", "met"], rows)


def capture(*command):
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def environment(build, command):
    cpu = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpu)
    virtual = ", a virtual machine" if re.search(r"^flags.*\bhypervisor\b", cpu, re.M) else ""
    cache = dict(re.findall(r"^([A-Za-z_]+):[A-Z]+=(.*)", (build / "CMakeCache.txt").read_text(),
                            re.M))
    version = pathlib.Path(cache.get("Boost_INCLUDE_DIR", "/usr/include")) / "boost/version.hpp"
    boost = re.search(r'#define BOOST_LIB_VERSION "(.*)"', version.read_text())
    dirty = " with changes" if capture(
        "git", "status", "--porcelain", "-uno", "--", ".", ":!benches/RESULTS.md") else ""
    return table(["", "measured on"], [
        ["CPU", f"{model.group(1) if model else platform.machine()}, "
                f"{os.cpu_count()} CPUs{virtual}"],
        ["kernel", platform.release()],
        ["compiler", f"{capture(cache['CMAKE_CXX_COMPILER'], '--version').splitlines()[0]}, "
                     f"{cache['CMAKE_CXX_FLAGS_RELEASE'].strip()}"],
        ["Boost", boost.group(1).replace("_", ".")],
        ["commit", capture("git", "rev-parse", "--short=12", "HEAD") + dirty],
        ["command", command],
        ["load average before", LOAD],
    ])


def record(section, text):
    """Replaces the text of RESULTS.md between the two marks of the section."""
    path = BENCHES / "RESULTS.md"
    begin, end = f"<!-- {section} -->", f"<!-- /{section} -->"
    old = path.read_text()
    if begin not in old or end not in old:
        fail(f"RESULTS.md has no section {section}")
    head, tail = old.split(begin)[0], old.split(end)[1]
    path.write_text(f"{head}{begin}\n\n{text}\n\n{end}{tail}")


def arguments(description, **defaults):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/bench")
    parser.add_argument("--record", action="store_true", help="write the result to RESULTS.md")
    for name, value in defaults.items():
        how = {"action": "store_true"} if value is False else {"type": type(value), "default": value}
        parser.add_argument(f"--{name.replace('_', '-')}", **how)
    parsed = parser.parse_args()
    parsed.programs = parsed.build / "benches"
    parsed.defaults = defaults
    if not parsed.programs.is_dir():
        fail(f"nothing is built in {parsed.build}: run benches/run")
    return parsed


def publish(args, section, text):
    options = [f"--{name.replace('_', '-')} {getattr(args, name)}" for name, value in
               args.defaults.items() if getattr(args, name) != value]
    where = environment(args.build, " ".join(["benches/run", section, *options]))
    print(f"{text}\n\n{where}")
    if args.record:
        record(section, f"{text}\n\n{where}")
