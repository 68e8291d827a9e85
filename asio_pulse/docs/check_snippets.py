#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Checks the documentation: code against the compiled examples that it is taken from, and links against files.

usage: check_snippets.py [--write] [FILE...]

In a Markdown file the block of C++ after a line
    <!-- from: PATH#NAME -->          (or "snippet:" in place of "from:")
must be the text between the two lines "//! [NAME]" (or "// [NAME]") of the file PATH of the module asio_pulse,
without common indentation and without other such lines. Every relative link must lead to an existing file, and
its #anchor to a heading. By default all Markdown files in the repository's top folder and in the module are
checked. Prints one line for each fault. The exit status is 1 if there are any, or no snippet at all. --write puts
the text of the examples into the Markdown files instead.
"""
import argparse
import functools
import pathlib
import re
import sys
import textwrap
import urllib.parse

MODULE = pathlib.Path(__file__).resolve().parent.parent
SNIPPET = re.compile(r"^(<!-- (?:from|snippet): ([^#\n]+)#(\S+) -->\n```cpp\n)(.*?)(^```\n)", re.DOTALL | re.MULTILINE)
MENTION = re.compile(r"^<!-- (?:from|snippet):", re.MULTILINE)
MARK = re.compile(r"^ *//!? \[[\w-]+\]\n", re.MULTILINE)
FENCE = re.compile(r"^(```+).*?^\1$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(([^()\s]+(?:\([^()\s]*\))?)\)")
OUTSIDE = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def region(path, name):
    """The text between the marks."""
    mark = rf"^ *//!? \[{re.escape(name)}\]\n"
    pieces = re.split(mark, path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if len(pieces) != 3:
        raise ValueError(f'{path.name} must have two lines "//! [{name}]" (has {len(pieces) - 1})')
    return textwrap.dedent(MARK.sub("", pieces[1]))


def compare(text, module):
    """The text with correct snippets, the number of snippets, and the faults."""
    faults = []
    found = list(SNIPPET.finditer(text))
    if len(found) != len(MENTION.findall(text)):
        faults.append("a snippet's line is not followed by a block of cpp")

    def replaced(match):
        try:
            wanted = region(module / match[2], match[3])
        except (OSError, ValueError) as error:
            faults.append(str(error))
            return match[0]
        if wanted != match[4]:
            faults.append(f"{match[2]}#{match[3]} differs from the example (--write corrects it)")
        return match[1] + wanted + match[5]

    return SNIPPET.sub(replaced, text), len(found), faults


def slugs(text):
    """The anchors of a Markdown text's headings, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^ {0,3}#{1,6} +(.*?)(?: +#+)?$", FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = 0
        while (slug if number == 0 else f"{slug}-{number}") in found:
            number += 1
        found.add(slug if number == 0 else f"{slug}-{number}")
    return found | set(re.findall(r'<a (?:id|name)="([^"]+)"', text))


@functools.lru_cache(maxsize=None)
def slugs_of(path):
    return slugs(path.read_text(encoding="utf-8"))


def broken_links(path, text):
    """The faults in the relative links of the file `path` with this text."""
    faults = []
    prose = re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", FENCE.sub("", text))
    for target in LINK.findall(prose):
        if OUTSIDE.match(target):
            continue
        name, _, anchor = urllib.parse.unquote(target).partition("#")
        file = path if not name else path.parent / name
        if not file.exists():
            faults.append(f"there is no {name} (a link)")
        elif anchor and file.suffix == ".md":
            if anchor not in (slugs(text) if file == path else slugs_of(file.resolve())):
                faults.append(f"{name or path.name} has no heading #{anchor} (a link)")
        elif anchor and not re.fullmatch(r"L\d+(-L\d+)?", anchor):
            faults.append(f"{target}: only Markdown files have headings (a link)")
    return faults


def main():
    parser = argparse.ArgumentParser(description="Holds the documentation against what it is taken from.")
    parser.add_argument("--write", action="store_true", help="put the examples' text into the files")
    parser.add_argument("files", nargs="*", type=pathlib.Path, metavar="FILE")
    arguments = parser.parse_args()
    files = arguments.files or sorted([*MODULE.parent.glob("*.md"), *MODULE.rglob("*.md")])
    count, failed = 0, False
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            parser.error(f"{path}: {error}")
        wanted, snippets, faults = compare(text, MODULE)
        count += snippets
        if arguments.write and wanted != text:
            path.write_text(wanted, encoding="utf-8")
            faults = compare(wanted, MODULE)[2]
        for fault in faults + broken_links(path, wanted):
            print(f"{path}: {fault}")
            failed = True
    if count == 0 and not arguments.files:
        print("no snippet found")
        failed = True
    print(f"{len(files)} files, {count} snippets")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
