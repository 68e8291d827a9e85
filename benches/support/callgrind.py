# SPDX-License-Identifier: BSL-1.0
"""Instructions for each operation, counted by callgrind: ASIO_PULSE_DISABLE compared with stock."""

import re
import subprocess
import tempfile

import common

CASES = ["post_hint_1", "post", "co_await_post", "strand_post", "any_strand_post", "ping_pong"]
FEW, MANY = 1_000, 9_000


def instructions(program, case, count, *mode):
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", program, case,
             str(count), "1", *mode], capture_output=True, text=True)
    total = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or not total:
        common.fail(f"callgrind {program} {case}:\n{done.stdout}{done.stderr}")
    return int(total.group(1))


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
            each[arm] = (instructions(program, case, MANY, *mode) -
                         instructions(program, case, FEW, *mode)) / (MANY - FEW)
        rows.append([case, *(f"{each[arm]:.2f}" for arm in ("stock", "disabled")),
                     "yes" if abs(each["stock"] - each["disabled"]) < 0.1 else "NO",
                     f"{each['off']:.2f}"])
    common.progress()
    text = (f"Instructions per operation: the difference of runs of {MANY} and {FEW} operations.\n\n"
            + common.table(["operation", "stock", "ASIO_PULSE_DISABLE", "equal",
                            "pulse, switched off"], rows))
    common.publish(args, "callgrind", text)


if __name__ == "__main__":
    main()
