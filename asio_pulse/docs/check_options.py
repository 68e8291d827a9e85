#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Compares the tables of options.md with the headers.

usage: check_options.py [--module FOLDER]

Each structure of STRUCTURES has a section by its name, with a row for each member: the same type, the
same default, and every enumerator where it is an enumeration; a known origin. The variables of the
environment are those that the sources read. Prints one line a fault; exit status 1 if there are any.
"""
import argparse
import pathlib
import re
import sys

MODULE = pathlib.Path(__file__).resolve().parent.parent
STRUCTURES = {"options": "include/asio_pulse/options.hpp",
              "task_options": "include/asio_pulse/options.hpp",
              "group_options": "include/asio_pulse/options.hpp",
              "admission_policy": "include/asio_pulse/options.hpp",
              "guard_options": "include/asio_pulse/beast.hpp",
              "tier_policy": "include/asio_pulse/tier.hpp",
              "prometheus_options": "prometheus/include/asio_pulse/prometheus.hpp"}
# clock_kind is another module's.
ENUMERATIONS = ("include/asio_pulse/options.hpp", "include/asio_pulse/hints.hpp",
                "../timing/include/asio_pulse/timing/clock.hpp")
ORIGINS = ("measured", "upstream's", "guess", "neutral")
UNITS = {"nanoseconds": "ns", "microseconds": "us", "milliseconds": "ms", "seconds": "s", "minutes": "min"}
NUMBERS = ("std::size_t", "unsigned", "int")


def without_comments(text):
    return re.sub(r"//[^\n]*", "", text)


def braced(text, start):
    """The text between the brace at or after `start` and the one that closes it."""
    begin = text.index("{", start)
    depth = 0
    for at in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[begin + 1:at]
    raise ValueError("a brace is not closed")


def kind_of(written):
    """A member's type as the tables write it."""
    written = re.sub(r"\s+", " ", written)
    if found := re.fullmatch(r"std::optional<(.+)>", written):
        written = found[1]
    if written.startswith("std::function<"):
        return "callback"
    if written.startswith("std::chrono::"):
        return "duration"
    if written in NUMBERS:
        return "number"
    return {"std::string": "text", "std::vector<std::string>": "texts"}.get(written, written.split("::")[-1])


def default_of(written):
    """A default as the tables write it: `std::chrono::milliseconds{5}` is `5 ms`."""
    text = re.sub(r"\s+", " ", written.strip())

    def duration(found):
        return "0" if int(found[2]) == 0 else f"{found[2]} {UNITS[found[1]]}"

    text = re.sub(r"std::chrono::(\w+)\{(\d+)\}", duration, text)
    text = re.sub(r"std::size_t\{(\d+)\}", r"\1", text)
    if found := re.fullmatch(r"(\d+) << (\d+)", text):
        return str(int(found[1]) << int(found[2]))
    if text in ("std::nullopt", "{}"):
        return "{}"
    return re.sub(r"^(?:\w+::)+(\w+)$", r"\1", text)


def members(header, name):
    """The members of a structure: name, (type, default)."""
    text = without_comments(header)
    start = re.search(rf"^struct {name} \{{", text, re.MULTILINE)
    if not start:
        raise ValueError(f"there is no struct {name}")
    result = {}
    for statement in re.split(r";\s*(?:\n|$)", braced(text, start.start())):
        statement = statement.strip()
        if not statement or "operator" in statement or re.match(r"(\[\[nodiscard\]\] )?static ", statement):
            continue
        found = re.fullmatch(r"(.+?)\s+(\w+)\s*(?:=\s*(.+)|(\{.*\}))", statement, re.DOTALL)
        if not found:
            raise ValueError(f"{name} has a member without a default, or one that is not understood: {statement}")
        result[found[2]] = (kind_of(found[1]), default_of(found[3] or found[4]))
    return result


def enumerations(texts):
    """Enumerators by the enumeration's name."""
    result = {}
    for text in map(without_comments, texts):
        for found in re.finditer(r"^enum class (\w+)", text, re.MULTILINE):
            result[found[1]] = re.findall(r"(\w+)\s*(?:=[^,]*)?(?:,|$)", braced(text, found.end()).strip())
    return result


def rows(document, section):
    """The rows of a section's table, each as its cells, by what is in the first one."""
    found = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", document, re.MULTILINE | re.DOTALL)
    if not found:
        return None
    result = {}
    for line in re.findall(r"^\| `.*\|$", found[1], re.MULTILINE):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        result.setdefault(cells[0].strip("`"), []).append(cells)
    return result


def table_faults(name, expected, table, enums):
    """The differences between a structure's table and the header."""
    for option in expected.keys() - table.keys():
        yield f"{name}.{option} is not described"
    for option, found in table.items():
        if option not in expected:
            yield f"{name}.{option} is described, and there is no such option"
            continue
        if len(found) != 1 or len(found[0]) != 6:
            yield f"{name}.{option} has {len(found)} rows of {len(found[0])} cells; must be one of 6"
            continue
        _, kind, default, allowed, what, origin = found[0]
        real_kind, real_default = expected[option]
        if kind != real_kind:
            yield f"{name}.{option}: the type is {real_kind}, not {kind}"
        if default != f"`{real_default}`":
            yield f"{name}.{option}: the default is `{real_default}`, not {default}"
        if not what or not (allowed or kind == "bool"):
            yield f"{name}.{option} lacks its range, or what it does"
        for enumerator in enums.get(kind, ()):
            if f"`{enumerator}`" not in allowed:
                yield f"{name}.{option}: the range does not have `{enumerator}`"
        if origin.split(":")[0] not in ORIGINS:
            yield f"{name}.{option}: the origin must begin with one of {', '.join(ORIGINS)} (got {origin})"


def variable_faults(module, document):
    """Variables that the library reads and the document does not mention, and the other way round."""
    sources = [path.read_text(encoding="utf-8") for folder in ("src", "include", "../bpf/include")
               for path in (module / folder).rglob("*.h*" if "bpf" in folder else "*.?pp")]
    macros = dict(m for text in sources for m in re.findall(r'#define (\w+) "(\w+)"', text))
    read = {literal or macros.get(macro, macro) for text in sources
            for literal, macro in re.findall(r'getenv\((?:"(\w+)"|(\w+))\)', text)}
    described = set(rows(document, "Variables of the environment") or {})
    for name in sorted(read ^ described):
        yield f"{name} is {'not described' if name in read else 'described, and nothing reads it'}"


def all_faults(module, document):
    """All faults, and the number of options."""
    enums = enumerations((module / path).read_text(encoding="utf-8") for path in ENUMERATIONS)
    faults, count = [], 0
    for name, path in STRUCTURES.items():
        expected = members((module / path).read_text(encoding="utf-8"), name)
        count += len(expected)
        table = rows(document, name)
        if table is None:
            faults.append(f"there is no section {name}")
            continue
        if list(table) != list(expected) and set(table) == set(expected):
            faults.append(f"{name}: the rows are in another order than the members")
        faults += table_faults(name, expected, table, enums)
    return faults + list(variable_faults(module, document)), count


def main():
    parser = argparse.ArgumentParser(description="Holds the tables of options.md against the headers.")
    parser.add_argument("--module", type=pathlib.Path, default=MODULE)
    module = parser.parse_args().module
    try:
        faults, count = all_faults(module, (module / "docs/options.md").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for fault in faults:
        print(fault)
    print(f"{count} options, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
