"""The pytest plugin: options, markers, and the hooks that judge a test's budget inside the test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import HarnessError, UsageError
from harness.fixtures import SETTINGS, STATE, calls_comparison, smoke_training
from harness.gates import NUM_TOLERANCES, accept_claims, budget, count_tolerances, judge_marker
from harness.session import REPORT_ATTRIBUTE, HarnessSession, add_properties, describe_item
from harness.settings import Settings, add_options

if TYPE_CHECKING:
    from collections.abc import Generator

    from harness.state import TestState

__all__ = ["budget", "smoke_training"]

TIMEOUT_SLACK_S = 30.0
MARKERS = {
    "smoke_training": "smoke_training(devices=None, seed=None, max_steps=None, max_seconds=None, metrics=None, "
    "loss=None, baseline=False, select=None, ignore=None, severity=None, bounds=None): a tiny training. "
    'devices, e.g. ["cpu", "cuda"], runs the test once on each; seed is set before a called function; '
    "max_steps and max_seconds end the program from outside; metrics "
    "is a glob of the metrics file under the run directory; loss names the metric that is the training loss; "
    "baseline=True compares each run with the test's stored trajectory; "
    "select, ignore={code: reason}, severity and bounds choose the rules it is judged by.",
    "budget": "budget(wall_clock_s, step_time_s, min_throughput, peak_memory_mb, max_final_loss, max_flops, "
    "max_num_ops, tensor_memory_mb, min_mfu, wall_clock, step_time, throughput, peak_memory, final_loss, flops, "
    "num_ops, tensor_memory, mfu, ..., launches=1, allowance_s=120, peak_tflops=None): what the test's training may "
    "cost; docs/budgets.md has all names. The first nine are absolute limits; the next tolerances against the stored "
    "baseline, 0.05 being 5 %. wall_clock_s also ends a test that hangs. A command is launched again, up to launches "
    "times, while a verdict is inconclusive. mfu is a share of peak_tflops, or of the peak that a known GPU has.",
    "gpu": "gpu(count=1, memory_gb=0, name=''): needs GPUs with that memory in GiB and that text in their "
    "names; skipped without, failed with --harness-require-gpu.",
    "profile_capture": "profile_capture(wait=1, warmup=1, active=3, max_mb=50, keep=5): profiles a few "
    "optimizer steps on GPU runners, or with --harness-profile=always, into traces/ of the run directory.",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declares the options."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Reads the options, registers the markers and the session's state."""
    for text in MARKERS.values():
        config.addinivalue_line("markers", text)
    try:
        settings = Settings(config)
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from error
    if settings["accept"] and not settings["reason"].strip():
        raise pytest.UsageError(
            '--accept-baselines needs a reason, which is kept with them.\nNext: --accept-baselines --reason "why"'
        )
    if settings["reason"] and not settings["accept"]:
        raise pytest.UsageError("--reason is the reason of --accept-baselines, which is not given.")
    if settings["accept"]:
        _require_folder(config, settings)
    config.stash[SETTINGS] = settings
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(HarnessSession(config), "harness-session")


