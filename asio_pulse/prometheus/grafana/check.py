#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Checks the dashboard, and the list of metrics in the exporter's README, against the exporter.

usage: check.py EXPOSITION [--dashboard FILE] [--readme FILE] [--statistics FILE] [--require-promtool]

EXPOSITION is a file with the exporter's output in which every metric has a sample, or "-". Every panel
must have a title, a description, a unit and a type that Grafana knows, and must lie inside the grid
without covering others. Every query must parse (checked with promtool if it is installed) and use only
metrics and labels that the exporter has; a legend may use only labels that its query keeps. Prints one
line for each fault. The exit status is 1 if there are any, and 2 on wrong usage.
"""
import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
LEAST_SCHEMA = 36  # Grafana 9: data sources by {"type", "uid"}
COLUMNS = 24
# The types that are part of every Grafana from 9 on; a "row" is a heading and not a panel.
PANEL_TYPES = {"bargauge", "gauge", "heatmap", "stat", "state-timeline", "table", "text", "timeseries"}
ADDED_BY_PROMETHEUS = {"job", "instance", "__name__"}
STRING = r'"(?:[^"\\]|\\.)*"'
# Example values for the variables that Grafana replaces in a query.
VARIABLES = {"$__rate_interval": "5m", "$__interval": "1m", "$__range": "1h"}


class Metric:
    """A family: its type, help, and the labels of its samples."""

    def __init__(self, kind):
        self.kind, self.labels = kind, set()


def read_exposition(text):
    """The metrics by the names that queries use; a histogram has three, with different endings."""
    metrics, families = {}, {}
    for line in text.splitlines():
        if found := re.match(r"# TYPE (\S+) (\S+)$", line):
            name, kind = found.groups()
            family = families[name] = Metric(kind)
            endings = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            metrics.update((name + ending, family) for ending in endings)
        elif line and not line.startswith("#"):
            name = re.match(r"[A-Za-z_:][\w:]*", line)[0]
            metrics[name].labels.update(re.findall(rf"[{{,](\w+)={STRING}", line))
    return metrics, families


def fill_in(query):
    """The query with its variables replaced, as Grafana sends it."""
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return re.sub(r"\$\{?\w+\}?", ".*", query)


def query_faults(query, metrics, prefix):
    """What the query uses and the exporter does not have."""
    bare = re.sub(STRING, '""', query)
    used = [m for m in re.findall(r"[A-Za-z_:][\w:]*", bare) if m.startswith(prefix)]
    if not used:
        yield "uses no metric of the exporter"
    known = set(ADDED_BY_PROMETHEUS)
    for name in used:
        if name not in metrics:
            yield f"uses {name}, which the exporter does not have"
        else:
            known |= metrics[name].labels
    for name, inside in re.findall(r"([A-Za-z_:][\w:]*)\{([^}]*)\}", bare):
        own = metrics[name].labels | ADDED_BY_PROMETHEUS if name in metrics else known
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", inside):
            if label not in own:
                yield f"selects {name} by {label}, which it does not have"
    for inside in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", bare):
        for label in re.findall(r"\w+", inside):
            if label not in known:
                yield f"groups by {label}, which nothing in it has"


def legend_faults(target, metrics):
    """Labels that the legend shows but the query lacks or sums away: Grafana shows nothing for them."""
    query = re.sub(STRING, '""', target.get("expr", ""))
    grouped = re.findall(r"\b(?:by|group_left|group_right)\s*\(([^)]*)\)", query)
    if re.search(r"\bby\s*\(", query):
        kept = set(re.findall(r"\w+", " ".join(grouped)))
    else:
        used = [metrics[m] for m in re.findall(r"[A-Za-z_:][\w:]*", query) if m in metrics]
        kept = ADDED_BY_PROMETHEUS.union(*(m.labels for m in used))
    for label in re.findall(r"\{\{\s*(\w+)\s*\}\}", target.get("legendFormat") or ""):
        if label not in kept:
            yield f"has {label} in its legend, which it does not keep"


def panel_faults(panel, metrics, prefix):
    """What one panel lacks."""
    for field in ("title", "description"):
        if not str(panel.get(field, "")).strip():
            yield f"has no {field}"
    if panel.get("type") not in PANEL_TYPES:
        yield f"is of a type that Grafana has not: {panel.get('type')}"
    if not panel.get("fieldConfig", {}).get("defaults", {}).get("unit"):
        yield "has no unit"
    if panel.get("datasource", {}).get("uid") != "${datasource}":
        yield "does not take the data source from the variable"
    targets = panel.get("targets", [])
    if not targets:
        yield "has no query"
    if len({t.get("refId") for t in targets}) != len(targets):
        yield "has two queries with one refId"
    for target in targets:
        for fault in (*query_faults(target.get("expr", ""), metrics, prefix), *legend_faults(target, metrics)):
            yield f"query {target.get('refId')} {fault}"


def layout_faults(panels):
    """Panels that lie outside the grid, or on each other."""
    cells = {}
    for panel in panels:
        at = panel.get("gridPos", {})
        if not all(isinstance(at.get(k), int) and at[k] >= 0 for k in "hwxy") or at["x"] + at["w"] > COLUMNS:
            yield f"panel \"{panel.get('title')}\" does not lie in {COLUMNS} columns"
            continue
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                other = cells.setdefault((x, y), panel)
                if other is not panel:
                    yield f"panels \"{other.get('title')}\" and \"{panel.get('title')}\" overlap"
                    return


def queries_of(dashboard):
    """Each query, with where it is."""
    for panel in dashboard.get("panels", []):
        for target in panel.get("targets", []):
            yield f"panel \"{panel.get('title')}\" query {target.get('refId')}", target.get("expr", "")
    for variable in dashboard.get("templating", {}).get("list", []):
        if found := re.match(r"label_values\((.*),\s*\w+\)$", variable.get("definition", "")):
            yield f"variable {variable['name']}", found[1]


def dashboard_faults(dashboard, metrics, prefix):
    """All faults of a dashboard except for the syntax of its queries."""
    if dashboard.get("schemaVersion", 0) < LEAST_SCHEMA:
        yield f"schemaVersion must be at least {LEAST_SCHEMA}"
    variables = {v.get("name") for v in dashboard.get("templating", {}).get("list", [])}
    for name in ("datasource", "context"):
        if name not in variables:
            yield f"there is no variable {name}"
    panels = dashboard.get("panels", [])
    numbers = [p.get("id") for p in panels]
    if len(set(numbers)) != len(numbers):
        yield "two panels have one id"
    yield from layout_faults(panels)
    for panel in panels:
        if panel.get("type") != "row":
            for fault in panel_faults(panel, metrics, prefix):
                yield f"panel \"{panel.get('title')}\" {fault}"
    for where, query in queries_of(dashboard):
        for name in re.findall(r"\$\{?(\w+)", query):
            if "$" + name not in VARIABLES and name not in variables:
                yield f"{where} uses the variable ${name}, which does not exist"
        if where.startswith("variable"):
            for fault in query_faults(query, metrics, prefix):
                yield f"{where} {fault}"


def syntax_faults(dashboard, promtool):
    """What Prometheus' own parser says about the queries, each as a recording rule."""
    rules = [{"record": f"query:{n}", "expr": fill_in(query), "labels": {"where": where}}
             for n, (where, query) in enumerate(queries_of(dashboard))]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)  # JSON is YAML
        file.flush()
        done = subprocess.run([promtool, "check", "rules", file.name], capture_output=True, text=True,
                              timeout=60, check=False)
    if done.returncode != 0:
        yield "promtool: " + (done.stdout + done.stderr).replace(file.name, "queries").strip()
    elif f"{len(rules)} rules found" not in done.stdout:
        yield f"promtool found another number of rules than {len(rules)}: {done.stdout.strip()}"


