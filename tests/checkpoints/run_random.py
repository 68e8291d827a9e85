#!/usr/bin/env python3
"""Random programs (csmith) print the same with checks and without.

usage: run_random.py --compiler COMPILER --plugin FOLDER --seeds FIRST-LAST [--options "-O2"]

The hook of tests/checkpoints/cases/hooked.h runs at every check, which may take several hundred times as long. A
program that takes more than half a second of CPU time without checks, or does not end, is left out; at least half of
them must remain.
"""
import argparse
import pathlib
import resource
import shlex
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


LONGEST = 0.5  # seconds of CPU time, which is the same on a busy machine


def cpu_of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(program, prepare=None):
    return subprocess.run([program], capture_output=True, text=True, timeout=600, check=False, preexec_fn=prepare)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--plugin", required=True)
    parser.add_argument("--seeds", required=True)
    parser.add_argument("--options", default="-O2")
    arguments = parser.parse_args()
    compiler = [*shlex.split(arguments.compiler), "-x", "c", "-std=gnu11", "-w", "-I/usr/include/csmith", f"-I{ROOT}/asio_pulse/include",
                *shlex.split(arguments.options)]
    plugin = pathlib.Path(arguments.plugin)
    flags = shlex.split((plugin / "compile.flags").read_text())
    link = shlex.split((plugin / "link.flags").read_text())
    first, last = map(int, arguments.seeds.split("-"))
    ran = checks = 0
    with tempfile.TemporaryDirectory() as temporary:
        work = pathlib.Path(temporary)
        subprocess.run([*compiler, "-DCHECKED", "-c", HERE / "hook_everywhere.c", "-o", work / "start.o"], check=True)
        for seed in range(first, last + 1):
            source = work / "random.c"
            source.write_bytes(subprocess.run(["csmith", "--seed", str(seed), "--max-block-depth", "4"], check=True, capture_output=True).stdout)
            subprocess.run([*compiler, source, "-o", work / "plain"], check=True)
            subprocess.run([*compiler, *flags, "-c", source, "-o", work / "checked.o"], check=True)
            subprocess.run([*shlex.split(arguments.compiler), work / "checked.o", work / "start.o", *link, "-o", work / "checked"], check=True)
            before = cpu_of_children()
            plain = run(work / "plain", lambda: resource.setrlimit(resource.RLIMIT_CPU, (1, 2)))
            if cpu_of_children() - before > LONGEST:
                print(f"seed {seed}: takes too long")
                continue
            try:
                checked = run(work / "checked")
            except subprocess.TimeoutExpired as fault:
                print(f"seed {seed}: FAILED: with checks: {fault}")
                return 1
            if (plain.stdout, plain.returncode) != (checked.stdout, checked.returncode):
                print(f"seed {seed}: FAILED: without checks\n{plain.returncode} {plain.stdout}\nwith checks\n{checked.returncode} {checked.stdout} {checked.stderr}")
                return 1
            ran += 1
            checks += int(checked.stderr.split("checks ")[-1])
    print(f"{ran} programs, {checks} checks: the same output")
    if ran * 2 < last - first + 1 or checks == 0:
        print("too few of them remain, or none had a check")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
