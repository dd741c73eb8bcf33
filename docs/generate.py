"""Writes the generated parts of the docs; `--check` only tells whether they are up to date.

A generated part stands between `<!-- name: begin -->` and `<!-- name: end -->`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from harness.settings import OPTIONS

DOCS = Path(__file__).parent


def render_options() -> str:
    """The table of all options: flag, ini key, environment variable, default, help."""
    lines = ["| flag | ini | environment | default | what it does |", "| --- | --- | --- | --- | --- |"]
    for option in OPTIONS:
        flag = option.flag if option.is_switch else f"{option.flag}={option.metavar}"
        cells = [f"`{flag}`", *(f"`{name}`" if name else "" for name in (option.ini, option.env))]
        default = "off" if option.is_switch else f"`{option.default}`" if option.default != "" else ""
        row = [cell.replace("|", "\\|") for cell in (*cells, default, option.help)]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


PARTS = {"usage.md": {"options": render_options}}


def main() -> int:
    """Rewrites every page with a generated part; returns 1 when `--check` finds one out of date."""
    is_check = "--check" in sys.argv[1:]
    stale = []
    for page, parts in PARTS.items():
        path = DOCS / page
        before = after = path.read_text(encoding="utf-8")
        for name, render in parts.items():
            begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
            pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
            if not pattern.search(after):
                sys.exit(f"{path} has no part {name}")
            text = f"{begin}\n\n{render()}\n\n{end}"
            after = pattern.sub(text.replace("\\", r"\\"), after)
        if after != before:
            stale.append(page)
            if not is_check:
                path.write_text(after, encoding="utf-8")
    if is_check and stale:
        sys.stderr.write(f"out of date: {', '.join(stale)}\nNext: nox -s docs\n")
    return int(is_check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
