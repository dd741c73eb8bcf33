"""What `harness check` shows of a program's own output, and of ranks that do not train together."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Check = Callable[..., tuple[subprocess.CompletedProcess[str], Any]]

TRAIN = """
import torch
weight = torch.nn.Parameter(torch.ones(4))
optimizer = torch.optim.SGD([weight], lr=0.1)
for step in range(12):
    loss = weight.square().sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    {after}
"""


@pytest.fixture
def check(harness: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> Check:
    """Checks a training with a line of its own after each step, and reads the document."""

    def run(*options: str, after: str = "pass") -> tuple[subprocess.CompletedProcess[str], Any]:
        (tmp_path / "train.py").write_text(TRAIN.format(after=after))
        done = harness("check", "--json", "out.json", *options, "--", sys.executable, "train.py")
        return done, json.loads((tmp_path / "out.json").read_text())

    return run


def test_a_crash_shows_its_traceback_once_and_the_document_holds_it_without_a_finding(check: Check) -> None:
    done, document = check(after="assert step < 8, 'out of cheese'")
    assert done.returncode == 2
    assert done.stderr.count("Traceback") == 1
    assert "(after step 8: loss " in done.stderr
    assert "\nIts last words: AssertionError: out of cheese\nNext: " in done.stderr
    assert document["message"].count("Traceback") == 1
    assert "harness: seen" not in done.stdout
    assert document["run"]["findings"] == []


FAILS_BELOW_HOOKS = """
import torch


class Model(torch.nn.Linear):
    def forward(self, inputs):
        if len(inputs) == 3:
            raise KeyError("inputs")
        return super().forward(inputs)


def train():
    model = Model(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for number in (2, 2, 3):
        loss = model(torch.ones(number, 2)).sum()
        loss.backward()
        optimizer.step()


try:
    train()
except KeyError as error:
    torch.autograd.backward(torch.ones(2, requires_grad=True) * 2)
"""


def test_a_traceback_shows_the_lines_of_the_program_and_none_of_the_watcher(
    check: Check, tmp_path: Path
) -> None:
    (tmp_path / "failing.py").write_text(FAILS_BELOW_HOOKS)
    done, _ = check(after="import failing")
    assert done.returncode == 2
    assert "During handling of the above exception" in done.stderr
    assert done.stderr.count('raise KeyError("inputs")') == 1
    assert done.stderr.count("in backward") == 1
    assert "harness/watch" not in done.stderr


LEAVES_AT_NAN = (
    "if step == 5: weight.data.fill_(float('nan'))\n    if not loss.isfinite(): raise SystemExit(3)"
)


def test_a_program_that_leaves_by_itself_at_nan_is_diagnosed_and_still_exits_with_2(check: Check) -> None:
    done, document = check(after=LEAVES_AT_NAN)
    assert done.returncode == 2
    assert "harness: seen in 7 steps, before the end:\nerror: T2" in done.stdout
    assert "exited with code 3" in done.stderr
    assert document["outcome"] == "not observed"
    assert document["run"]["loss"][-1] == [6, "nan"]
    assert "T201" in [finding["code"] for finding in document["run"]["findings"]]


@pytest.mark.slow
def test_ranks_that_train_each_for_itself_are_noted(check: Check) -> None:
    done, document = check("--ranks", "2")
    assert done.returncode == 0, done.stderr
    assert "note: 2 ranks trained beside one another, each for itself" in done.stdout
    assert [rank["has_process_group"] for rank in document["observed"]] == [False, False]
