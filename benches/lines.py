#!/usr/bin/env python3
"""Counts product lines: without tests, comments and blank lines.

Counted are Rust under src/ and loadtest/src, and the sources of the JavaScript client under sdk/js/src. Files and modules
that hold only tests are left out. A further folder on the command line is the checkout to count in.
"""

import re
import sys
from pathlib import Path

ROOT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
TESTS = re.compile(r"/(tests|simulation|trial)/|/(tests|trial|differential|model|end_to_end)\.rs$|\.test\.[jt]sx?$")

RUST = re.compile(
    r"""(?P<comment>//[^\n]*)
    |(?P<block>/\*)
    |(?P<raw>\bb?r(?P<hashes>\#*)".*?"(?P=hashes))
    |(?P<text>b?"(?:\\.|[^"\\])*")
    |(?P<letter>'(?:\\[^\n]+?|[^\\\n])')""",
    re.S | re.X,
)
SCRIPT = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)
    |(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)
    |(?P<regex>(?<=[=(,:!&|?{};\n])\s*/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/)""",
    re.S | re.X,
)


def block_comment_end(code, at):
    """The end of a block comment of Rust, which may hold others."""
    depth = 0
    for mark in re.finditer(r"/\*|\*/", code[at:]):
        depth += 1 if mark.group() == "/*" else -1
        if depth == 0:
            return at + mark.end()
    return len(code)


def without_comments(code, language):
    """The code with comments gone and every literal as dots, its line breaks kept."""
    out, at = [], 0
    while found := language.search(code, at):
        out.append(code[at : found.start()])
        at = found.end()
        if found.lastgroup == "block":
            at = block_comment_end(code, found.start())
        elif found.lastgroup != "comment":
            out.append(re.sub(r"[^\n]", ".", found.group()))
    return "".join(out) + code[at:]


def without_tests(code):
    """The code without items behind `#[cfg(test)]` and `#[cfg(any(test, fuzzing))]`."""
    while guard := re.search(r"#\[cfg\((?:any\()?test\b[^\]]*\]", code):
        at = guard.start()
        end = re.search(r"[{;]", code[at:])
        end = at + end.end() if end else len(code)
        depth = code[at:end].count("{")
        while depth and end < len(code):
            depth += {"{": 1, "}": -1}.get(code[end], 0)
            end += 1
        code = code[:at] + code[end:]
    return code


def lines(folder, suffixes, language):
    """Product lines of the files of a folder."""
    count = 0
    for path in sorted((ROOT / folder).rglob("*")):
        if path.suffix in suffixes and not TESTS.search(f"/{path.relative_to(ROOT)}"):
            code = without_comments(path.read_text(), language)
            count += sum(1 for line in without_tests(code).splitlines() if line.strip())
    return count


counts = {
    "src": lines("src", {".rs"}, RUST),
    "loadtest/src": lines("loadtest/src", {".rs"}, RUST),
    "sdk/js/src": lines("sdk/js/src", {".js", ".mjs", ".ts", ".tsx", ".jsx"}, SCRIPT),
}
for folder, count in counts.items():
    print(f"{count:7} {folder}")
print(f"{sum(counts.values()):7} together")
