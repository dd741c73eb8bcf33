"""The `smoke_training` fixture: runs a training in a test and keeps its record."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.calls import names_function
from harness.errors import HarnessError, ObservationError, UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from harness.profiling.capture import Capture
    from harness.record.request import BaselineRequest
    from harness.record.run import TrainingRun
    from harness.selection import RuleSelection
    from harness.settings import Settings
    from harness.state import TestState
    from harness.watch.launch import RunOptions
    from harness.watch.recorder import Recorder


COMMAND_SLACK_S = 20.0
"""Less than the slack of the whole test, so that a command that hangs is ended with its output at hand."""


STATE: pytest.StashKey[TestState] = pytest.StashKey()
SETTINGS: pytest.StashKey[Settings] = pytest.StashKey()
PROJECT: pytest.StashKey[RuleSelection] = pytest.StashKey()


class SmokeTraining:
    """Runs a training and returns its record; what the `smoke_training` fixture gives a test.

    Attributes:
        device: "cpu" or "cuda": the device this test is meant to train on. Hand it to the program.
        seed: The marker's seed, which is set before a called function; a command wants it as an argument.
        record: A callback the program may call in its loop: `record(step=..., loss=..., **metrics)`.
    """

    def __init__(self, item: pytest.Item, options: RunOptions, recorder: Recorder) -> None:
        self._item = item
        self._options = options
        self._recorder = recorder
        self._state = item.stash[STATE]
        self._settings = item.config.stash[SETTINGS]
        self.device = options.device
        self.seed = options.seed
        self.record = self._recorder.record

    @property
    def runs(self) -> Sequence[TrainingRun]:
        """The runs of this test so far."""
        return tuple(self._state.runs)

    def options(
        self,
        *,
        run_dir: str | os.PathLike[str] | None = None,
        metrics: str | None = None,
        loss: str | None = None,
        max_steps: int | None = None,
        max_seconds: float | None = None,
    ) -> SmokeTraining:
        """The same fixture with other options: `smoke_training.options(run_dir=d)(train, config)`.

        Args:
            run_dir: Where the program writes; the test's `tmp_path` otherwise. Artifact globs start here.
            metrics: Glob of the metrics file under it.
            loss: Name of the logged metric that is the training loss, instead of what reaches backward.
            max_steps: Optimizer steps after which the program is ended from outside.
            max_seconds: Seconds of training after which it is.

        Raises:
            UsageError: A limit is not above 0.
        """
        from harness.watch.launch import with_limits  # noqa: PLC0415  late

        folder = None if run_dir is None else Path(run_dir).resolve()
        changes: dict[str, Any] = {"metrics": metrics, "loss": loss, "run_dir": folder}
        given = {name: value for name, value in changes.items() if value is not None}
        options = dataclasses.replace(self._options, **given)
        options = with_limits(options, max_steps=max_steps, max_seconds=max_seconds)
        return SmokeTraining(self._item, options, self._recorder)

    def __call__(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> TrainingRun:
        """Calls a training function in this process and returns the record of what it did.

        The function is called with `args` and `kwargs` untouched, and its optimizer steps are watched. What
        it logs itself is read beside them: the metrics file the marker names, the `record` callback, its
        return value, or a `metrics.csv` or `metrics.jsonl` under the run directory, whichever comes first.

        Raises:
            UsageError: `function` can't be called.
            ObservationError: The function raised, or trained nothing that could be seen.
        """
        __tracebackhide__ = True
        if not callable(function):
            raise UsageError(
                f"smoke_training({function!r}) can't be called.\n"
                "Next: pass the function and its arguments: smoke_training(train, config); for a script, "
                "smoke_training.command([...])."
            )
        from harness.watch.call import run_call  # noqa: PLC0415  imports torch
        from harness.watch.options import lighten  # noqa: PLC0415

        name = getattr(function, "__qualname__", repr(function))
        options = dataclasses.replace(self._options, name=f"{name}()")
        # The program may change to another folder.
        folder = Path.cwd()
        try:
            with self._capture() as capture:
                if capture is not None:
                    options = dataclasses.replace(options, watch=lighten(options.watch))
                call = functools.partial(function, *args, **kwargs)
                launch = functools.partial(run_call, call, options=options, recorder=self._recorder)
                run = launch() if capture is not None else self._time_beside(launch)
        except HarnessError as error:
            self._tell_findings(error)
            raise error.with_traceback(None)  # noqa: B904  the same error, without our frames
        if capture is not None:
            self._keep_trace(run, capture)
        self._note_no_capture(run)
        return self._keep(run, folder=folder)

    def command(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        timeout_s: float | None = None,
        ranks: int | None = None,
    ) -> TrainingRun:
        """Runs a training command in a child process and returns the record of what it did.

        Args:
            command: Program and arguments, such as `[sys.executable, "train.py"]`; no shell is involved.
            env: Variables added to the environment.
            cwd: Working directory; the current one by default.
            timeout_s: Seconds after which the child and its children are ended; when left out, 20 s after
                the wall-clock limit of the test, so that a slow command is told from one that hangs.
            ranks: Processes to launch it in with torchrun on this machine; each gives a record.

        Raises:
            UsageError: The command is empty or its program does not exist, or a capture was asked for.
            ObservationError: It exited non-zero, hung, or trained nothing that could be seen.
        """
        __tracebackhide__ = True
        from harness.watch.child import run_command  # noqa: PLC0415  imports torch

        if self._wants_capture():
            raise UsageError(
                "profile_capture takes the steps of a called function; a command runs in its own process.\n"
                "Next: smoke_training(train, config), or let the program write its own trace."
            )
        if timeout_s is None and self._state.budget is not None:
            limit_s = self._state.budget.wall_clock_limit_s
            timeout_s = None if limit_s is None else limit_s + COMMAND_SLACK_S
        launch = functools.partial(
            self._time_beside,
            functools.partial(
                run_command,
                command,
                options=self._options,
                env=env,
                cwd=Path(cwd) if cwd is not None else None,
                timeout_s=timeout_s,
                ranks=ranks,
            ),
        )
        try:
            run = launch()
        except HarnessError as error:
            self._tell_findings(error)
            raise error.with_traceback(None)  # noqa: B904  the same error, without our frames
        self._note_no_capture(run)
        return self._keep(run, folder=Path.cwd() if cwd is None else Path(cwd), relaunch=launch)

    def _time_beside(self, launch: Callable[[], TrainingRun]) -> TrainingRun:
        """Launches, with fixed work beside it where times are to be compared with those of other hours."""
        __tracebackhide__ = True
        if not _compares_times(self._item, self._state):
            return launch()
        from harness.watch.fixed_work import run_beside  # noqa: PLC0415  late

        return run_beside(launch)

    def _tell_findings(self, error: HarnessError) -> None:
        """Adds what leads the findings in what was seen before the program failed."""
        from harness.report.diagnosis import tell_leading  # noqa: PLC0415  late
        from harness.rules.diagnosis import diagnose  # noqa: PLC0415

        if isinstance(error, ObservationError) and error.run is not None:
            error.run.selection = _choose_rules(self._item)
            if leading := tell_leading(diagnose(error.run)):
                error.put_before_advice("\n".join(["Seen before that:", *leading]))

    def _wants_capture(self) -> bool:
        return self._state.schedule is not None and self._find_obstacle() is None

    def _find_obstacle(self) -> str | None:
        from harness.profiling.schedule import explain_no_capture  # noqa: PLC0415
        from harness.watch.devices import find_gpus  # noqa: PLC0415

        return explain_no_capture(self._settings["profile"], has_gpu=bool(find_gpus()))

    def _note_no_capture(self, run: TrainingRun) -> None:
        """A marker that did nothing says why."""
        if self._state.schedule is not None and (obstacle := self._find_obstacle()) is not None:
            run.notes.append(f"profile_capture captured nothing: {obstacle}")

    def _capture(self) -> AbstractContextManager[Capture | None]:
        import contextlib  # noqa: PLC0415

        if self._state.schedule is None or not self._wants_capture():
            return contextlib.nullcontext()
        from harness.profiling.capture import capture_steps  # noqa: PLC0415

        return capture_steps(self._state.schedule, self._options.run_dir / "traces")

    def _keep_trace(self, run: TrainingRun, capture: Capture) -> None:
        from harness.record.environment import slug  # noqa: PLC0415
        from harness.report.folder import publish_trace  # noqa: PLC0415

        run.is_profiled, run.trace = True, capture.trace
        run.notes += [capture.note] if capture.note else []
        if capture.trace is not None and self._state.schedule is not None:
            folder = self._item.config.rootpath / self._settings["report"]
            name = slug(self._item.nodeid.replace("/", ".").replace("::", "."))
            publish_trace(capture.trace, folder, name=name, keep=self._state.schedule.keep)

    def _keep(
        self,
        run: TrainingRun,
        folder: Path,
        relaunch: Callable[[], TrainingRun] | None = None,
    ) -> TrainingRun:
        from harness.record.environment import derive_runner_class  # noqa: PLC0415

        run.selection = _choose_rules(self._item)
        self._state.runs.append(run)
        self._state.relaunches.append(relaunch)
        run.baseline = _build_request(self._item, len(self._state.runs), folder)
        self._state.runner_class = self._settings["runner_class"] or derive_runner_class(
            run.environment, device=run.device, threads=run.threads
        )
        return run


def is_crowded(config: pytest.Config) -> bool:
    """Whether other workers of pytest-xdist run tests beside this one."""
    return bool(getattr(config, "workerinput", {}).get("workercount", 1) > 1)


def _compares_times(item: pytest.Item, state: TestState) -> bool:
    """Whether a test has a tolerance for a time, or may set one with the `budget` fixture, and the machine for it."""
    is_on_marker = state.budget is not None and state.budget.compares_times
    is_wanted = is_on_marker or "budget" in getattr(item, "fixturenames", ())
    # Beside other workers fixed work would tell of them.
    return is_wanted and not is_crowded(item.config)


def _choose_rules(item: pytest.Item) -> RuleSelection:
    """The rules a test's runs are judged by: those of the project, with the marker's over them."""
    from harness.project import FILE, read_selection  # noqa: PLC0415  late, so that pytest starts without it
    from harness.rules.diagnosis import check_selection  # noqa: PLC0415

    stash = item.config.stash
    if PROJECT not in stash:
        stash[PROJECT] = read_selection(item.config.rootpath / FILE)
    selection = stash[PROJECT].merge(item.stash[STATE].training.selection)
    check_selection(selection)
    return selection


def calls_comparison(item: pytest.Item) -> bool:
    """Whether a test is seen to call `assert_matches_baseline`, so that its runs have to be traced."""
    return names_function(getattr(item, "function", None), "assert_matches_baseline")


def _build_request(item: pytest.Item, number: int, folder: Path) -> BaselineRequest:
    """Which stored trajectory the run of this number, from 1, is compared with; it ran in a folder."""
    from harness.record.request import BaselineRequest, quote_test  # noqa: PLC0415  late

    settings = item.config.stash[SETTINGS]
    return BaselineRequest(
        test=item.nodeid if number == 1 else f"{item.nodeid}#{number}",
        baselines=settings["baselines"],
        root=item.config.rootpath,
        folder=folder,
        accept_command=f'pytest {quote_test(item.nodeid)} --accept-baselines --reason "{{reason}}"',
        reason=settings["reason"] if settings["accept"] else None,
        accepts_findings=settings["accept_with_findings"],
        requires_class=settings["require_baseline"],
    )


@pytest.fixture
def smoke_training(request: pytest.FixtureRequest, tmp_path: Path) -> SmokeTraining:
    """Runs a training and returns its record: a called function, or `.command([...])` for a script."""
    from harness.baselines.building import TRACED_STEPS  # noqa: PLC0415  late, so that pytest starts without it
    from harness.budgets.metrics import COUNTED_STEPS  # noqa: PLC0415
    from harness.markers import TrainingRequest  # noqa: PLC0415
    from harness.state import TestState  # noqa: PLC0415
    from harness.watch.launch import RunOptions  # noqa: PLC0415
    from harness.watch.options import build_observer_options  # noqa: PLC0415
    from harness.watch.recorder import Recorder  # noqa: PLC0415

    item: pytest.Item = request.node
    settings = item.config.stash[SETTINGS]
    # Asked for by request.getfixturevalue(): collection could not see it, and there is no marker either.
    unseen = TestState(
        training=TrainingRequest(), gpu=None, budget=None, schedule=None, is_traced=calls_comparison(item)
    )
    state = item.stash.setdefault(STATE, unseen)
    training = state.training
    _choose_rules(item)  # a mistake in them is told before anything is trained
    watch = build_observer_options(
        settings["watch"],
        max_steps=training.max_steps,
        max_seconds=training.max_seconds,
        traced_steps=TRACED_STEPS if state.is_traced else 0,
    )
    if watch is not None and state.budget is not None and state.budget.counts_operations:
        watch = dataclasses.replace(
            watch, counted_steps=COUNTED_STEPS, counts_kernels=state.budget.counts_kernels
        )
    options = RunOptions(
        name=item.nodeid,
        run_dir=tmp_path,
        metrics=training.metrics,
        loss=training.loss,
        device=getattr(request, "param", "cpu"),
        seed=training.seed,
        threads=settings["threads"],
        watch=watch,
    )
    return SmokeTraining(item, options, Recorder())
