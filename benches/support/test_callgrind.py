#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Tests of how callgrind.py reads profiles, and of its table of groups. Runs no program."""

import pathlib
import tempfile
import types
import unittest

import callgrind

# As callgrind writes it: names are given once, and later by their numbers. After "calls=" there is a line
# with the cost of what was called, which is counted in its own file.
PROFILE = """\
version: 1
events: Ir
fl=(1) /src/benches/poll_loops.cpp
fn=(1) main
10 100
cfi=(2) /src/asio_pulse/src/context/groups/task_groups.cpp
cfn=(2) charged
calls=3 20
11 70
+1 5
fi=(3) /src/asio_pulse/src/policies/fair_policy.hpp
30 7
* 2
fe=(1)
12 9

fl=(2)
fn=(2)
20 40
-2 1
cfi=(4) /src/asio_pulse/src/context/gate/parking.cpp
cfn=(3) set_gate
calls=1 50
21 1000

fl=(4)
fn=(3)
50 900

fl=(5) /src/asio_pulse/include/asio_pulse/detail/groups.hpp
fn=(4) weight
7 3
"""


class profiles(unittest.TestCase):
    def count(self, wanted, text=PROFILE):
        with tempfile.TemporaryDirectory() as folder:
            profile = pathlib.Path(folder) / "out"
            profile.write_text(text)
            return callgrind.in_files(profile, wanted)

    def test_lines_of_groups_are_counted_once_also_inlined_ones(self):
        self.assertEqual(self.count(callgrind.GROUP_FILES), (40 + 1) + (7 + 2) + 3)

    def test_what_groups_call_elsewhere_is_not_counted(self):
        self.assertEqual(self.count(callgrind.re.compile("parking")), 900)

    def test_a_profile_without_groups_has_none(self):
        self.assertEqual(self.count(callgrind.GROUP_FILES, "fl=(1) /src/a.cpp\nfn=(1) f\n1 5\n"), 0)


class group_table(unittest.TestCase):
    def table(self, of_groups):
        """The table, if `counted` runs cost 10 instructions an operation, `grouped` ones 14."""
        def run(_program, _case, count, mode, read):
            total = (10 if mode == ("counted",) else 14) * count
            return of_groups * count if read is files else read(total, None)

        files = object()
        kept = callgrind.run_callgrind, callgrind.of_groups
        callgrind.run_callgrind = run
        callgrind.of_groups = lambda program, case, *mode: callgrind.by_operation(
            program, case, mode, files)
        try:
            return callgrind.groups(types.SimpleNamespace(programs=pathlib.Path("/nowhere")))
        finally:
            callgrind.run_callgrind, callgrind.of_groups = kept

    def rows(self, of_groups):
        lines = self.table(of_groups).splitlines()[2:]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]

    def test_each_case_is_a_row(self):
        self.assertEqual([row[0] for row in self.rows(0)], callgrind.GROUP_CASES)

    def test_none_means_none(self):
        for row in self.rows(0):
            self.assertEqual(row[1:], ["10.00", "0.00", "yes", "14.00", "4.00"])

    def test_one_instruction_in_a_hundred_operations_is_told(self):
        for row in self.rows(0.01):
            self.assertEqual(row[2:4], ["0.01", "NO"])


if __name__ == "__main__":
    unittest.main()
