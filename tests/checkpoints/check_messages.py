#!/usr/bin/env python3
"""Wrong use of automatic checkpoints ends in a sentence that says what is wrong; and the remarks say what was done.

usage: check_messages.py --compiler COMPILER --plugin FOLDER [--other PLUGIN_FOLDER_OF_ANOTHER_VERSION]
"""
import argparse
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SOURCE = """
#include <asio_pulse/auto_checkpoint.h>
ASIO_PULSE_NO_AUTO_CHECKPOINTS int left_by_attribute(const char* p) { int n = 0; while (*p++) n += *p; return n; }
__attribute__((noinline)) int left_by_list(const char* p) { int n = 0; while (*p++) n ^= *p; return n; }
static int left_by_name(const char* p, int by) { int n = 0; while (*p++) n = n * by + *p; return n; }
__attribute__((noinline)) int counted(const int* p, int n) { int s = 0; for (int i = 0; i < n; ++i) s = s * 3 + p[i]; return s; }
__attribute__((noinline)) int uncounted(const char* p) { int n = 0; while (*p++) n = n * 3 + *p; return n; }
__attribute__((noinline)) int small(const int* p) { int s = 0; for (int i = 0; i < 40; ++i) s = s * 3 + p[i]; return s; }
__attribute__((noinline)) int recursive(int n) { return n < 2 ? n : recursive(n - 1) ^ recursive(n - 2); }
int main(int argc, char** argv) {
  int a[40] = {argc};
  return left_by_attribute(argv[0]) + left_by_list(argv[0]) + left_by_name(argv[0], 7) + counted(a, argc * 10) + uncounted(argv[0]) + small(a) + recursive(argc);
}
"""


def run(command):
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


class Checks:
    def __init__(self, arguments, work):
        self.compiler = shlex.split(arguments.compiler)
        self.clang = "clang" in self.compiler[0]
        self.plugin = pathlib.Path(arguments.plugin)
        self.flags = shlex.split((self.plugin / "compile.flags").read_text())
        self.work = work
        self.faults = 0
        self.source = work / "source.cpp"
        self.source.write_text(SOURCE)

    def argument(self, key, value):
        if self.clang:
            return ["-mllvm", f"-asio-pulse-checkpoint-{key}={value}"]
        return [f"-fplugin-arg-asio_pulse_checkpoints-{key}={value}"]

    def compile(self, *more, flags=None):
        flags = self.flags if flags is None else flags
        command = [*self.compiler, "-O2", f"-I{ROOT}/asio_pulse/include", *flags, *more, "-c", self.source, "-o", self.work / "source.o"]
        return run(command)

    def expect(self, what, done, good, *patterns):
        text = done.stdout + done.stderr
        missing = [p for p in patterns if not re.search(p, text)]
        if (done.returncode == 0) == good and not missing:
            print(f"{what}: good")
            return
        self.faults += 1
        print(f"{what}: FAILED: exit status {done.returncode}, missing {missing} in\n{text[-3000:]}")

    def list_file(self, text):
        path = self.work / "functions.list"
        path.write_text(text)
        return self.argument("list", path)

    def lists(self):
        self.expect("a list that is not there", self.compile(*self.argument("list", "/nonexistent/list")), False,
                    "asio-pulse: the list of functions '/nonexistent/list' cannot be read")
        self.expect("a line that is no rule", self.compile(*self.list_file("take function a\nskip function b\n")), False,
                    "functions.list:2: 'skip function b' is not a rule; a rule is 'take' or 'leave'")
        self.expect("a function left out twice in the list", self.compile(*self.list_file("leave function f\n#\nleave function f\n")), False,
                    "functions.list:3: there is a rule for function 'f' already, in line 1")
        self.expect("a function left out by its attribute and by the list", self.compile(*self.list_file("leave function *left_by_attribute*\n")), True,
                    "left_by_attribute.*is left out twice: by its attribute, and by .*functions.list:1")
        if self.clang:
            self.expect("an unknown argument", self.compile(*self.argument("colour", "red")), False,
                        "Unknown command line argument '-asio-pulse-checkpoint-colour=red'")
        else:
            self.expect("an unknown argument", self.compile(*self.argument("colour", "red")), False,
                        "the checkpoint plugin has no argument .colour.; it has .list=FILE. and .remarks=FILE.")
            self.expect("an argument without a value", self.compile("-fplugin-arg-asio_pulse_checkpoints-list"), False,
                        "the checkpoint plugin.s argument .list. needs a file")

    def remarks(self):
        path = self.work / "remarks.txt"
        self.expect("remarks that cannot be written", self.compile(*self.argument("remarks", "/nonexistent/remarks")), False,
                    "the remarks cannot be written to ./nonexistent/remarks.")
        done = self.compile(*self.argument("remarks", path), *self.list_file("leave function *left_by_list*\n"))
        done.stdout += path.read_text() if path.exists() else ""
        self.expect("remarks", done, True, r"source.cpp:\d+: left_by_attribute\(char const\*\): left out: its attribute leaves it out",
                    r"left_by_list\(char const\*\): left out: .*functions.list:1: leave function \*left_by_list\*",
                    r"counted\(int const\*, int\): loop: strip-mined: a check every \d+ iterations",
                    r"uncounted\(char const\*\): loop: a counter in a register, \d+ units every \d iterations",
                    r"small\(int const\*\): loop: none: all its work is small \(\d+ units\)",
                    r"recursive\(int\): in a cycle of calls")
        # Nothing but the list keeps the compiler from inlining it, and from a copy for its constant argument.
        path.unlink(missing_ok=True)
        done = self.compile(*self.argument("remarks", path), *self.list_file("leave function left_by_name(char const*, int)\n"))
        done.stdout += path.read_text() if path.exists() else ""
        self.expect("remarks about a function that is left out by its exact name", done, True,
                    r"left_by_name\(char const\*, int\).*: left out: .*functions.list:1: leave function left_by_name\(char const\*, int\)")

    def links(self):
        sentence = "ERROR_link_asio_pulse_checkpoint_stub_to_code_that_was_compiled_with_checkpoints"
        done = self.compile("-fPIC")
        if done.returncode != 0:
            self.expect("compiling", done, True)
            return
        linkers = ["bfd"] + (["lld"] if self.clang else [])
        for linker in linkers:
            for kind in ([], ["-shared"]):
                command = [*self.compiler, f"-fuse-ld={linker}", *kind, self.work / "source.o", "-o", self.work / "a.out"]
                done = run(command)
                self.expect(f"no stub ({linker} {' '.join(kind)})", done, False, sentence)

    def versions(self, other):
        for folder in other:
            flags = shlex.split((pathlib.Path(folder) / "compile.flags").read_text())
            self.expect(f"a plugin of another version ({folder})", self.compile(flags=flags), False,
                        r"this checkpoint plugin was built for (clang|GCC) .*, and the compiler that loads it is .*; build it")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--plugin", required=True)
    parser.add_argument("--other", action="append", default=[])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        checks = Checks(arguments, pathlib.Path(work))
        try:
            checks.lists()
            checks.remarks()
            checks.links()
            checks.versions(arguments.other)
        except subprocess.TimeoutExpired as fault:
            checks.faults += 1
            print(f"FAILED: {fault}")
    return 1 if checks.faults else 0


if __name__ == "__main__":
    sys.exit(main())
