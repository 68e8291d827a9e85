#!/usr/bin/env python3
"""Compiles the programs in cases/ with and without automatic checkpoints, and compares what they print.

usage: run_cases.py --compiler COMPILER --plugin FOLDER [--kind KIND] [--options "-O2"] [--expected FOLDER] CASE...

The plugin's FOLDER is what build_plugin made for this compiler. `--expected`: where the output without checks is kept, which is the same
for all compilers; without it each run compiles the program twice. A program with checks calls a hook at every check (cases/hooked.h), which
changes all that a callee may change; the program's output must be that of the program without checks, and the hook must have
been called at least as often as the program demands.

KIND: plain, lto, thinlto, address, undefined, thread
"""
import argparse
import hashlib
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
KINDS = {
    "plain": [],
    "lto": ["-flto"],
    "thinlto": ["-flto=thin"],
    "address": ["-fsanitize=address"],
    "undefined": ["-fsanitize=undefined", "-fno-sanitize=signed-integer-overflow", "-fno-sanitize-recover=undefined"],
    "thread": ["-fsanitize=thread"],
}


class Fault(Exception):
    pass


def run(command, what, timeout=600):
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise Fault(f"{what}: exit status {done.returncode}\n  {shlex.join(map(str, command))}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}")
    return done


class Build:
    """One compiler with one set of options, with or without checks."""

    def __init__(self, arguments, work, checked, list_file):
        self.compiler = shlex.split(arguments.compiler)
        self.work = work
        self.kind = arguments.kind
        self.checked = checked
        self.clang = "clang" in self.compiler[0]
        self.options = [*shlex.split(arguments.options), *KINDS[arguments.kind], "-w", f"-I{ROOT}/asio_pulse/include"]
        # Each test of these programs says how often it is checked, which a hook that runs beside a sanitizer's own needs not change.
        if arguments.kind in ("address", "thread"):
            self.options += ["-DHOOKED_NO_SWITCH"]  # they follow stacks that are announced to them
        self.link = []
        if arguments.kind in ("lto", "thinlto") and self.clang:
            version = re.search(r"-[0-9]+$", self.compiler[0])  # the linker reads no other version's bitcode
            self.link += ["-fuse-ld=lld" + (version[0] if version else "")]
        if checked:
            flags = shlex.split((pathlib.Path(arguments.plugin) / "compile.flags").read_text())
            link = "link_lto.flags" if "lto" in arguments.kind else "link.flags"
            self.options += ["-DCHECKED", *flags]
            if list_file and self.clang:
                self.options += ["-mllvm", f"-asio-pulse-checkpoint-list={list_file}"]
            elif list_file:
                self.options += [f"-fplugin-arg-asio_pulse_checkpoints-list={list_file}"]
            # In the order of a command line: the libraries come last.
            self.link += shlex.split((pathlib.Path(arguments.plugin) / link).read_text())
            if list_file and not self.clang and arguments.kind == "lto":  # GCC's plugin works when it links
                self.link.insert(1, f"-fplugin-arg-asio_pulse_checkpoints-list={list_file}")

    def language(self, source):
        return ["-x", "c", "-std=gnu11"] if source.suffix == ".c" else ["-x", "c++", "-std=c++20"]

    def compile(self, source, name, *more):
        out = self.work / f"{name}_{'checked' if self.checked else 'plain'}.o"
        run([*self.compiler, *self.options, *more, *self.language(source), "-c", source, "-o", out], f"compiling {source.name}")
        return out

    def program(self, objects, name, *more):
        out = self.work / f"{name}_{'checked' if self.checked else 'plain'}"
        sanitizer = [o for o in self.options if o.startswith(("-f", "-O")) and not o.startswith(("-fplugin-arg", "-fpass", "-fplugin"))]
        run([*self.compiler, *sanitizer, *objects, *more, "-pthread", "-rdynamic", *self.link, "-o", out], f"linking {name}")
        return out

    def build(self, case):
        """Returns the command that runs the case."""
        source = next(p for p in (HERE / "cases").glob(f"{case}.c*"))
        more = ["-fno-omit-frame-pointer"] if case == "stack" else []
        if case != "library":
            return [self.program([self.compile(source, case, *more)], case)]
        libraries = []
        for name in ("linked", "loaded"):
            obj = self.compile(source, name, "-DLIBRARY", "-fPIC")
            out = self.work / f"lib{name}_{'checked' if self.checked else 'plain'}.so"
            own = [o for o in self.options if o.startswith(("-f", "-O")) and not o.startswith(("-fplugin-arg", "-fpass", "-fplugin"))]
            run([*self.compiler, *own, "-shared", obj, *[a for a in self.link if "export-dynamic" not in a], "-o", out], f"linking {out.name}")
            libraries.append(out)
        program = self.program([self.compile(source, case)], case, libraries[0], f"-Wl,-rpath,{self.work}", "-ldl")
        return [program, libraries[1]]


def check(case, arguments, work):
    list_file = None
    if case == "left_out":
        list_file = work / "left_out.list"
        list_file.write_text("# by a pattern, by exact readable names, and by an exact symbol\nleave function *by_list*\n"
                             "leave function exactly_inlined(char const*)\nleave function exactly_inline(char const*)\n"
                             "leave function exactly_copied(char const*, unsigned int, unsigned int)\nleave function _ZL13symbol_copiedPKcjj\n"
                             "leave function exactly_the_same(char const*)\n")
    checked = run(Build(arguments, work, True, list_file).build(case), f"{case}, with checks").stdout
    sources = (HERE / "cases" / "hooked.h").read_bytes() + next((HERE / "cases").glob(f"{case}.c*")).read_bytes()
    kept = pathlib.Path(arguments.expected or work) / f"{case}_{hashlib.sha256(sources).hexdigest()[:16]}"
    if kept.exists():
        plain = kept.read_text()
    else:
        plain = run(Build(arguments, work, False, None).build(case), f"{case}, without checks").stdout
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}")
        partial.write_text(plain)
        partial.rename(kept)
    if plain != checked or not plain:
        raise Fault(f"{case}: the output differs\n--- without checks\n{plain}\n--- with checks\n{checked}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--plugin", required=True)
    parser.add_argument("--kind", choices=KINDS, default="plain")
    parser.add_argument("--options", default="-O2")
    parser.add_argument("--expected")
    parser.add_argument("cases", nargs="+")
    arguments = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as temporary:
        for case in arguments.cases:
            work = pathlib.Path(temporary) / case
            work.mkdir(parents=True, exist_ok=True)
            try:
                check(case, arguments, work)
                print(f"{case}: good")
            except (Fault, subprocess.TimeoutExpired) as fault:
                faults += 1
                print(f"{case}: FAILED: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
