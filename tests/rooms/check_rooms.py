#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Checks the #include lines of the sources against the table of rooms (asio_pulse/rooms.txt).

usage: check_rooms.py [--root FOLDER] [--print | --figures]

Prints one line a fault; exit status 1 if there are any. A fault is

  - an include of a room that the table does not let the file's room use, or of a Boost library that it does not name;
  - an entry of the table that no include needs;
  - an include that leads from an installed header to one that is not installed;
  - a header in a detail/ folder that no public header reaches;
  - a file that is in no room, and a header's name that two files have where it is included by its name alone;
  - a cycle: a room that uses one that stands after it in the table, or itself;
  - a room with more than a fifth of all code;
  - a table in ARCHITECTURE.md, between the two lines <!-- rooms --> and <!-- /rooms -->, that is not what --print
    prints.
"""
import argparse
import collections
import pathlib
import re
import sys

TABLE = "asio_pulse/rooms.txt"
PAGE = "ARCHITECTURE.md"
MARKS = ("<!-- rooms -->\n", "<!-- /rooms -->\n")
# The modules whose sources are checked.
MODULES = ("timing", "hooks", "asio_pulse", "bpf")
OTHERS = ("asio_pulse/examples/",)
SUFFIXES = (".hpp", ".h", ".cpp", ".c")
LARGEST_SHARE = 0.2
# Of Boost: which one it is, and what the compiler can do.
EVERYWHERE = ("config", "version")

INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')


class Room:
    def __init__(self, name):
        self.name = name
        self.is_ = ""
        self.places = []
        self.uses = []
        self.boost = []
        self.code = 0


def expanded(place):
    """`a/{b,c}.hpp` stands for `a/b.hpp` and `a/c.hpp`."""
    found = re.fullmatch(r"([^{]*)\{([^}]*)\}(.*)", place)
    return [found[1] + each + found[3] for each in found[2].split(",")] if found else [place]


def read_table(text):
    rooms = {}
    room = key = None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if re.fullmatch(r"[a-z_]+", line):
            room = rooms.setdefault(line, Room(line))
            key = None
            continue
        found = re.fullmatch(r"  (is|in|uses|boost) +(.+)|   +(.+)", line)
        if not found or room is None or (found[3] and key is None):
            raise SystemExit(f"{TABLE}:{number}: neither a room nor a line of one: {line}")
        key = found[1] or key
        words = (found[2] or found[3]).strip()
        if key == "is":
            room.is_ = f"{room.is_} {words}".strip()
        elif key == "in":
            for place in words.split():
                room.places += expanded(place)
        elif key == "uses":
            room.uses += words.split()
        else:
            room.boost += words.split()
    return rooms


def code_lines(text):
    """Lines that hold something else than a comment."""
    text = re.sub(r"/\*.*?\*/", lambda m: "\n" * m[0].count("\n"), text, flags=re.S)
    return sum(1 for line in text.splitlines() if line.strip() and not line.strip().startswith("//"))


class Tree:
    def __init__(self, root, rooms):
        self.rooms = rooms
        self.text = {}
        self.room_of = {}
        self.public = {}  # by how it is included: <asio_pulse/...>
        self.by_name = collections.defaultdict(list)
        for module in MODULES:
            for path in sorted((root / module).rglob("*")):
                name = path.relative_to(root).as_posix()
                if path.suffix in SUFFIXES and not name.startswith(OTHERS):
                    self.text[name] = path.read_text(encoding="utf-8")
        for name in self.text:
            self.by_name[name.rsplit("/", 1)[1]].append(name)
            if (at := name.find("/include/")) >= 0:
                self.public[name[at + len("/include/"):]] = name
            room = self.place(name)
            if room is not None:
                self.room_of[name] = room
                room.code += code_lines(self.text[name])

    def place(self, name):
        """The room with the longest place that the file is in."""
        best = None
        for room in self.rooms.values():
            for place in room.places:
                if name == place or (place.endswith("/") and name.startswith(place)):
                    if best is None or len(place) > len(best[0]):
                        best = (place, room)
        return best[1] if best else None

    def includes(self, name):
        """Pairs of a line's number and what it includes: (file or None, as written, quoted)."""
        for number, line in enumerate(self.text[name].splitlines(), 1):
            if not (found := INCLUDE.match(line)):
                continue
            written = found[2]
            if found[1] == "<":
                yield number, self.public.get(written), written, False
                continue
            folder = name.rsplit("/", 1)[0]
            beside = f"{folder}/{written}"
            if beside in self.text:
                yield number, beside, written, True
            else:
                named = self.by_name.get(written.rsplit("/", 1)[-1], [])
                yield number, named[0] if named else None, written, True

    def faults(self):
        for name in self.text:
            if name not in self.room_of:
                yield f"{name}: in no room of {TABLE}"
        used = set()
        for name, room in self.room_of.items():
            installed = "/include/" in name
            for number, target, written, quoted in self.includes(name):
                where = f"{name}:{number}"
                boost = re.match(r"boost/(\w+)", written)
                if boost and boost[1] not in EVERYWHERE:
                    used.add((room.name, "boost/" + boost[1]))
                    if boost[1] not in room.boost:
                        yield f"{where}: {room.name} may not include <{written}>"
                if target is None:
                    if written.startswith("asio_pulse/"):
                        yield f"{where}: <{written}> is no header of a module"
                    continue
                if quoted and len(self.by_name[written.rsplit("/", 1)[-1]]) > 1 and \
                        name.rsplit("/", 1)[0] != target.rsplit("/", 1)[0]:
                    yield f"{where}: \"{written}\" is the name of {len(self.by_name[written])} headers"
                if installed and "/include/" not in target:
                    yield f"{where}: an installed header includes \"{written}\", which is not installed"
                other = self.room_of.get(target)
                if other is None or other is room:
                    continue
                used.add((room.name, other.name))
                if other.name not in room.uses:
                    yield f"{where}: {room.name} may not use {other.name} (\"{written}\")"
        before = []
        for room in self.rooms.values():
            for other in room.uses:
                if other not in before:
                    yield f"{TABLE}: {room.name} uses {other}, which is no room that stands before it"
                if (room.name, other) not in used:
                    yield f"{TABLE}: nothing in {room.name} includes a header of {other}"
            for library in room.boost:
                if (room.name, "boost/" + library) not in used:
                    yield f"{TABLE}: nothing in {room.name} includes Boost's {library}"
            before.append(room.name)
        yield from self.unreached()
        code = sum(room.code for room in self.rooms.values())
        for room in self.rooms.values():
            if room.code > LARGEST_SHARE * code:
                yield f"{room.name} has {room.code} of {code} lines of code: more than a fifth"

    def unreached(self):
        todo = [name for name in self.public.values() if "/detail/" not in name]
        seen = set(todo)
        while todo:
            for _, target, _, _ in self.includes(todo.pop()):
                if target is not None and target not in seen:
                    seen.add(target)
                    todo.append(target)
        for name in self.public.values():
            if name not in seen:
                yield f"{name}: no public header reaches it, so it need not be installed"

    def table(self):
        lines = ["| room | what is in it | uses |", "|---|---|---|"]
        for room in reversed(self.rooms.values()):
            lines.append(f"| `{room.name}` | {room.is_} | {', '.join(room.uses) or 'nothing'} |")
        return "\n".join(lines) + "\n"

    def figures(self):
        code = sum(room.code for room in self.rooms.values())
        for room in sorted(self.rooms.values(), key=lambda room: -room.code):
            yield f"{room.name:<12} {room.code:>6} lines {100 * room.code / code:5.1f} %"
        yield f"{len(self.rooms)} rooms, {sum(len(room.uses) for room in self.rooms.values())} arrows, {code} lines"


def page_faults(page, table):
    begin, end = (page.find(mark) for mark in MARKS)
    if begin < 0 or end < begin:
        yield f"{PAGE}: has no lines {MARKS[0].strip()} and {MARKS[1].strip()}"
    elif page[begin + len(MARKS[0]):end] != table:
        yield f"{PAGE}: the table of rooms is not what check_rooms.py --print prints"


def check(root):
    rooms = read_table((root / TABLE).read_text(encoding="utf-8"))
    tree = Tree(root, rooms)
    faults = list(tree.faults())
    faults += page_faults((root / PAGE).read_text(encoding="utf-8"), tree.table())
    return faults, tree


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[2])
    parser.add_argument("--print", action="store_true", help="print the table for ARCHITECTURE.md")
    parser.add_argument("--figures", action="store_true", help="print how much code each room has")
    arguments = parser.parse_args()
    faults, tree = check(arguments.root)
    if arguments.print or arguments.figures:
        print(tree.table() if arguments.print else "\n".join(tree.figures()) + "\n", end="")
        return 0
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
