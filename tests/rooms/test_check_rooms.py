#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Checks that check_rooms.py finds each kind of fault, and nothing in a tree without faults."""
import pathlib
import tempfile
import unittest

import check_rooms

TABLE = """# comment
low
  is    what all stand on
  in    timing/
middle
  in    hooks/
  uses  low
high
  is    what stands
        on both
  in    asio_pulse/src/high/ asio_pulse/include/
  uses  low middle
  boost asio
"""
PUBLIC = "asio_pulse/include/asio_pulse"
LINES = "int a;\n" * 100
TREE = {
    "timing/include/asio_pulse/timing/clock.hpp": LINES,
    "timing/src/clock.cpp": "#include <asio_pulse/timing/clock.hpp>\n",
    "hooks/include/asio_pulse/hooks/path.hpp": "#include <asio_pulse/timing/clock.hpp>\n",
    "bpf/main.cpp": LINES * 20,
    f"{PUBLIC}/context.hpp": "#include <asio_pulse/detail/core.hpp>\n#include <boost/asio/post.hpp>\n",
    f"{PUBLIC}/detail/core.hpp": "#include <asio_pulse/hooks/path.hpp>\n",
    "asio_pulse/src/high/core.cpp": '#include "own.hpp"\n#include <asio_pulse/detail/core.hpp>\n',
    "asio_pulse/src/high/own.hpp": "#include <vector>\n  #  include <asio_pulse/timing/clock.hpp>\n",
}


class CheckRooms(unittest.TestCase):
    def faults(self, tree=None, table=TABLE + "other\n  in    bpf/\n", page=None):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name, text in {**TREE, **(tree or {})}.items():
                if text is None:
                    continue
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            (root / check_rooms.TABLE).write_text(table, encoding="utf-8")
            rooms = check_rooms.read_table(table)
            own = check_rooms.Tree(root, rooms).table()
            begin, end = check_rooms.MARKS
            (root / check_rooms.PAGE).write_text(page if page is not None else begin + own + end,
                                                 encoding="utf-8")
            # The largest room is the one that no test is about.
            return [f for f in check_rooms.check(root)[0] if not f.startswith("other has")]

    def expect(self, part, **given):
        found = self.faults(**given)
        self.assertEqual(len(found), 1, found)
        self.assertIn(part, found[0])

    def test_a_tree_without_fault(self):
        self.assertEqual(self.faults(), [])

    def test_an_arrow_back_up(self):
        self.expect("hooks/src/a.cpp:2: middle may not use high",
                    tree={"hooks/src/a.cpp": "\n#include <asio_pulse/context.hpp>\n"})

    def test_an_arrow_by_a_name_alone(self):
        self.expect("timing/src/b.cpp:1: low may not use high", tree={"timing/src/b.cpp": '#include "own.hpp"\n'})

    def test_a_boost_library_that_is_not_named(self):
        self.expect("middle may not include <boost/json.hpp>",
                    tree={"hooks/src/a.cpp": "#include <boost/json.hpp>\n"})

    def test_which_boost_it_is(self):
        self.assertEqual(self.faults(tree={"hooks/src/a.cpp": "#include <boost/version.hpp>\n"}), [])

    def test_an_arrow_that_nothing_needs(self):
        self.expect("nothing in high includes a header of low", tree={"asio_pulse/src/high/own.hpp": "\n"})

    def test_a_boost_library_that_nothing_needs(self):
        self.expect("nothing in high includes Boost's asio",
                    tree={f"{PUBLIC}/context.hpp": "#include <asio_pulse/detail/core.hpp>\n"})

    def test_a_public_header_that_includes_a_private_one(self):
        self.expect("is not installed", tree={f"{PUBLIC}/a.hpp": '#include "own.hpp"\n'})

    def test_a_header_of_ours_that_is_not_there(self):
        self.expect("is no header of a module", tree={"timing/src/a.cpp": "#include <asio_pulse/gone.hpp>\n"})

    def test_a_detail_header_that_no_public_one_reaches(self):
        self.expect("detail/alone.hpp: no public header reaches it", tree={f"{PUBLIC}/detail/alone.hpp": "\n"})

    def test_a_file_in_no_room(self):
        self.expect("asio_pulse/src/new/a.cpp: in no room", tree={"asio_pulse/src/new/a.cpp": "\n"})

    def test_a_name_that_two_headers_have(self):
        self.expect("is the name of 2 headers",
                    tree={"asio_pulse/src/high/deep/own.hpp": "\n",
                          "asio_pulse/src/high/below/a.cpp": '#include "own.hpp"\n'})

    def test_a_circle(self):
        table = TABLE.replace("  in    timing/\n", "  in    timing/\n  uses  high\n") + "other\n  in    bpf/\n"
        self.expect("low uses high, which is no room that stands before it", table=table,
                    tree={"timing/src/a.cpp": "#include <asio_pulse/context.hpp>\n"})

    def test_a_room_with_more_than_a_fifth(self):
        found = self.faults(tree={"timing/src/a.cpp": LINES * 10})
        self.assertEqual(len(found), 1, found)
        self.assertIn("low has 1101 of ", found[0])

    def test_comments_are_no_code(self):
        self.assertEqual(self.faults(tree={"timing/src/a.cpp": "// a\n" * 1000 + "/* b\n" * 1000 + "*/"}), [])

    def test_a_page_that_tells_of_another_tree(self):
        begin, end = check_rooms.MARKS
        self.expect("is not what", page=begin + "| room |\n" + end)
        self.expect("has no lines", page="nothing")

    def test_a_table_that_is_none(self):
        for line in ("  in", "  is", "  goes  low", "Low", "   timing/"):
            with self.assertRaises(SystemExit, msg=line):
                check_rooms.read_table(line + "\n")

    def test_the_printed_table(self):
        with tempfile.TemporaryDirectory() as folder:
            table = check_rooms.Tree(pathlib.Path(folder), check_rooms.read_table(TABLE)).table()
        self.assertIn("| `high` | what stands on both | low, middle |\n| `middle` |  | low |\n", table)
        self.assertIn("| `low` | what all stand on | nothing |", table)


if __name__ == "__main__":
    unittest.main()
