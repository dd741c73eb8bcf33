"""The exit codes of the command line: 1 stands for a finding and for nothing else."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, NoReturn

from harness.cli import main
from harness.commands.output import EXIT_NOT_OBSERVED

if TYPE_CHECKING:
    import pytest


def test_a_fault_of_the_harness_is_no_finding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_options: object) -> NoReturn:
        raise OSError("out of cheese")

    monkeypatch.setattr("harness.commands.ab.run_ab", fail)
    assert main(["ab", "--base", "main", "--", "python", "train.py"]) == EXIT_NOT_OBSERVED
    told = capsys.readouterr().err
    assert "OSError: out of cheese" in told
    assert "this is a fault of the harness" in told


def test_the_package_runs_as_a_module_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness", "rules", "T401"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith("T401 ")
