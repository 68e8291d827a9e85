# SPDX-License-Identifier: BSL-1.0
"""check.py PEER: checks that a peer program keeps the contract in README.md, with short runs of all
scenarios. It checks counts and what must hold on any machine, but not speed."""

import json
import pathlib
import subprocess
import sys
import unittest

PEER = None
ARM = None
DURATION_MS = 300
FIELDS = {"arm", "label", "scenario", "variant", "samples_ns", "values", "verified", "verification"}
BAD_ARGUMENTS = [  # what is wrong, and what the sentence must name
    ([], "scenario"),
    (["tornado"], "scenario"),
    (["storm\x1b[31m"], "scenario"),
    (["storm", "--workers", "3"], "workers"),
    (["storm", "--workers", "0"], "workers"),
    (["storm", "--workers"], "workers"),
    (["storm", "--tasks", "999"], "tasks"),
    (["storm", "--tasks", "200001"], "tasks"),
    (["starvation", "--duration-ms", "-1"], "duration-ms"),
    (["starvation", "--duration-ms", "99999999999999999999999"], "duration-ms"),
    (["starvation", "--seconds", "1.5"], "seconds"),
    (["starvation", "--hog-ms", "10001"], "hog-ms"),
    (["starvation", "--hog", "lazy\x1b[31m"], "hog"),
    (["latency", "--hog-ms", "101"], "hog-ms"),
    (["latency", "--rate", ""], "rate"),
    (["latency", "--rate", "0"], "rate"),
    (["latency", "--colour", "red"], "colour"),
    (["latency", "--\x1b[31m", "1"], "31m"),
    (["latency", b"\xff\xfe"], ""),
]


def run(*arguments):
    return subprocess.run([PEER, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)


class Contract(unittest.TestCase):
    def result(self, scenario, variant, samples, *arguments):
        """Runs a scenario; the samples and values of the one line of JSON that it printed."""
        done = run(scenario, *arguments)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        lines = done.stdout.decode("ascii").splitlines()
        self.assertEqual(len(lines), 1)
        result = json.loads(lines[0])
        self.assertEqual(result.keys(), FIELDS)
        self.assertEqual((result["arm"], result["scenario"], result["variant"]), (ARM, scenario, variant))
        self.assertRegex(result["label"], r"^[A-Za-z/]+ \d+(\.\d+)+$")
        self.assertIs(result["verified"], True)
        self.assertTrue(result["verification"])
        self.assertEqual(list(result["samples_ns"]), [samples])
        for sample in result["samples_ns"][samples]:
            self.assertIs(type(sample), int)
            self.assertGreaterEqual(sample, 0)
        return result["samples_ns"][samples], result["values"]

    def starvation(self, workers, hog, hog_ms):
        lateness, values = self.result(
            "starvation", f"{hog}/{workers}", "probe_lateness", "--workers", str(workers),
            "--duration-ms", str(DURATION_MS), "--hog", hog, "--hog-ms", str(hog_ms))
        self.assertEqual((len(lateness), values["probes"]), (DURATION_MS, DURATION_MS))
        self.assertGreaterEqual(values["elapsed_ms"], DURATION_MS)
        return lateness, values

    def check_hog(self, values, hog_ms, most_bursts):
        self.assertEqual(values["hog_steps"], values["hog_bursts"] * hog_ms * 100)
        self.assertIn(values["hog_bursts"], range(1, most_bursts + 1))

    def test_starvation(self):
        for workers in (1, 2):
            for hog in ("cooperative", "uncooperative"):
                with self.subTest(workers=workers, hog=hog):
                    lateness, values = self.starvation(workers, hog, 50)
                    self.check_hog(values, 50, DURATION_MS // 55 + 1)
                    if (ARM, workers, hog) == ("tokio", 1, "uncooperative"):
                        # Nothing else runs in a burst: the deadlines in it are late by what is left of it.
                        self.assertGreaterEqual(max(lateness), 48_000_000)

    def test_without_a_hog(self):
        _, values = self.starvation(1, "cooperative", 0)
        self.assertEqual((values["hog_steps"], values["hog_bursts"]), (0, 0))
        latencies, values = self.latency(1, 0)
        self.assertEqual((values["hog_steps"], values["hog_bursts"]), (0, 0))

    def test_storm(self):
        for workers in (1, 2):
            with self.subTest(workers=workers):
                lateness, values = self.result(
                    "storm", f"tasks/{workers}", "probe_lateness", "--workers", str(workers))
                self.assertEqual(values["tasks"], 20_000)
                self.assertGreaterEqual(values["elapsed_ms"], 20_000 * 0.01 / workers)
                self.assertEqual((len(lateness), values["probes"]), (int(values["elapsed_ms"]),) * 2)

    def latency(self, workers, hog_ms):
        latencies, values = self.result(
            "latency", f"uncooperative/{workers}", "latency", "--workers", str(workers), "--hog",
            "uncooperative", "--hog-ms", str(hog_ms), "--duration-ms", str(DURATION_MS), "--rate", "2000")
        self.assertEqual(len(latencies), DURATION_MS * 2)
        self.assertEqual((values["arrivals"], values["completions"]), (len(latencies),) * 2)
        self.assertGreaterEqual(min(latencies), 20_000)
        self.assertGreaterEqual(values["elapsed_ms"], DURATION_MS)
        return latencies, values

    def test_latency(self):
        for workers in (1, 2):
            with self.subTest(workers=workers):
                _, values = self.latency(workers, 20)
                self.check_hog(values, 20, DURATION_MS // 100)

    def test_bad_arguments(self):
        for arguments, named in BAD_ARGUMENTS:
            with self.subTest(arguments=arguments):
                done = run(*arguments)
                sentence = done.stderr.decode()
                self.assertEqual((done.returncode, done.stdout), (2, b""))
                self.assertRegex(sentence, rf"^{PEER.name}: .*{named}.*\n$")
                self.assertTrue(sentence[:-1].isprintable(), ascii(sentence))

    def test_a_result_that_cannot_be_written(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([PEER, "latency", "--duration-ms", "10"], stdin=subprocess.DEVNULL,
                                  stdout=full, stderr=subprocess.PIPE, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"could not write the result", done.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: check.py PEER")
    PEER = pathlib.Path(sys.argv.pop()).resolve()
    ARM = PEER.name.removeprefix("peer_")
    unittest.main()
