# SPDX-License-Identifier: BSL-1.0
"""The main job: the HTTP server with stock and with asio-pulse, driven by wrk over loopback."""

import collections
import hashlib
import json
import os
import signal
import socket
import statistics
import subprocess
import time

import common

SEED = b"correct horse battery staple"
FAST_CONNECTIONS = 16
HOG_CONNECTIONS = 4
HOGS_ALONE_MS = 100  # before the first fast request
HOG_MS = 50

PREFACE = f"""\
GET /fast answers a small JSON document; {FAST_CONNECTIONS} connections ask for it as fast as they are
answered. GET /hog is {HOG_MS} ms of SHA-256; {HOG_CONNECTIONS} connections ask for it at the same time.

- stock: Boost.Asio as it is.
- pulse: the same source with asio_pulse::io_context, a budget of 2 ms and a checkpoint in the slow loop.
- isolated: no checkpoint; the slow loop is a declared, isolatable task.
- stock+idle: stock with a second thread that does nothing. In a program with more than one thread, the C library's
  shortcuts for single-threaded programs are off; asio-pulse's watchdog is such a thread.

Each figure is the median of {{rounds}} runs. The runs of the arms are interleaved, and each run
starts a new server. Latencies are in ms, as measured by wrk. wrk is a closed loop: apart from its own
estimate, from the mean pace of its connections, it does not correct for coordinated omission. So a
frozen server gets fewer requests, and looks better than it is. wrk runs on the server's CPUs. Every
digest was compared with that of hashlib, and every fast answer was counted in bytes."""


