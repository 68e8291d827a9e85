#!/usr/bin/env python3
"""gdb shows the right stack at every instruction of a check's slow path, and in the hook that it calls.

usage: check_gdb.py --compiler COMPILER --plugin FOLDER [--options "-O2"]

Compiles cases/stack.cpp with checks, and runs it under gdb, which runs the first half of this file.
"""
import argparse
import pathlib
import shlex
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# The slow path, inner functions first.
STUB = ["asio_pulse_checkpoint_saved", "asio_pulse_refuel", "asio_pulse_out_of_fuel"]
MOST_STEPS = 300
# What asio_pulse_out_of_fuel and asio_pulse_checkpoint_saved have at least; fewer means that they were not stepped through.
LEAST_STEPS = 50


def inside_gdb():
    import gdb  # exists only inside gdb

    def frames():
        names, frame = [], gdb.newest_frame()
        while frame is not None:
            if frame.type() != gdb.INLINE_FRAME:
                names.append(str(frame.name()))
            frame = frame.older()
        return names

    def end(text, status):
        print(text, flush=True)
        gdb.execute("kill", to_string=True)
        gdb.execute(f"quit {status}")

    def judge(where, inner):
        """The stack is `inner`, and then the program's functions down to main, and nothing else."""
        names = frames()
        rest = names[len(inner):]
        right = names[:len(inner)] == inner and rest[:1] == ["innermost_function"] and rest[-1:] == ["main"]
        if not right or len(rest) < 3 or any(name != "middle_function" for name in rest[1:-1]):
            end(f"BAD STACK {where}: {names}\n{gdb.execute('x/2i $pc', to_string=True)}", 1)

    def run_to(place):
        """To a call of this function from a check in innermost_function."""
        stop = gdb.Breakpoint(place)
        for _ in range(1000):
            gdb.execute("continue", to_string=True)
            if "innermost_function" in frames():
                break
        stop.delete()

    def step_through(inner):
        """By instructions until the function has returned; what it calls runs at once. Returns the number of instructions."""
        for step in range(MOST_STEPS):
            judge(f"at instruction {step} of {inner[0]}", inner)
            frame = gdb.selected_frame()
            code = frame.architecture().disassemble(frame.pc())[0]["asm"]
            gdb.execute("nexti" if code.startswith("call") else "stepi", to_string=True)
            if code.startswith("ret"):
                return step + 1
        return end(f"{inner[0]} did not return within {MOST_STEPS} instructions", 1)

    gdb.execute("set pagination off")
    gdb.execute("set confirm off")
    gdb.execute("break main", to_string=True)
    gdb.execute("run", to_string=True)
    steps = 0
    for number in (2, 1, 0):
        run_to("*" + STUB[number])
        judge(f"at the start of {STUB[number]}", STUB[number:])
        if STUB[number] != "asio_pulse_refuel":
            steps += step_through(STUB[number:])
    run_to("backtrace")  # which the program's hook calls
    names = frames()
    if STUB[0] not in names or names[0] == STUB[0]:
        end(f"BAD STACK in the hook: {names}", 1)
    judge("in the hook", names[:names.index(STUB[0])] + STUB)
    end(f"{steps} instructions stepped", 0 if steps >= LEAST_STEPS else 1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--plugin", required=True)
    parser.add_argument("--options", default="-O2")
    arguments = parser.parse_args()
    plugin = pathlib.Path(arguments.plugin)
    with tempfile.TemporaryDirectory() as temporary:
        program = pathlib.Path(temporary) / "stack"
        subprocess.run([*shlex.split(arguments.compiler), *shlex.split(arguments.options), "-w", "-g", "-std=c++20", "-DCHECKED",
                        f"-I{ROOT}/asio_pulse/include", *shlex.split((plugin / "compile.flags").read_text()), HERE / "cases/stack.cpp", "-rdynamic",
                        *shlex.split((plugin / "link.flags").read_text()), "-o", program], check=True)
        done = subprocess.run(["gdb", "-batch", "-nx", "-x", __file__, program], capture_output=True, text=True, timeout=300, check=False)
    print(done.stdout[-3000:] + done.stderr[-3000:])
    return 0 if done.returncode == 0 and "instructions stepped" in done.stdout else 1


if __name__ == "__main__":
    try:
        import gdb  # noqa: F401
    except ImportError:
        sys.exit(main())
    inside_gdb()
