# SPDX-License-Identifier: BSL-1.0
"""Instructions for each operation, counted by callgrind: ASIO_PULSE_DISABLE compared with stock, and
what groups add."""

import pathlib
import re
import subprocess
import tempfile

import common

CASES = ["post_hint_1", "post", "co_await_post", "strand_post", "any_strand_post", "ping_pong"]
GROUP_CASES = ["post_hint_1", "post_16_tasks", "co_await_post", "ping_pong"]
FEW, MANY = 1_000, 9_000


# The code that only groups and policies need.
GROUP_FILES = re.compile(r"/(task_groups|group_shares|group_queue|group_cost|group_slot|load_soon|overload|"
                         r"policy_turns|turn_policy|fair_policy|priority_policy|deadline_policy|"
                         r"detail/groups)\.[ch]pp$")


def run_callgrind(program, case, count, mode, read):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out"
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", program, case,
             str(count), "1", *mode], capture_output=True, text=True)
        total = re.search(r"Collected : (\d+)", done.stderr)
        if done.returncode != 0 or not total:
            common.fail(f"callgrind {program} {case}:\n{done.stdout}{done.stderr}")
        return read(int(total.group(1)), out)


def in_files(profile, wanted):
    """The instructions of lines in these files, inlined or not."""
    names, here, after_calls, result = {}, "", False, 0
    for line in profile.read_text().splitlines():
        of = re.match(r"(fl|fi|fe)=\((\d+)\)(?: (.*))?$", line)
        if of:
            if of.group(3):
                names[of.group(2)] = of.group(3)
            here = names[of.group(2)]
        elif re.match(r"(cfi|cfl)=\((\d+)\) (.*)$", line):
            number, name = re.match(r"c..=\((\d+)\) (.*)$", line).groups()
            names[number] = name
        elif line.startswith("calls="):
            after_calls = True  # the next line has what was called, which is counted where it is
        elif re.match(r"[+*\-\d]", line):
            if not after_calls and wanted.search(here):
                result += int(line.split()[1])
            after_calls = False
    return result


def by_operation(program, case, mode, read):
    """The difference of a long and a short run."""
    many, few = (run_callgrind(program, case, count, mode, read) for count in (MANY, FEW))
    return (many - few) / (MANY - FEW)


def instructions(program, case, *mode):
    return by_operation(program, case, mode, lambda total, _: total)


def of_groups(program, case, *mode):
    return by_operation(program, case, mode, lambda _, out: in_files(out, GROUP_FILES))


def groups(args):
    program = str(args.programs / "poll_count_pulse")
    rows = []
    for case in GROUP_CASES:
        common.progress(f"callgrind {case} in groups")
        none, grouped = (instructions(program, case, mode) for mode in ("counted", "grouped"))
        theirs = of_groups(program, case, "counted")
        rows.append([case, f"{none:.2f}", f"{theirs:.2f}", "yes" if abs(theirs) < 0.005 else "NO",
                     f"{grouped:.2f}", f"{grouped - none:.2f}"])
    common.progress()
    return common.table(["operation", "no groups", "of these for groups", "none", "in a group",
                         "added"], rows)


def main():
    args = common.arguments(__doc__)
    rows = []
    for case in CASES:
        each = {}
        # asio-pulse is not switched on here: valgrind has no rseq, so it would use another clock.
        for arm in ("stock", "disabled", "off"):
            common.progress(f"callgrind {case} {arm}")
            program = str(args.programs / f"poll_count_{'pulse' if arm == 'off' else arm}")
            mode = ["off"] if arm == "off" else []
            each[arm] = instructions(program, case, *mode)
        rows.append([case, *(f"{each[arm]:.2f}" for arm in ("stock", "disabled")),
                     "yes" if abs(each["stock"] - each["disabled"]) < 0.1 else "NO",
                     f"{each['off']:.2f}"])
    common.progress()
    text = (f"Instructions per operation: the difference of runs of {MANY} and {FEW} operations.\n\n"
            + common.table(["operation", "stock", "ASIO_PULSE_DISABLE", "equal",
                            "pulse, switched off"], rows)
            + "\n\nWith asio-pulse, measuring with the steady clock, which valgrind has: a task in no "
              "group, what of that\nis in the files of groups and policies, and a task in a group.\n\n"
            + groups(args))
    common.publish(args, "callgrind", text)


if __name__ == "__main__":
    main()