class Server:
    def __init__(self, program, threads, rounds, *options):
        self.process = subprocess.Popen([program, "serve", str(threads), str(rounds), *options],
                                        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.port = int(self.process.stdout.readline().split()[1])

    def get(self, target):
        """One request by hand: the whole response and its body."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as peer:
            peer.sendall(f"GET {target} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
            data = b""
            while b"\r\n\r\n" not in data or len(data) < wanted:
                part = peer.recv(65536)
                if not part:
                    common.fail(f"{target}: connection closed early")
                data += part
                head, _, _ = data.partition(b"\r\n\r\n")
                wanted = len(head) + 4 + int(head.lower().split(b"content-length:")[1].split()[0])
        if not data.startswith(b"HTTP/1.1 200 "):
            common.fail(f"{target}: {data[:60]}")
        return len(data), data[len(head) + 4:].decode()

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        output, errors = self.process.communicate(timeout=30)
        if self.process.returncode != 0:
            common.fail(f"the server ended with {self.process.returncode}\n{errors}")
        return json.loads(output), errors.splitlines()


def start_wrk(server, target, connections, seconds, **settings):
    env = dict(os.environ, CONNECTIONS=str(connections), **settings)
    return subprocess.Popen(
        ["wrk", "--latency", "-t1", f"-c{connections}", f"-d{seconds}", "--timeout", "60",
         "-s", str(common.BENCHES / "wrk_report.lua"), f"http://127.0.0.1:{server.port}{target}"],
        env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish_wrk(wrk, name):
    output, errors = wrk.communicate()
    lines = [line for line in output.splitlines() if line.startswith("RESULT ")]
    if wrk.returncode != 0 or not lines:
        common.fail(f"wrk failed on {name}\n{output}{errors}")
    result = json.loads(lines[0][len("RESULT "):])
    if not result["requests"]:
        common.fail(f"{name}: no request was answered in {result['seconds']:.1f} s")
    bad = [f"{result[kind]} {kind}" for kind in ("errors", "timeouts", "wrong") if result[kind]]
    if bad:
        common.fail(f"{name}: of {result['requests']} responses not every one was right: "
                    + ", ".join(bad))
    return result


def one_run(args, arm, threads, rounds, seconds, with_hogs, digest, alone=HOGS_ALONE_MS):
    name, *options = arm.split("+")
    server = Server(args.programs / f"http_server_{name}", threads, rounds, *options)
    try:
        size, body = server.get("/fast")
        if json.loads(body) != {"status": "ok", "items": [1, 2, 3], "method": "GET"}:
            common.fail(f"/fast: {body}")
        hog_body = server.get("/hog")[1]
        if json.loads(hog_body) != {"status": "ok", "sha256": digest}:
            common.fail(f"/hog: {hog_body}")
        cpu = server.cpu_seconds()
        # With hogs, the fast requests hold their connections first, then the hogs come, and `alone` ms
        # later the fast requests begin: so all of them are measured beside hogs.
        delay = 0.1 + alone / 1000 if with_hogs else 0
        wait = {"FIRST_DELAY_MS": str(round(delay * 1000))} if with_hogs else {}
        wrk = start_wrk(server, "/fast", FAST_CONNECTIONS, seconds + round(delay), **wait)
        if with_hogs:
            time.sleep(0.1)
            hog = start_wrk(server, "/hog", HOG_CONNECTIONS, seconds + round(delay),
                            EXPECT_BODY=hog_body)
        fast = finish_wrk(wrk, "/fast")
        cpu = server.cpu_seconds() - cpu
        hogs = finish_wrk(hog, "/hog") if with_hogs else None
        served, reports = server.stop()
    finally:
        server.process.kill()
    if abs(fast["bytes"] - fast["requests"] * size) > FAST_CONNECTIONS * size:
        common.fail(f"/fast: {fast['requests']} responses of {size} bytes are not {fast['bytes']}")
    if served["fast"] < fast["requests"] or (hogs and served["hogs"] < hogs["requests"]):
        common.fail(f"wrk counted more responses than the server sent: {served}")
    return {
        **{key: fast[key] / 1000 for key in ("p50", "p99", "p999", "max")},
        "fast/s": fast["requests"] / (fast["seconds"] - delay),
        "hogs/s": hogs["requests"] / hogs["seconds"] if hogs else 0.0,
        "cpu_us": cpu / fast["requests"] * 1e6,
        "pulse": served["pulse"],
        "reports": reports,
    }


def phase(args, threads, rounds, arms, repetitions, seconds, with_hogs, digest):
    results = collections.defaultdict(list)
    for number, arm in common.by_turns(arms, repetitions):
        common.progress(f"{threads} threads, hogs {'on' if with_hogs else 'off'}, "
                        f"round {number + 1} of {repetitions}, {arm}")
        results[arm].append(one_run(args, arm, threads, rounds, seconds, with_hogs, digest))
    common.progress()
    return results


def row(arm, runs):
    middle = {key: statistics.median(run[key] for run in runs)
              for key in ("p50", "p99", "p999", "max", "fast/s", "hogs/s", "cpu_us")}
    p99 = [run["p99"] for run in runs]
    return [arm, *(f"{middle[key]:.2f}" for key in ("p50", "p99", "p999", "max")),
            f"{min(p99):.2f} .. {max(p99):.2f}", f"{middle['fast/s']:.0f}",
            f"{middle['hogs/s']:.1f}", f"{middle['cpu_us']:.1f}"]


HEADER = ["fast requests", "p50", "p99", "p99.9", "max", "p99 from .. to", "fast/s", "hogs/s",
          "server CPU us per fast"]


ACTIONS = ("warns", "yields", "checkpoint_yields", "isolated", "isolations_refused", "promotions",
           "demotions", "reports", "reports_suppressed")


def ratios(results, key, over, under):
    return [a[key] / b[key] for a, b in zip(results[over], results[under])]


def actions(results):
    rows = []
    for arm, runs in results.items():
        if runs[0]["pulse"]:
            rows.append([arm, *(f"{statistics.median(r['pulse'][k] for r in runs):.0f}"
                                for k in ACTIONS)])
    return common.table(["a run, median", *(key.replace("_", " ") for key in ACTIONS)], rows)


def threads_section(args, threads, rounds, digest):
    arms = ["stock", "pulse"] + (["stock+idle"] if threads == 1 else [])
    calm = phase(args, threads, rounds, arms, args.calm_runs, args.calm_seconds, False, digest)
    # One thread is an implicit strand, which isolation would break, so isolation is refused.
    arms = ["stock", "pulse"] + (["isolated"] if threads > 1 else [])
    hogs = phase(args, threads, rounds, arms, args.hog_runs, args.hog_seconds, True, digest)
    better = ratios(hogs, "p99", "stock", "pulse")
    ahead = ratios(hogs, "fast/s", "pulse", "stock")
    same = ratios(calm, "fast/s", "stock", "pulse")
    cpu = ratios(calm, "cpu_us", "pulse", "stock")
    example = next((line for run in hogs["pulse"] for line in run["reports"]), "none")
    noun = "thread" if threads == 1 else "threads"
    lines = [
        f"### {threads} server {noun}, no hogs", "",
        common.table(HEADER, [row(arm, runs) for arm, runs in calm.items()]), "",
        f"Throughput, stock over pulse, pair by pair: {common.spread(same, '{:.3f}')}; "
        f"server CPU a request, pulse over stock: {common.spread(cpu, '{:.3f}')}", ""]
    if threads == 1:
        same_idle = ratios(calm, "fast/s", "stock+idle", "pulse")
        cpu_idle = ratios(calm, "cpu_us", "pulse", "stock+idle")
        lines += [f"The same beside stock+idle: {common.spread(same_idle, '{:.3f}')}; "
                  f"{common.spread(cpu_idle, '{:.3f}')}", ""]
    lines += [
        f"### {threads} server {noun}, with hogs", "",
        common.table(HEADER[:-1], [row(arm, runs)[:-1] for arm, runs in hogs.items()]), "",
        f"p99, stock over pulse, pair by pair: {common.spread(better, '{:.1f}')}; "
        f"fast throughput, pulse over stock: {common.spread(ahead, '{:.1f}')}", "",
        "Counters of asio-pulse:", "", actions(hogs), "", f"A report: `{example}`", ""]
    return lines, {"better": better, "ahead": ahead, "same": same}


def digest_of(rounds):
    digest = hashlib.sha256(SEED).digest()
    for _ in range(rounds):
        digest = hashlib.sha256(digest).digest()
    return digest.hex()


def main():
    args = common.arguments(__doc__, calm_runs=6, calm_seconds=1, hog_runs=4, hog_seconds=2, one="",
                            threads=2, rounds=0, seconds=1, hogs=False, alone=HOGS_ALONE_MS)
    if args.one:  # for pulse_bench: a single run, as one line of JSON
        if args.rounds <= 0:
            common.fail("--one needs --rounds, as http_server_stock calibrate prints it")
        result = one_run(args, args.one, args.threads, args.rounds, args.seconds, args.hogs,
                         digest_of(args.rounds), args.alone)
        del result["reports"]
        print(json.dumps(result))
        return
    rounds = int(subprocess.run([args.programs / "http_server_stock", "calibrate", str(HOG_MS)],
                                check=True, capture_output=True, text=True).stdout)
    digest = digest_of(rounds)
    lines = [PREFACE.format(rounds=f"{args.calm_runs} (no hogs) or {args.hog_runs} (hogs)"), ""]
    figures = {}
    for threads in (1, 2):
        section, figures[threads] = threads_section(args, threads, rounds, digest)
        lines += section
    middle = {key: statistics.median(values) for key, values in figures[2].items()}
    calm = max(statistics.median(figures[n]["same"]) for n in (1, 2))
    lines += ["### Targets", "", common.table(["what", "target", "measured", "met"], [
        ["fast p99 with hogs, 2 threads, stock over pulse", ">= 20", f"{middle['better']:.1f}",
         common.judge(middle["better"], 20, at_least=True)],
        ["fast throughput with hogs, 2 threads, pulse over stock", ">= 1",
         f"{middle['ahead']:.1f}", common.judge(middle["ahead"], 1, at_least=True)],
        ["throughput without hogs, stock over pulse, the worse of 1 and 2 threads", "<= 1.02",
         f"{calm:.3f}", common.judge(calm, 1.02)]])]
    common.publish(args, "main", "\n".join(lines))


if __name__ == "__main__":
    main()
