"""`harness check --baseline`: a command against its stored trajectory, and `git bisect` with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from harness.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Check = Callable[..., subprocess.CompletedProcess[str]]

TRAIN = """
import sys
import torch
from torch import nn

RATE = 0.1
STEPS = 8
{extra}
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
x = torch.randn(32, 4)
y = x.sum(1, keepdim=True)
optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
for step in range(STEPS):
    loss = nn.functional.mse_loss(net(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""
HARNESS = [sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())"]
COMMAND = ["--", sys.executable, "train.py"]


def write(folder: Path, extra: str = "") -> None:
    (folder / "train.py").write_text(TRAIN.format(extra=extra))


def accepting(reason: str) -> tuple[str, ...]:
    return ("--baseline", "smoke", "--accept-baselines", "--reason", reason)


@pytest.fixture
def check(harness: Callable[..., subprocess.CompletedProcess[str]]) -> Check:
    """Checks `train.py` in the test's folder."""
    return lambda *options: harness("check", *options, *COMMAND)


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the training is accepted as it is, with what was told; to be copied."""
    folder = tmp_path_factory.mktemp("accepted")
    write(folder)
    done = subprocess.run(
        [*HARNESS, "check", *accepting("initial"), *COMMAND],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    (folder / "told.txt").write_text(done.stdout)
    return folder


def test_a_missing_baseline_is_told_and_what_ends_the_run_is_said_again(check: Check, tmp_path: Path) -> None:
    write(tmp_path)
    missing = check("--baseline", "smoke", "--json", "out.json", "--max-steps", "4", "--timeout", "90.5")
    assert missing.returncode == 1
    assert "smoke has no baseline in any numerics class; observed 4 steps" in missing.stdout
    accept = '--max-steps 4 --timeout 90.5 --accept-baselines --reason "initial" -- '
    assert f"Next: harness check --baseline smoke {accept}" in missing.stdout
    assert json.loads((tmp_path / "out.json").read_text())["trajectory"]["verdict"] == "missing baseline"


def test_a_command_is_accepted_matches_and_diverges(check: Check, accepted: Path, tmp_path: Path) -> None:
    assert "accepted: smoke: 8 steps, final loss " in (accepted / "told.txt").read_text()
    shutil.copytree(accepted, tmp_path, dirs_exist_ok=True)
    same = check("--baseline", "smoke", "--json", "out.json")
    assert same.returncode == 0, same.stdout
    assert "smoke matches its baseline in 8 steps, to the last digit." in same.stdout
    assert json.loads((tmp_path / "out.json").read_text())["trajectory"]["is_exact"]

    write(tmp_path, "RATE = 0.11")
    diverged = check("--baseline", "smoke", "--json", "out.json")
    assert diverged.returncode == 1
    assert "First difference: schedule at step 0: " in diverged.stdout
    document = json.loads((tmp_path / "out.json").read_text())
    assert (document["outcome"], document["trajectory"]["divergence"]["phase"]) == ("failed", "schedule")
    assert document["message"].startswith("smoke leaves its baseline at step 0: ")
    assert (
        check(*accepting("larger"))
        .stdout.rstrip()
        .splitlines()[-1]
        .startswith("accepted: smoke: final loss ")
    )


def test_a_step_limit_is_named_where_it_is_why_a_run_is_shorter(
    check: Check, accepted: Path, tmp_path: Path
) -> None:
    shutil.copytree(accepted, tmp_path, dirs_exist_ok=True)
    done = check("--baseline", "smoke", "--max-steps", "4")
    assert done.returncode == 1
    assert "number of steps (8 -> 4)" in done.stdout
    assert "Likely: this run was ended from outside after 4 steps (max_steps=4)" in done.stdout


@pytest.mark.parametrize(
    ("at", "told"),
    [
        ("-1", "Likely: `2.bias` begins with numbers that are not finite."),
        ("4", "First difference: initialisation at step 5: values of the parameters"),
    ],
)
def test_parameters_that_are_no_numbers_are_a_difference(
    check: Check, accepted: Path, tmp_path: Path, at: str, told: str
) -> None:
    shutil.copytree(accepted, tmp_path, dirs_exist_ok=True)
    program = TRAIN.format(extra="")
    loop, ends = "for step in range(STEPS):", "    optimizer.step()\n"
    assert loop in program
    assert program.endswith(ends)
    spoil = f'if step == {at}: net[2].bias.data[0] = float("nan")\n'
    program = program.replace(loop, f"step = -1\n{spoil}{loop}") + f"    {spoil}"
    (tmp_path / "train.py").write_text(program)

    done = check("--bisect", "--baseline", "smoke")

    assert done.returncode == 1, done.stdout
    assert told in done.stdout
    assert "T707" not in done.stdout


def check_on_threads(folder: Path, num_threads: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Checks `train.py` in a process that begins with so many threads."""
    return subprocess.run(
        [*HARNESS, "check", "--baseline", "smoke", *options, *COMMAND],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": str(num_threads)},
        capture_output=True,
        text=True,
        check=False,
    )


SUMMED = """
import sys
import torch
from torch import nn

torch.manual_seed(0)
table = torch.randn(3_000_001) ** 2
scale = torch.stack([(table * number).sum() for number in range(1, 9)]).view(8, 1) / len(table)
torch.set_num_threads(1)
net = nn.Linear(8, 1)
net.weight.data.copy_(scale.T)
x, y = torch.randn(32, 8), torch.randn(32, 1)
optimizer = torch.optim.SGD(net.parameters(), lr={rate})
for step in range(8):
    loss = nn.functional.mse_loss(net(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""


def test_weights_summed_with_other_threads_before_one_is_set_are_no_difference(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SUMMED.format(rate=0.001))
    stored = check_on_threads(tmp_path, 1, "--accept-baselines", "--reason", "initial")
    assert stored.returncode == 0, stored.stdout + stored.stderr
    assert "to the last digit" in check_on_threads(tmp_path, 1).stdout

    exact = check_on_threads(tmp_path, 2, "--exact")
    assert "First difference: initialisation at step 0" in exact.stdout, "the sums have other last digits"
    found = check_on_threads(tmp_path, 2)
    assert found.returncode == 0, found.stdout
    assert "by tolerance: torch had 1 threads when the baseline's program began and 2 here" in found.stdout

    (tmp_path / "train.py").write_text(SUMMED.format(rate=0.003))
    changed = check_on_threads(tmp_path, 2)
    assert changed.returncode == 1
    assert "First difference: schedule at step 0" in changed.stdout


def test_another_limit_than_the_baselines_ends_the_search_for_no_commit_is_to_blame(
    check: Check, tmp_path: Path
) -> None:
    write(tmp_path)
    check(*accepting("initial"), "--max-steps", "6")
    assert check("--baseline", "smoke", "--bisect", "--max-steps", "6").returncode == 0
    for options in (["--max-steps", "4"], []):
        done = check("--baseline", "smoke", "--bisect", *options)
        assert done.returncode == 128, done.stdout
        assert "Next: run it with max_steps=6, as many steps as the baseline has" in done.stdout
    write(tmp_path, "RATE = 0.3")
    assert check("--baseline", "smoke", "--bisect", "--max-steps", "4").returncode == 1


def test_the_baseline_alone_decides_under_bisect(check: Check, tmp_path: Path) -> None:
    write(tmp_path, "RATE = 0.0")
    refused = check(*accepting("initial"))
    assert refused.returncode == 1
    assert "smoke has " in refused.stdout
    assert "so it is not accepted as a baseline" in refused.stdout
    assert check(*accepting("initial"), "--accept-with-findings").returncode == 1, (
        "its findings are still findings"
    )
    assert check("--baseline", "smoke").returncode == 1
    bisected = check("--baseline", "smoke", "--bisect")
    assert bisected.returncode == 0, bisected.stdout


@pytest.mark.parametrize(
    ("extra", "code", "told"),
    [
        ("RATE = 0.2", 1, "leaves its baseline"),
        ("STEPS = 6", 1, "number of steps (8 -> 6)"),
        ("sys.exit('out of cheese')", 125, "git bisect passes over it (exit code 125)"),
        ("STEPS = 0", 125, "git bisect passes over it (exit code 125)"),
    ],
)
def test_exit_codes_are_those_that_bisect_wants(
    check: Check, accepted: Path, tmp_path: Path, extra: str, code: int, told: str
) -> None:
    shutil.copytree(accepted, tmp_path, dirs_exist_ok=True)
    write(tmp_path, extra)
    done = check("--baseline", "smoke", "--bisect")
    assert done.returncode == code, done.stderr
    assert told in done.stdout + done.stderr


def test_a_commit_whose_run_a_time_limit_ended_early_is_passed_over(
    check: Check, accepted: Path, tmp_path: Path
) -> None:
    shutil.copytree(accepted, tmp_path, dirs_exist_ok=True)
    done = check("--baseline", "smoke", "--bisect", "--max-seconds", "1e-6")
    assert done.returncode == 125, done.stdout + done.stderr
    assert (
        "smoke not comparable with its baseline: this run was ended from outside after 2 steps" in done.stdout
    )


@pytest.mark.parametrize(
    "options",
    [
        ["--bisect"],
        ["--baseline", "gone", "--bisect"],
        ["--baseline", "smoke", "--bisect", "--baselines", "HEAD:nowhere"],
        ["--baseline", "smoke", "--bisect", "--no-such-option"],
        ["--baseline", "smoke", "--bisect", "--max-steps", "x"],
        ["--baseline", "smoke", "--bisect", "--accept-baselines", "--reason", "x"],
        ["--baseline", "smoke", "--bisect", "--select", "X9"],
    ],
)
def test_misuse_ends_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", *options, *COMMAND]) == 128
    assert "steps in" not in capsys.readouterr().out, "nothing is trained before"


@pytest.mark.parametrize("folder", ["baselines", "kept"])
def test_what_a_commit_lacks_is_accepted_into_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    (tmp_path / folder / "trajectories").mkdir(parents=True)
    (tmp_path / folder / "trajectories" / "readme").touch()
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "first"]):
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    assert main(["check", "--baseline", "gone", "--bisect", "--baselines", f"HEAD:{folder}", *COMMAND]) == 128
    option = "" if folder == "baselines" else f"--baselines {folder} "
    told = capsys.readouterr().err
    assert f"harness check --baseline gone {option}--accept-baselines" in told
    assert f"then --baselines COMMIT:{folder}\n" in told


def test_a_damaged_baseline_ends_the_search(check: Check, accepted: Path, tmp_path: Path) -> None:
    shutil.copytree(accepted, tmp_path, dirs_exist_ok=True)
    (path,) = tmp_path.glob("baselines/trajectories/*/*.json")
    path.write_text("")
    assert check("--baseline", "smoke", "--bisect").returncode == 128
    assert check("--baseline", "smoke").returncode == 2


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--timeout", "nan"], "--timeout nan must be above 0"),
        (["--exact"], "--exact needs a baseline.\nNext: --exact --baseline NAME"),
        (["--accept-baselines", "--reason", "x"], "--accept-baselines needs a baseline."),
        (["--baseline", " "], "--baseline has no name."),
        (["--baseline", "a", "--exact", "--tolerance"], "--exact and --tolerance exclude each other."),
        (["--baseline", "a", "--accept-baselines"], "--accept-baselines needs a reason"),
        (["--baseline", "a", "--reason", "x"], "--reason belongs to --accept-baselines"),
        (
            ["--baseline", "a", "--accept-with-findings"],
            "--accept-with-findings belongs to --accept-baselines",
        ),
        (["--baseline", "a", "--watch", "light"], "--watch is light.\nNext: leave out --watch."),
        (
            ["--baseline", "a", "--accept-baselines", "--reason", "x", "--baselines", "HEAD:b"],
            "baselines HEAD:b can't be read from git",
        ),
    ],
)
def test_misuse_is_told_before_anything_is_trained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", *options, *COMMAND]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_git_bisect_finds_the_commit_that_changed_training(accepted: Path, tmp_path: Path) -> None:
    """Thirty commits: most change nothing, some can't run, and one halves the learning rate."""

    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", *identity, *words], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("init", "--quiet", "--initial-branch", "main")
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    shutil.copytree(accepted, tmp_path, dirs_exist_ok=True)
    commits = []
    for number in range(30):
        rate = "" if number < 17 else "RATE = 0.05"
        crash = "raise SystemExit('does not run')" if number in (14, 22) else ""
        write(tmp_path, f"{rate}\n{crash}\n# change {number}")
        if number == 20:  # the baselines of later commits are others, and must not be asked
            for path in tmp_path.glob("baselines/trajectories/*/*.json"):
                path.write_text("later")
        git("add", "--all")
        git("commit", "--quiet", "--message", f"change {number}")
        commits.append(git("rev-parse", "HEAD"))
    git("tag", "good", commits[0])
    git("bisect", "start", "HEAD", "good")
    words = ["check", "--bisect", "--baseline", "smoke", "--baselines", "good:baselines", *COMMAND]
    told = git("bisect", "run", *HARNESS, *words)
    assert "# skip: " in git("bisect", "log")
    assert f"{commits[17]} is the first bad commit" in told
