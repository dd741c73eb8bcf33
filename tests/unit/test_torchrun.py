from __future__ import annotations

import sys

import pytest

from harness.errors import UsageError
from harness.watch.torchrun import build_torchrun

LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


@pytest.mark.parametrize(
    ("words", "launched"),
    [
        (["python", "train.py", "--mode", "ci"], ["python", *LAUNCH, "train.py", "--mode", "ci"]),
        (["python3.11", "-u", "-m", "pkg", "-x"], ["python3.11", "-u", *LAUNCH, "-m", "pkg", "-x"]),
        (["python", "-W", "ignore", "train.py"], ["python", "-W", "ignore", *LAUNCH, "train.py"]),
        (["train.py", "--mode", "ci"], [sys.executable, *LAUNCH, "train.py", "--mode", "ci"]),
        (["litgpt", "pretrain"], [sys.executable, *LAUNCH, "--no-python", "litgpt", "pretrain"]),
    ],
)
def test_a_command_is_launched_as_what_it_is(words: list[str], launched: list[str]) -> None:
    assert build_torchrun(words, 2) == launched


@pytest.mark.parametrize("words", [["python"], ["python", "-c", "print()"], ["python", "-u"]])
def test_an_interpreter_without_a_script_is_misuse(words: list[str]) -> None:
    with pytest.raises(UsageError, match="names no script or module"):
        build_torchrun(words, 2)


def test_no_rank_is_misuse() -> None:
    with pytest.raises(UsageError, match="ranks=0 must be a whole number of at least 1"):
        build_torchrun(["train.py"], 0)