def readme_faults(readme, statistics, families, prefix):
    """Rows "| `name` | type | ..." that are missing or superfluous, or have a wrong type or wrong labels.

    Some of them are in the table of statistics: "| `member` | type | ... | `name` `label=value` |", each
    series by itself."""
    rows = {}
    for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", readme, re.MULTILINE):
        if prefix + name in rows:
            yield f"README has {name} twice"
        rows[prefix + name] = (kind, set(re.findall(r"`(\w+)`", labels)))
    for kind, name, label in re.findall(r"^\| `\w+` \| (\w+) \|[^|]*\| `(\w+)`(?: `(\w+)=\w+`)? \|$",
                                        statistics, re.MULTILINE):
        labels = rows.setdefault(prefix + name, (kind, set()))[1]
        if label:
            labels.add(label)
    for name in sorted(families.keys() - rows.keys()):
        yield f"README has no row for {name}"
    for name, (kind, labels) in rows.items():
        if name not in families:
            yield f"README has {name}, which the exporter does not have"
            continue
        family = families[name]
        if kind != family.kind:
            yield f"README says that {name} is a {kind}; it is a {family.kind}"
        own = family.labels - {"le", "context"}
        if labels != own:
            yield f"README gives {name} the labels {sorted(labels)}; it has {sorted(own)}"


def main():
    parser = argparse.ArgumentParser(description="Checks the dashboard against the exporter.")
    parser.add_argument("exposition", type=argparse.FileType(encoding="utf-8"))
    parser.add_argument("--dashboard", type=pathlib.Path, default=HERE / "asio-pulse.json")
    parser.add_argument("--readme", type=pathlib.Path, default=HERE.parent / "README.md")
    parser.add_argument("--statistics", type=pathlib.Path,
                        default=HERE.parent.parent / "docs" / "statistics.md")
    parser.add_argument("--require-promtool", action="store_true")
    arguments = parser.parse_args()
    prefix = "asio_pulse_"
    metrics, families = read_exposition(arguments.exposition.read())
    if not families:
        parser.error("EXPOSITION has no metrics")
    try:
        dashboard = json.loads(arguments.dashboard.read_text(encoding="utf-8"))
        readme = arguments.readme.read_text(encoding="utf-8")
        statistics = arguments.statistics.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    faults = list(dashboard_faults(dashboard, metrics, prefix))
    faults += readme_faults(readme, statistics, families, prefix)
    promtool = shutil.which("promtool")
    if promtool:
        faults += syntax_faults(dashboard, promtool)
    elif arguments.require_promtool:
        faults.append("there is no promtool (Debian: prometheus)")
    else:
        print("no promtool on this machine (Debian: prometheus): the queries' syntax was not checked")
    for fault in faults:
        print(fault)
    queries = sum(1 for _ in queries_of(dashboard))
    print(f"{len(families)} metrics, {queries} queries, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
