#!/usr/bin/env python3
"""The tests of Boost.Regex, Boost.JSON and Boost.Container pass when tests and libraries are compiled with checks.

usage: run_boost.py --compiler COMPILER --plugin FOLDER --boost INCLUDE_FOLDER --sources FOLDER [--options "-O2"] [--jobs N]
                    [--only PATTERN] SUITE...

SUITE: regex, json, container. `--sources` is the folder that tests/compat/fetch_boost has made of a Boost source package, `--boost` the
headers of the same version. The hook of cases/hooked.h runs at every check and leaves nothing as it was that a callee may change. A program
that fails is compiled without checks, too: what fails then as well is no fault of the checks, and is printed as left out. At
most one in twenty may be left out. Each suite must have taken some checks.
"""
import argparse
import concurrent.futures
import fnmatch
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


class Failed(Exception):
    pass


def run(command, what, timeout):
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, errors="replace", timeout=timeout, check=False)
    except subprocess.TimeoutExpired as late:
        raise Failed(f"{what}: not done after {timeout} s") from late
    if done.returncode != 0:
        raise Failed(f"{what}: exit status {done.returncode}\n  {shlex.join(map(str, command))}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}")
    return done


class Suite:
    """One suite, with or without checks. Sources that several programs share are compiled once."""

    def __init__(self, arguments, name, work, checked):
        self.tests = arguments.sources / "libs" / name / "test"
        self.work = work / f"{name}_{'checked' if checked else 'plain'}"
        self.work.mkdir()
        self.checked = checked
        self.compiler = [*shlex.split(arguments.compiler), *shlex.split(arguments.options), "-w", f"-I{arguments.boost}"]
        self.compile_flags = []
        self.link_flags = ["-pthread"]
        if checked:
            self.compile_flags = shlex.split((arguments.plugin / "compile.flags").read_text())
            self.link_flags += ["-rdynamic", *shlex.split((arguments.plugin / "link.flags").read_text())]
        self.common_flags = []
        self.common = []
        if checked:  # the hook itself is compiled without checks
            out = self.work / "start.o"
            run([*self.compiler, "-DCHECKED", f"-I{ROOT}/asio_pulse/include", "-x", "c", "-std=gnu11", "-c", HERE / "hook_everywhere.c", "-o", out],
                "compiling the hook", 120)
            self.common.append(out)
        getattr(self, name)(arguments)

    def regex(self, arguments):
        regress = [p for p in sorted((self.tests / "regress").glob("*.cpp")) if p.name not in ("wmain.cpp", "test_mfc.cpp")]
        self.common_flags = [f"-I{self.tests}"]
        self.programs = {"regress": ([*regress, self.tests / "regress/wmain.cpp"], [])}
        for path in ("captures/captures_test.cpp", "named_subexpressions/named_subexpressions_test.cpp", "object_cache/object_cache_test.cpp",
                     "pathology/bad_expression_test.cpp", "pathology/recursion_test.cpp", "unicode/unicode_iterator_test.cpp"):
            self.programs[pathlib.Path(path).stem] = ([self.tests / path], [])

    def json(self, arguments):
        self.common_flags = [f"-I{self.tests}", "-DBOOST_ALL_NO_LIB", "-std=c++17"]
        library = self.work / "library.cpp"
        library.write_text("#include <boost/json/src.hpp>\n")
        shared = [self.compile(library), self.compile(self.tests / "main.cpp")]
        sources = re.search(r"local SOURCES =(.*?);", (self.tests / "Jamfile").read_text(), re.S)[1].split()
        self.programs = {pathlib.Path(name).stem: ([self.tests / name], shared) for name in sources}

    def container(self, arguments):
        folder = arguments.sources / "libs/container/src"
        self.common_flags = [f"-I{self.tests}", f"-I{folder}", "-DBOOST_CONTAINER_SOURCE", "-DBOOST_ALL_NO_LIB", "-std=c++17"]
        shared = [self.compile(source) for source in sorted([*folder.glob("*.cpp"), *folder.glob("alloc_lib.c")])]
        self.common_flags.remove("-DBOOST_CONTAINER_SOURCE")
        self.programs = {source.stem: ([source], shared) for source in sorted(self.tests.glob("*.cpp"))}

    def compile(self, source):
        out = self.work / f"{source.parent.name}_{source.stem}.o"
        flags = [flag for flag in self.common_flags if source.suffix != ".c" or not flag.startswith("-std=")]
        language = ["-x", "c", "-std=gnu11"] if source.suffix == ".c" else ["-x", "c++"]
        run([*self.compiler, *flags, *self.compile_flags, *language, "-c", source, "-o", out], f"compiling {source.name}", 900)
        return out

    def check(self, name):
        """Returns how often the hook was called."""
        sources, shared = self.programs[name]
        objects = [self.compile(source) for source in sources]
        program = self.work / name
        run([*self.compiler, *objects, *shared, *self.common, *self.link_flags, "-o", program], f"linking {name}", 300)
        done = run([program], f"running {name}", 900)
        for used in [*objects, program]:
            used.unlink()
        checks = re.findall(r"^checks ([0-9]+)$", done.stderr, re.M)
        if self.checked and not checks:
            raise Failed(f"{name}: did not come to its end")
        return int(checks[-1]) if checks else 0


def check_suite(arguments, name, work):
    suite = Suite(arguments, name, work, True)
    plain = None
    wanted = [program for program in suite.programs if fnmatch.fnmatch(program, arguments.only)]
    good = checks = 0
    faults = []
    left_out = []

    def one(program):
        try:
            return suite.check(program), None
        except Failed as failed:
            return 0, failed

    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        results = list(zip(wanted, pool.map(one, wanted)))
    for program, (calls, failed) in results:
        checks += calls
        if failed is None:
            good += 1
            continue
        try:
            plain = plain or Suite(arguments, name, work, False)
            plain.check(program)
            faults.append(f"{failed}")
        except Failed as also:
            left_out.append(program)
            print(f"{name}: {program} is left out, since it fails without checks, too: {str(also).splitlines()[0]}")
    for fault in faults:
        print(f"{name}: FAILED: {fault}")
    print(f"{name}: {good} programs pass, {len(faults)} fail, {len(left_out)} left out; {checks} checks")
    if len(left_out) * 20 > len(wanted) or not wanted:
        print(f"{name}: FAILED: too many programs are left out")
        return False
    if checks == 0:
        print(f"{name}: FAILED: no check was taken")
        return False
    return not faults


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--plugin", required=True, type=pathlib.Path)
    parser.add_argument("--boost", required=True, type=pathlib.Path)
    parser.add_argument("--sources", required=True, type=pathlib.Path)
    parser.add_argument("--options", default="-O2")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="*")
    parser.add_argument("suites", nargs="+", choices=["regex", "json", "container"])
    arguments = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.suites:
            good = check_suite(arguments, name, pathlib.Path(temporary)) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
