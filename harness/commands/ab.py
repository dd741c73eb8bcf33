"""`harness ab`: compares the step time of a program at two revisions, in turns on one core, with statistics."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.options import add_inconclusive_option, check_above_zero
from harness.commands.output import (
    EXIT_FINDING,
    EXIT_GOOD,
    EXIT_NOT_OBSERVED,
    run_documented,
    say,
    write_json,
)
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.budgets.verdicts import Verdict
    from harness.report.ab import Side, Told
    from harness.side_by_side import ArmSummary, Comparison
    from harness.versions import Revisions

EPILOG = """
{out} in the command stands for an empty folder of each process's own, gone afterwards.
Exit codes: 0 pass or improved (inconclusive too, but for --inconclusive fail); 1 regressed; 2 used wrongly, or
nothing could be compared, as where a step time is "not steady".
"""


def add_parser(commands: Any) -> None:
    """Declares the command and its options."""
    ab = commands.add_parser(
        "ab",
        help="compare the step time of a program at two revisions, in turns on one core",
        usage="harness ab --base REV [options] -- command [argument ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG.strip(),
    )
    add = ab.add_argument
    add("--base", required=True, metavar="REV", help="revision to compare with: origin/main")
    add("--head", metavar="REV", help="revision to judge; default: the work tree as it stands")
    add("--prepare", metavar="CMD", help="shell command run at the top of each checkout before: a build")
    add(
        "--prepare-work-tree",
        action="store_true",
        help="run that also in the work tree, where it is the head",
    )
    add("--tolerance", type=float, default=0.02, metavar="SHARE", help="allowed change; default: 0.02, 2 %%")
    add("--json", type=Path, metavar="FILE", help="write the same facts as one document")
    add("--max-steps", type=int, metavar="N", help="end each process after N steps")
    add(
        "--allowance",
        type=float,
        metavar="S",
        help="start no pair of processes that would end after S seconds; three are run in any case; default: 60",
    )
    add(
        "--timeout",
        type=float,
        metavar="S",
        help="a program that ends no step for S seconds hangs; default: 300",
    )
    add(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="threads of each program; default: 1, the steadiest",
    )
    add_inconclusive_option(add)
    ab.set_defaults(run=run_ab)


def run_ab(options: argparse.Namespace) -> int:
    """Compares, and returns the exit code.

    Raises:
        HarnessError: The options can't be used, or nothing could be compared.
    """
    return run_documented(_compare, options)


def _compare(options: argparse.Namespace) -> int:
    from harness.report.ab import describe_comparison, tell_comparison  # noqa: PLC0415  late
    from harness.side_by_side import ComparisonOptions, compare_programs  # noqa: PLC0415
    from harness.versions import prepared_revisions  # noqa: PLC0415

    _check_numbers(options)
    given = {"allowance_s": options.allowance, "timeout_s": options.timeout}
    comparison_options = ComparisonOptions(
        tolerance=options.tolerance,
        max_steps=options.max_steps,
        num_threads=options.threads,
        **{name: value for name, value in given.items() if value is not None},
    )
    with prepared_revisions(
        options.words,
        base=options.base,
        head=options.head,
        prepare=options.prepare,
        prepares_work_tree=options.prepare_work_tree,
        num_threads=options.threads,
    ) as revisions:
        comparison = compare_programs(
            revisions.base,
            revisions.head,
            comparison_options,
            check=revisions.check,
            tell=lambda line: say(f"harness: {line}", is_error=True),
        )
        told = _gather(comparison, revisions)
    say(tell_comparison(told))
    code = find_exit_code(told.verdict.verdict, options.inconclusive)
    if options.json is None:
        return code
    return write_json(options.json, {"command": options.words, **describe_comparison(told)}, code)


def find_exit_code(verdict: Verdict, inconclusive: str) -> int:
    """The exit code of a verdict."""
    from harness.budgets.verdicts import Verdict  # noqa: PLC0415  late

    if verdict is Verdict.NOT_STEADY:
        return EXIT_NOT_OBSERVED
    is_failed = verdict is Verdict.REGRESSED or (verdict is Verdict.INCONCLUSIVE and inconclusive == "fail")
    return EXIT_FINDING if is_failed else EXIT_GOOD


def _gather(comparison: Comparison, revisions: Revisions) -> Told:
    from harness.report.ab import Told  # noqa: PLC0415  late

    return Told(
        verdict=comparison.verdict,
        base=_name_side(revisions.base_name, comparison.base),
        head=_name_side(revisions.head_name, comparison.head),
        ratios=comparison.ratios,
        pairs=comparison.pairs,
        wall_clock_s=comparison.wall_clock_s,
        has_equal_losses=comparison.has_equal_losses,
        loaded_changes=revisions.loaded_changes,
        base_commit=revisions.base_commit,
        head_commit=revisions.head_commit,
        notes=[*revisions.notes, *revisions.tell_changes(), *comparison.notes],
    )


def _name_side(name: str, summary: ArmSummary) -> Side:
    from harness.report.ab import Side  # noqa: PLC0415  late

    return Side(
        name=name,
        num_steps=summary.num_steps,
        first_step_s=summary.first_step_s,
        peak_memory_bytes=summary.peak_memory_bytes,
        num_samples=summary.num_samples,
        num_tokens=summary.num_tokens,
        counted=summary.counted,
    )


def _check_numbers(options: argparse.Namespace) -> None:
    if not options.words:
        raise UsageError("no command to compare.\nNext: harness ab --base origin/main -- python train.py")
    if not 0 <= options.tolerance <= 1:
        raise UsageError(
            f"--tolerance {options.tolerance:g} is no share from 0 to 1.\nNext: --tolerance 0.02 allows 2 %."
        )
    check_above_zero(options, "max_steps", "allowance", "timeout", "threads")
