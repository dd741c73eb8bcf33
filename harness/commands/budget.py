"""`harness budget`: measures a training command in fresh processes, and judges what it costs by its baseline."""

from __future__ import annotations

import argparse
import functools
import shlex
import statistics
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.options import (
    add_folder_option,
    add_inconclusive_option,
    check_above_zero,
    check_reason,
    repeat_folder,
)
from harness.commands.output import (
    EXIT_FINDING,
    EXIT_GOOD,
    run_documented,
    say,
    write_json,
)
from harness.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.budgets.judge import Judge
    from harness.budgets.launches import Judged, LaunchPlan
    from harness.budgets.results import BudgetResult
    from harness.budgets.spec import Budget
    from harness.record.run import TrainingRun

ACCEPTED_LAUNCHES = 20
EPILOG = """
NAME=NUMBER is what @pytest.mark.budget takes: limits such as wall_clock_s=60 or peak_memory_mb=900, and tolerances
against the baseline such as step_time=0.05 (5 %), throughput=0.05, flops=0.
Exit codes: 0 pass or improved (inconclusive and "not steady" too, but for --inconclusive fail); 1 over a limit,
regressed, or no baseline; 2 used wrongly, or the program could not be measured.
"""


def add_parser(commands: Any) -> None:
    """Declares the command and its options."""
    budget = commands.add_parser(
        "budget",
        help="measure a training command in fresh processes, and judge what it costs",
        usage="harness budget [options] NAME=NUMBER ... -- command [argument ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG.strip(),
    )
    add = budget.add_argument
    add(
        "bounds",
        nargs="*",
        metavar="NAME=NUMBER",
        help="limits and tolerances: wall_clock_s=60 step_time=0.05",
    )
    add("--baseline", metavar="NAME", help="name of the stored pool that tolerances are against")
    add_folder_option(add)
    add("--runner-class", metavar="NAME", help="class of this machine; default: derived from its hardware")
    add(
        "--launches",
        type=int,
        metavar="N",
        help="largest number of launches; default: 8, and 20 when they are accepted",
    )
    add(
        "--allowance",
        type=float,
        metavar="S",
        help="start no launch that would end after S seconds; one is run in any case; default: 120, and 600 when they "
        "are accepted",
    )
    add("--accept-baselines", action="store_true", help="add the launches to the pool; needs --reason")
    add("--reason", default="", metavar="TEXT", help="why; kept with them")
    add(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="threads of the program; default: 1, the steadiest",
    )
    add("--no-pin", action="store_true", help="let the system choose the cores: for loaders with workers")
    add("--ranks", type=int, metavar="N", help="launch the command in N processes with torchrun")
    add("--max-steps", type=int, metavar="N", help="end each launch after N optimizer steps")
    add("--timeout", type=float, metavar="S", help="end a launch after S seconds: it hangs")
    add("--run-dir", type=Path, default=Path(), metavar="DIR", help="where the program writes; default: .")
    add_inconclusive_option(add)
    add(
        "--harness-require-baseline",
        dest="require_baseline",
        action="store_true",
        help="fail where there is a baseline of another runner class only",
    )
    add("--json", type=Path, metavar="FILE", help="write the same facts as one document")
    budget.set_defaults(run=run_budget)


def run_budget(options: argparse.Namespace) -> int:
    """Measures and judges, and returns the exit code.

    Raises:
        HarnessError: The options can't be used, or the program could not be measured.
    """
    return run_documented(_judge, options)


def _judge(options: argparse.Namespace) -> int:
    from harness.budgets.launches import spend_launches  # noqa: PLC0415
    from harness.budgets.verdicts import find_failing  # noqa: PLC0415  late

    budget = _read_budget(options)
    _check_options(options, budget)
    plan = _choose_plan(options)
    launcher = _Launcher(options, budget)

    def judge(runs: Sequence[TrainingRun], is_last: bool) -> list[BudgetResult]:  # noqa: FBT001  of a callback
        return _build_judge(options, runs[0]).judge(options.baseline or "", runs, budget, is_last=is_last)

    judged = spend_launches(
        launcher.run,
        judge,
        plan,
        lambda line: say(f"harness: {line}", is_error=True),
        all_at_once=options.accept_baselines,
    )
    runner_class = _build_judge(options, judged.runs[0]).runner_class
    say("\n".join(_tell(judged, runner_class)))
    failing = find_failing(
        fails_inconclusive=options.inconclusive == "fail", requires_baseline=options.require_baseline
    )
    code = EXIT_FINDING if any(result.verdict in failing for result in judged.results) else EXIT_GOOD
    if options.json is None:
        return code
    return write_json(options.json, _describe(options, judged, runner_class, code), code)


class _Launcher:
    """Runs the command once, in a fresh process, on one core and watched as little as can be."""

    def __init__(self, options: argparse.Namespace, budget: Budget) -> None:
        from harness.budgets.metrics import COUNTED_STEPS  # noqa: PLC0415  late
        from harness.watch.cores import choose_cores  # noqa: PLC0415
        from harness.watch.launch import RunOptions  # noqa: PLC0415
        from harness.watch.options import Depth, ObserverOptions  # noqa: PLC0415

        self._options = options
        watch = ObserverOptions(
            depth=Depth.LIGHT,
            max_steps=options.max_steps,
            counted_steps=COUNTED_STEPS if budget.counts_operations else (),
            counts_kernels=budget.counts_kernels,
        )
        self._run_options = RunOptions(
            name=shlex.join(options.words),
            run_dir=options.run_dir.resolve(),
            threads=options.threads,
            watch=watch,
        )
        self._compares_times = budget.compares_times
        num_cores = options.threads * (options.ranks or 1)
        self._cores = frozenset() if options.no_pin else choose_cores(num_cores)

    def run(self) -> TrainingRun:
        from harness.watch.child import run_command  # noqa: PLC0415  late
        from harness.watch.fixed_work import run_beside  # noqa: PLC0415

        launch = functools.partial(
            run_command,
            self._options.words,
            options=self._run_options,
            timeout_s=self._options.timeout,
            ranks=self._options.ranks,
            cores=self._cores,
        )
        return run_beside(launch, self._cores) if self._compares_times else launch()


