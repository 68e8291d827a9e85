#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Holds code in the documentation against the examples that it is taken from, which are compiled and run.

usage: check_snippets.py [--write] [FILE...]

In a Markdown file (by default all of the repository's), the code block after a line
    <!-- snippet: examples/NAME.cpp#PART -->
is what stands between the two lines "// [PART]" of that file of the module asio_pulse, moved to the left.
Prints one line a fault; exit status 1 if there are any. --write puts the examples' text there instead.
"""
import argparse
import pathlib
import re
import sys
import textwrap

MODULE = pathlib.Path(__file__).resolve().parent.parent
SNIPPET = re.compile(r"(<!-- snippet: ([^#\n]+)#(\S+) -->\n```cpp\n)(.*?)(```\n)", re.DOTALL)
MENTION = re.compile(r"^<!-- snippet:", re.MULTILINE)


def part_of(path, name):
    """The text between the marks."""
    pieces = re.split(rf"^ *// \[{re.escape(name)}\]\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if len(pieces) != 3:
        raise ValueError(f"{path.name} must have two lines \"// [{name}]\" (has {len(pieces) - 1})")
    return textwrap.dedent(pieces[1])


def compare(text, module):
    """The text as it should be, how many snippets it has, and what is wrong with it."""
    faults = []
    found = list(SNIPPET.finditer(text))
    if len(found) != len(MENTION.findall(text)):
        faults.append("a snippet's line is not followed by a block of cpp")

    def replaced(match):
        try:
            wanted = part_of(module / match[2], match[3])
        except (OSError, ValueError) as error:
            faults.append(str(error))
            return match[0]
        if wanted != match[4]:
            faults.append(f"{match[2]}#{match[3]} differs from the example (--write corrects it)")
        return match[1] + wanted + match[5]

    return SNIPPET.sub(replaced, text), len(found), faults


def main():
    parser = argparse.ArgumentParser(description="Holds code in the documentation against the examples.")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    arguments = parser.parse_args()
    files = arguments.files or [*MODULE.parent.glob("*.md"), *MODULE.rglob("*.md")]
    count, failed = 0, False
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            parser.error(str(error))
        wanted, snippets, faults = compare(text, MODULE)
        count += snippets
        if arguments.write and wanted != text:
            path.write_text(wanted, encoding="utf-8")
            faults = compare(wanted, MODULE)[2]
        for fault in faults:
            print(f"{path}: {fault}")
        failed = failed or bool(faults)
    if count == 0 and not arguments.files:
        print("no snippet found")
        failed = True
    print(f"{len(files)} files, {count} snippets")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
