#!/usr/bin/env python3
"""Loops that were vectorised stay so: with checks, a kernel has as many vector instructions, and none of its inner loops tests the fuel.

usage: check_vectors.py --compiler COMPILER --plugin FOLDER
"""
import argparse
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
KERNELS = {
    "axpy": "void axpy(float* y, const float* x, float a, long n) { for (long i = 0; i < n; ++i) y[i] += a * x[i]; }",
    "sum": "int sum(const int* p, long n) { int s = 0; for (long i = 0; i < n; ++i) s += p[i]; return s; }",
    "mix": "void mix(unsigned char* to, const unsigned char* from, unsigned long n) { for (unsigned long i = 0; i < n; ++i) to[i] = from[i] ^ 90; }",
    "most": "int most(const short* p, int n) { short m = -32768; for (int i = 0; i < n; ++i) m = p[i] > m ? p[i] : m; return m; }",
    "matrix": "void matrix(const double* a, const double* b, double* c, int n) { for (int i = 0; i < n; ++i) for (int k = 0; k < n; ++k)"
              " for (int j = 0; j < n; ++j) c[i * n + j] += a[i * n + k] * b[k * n + j]; }",
}
VECTOR = re.compile(r"^\s+v?(p(add|sub|mul|xor|max|min|or|and|cmp)\w*|(add|mul|sub|max|xor|and)p[sd]|movdq[ua]|movup[sd]|movap[sd])\s", re.M)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--plugin", required=True)
    arguments = parser.parse_args()
    compiler = [*shlex.split(arguments.compiler), "-O3", "-x", "c", "-S", "-fno-asynchronous-unwind-tables"]
    flags = shlex.split((pathlib.Path(arguments.plugin) / "compile.flags").read_text())
    faults = 0
    with tempfile.TemporaryDirectory() as temporary:
        source, out = pathlib.Path(temporary) / "kernel.c", pathlib.Path(temporary) / "kernel.s"
        for name, text in KERNELS.items():
            source.write_text(text)
            counts = []
            for options in ([], flags):
                subprocess.run([*compiler, *options, source, "-o", out], check=True)
                assembly = out.read_text()
                counts.append(len(VECTOR.findall(assembly)))
            checks = len(re.findall(r"call\w*\s+asio_pulse_", assembly))
            good = counts[1] >= counts[0] > 0 and checks > 0
            print(f"{name}: {counts[0]} vector instructions without checks, {counts[1]} with {checks} checks: {'good' if good else 'FAILED'}")
            faults += not good
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
