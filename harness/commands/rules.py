"""`harness rules`: lists the catalogue, or explains a rule."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from harness.commands.output import EXIT_GOOD, say
from harness.errors import UsageError
from harness.selection import RuleSelection

if TYPE_CHECKING:
    import argparse

    from harness.rules.finding import Rule


def add_parser(commands: Any) -> None:
    """Declares the command and its options."""
    rules = commands.add_parser(
        "rules", help="list the rules, or explain one", usage="harness rules [CODE ...]"
    )
    rules.add_argument(
        "codes", nargs="*", metavar="CODE", help="a code, or the beginning of codes: T101, T1, A"
    )
    rules.add_argument("--json", action="store_true", help="as JSON")
    rules.set_defaults(run=run_rules)


def run_rules(options: argparse.Namespace) -> int:
    """Prints the catalogue or the pages of rules, and returns the exit code.

    Raises:
        UsageError: There is no such rule.
    """
    from harness.rules.catalogue import RULES  # noqa: PLC0415  late
    from harness.rules.diagnosis import check_selection  # noqa: PLC0415

    if options.words:
        raise UsageError("harness rules runs no command.\nNext: harness check -- " + " ".join(options.words))
    selection = RuleSelection(select=tuple(options.codes))
    check_selection(selection)
    chosen = [rule for rule in RULES if selection.is_selected(rule.code)]
    chosen.sort(key=lambda rule: (rule.code[0] != "T", rule.code))
    if options.json:
        say(json.dumps([_describe(rule) for rule in chosen], indent=1))
    elif options.codes:
        say("\n\n".join(explain_rule(rule) for rule in chosen))
    else:
        say("\n".join(list_rules(chosen)))
    return EXIT_GOOD


def list_rules(rules: list[Rule]) -> list[str]:
    """One line a rule, under the name of its family."""
    from harness.rules.catalogue import FAMILIES  # noqa: PLC0415  late

    width = max(len(rule.name) for rule in rules)
    lines: list[str] = []
    for family, title in FAMILIES.items():
        members = [rule for rule in rules if rule.code.startswith(family)]
        if members:
            lines += ["", f"{family}xx {title}"]
            lines += [
                f"  {rule.code}  {rule.severity:<7}  {rule.name:<{width}}  {rule.summary}" for rule in members
            ]
    return [*lines[1:], "", "harness rules CODE explains one."]


def explain_rule(rule: Rule) -> str:
    """A rule for people: what must hold, how it is told, its bounds, and the bugs behind it."""
    lines = [f"{rule.code} {rule.name} ({rule.severity})", "", rule.summary, "", rule.explanation]
    if rule.bounds:
        lines += ["", "Bounds:"]
        lines += [f"  {bound.name} = {bound.default:g}: {bound.meaning}" for bound in rule.bounds]
    lines += ["", "Made for:", *(f"  - {case}" for case in rule.cases)]
    lines += ["", f'To ignore it in a test: @pytest.mark.smoke_training(ignore={{"{rule.code}": "why"}})']
    return "\n".join(lines)


def _describe(rule: Rule) -> dict[str, Any]:
    return {
        "code": rule.code,
        "name": rule.name,
        "severity": str(rule.severity),
        "summary": rule.summary,
        "bounds": rule.default_bounds,
    }