def _require_folder(config: pytest.Config, settings: Settings) -> None:
    """Refuses to accept baselines into a commit before anything is trained."""
    from harness.baselines.shelves import open_shelf  # noqa: PLC0415  late

    try:
        open_shelf(settings["baselines"], root=config.rootpath).path("any")
    except UsageError as error:
        flag = f"{settings.source('baselines')}={settings['baselines']}"
        raise pytest.UsageError(
            f"{flag} is a commit, and baselines are accepted into a folder.\n"
            "Next: leave it out, or --harness-baselines DIR with --accept-baselines."
        ) from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Checks the markers of a test, and runs it on each device its marker names."""
    try:
        state = read_state(metafunc.definition)
    except UsageError as error:
        assert metafunc.definition.parent is not None  # noqa: S101  a function always has a parent
        raise metafunc.definition.parent.CollectError(str(error)) from None
    if state is not None and state.training.devices and "smoke_training" in metafunc.fixturenames:
        params = [
            pytest.param(device, marks=[pytest.mark.gpu] if device == "cuda" and state.gpu is None else [])
            for device in state.training.devices
        ]
        metafunc.parametrize("smoke_training", params, indirect=True, ids=state.training.devices)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Gives each item its state, and arms pytest-timeout where a wall-clock limit is set."""
    has_timeout = config.pluginmanager.hasplugin("timeout")
    for item in items:
        try:
            state = read_state(item)
        except UsageError as error:  # of a mark on pytest.param() or on a unittest method
            raise pytest.UsageError(str(error)) from error
        if state is None:
            continue
        item.stash[STATE] = state
        limit_s = state.budget.wall_clock_limit_s if state.budget else None
        if limit_s is not None and has_timeout and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(limit_s + TIMEOUT_SLACK_S))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Counts the tolerances of the tests that are left, which share one error rate."""
    session.config.stash[NUM_TOLERANCES] = count_tolerances(session.items)


def read_state(item: pytest.Item) -> TestState | None:
    """What the markers and fixtures of a test ask of the harness; None when nothing does.

    Markers of one name are merged, the nearest to the test winning.

    Raises:
        UsageError: A marker's argument is unknown or can't be used.
    """
    found = {name: _merge_marker(item, name) for name in MARKERS}
    uses_fixture = "smoke_training" in getattr(item, "fixturenames", ())
    if not uses_fixture and all(arguments is None for arguments in found.values()):
        return None
    from harness.budgets.spec import parse_budget, parse_launches  # noqa: PLC0415  late, so that pytest starts without
    from harness.markers import parse_gpu, parse_training  # noqa: PLC0415
    from harness.profiling.schedule import parse_schedule  # noqa: PLC0415
    from harness.project import FILE, read_budget_defaults  # noqa: PLC0415
    from harness.state import TestState  # noqa: PLC0415

    source = {name: f"@pytest.mark.{name} on {item.nodeid}" for name in MARKERS}
    bounds, gpu, schedule = found["budget"], found["gpu"], found["profile_capture"]
    launches = None
    if bounds is not None:
        bounds, launches = parse_launches(
            read_budget_defaults(item.config.rootpath / FILE) | bounds, source=source["budget"]
        )
    if bounds is not None and schedule is not None:
        raise UsageError(
            f"{item.nodeid} has both a budget and a profile_capture, but a profiled run is never the timed one.\n"
            "Next: put the capture on a test of its own."
        )
    training = parse_training(found["smoke_training"] or {}, source=source["smoke_training"])
    if training.has_baseline and schedule is not None:
        raise UsageError(
            f"{item.nodeid} has both baseline=True and a profile_capture, but a profiled run is watched lightly.\n"
            "Next: put the capture on a test of its own."
        )
    return TestState(
        training=training,
        is_traced=training.has_baseline or calls_comparison(item),
        gpu=None if gpu is None else parse_gpu(gpu, source=source["gpu"]),
        budget=None if bounds is None else parse_budget(bounds, source=source["budget"]),
        launches=launches,
        schedule=None if schedule is None else parse_schedule(schedule, source=source["profile_capture"]),
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Starts a test, or a rerun of it, without runs; skips it where its GPU is missing, or fails it."""
    state = item.stash.get(STATE, None)
    if state is None:
        return
    state.forget_runs()
    if state.gpu is None:
        return
    from harness.watch.devices import explain_missing_gpu, find_gpus  # noqa: PLC0415  imports torch

    request = state.gpu
    reason = explain_missing_gpu(
        find_gpus(), count=request.count, memory_gb=request.memory_gb, name=request.name
    )
    if reason is None:
        return
    settings = item.config.stash[SETTINGS]
    if settings["require_gpu"]:
        pytest.fail(
            f"{reason}; {settings.source('require_gpu')} requires it.\n"
            "Next: run on a machine with that GPU, or without the option, which skips the test.",
            pytrace=False,
        )
    pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Judges trajectory and budget once the test's own assertions hold, so that the verdict is its outcome."""
    state = item.stash.get(STATE, None)
    if state is None:
        return (yield)
    try:
        result = yield
        if state.training.has_baseline:
            _compare(item, state)
        if state.budget is not None:
            judge_marker(item, state)
        accept_claims(item, state)
        _store_accepted(state)
    except BaseException:
        state.forget_accepted()
        raise
    else:
        return result
    finally:
        add_properties(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Hangs what the harness saw on the report of the test, which travels from worker to controller.

    A refusal is shown at the test's own line.
    """
    if call.excinfo is not None and isinstance(call.excinfo.value, HarnessError):
        from harness.tracebacks import cut_own_frames  # noqa: PLC0415  late

        cut_own_frames(call.excinfo.value, item.config.rootpath)
    report = yield
    if item.stash.get(STATE, None) is not None and (report.when == "call" or not report.passed):
        setattr(report, REPORT_ATTRIBUTE, describe_item(item, call, report))
    return report


def _compare(item: pytest.Item, state: TestState) -> None:
    """Compares every run with its stored trajectory that the test has not compared itself."""
    from harness.assertions import assert_matches_baseline  # noqa: PLC0415  late

    if not state.runs:
        state.is_not_observed = True
        pytest.fail(
            f"the baseline of {item.nodeid} was compared with nothing: the test ran no smoke_training.\n"
            "Next: run the training through the smoke_training fixture, or drop baseline=True.",
            pytrace=False,
        )
    problems = []
    for run in state.runs:
        try:
            if run.baseline is not None and not run.baseline.judged:
                assert_matches_baseline(run)
        except AssertionError as error:
            problems.append(str(error))
        except HarnessError as error:
            problems.append(str(error))
            state.is_not_observed = True
    if problems:  # out of the except block, so that the message is told once and not as a chain
        pytest.fail("\n".join(problems), pytrace=False)


def _store_accepted(state: TestState) -> None:
    """Stores the trajectories that were accepted, now that nothing of the test has failed."""
    problem = ""
    for run in state.runs:
        if run.baseline is None or not run.baseline.judged:
            continue
        from harness.baselines.trajectory_judge import store_accepted  # noqa: PLC0415  late

        try:
            store_accepted(run.baseline)
        except HarnessError as error:
            problem = str(error)
            break
    if problem:
        state.is_not_observed = True
        pytest.fail(problem, pytrace=False)


def _merge_marker(item: pytest.Item, name: str) -> dict[str, Any] | None:
    markers = list(item.iter_markers(name))
    if not markers:
        return None
    merged: dict[str, Any] = {}
    for marker in reversed(markers):
        if marker.args:
            raise UsageError(
                f"@pytest.mark.{name} on {item.nodeid} takes keyword arguments only, got {marker.args!r}.\n"
                f"Next: {MARKERS[name].partition(':')[0]}."
            )
        merged |= marker.kwargs
    return merged
