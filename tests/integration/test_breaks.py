"""Breaks the reference model in five ways; its smoke training turns red each time and names the symptom."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.baselines.pools import PoolStore
from harness.baselines.shelves import FolderShelf
from harness.watch.environment import capture_environment

pytestmark = pytest.mark.serial

ROOT = Path(__file__).parents[2]
SMOKE_TEST = "tests/training/test_reference_model.py::test_reference_model_trains[cpu]"
SPREAD = (0.97, 0.985, 1.015, 1.03)

BREAKS = {
    "labels shuffled": (
        "inputs_BT, targets_BT = batch\n",
        "inputs_BT, targets_BT = batch\n            targets_BT = targets_BT[torch.randperm(len(targets_BT))]\n",
        "*First difference: RNG at step 0: generator of torch *",
    ),
    "learning rate 0": (
        "state.scaler.step(state.optimizer)\n",
        (
            'state.optimizer.param_groups[0]["lr"] = state.optimizer.param_groups[-1]["lr"] = 0.0\n'
            "            state.scaler.step(state.optimizer)\n"
        ),
        "*T101 loss-not-decreasing: *",
    ),
    "NaN injected": (
        "loss = loss * weight\n",
        'loss = loss * weight * (float("nan") if self.state.progress.step == 20 else 1.0)\n',
        "*T201 non-finite-metric: loss is nan at step 20*",
    ),
    "metrics not written": (
        'self.metrics.write(progress.step, "train", values)\n',
        "pass\n",
        "*no loss in the metrics file *",
    ),
    "a sleep that doubles the step": (
        "data_s = time.perf_counter() - started\n",
        "data_s = time.perf_counter() - started\n        time.sleep({step_time_s})\n",
        "step_time_s *: baseline *, observed *",
    ),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A copy of the project with a baseline of this machine, and the healthy step time in seconds."""
    project = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "reference_model", project / "reference_model")
    shutil.copytree(ROOT / "tests/training", project / "tests/training")
    shutil.copy(ROOT / "pyproject.toml", project)
    healthy = run_smoke_test(project, "--accept-baselines", "--reason", "healthy")
    assert healthy.returncode == 0, healthy.stdout
    store = PoolStore(FolderShelf(project / "baselines"))
    (runner_class,) = store.find_classes(SMOKE_TEST)
    pool = store.read(SMOKE_TEST, runner_class)
    assert pool is not None
    (launch,) = pool.launches
    for factor in SPREAD:
        values = {name: value * factor for name, value in launch.values.items()}
        values["final_loss"] = launch.values["final_loss"]
        noisy = dataclasses.replace(launch, values=values)
        store.extend(SMOKE_TEST, [noisy], capture_environment(), runner_class)
    return project, launch.values["step_time_s"]


def run_smoke_test(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-W",
        "error",
        SMOKE_TEST,
        *arguments,
    ]
    environment = os.environ | {"PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("GITHUB_STEP_SUMMARY", None)
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=200
    )


def test_unbroken_model_is_green(project: tuple[Path, float]) -> None:
    done = run_smoke_test(project[0])
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", BREAKS)
def test_break_turns_the_smoke_training_red_and_names_the_symptom(
    name: str, project: tuple[Path, float]
) -> None:
    folder, step_time_s = project
    healthy, broken, symptom = BREAKS[name]
    source = folder / "reference_model/trainer.py"
    text = source.read_text(encoding="utf-8")
    assert text.count(healthy) == 1, f"the reference model has no longer one {healthy!r}"
    try:
        source.write_text(text.replace(healthy, broken.format(step_time_s=step_time_s)), encoding="utf-8")
        # A busy machine makes a slower step inconclusive; here that must not let it pass.
        done = run_smoke_test(folder, "--show-capture=no", "--harness-inconclusive=fail")
    finally:
        source.write_text(text, encoding="utf-8")
    assert done.returncode in (1, 2), done.stdout
    pytest.LineMatcher(done.stdout.splitlines()).fnmatch_lines([symptom])
