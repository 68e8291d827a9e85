#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Checks the guide's first and last server: both give the same answers, and pings do not wait in the last one.

usage: test_guide.py SLOW_SERVER_STOCK SLOW_SERVER_FIXED
"""
import contextlib
import socket
import subprocess
import sys
import time

PATIENCE = 20  # seconds, for machines under load


def connect(port):
    end = time.monotonic() + PATIENCE
    while True:
        try:
            peer = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
            return peer, peer.makefile("r", encoding="ascii")
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def ask(connection, request):
    peer, answers = connection
    peer.sendall(request.encode() + b"\n")
    return answers.readline().rstrip("\n")


@contextlib.contextmanager
def running(program):
    """Waits for the server, and returns its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([program, str(port)], stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        server.terminate()
        status = server.wait(PATIENCE)
    assert status == 0, f"{program} ended with {status}"


def pings_during_report(port, report):
    """How many pings are answered between a report's request and its answer."""
    asking, pinging = connect(port), connect(port)
    assert ask(pinging, "ping") == "pong"
    asking[0].sendall(b"report\n")
    asking[0].setblocking(False)
    answer, count = b"", 0
    while not answer.endswith(b"\n"):
        assert ask(pinging, "ping") == "pong"
        try:
            answer += asking[0].recv(1000)
        except BlockingIOError:
            count += 1
    assert answer.decode().rstrip("\n") == report, answer
    return count


def main(stock, fixed):
    answers = []
    for program in (stock, fixed):
        with running(program) as port:
            connection = connect(port)
            answers.append([ask(connection, r) for r in ("ping", "report", "lookup 127.0.0.1", "nonsense")])
            if program == fixed:
                count = pings_during_report(port, answers[-1][1])
    assert answers[0] == answers[1], answers
    assert answers[0][0] == "pong" and answers[0][1].isdigit() and answers[0][2:] == ["127.0.0.1", "unknown request"]
    assert count >= 10, f"only {count} pings were answered during a report"
    for wrong in ([], ["x"], ["70000"], ["1", "2"]):
        refused = subprocess.run([fixed, *wrong], capture_output=True, text=True, timeout=PATIENCE)
        assert refused.returncode == 2 and refused.stderr.startswith("usage:"), refused
    print(f"the same answers; {count} pings during a report")


main(*sys.argv[1:])
