"""Writes the generated parts of the docs; `--check` only tells whether they are up to date.

A generated part stands between `<!-- name: begin -->` and `<!-- name: end -->`. Every rule has a page of its own,
made from the rule itself.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.rules.catalogue import FAMILIES, RULES
from harness.settings import OPTIONS

if TYPE_CHECKING:
    from harness.rules.finding import Rule

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


def render_catalogue() -> str:
    """The table of all rules, family by family."""
    lines: list[str] = []
    for family, title in FAMILIES.items():
        members = sorted((rule for rule in RULES if rule.code.startswith(family)), key=lambda rule: rule.code)
        if members:
            lines += [
                "",
                f"### {family}xx {title}",
                "",
                "| rule | severity | what must hold |",
                "| --- | --- | --- |",
            ]
            lines += [
                f"| [{rule.code} {rule.name}](rules/{rule.code}.md) | {rule.severity} | {rule.summary} |"
                for rule in members
            ]
    return "\n".join(lines[1:])


def render_rule(rule: Rule) -> str:
    """The page of one rule."""
    lines = [
        f"# {rule.code} {rule.name}",
        "",
        f"**{rule.summary}** Severity: {rule.severity}.",
        "",
        rule.explanation.strip(),
        "",
        "## Made for",
        "",
        *(f"- {case}" for case in rule.cases),
        "",
        "## Settings",
        "",
    ]
    if rule.bounds:
        lines += ["| bound | default | meaning |", "| --- | --- | --- |"]
        lines += [f"| `{bound.name}` | {bound.default:g} | {bound.meaning} |" for bound in rule.bounds]
        first = rule.bounds[0]
        lines += [
            "",
            "```toml",
            f"[tool.harness.bounds.{rule.code}]",
            f"{first.name} = {first.default:g}",
            "```",
            "",
        ]
    lines += [
        "```python",
        f'@pytest.mark.smoke_training(ignore={{"{rule.code}": "why it is right here"}})',
        "```",
        "",
        "This page is made from the rule itself: `harness rules " + rule.code + "` prints the same.",
    ]
    return "\n".join(lines) + "\n"


PARTS = {"usage.md": {"options": render_options}, "rules.md": {"catalogue": render_catalogue}}


def list_stale(*, is_check: bool) -> list[str]:
    """Pages that were out of date; they are rewritten unless `is_check`."""
    wanted = {DOCS / "rules" / f"{rule.code}.md": render_rule(rule) for rule in RULES}
    for page, parts in PARTS.items():
        text = (DOCS / page).read_text(encoding="utf-8")
        for name, render in parts.items():
            begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
            pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
            if not pattern.search(text):
                sys.exit(f"{page} has no part {name}")
            made = f"{begin}\n\n{render()}\n\n{end}"
            text = pattern.sub(made.replace("\\", r"\\"), text)
        wanted[DOCS / page] = text
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text("utf-8") != text]
    gone = [path for path in (DOCS / "rules").glob("*.md") if path not in wanted]
    if not is_check:
        (DOCS / "rules").mkdir(exist_ok=True)
        for path in stale:
            path.write_text(wanted[path], encoding="utf-8")
        for path in gone:
            path.unlink()
    return [str(path.relative_to(DOCS)) for path in (*stale, *gone)]


def main() -> int:
    """Rewrites every page with a generated part; returns 1 when `--check` finds one out of date."""
    is_check = "--check" in sys.argv[1:]
    stale = list_stale(is_check=is_check)
    if is_check and stale:
        sys.stderr.write(f"out of date: {', '.join(stale)}\nNext: nox -s docs\n")
    return int(is_check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
