# SPDX-License-Identifier: BSL-1.0
"""Checks that check.py finds faults: the real dashboard with a fault in one place."""
import copy
import json
import pathlib
import shutil
import unittest

import check

EXPOSITION = """# HELP asio_pulse_polls_total Handlers run.
# TYPE asio_pulse_polls_total counter
asio_pulse_polls_total{context="a,b=\\"c\\""} 3
# HELP asio_pulse_delay_seconds Delay, in seconds.
# TYPE asio_pulse_delay_seconds histogram
asio_pulse_delay_seconds_count{context="x"} 1
asio_pulse_delay_seconds_bucket{context="x",le="1"} 1
"""
PREFIX = "asio_pulse_"


def panel(expr, **more):
    made = {"id": 1, "type": "timeseries", "title": "t", "description": "d",
            "datasource": {"uid": "${datasource}"}, "gridPos": {"h": 8, "w": 12, "x": 0, "y": 0},
            "fieldConfig": {"defaults": {"unit": "s"}}, "targets": [{"refId": "A", "expr": expr}]}
    made.update(more)
    return made


def dashboard(*panels):
    return {"schemaVersion": 39, "panels": list(panels),
            "templating": {"list": [{"name": "datasource"}, {"name": "context"}]}}


class CheckTest(unittest.TestCase):
    def setUp(self):
        self.metrics, self.families = check.read_exposition(EXPOSITION)

    def faults(self, *panels):
        return list(check.dashboard_faults(dashboard(*panels), self.metrics, PREFIX))

    def test_reads_names_and_labels(self):
        self.assertEqual(set(self.families), {"asio_pulse_polls_total", "asio_pulse_delay_seconds"})
        self.assertEqual(self.metrics["asio_pulse_polls_total"].labels, {"context"})
        self.assertEqual(self.metrics["asio_pulse_delay_seconds_sum"].labels, {"context", "le"})
        self.assertNotIn("asio_pulse_delay_seconds", self.metrics)

    def test_finds_nothing_in_a_good_panel(self):
        self.assertEqual(self.faults(panel('sum by (context) (rate(asio_pulse_polls_total{job=~"$context"}[5m]))')), [])

    def test_finds_what_is_wrong(self):
        good = "asio_pulse_polls_total"
        for wrong, text in (
                (panel("asio_pulse_pols_total"), "asio_pulse_pols_total, which the exporter does not have"),
                (panel("asio_pulse_delay_seconds"), "asio_pulse_delay_seconds, which the exporter does not have"),
                (panel("up"), "uses no metric"),
                (panel(good + '{site="x"}'), "by site, which it does not have"),
                (panel(f"sum by (worker) ({good})"), "groups by worker"),
                (panel(good + '{context="$nobody"}'), "variable $nobody"),
                (panel(good, title=" "), "has no title"),
                (panel(good, type="graph2"), "type that Grafana has not: graph2"),
                (panel(good, targets=[{"refId": "A", "expr": good, "legendFormat": "{{worker}}"}]),
                 "has worker in its legend"),
                (panel(good, targets=[{"refId": "A", "expr": f"sum by (job) ({good})", "legendFormat": "{{context}}"}]),
                 "has context in its legend"),
                (panel(good, description=""), "has no description"),
                (panel(good, fieldConfig={}), "has no unit"),
                (panel(good, targets=[]), "has no query"),
                (panel(good, datasource={"uid": "abc"}), "data source"),
                (panel(good, gridPos={"h": 8, "w": 20, "x": 5, "y": 0}), "24 columns")):
            with self.subTest(text):
                self.assertIn(text, "\n".join(self.faults(wrong)))

    def test_finds_panels_in_each_others_way(self):
        faults = "\n".join(self.faults(panel("asio_pulse_polls_total"), panel("asio_pulse_polls_total")))
        self.assertIn("overlap", faults)
        self.assertIn("one id", faults)

    def test_holds_the_readme_against_the_exporter(self):
        rows = "| `polls_total` | counter | | n |\n| `delay_seconds` | histogram | | n |\n"
        self.assertEqual(list(check.readme_faults(rows, "", self.families, PREFIX)), [])
        for wrong, text in ((rows.replace("counter", "gauge"), "is a gauge; it is a counter"),
                            (rows.replace("polls_total", "poll_total"), "no row for asio_pulse_polls_total"),
                            (rows.replace("polls_total", "poll_total"), "which the exporter does not have"),
                            (rows.replace("counter | ", "counter | `x` "), "the labels ['x']"),
                            (rows + rows, "twice")):
            with self.subTest(text):
                self.assertIn(text, "\n".join(check.readme_faults(wrong, "", self.families, PREFIX)))

    def test_holds_the_statistics_against_the_exporter(self):
        readme = "| `delay_seconds` | histogram | | n |\n"
        row = "| `polls` | counter | handlers | `polls_total` |\n"
        self.assertEqual(list(check.readme_faults(readme, row, self.families, PREFIX)), [])
        for wrong, text in (("", "no row for asio_pulse_polls_total"),
                            (row.replace("counter", "gauge"), "is a gauge; it is a counter"),
                            (row.replace("polls_total` |", "polls_total` `kind=a` |"), "the labels ['kind']")):
            with self.subTest(text):
                self.assertIn(text, "\n".join(check.readme_faults(readme, wrong, self.families, PREFIX)))

    @unittest.skipUnless(shutil.which("promtool"), "no promtool (Debian: prometheus)")
    def test_finds_queries_that_do_not_parse(self):
        real = json.loads((pathlib.Path(check.__file__).parent / "asio-pulse.json").read_text(encoding="utf-8"))
        self.assertEqual(list(check.syntax_faults(real, "promtool")), [])
        broken = copy.deepcopy(real)
        broken["panels"][1]["targets"][0]["expr"] += ")"
        self.assertIn("promtool", "\n".join(check.syntax_faults(broken, "promtool")))


if __name__ == "__main__":
    unittest.main()