def _read_budget(options: argparse.Namespace) -> Budget:
    from harness.budgets.spec import parse_budget  # noqa: PLC0415  late

    if not options.bounds:
        raise UsageError(
            "the command line sets no bound, so nothing would be judged.\n"
            "Next: harness budget wall_clock_s=60 -- python train.py, or a tolerance: step_time=0.05 --baseline NAME"
        )
    arguments: dict[str, Any] = {}
    for word in options.bounds:
        name, equals, text = word.partition("=")
        try:
            arguments[name.strip()] = float(text)
        except ValueError:
            equals = ""
        if not equals:
            raise UsageError(
                f"{word!r} is not of the form NAME=NUMBER.\nNext: harness budget step_time=0.05 -- ..."
            )
    return replace(parse_budget(arguments, source="the command line"), place="on the command line")


def _check_options(options: argparse.Namespace, budget: Budget) -> None:
    from harness.baselines.pools import MAX_LAUNCHES  # noqa: PLC0415  late
    from harness.baselines.shelves import open_shelf  # noqa: PLC0415

    if not options.words:
        raise UsageError(
            "no command to measure.\nNext: harness budget wall_clock_s=60 -- python train.py --mode ci"
        )
    if budget.tolerances and not options.baseline:
        names = ", ".join(metric.tolerance_name for metric in budget.tolerances)
        raise UsageError(
            f"{names}: a tolerance is against a stored baseline, and none is named.\nNext: --baseline NAME, such as "
            "--baseline smoke"
        )
    check_reason(options)
    if options.accept_baselines and not budget.tolerances:
        raise UsageError(
            "--accept-baselines stores what tolerances are against, and there is none.\nNext: add one, such as "
            "step_time=0.05"
        )
    check_above_zero(options, "launches", "allowance", "threads", "ranks", "max_steps", "timeout")
    if (options.launches or 0) > MAX_LAUNCHES:
        raise UsageError(
            f"--launches {options.launches} is more than the {MAX_LAUNCHES} that a pool keeps.\nNext: --launches 20"
        )
    shelf = open_shelf(options.baselines, root=Path.cwd())
    if options.accept_baselines:
        shelf.path("any")
    if not options.run_dir.is_dir():
        raise UsageError(f"--run-dir {options.run_dir} is no directory.\nNext: make it, or name another.")


def _choose_plan(options: argparse.Namespace) -> LaunchPlan:
    from harness.budgets.launches import LaunchPlan  # noqa: PLC0415  late

    plan = LaunchPlan(most=ACCEPTED_LAUNCHES, allowance_s=600.0) if options.accept_baselines else LaunchPlan()
    return LaunchPlan(
        most=plan.most if options.launches is None else options.launches,
        allowance_s=plan.allowance_s if options.allowance is None else options.allowance,
    )


def _build_judge(options: argparse.Namespace, first: TrainingRun) -> Judge:
    from harness.baselines.pools import PoolStore  # noqa: PLC0415  late
    from harness.baselines.shelves import open_shelf  # noqa: PLC0415
    from harness.budgets.judge import Judge  # noqa: PLC0415
    from harness.record.environment import derive_runner_class  # noqa: PLC0415

    derived = derive_runner_class(first.environment, device=first.device, threads=first.threads)
    words = ["harness", "budget", *options.bounds, "--baseline", options.baseline or ""]
    words += repeat_folder(options.baselines)
    command = shlex.join(options.words).replace("{", "{{").replace("}", "}}")
    accept = shlex.join(words).replace("{", "{{").replace("}", "}}")
    return Judge(
        store=PoolStore(open_shelf(options.baselines, root=Path.cwd())),
        runner_class=options.runner_class or derived,
        reason=options.reason if options.accept_baselines else None,
        accept_command=f'{accept} --accept-baselines --reason "{{reason}}" -- {command}',
    )


def _tell(judged: Judged, runner_class: str) -> list[str]:
    runs = judged.runs
    launches = "launch" if len(runs) == 1 else "launches"
    lines = [f"harness: {len(runs)} {launches} in {judged.spent_s:.0f} s on {runner_class}"]
    told: set[str] = set()
    for result in judged.results:
        lines.append(result.message)
        if result.advice and result.advice not in told:
            told.add(result.advice)
            lines.append(f"Next: {result.advice}")
    if judged.is_cut_short:
        lines.append("note: the time was up before the last launch; --allowance gives more.")
    shares = statistics.median(run.waiting_share for run in runs)
    if shares > 0:
        lines.append(
            f"note: the program waited {shares:.1%} of its time for a processor (median of the launches)."
        )
    return lines


def _describe(options: argparse.Namespace, judged: Judged, runner_class: str, code: int) -> dict[str, Any]:
    return {
        "outcome": "failed" if code else "passed",
        "message": "\n".join(result.message for result in judged.results),
        "command": options.words,
        "runner_class": runner_class,
        "launches": [_describe_launch(run) for run in judged.runs],
        "budget": [result.to_json() for result in judged.results],
    }


def _describe_launch(run: TrainingRun) -> dict[str, Any]:
    from harness.budgets.metrics import measure  # noqa: PLC0415  late

    work = None if run.fixed_work is None else asdict(run.fixed_work)
    return {**measure(run), "waiting_share": run.waiting_share, "fixed_work": work}
