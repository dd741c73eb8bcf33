"""Draws docs/images/report.svg: the terminal of a real session with one healthy and one broken training.

Needs rich besides the project's own extras: `pip install rich && python docs/picture.py`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
WIDTH = 126
TESTS = """\
import pytest
from harness import assert_healthy
from reference_model import build_config, train


@pytest.mark.smoke_training(seed=0)
@pytest.mark.budget(wall_clock_s=60, final_loss=0.02)
def test_healthy(smoke_training, tmp_path):
    run = smoke_training(train, build_config({"mode": "ci", "out": tmp_path}))
    assert_healthy(run)


@pytest.mark.smoke_training(seed=0)
@pytest.mark.budget(wall_clock_s=60)
def test_broken(smoke_training, tmp_path):
    run = smoke_training(train, build_config({"mode": "ci", "out": tmp_path, "optim.lr": 0.0}))
    assert_healthy(run)
"""


def main() -> None:
    """Runs the session twice, first to accept the baseline, and draws the second."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_training.py").write_text(TESTS, encoding="utf-8")
        accept = ("--accept-baselines", "--reason", "initial", "-k", "healthy")
        run_pytest(folder, *accept)
        output = run_pytest(folder, "--color=yes", "--tb=short", "--show-capture=no")
    console = Console(record=True, width=WIDTH, file=sys.stderr)
    console.print(Text("$ pytest test_training.py", style="bold"))
    console.print(Text.from_ansi(output))
    console.save_svg(str(ROOT / "docs" / "images" / "report.svg"), title="pytest-training-harness")


def run_pytest(folder: str, *arguments: str) -> str:
    """The output of a session in a folder."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "COLUMNS": str(WIDTH)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.stdout


if __name__ == "__main__":
    main()
