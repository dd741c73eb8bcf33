"""`harness ab` on a little repository: equal programs, a slow phase, and all the ways in which nothing is compared."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.cli import main
from harness.worktrees import PREFIX, name_machine

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = """
import torch

def spin(seconds):
    import time
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 1))

    def forward(self, x):
        return self.layers(x)
"""

TRAIN = """
import sys
import torch
from tiny.model import Model, spin

torch.manual_seed(0)
model = Model()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
for step in range(int(sys.argv[1]) if len(sys.argv) > 1 else 2000):
    x = torch.randn(512, 256)
    loss = model(x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""

BRIEF = ("--allowance", "1", "--max-steps", "40")
"""As few pairs as there may be, of as few steps as tell."""


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository with one commit; after the test, neither a work tree nor a folder of ours may be left."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    project = tmp_path / "project"
    (project / "src" / "tiny").mkdir(parents=True)
    (project / "src" / "tiny" / "__init__.py").write_text("")
    (project / "src" / "tiny" / "model.py").write_text(PACKAGE)
    (project / "train.py").write_text(TRAIN)
    git(tmp_path, "init", "--quiet", "--initial-branch=main", "project")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "--message=first")
    git(project, "tag", "first")
    yield project
    assert len(git(project, "worktree", "list").splitlines()) == 1
    assert not (project / ".git" / "worktrees").exists() or not any(
        (project / ".git" / "worktrees").iterdir()
    )
    assert not list(temporary.glob(f"{PREFIX}*"))


def build_command(*options: str, words: tuple[str, ...] = (sys.executable, "train.py")) -> list[str]:
    own = [*("ab", "--base", "first", "--json", "../ab.json"), *options, "--", *words]
    return [sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())", *own]


def compare(
    folder: Path,
    *options: str,
    words: tuple[str, ...] = (sys.executable, "train.py"),
    env: dict[str, str] | None = None,
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    done = subprocess.run(
        build_command(*options, words=words),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )
    document = folder.parent / "ab.json"
    return done, json.loads(document.read_text()) if document.exists() else {}


def change(project: Path, path: str, before: str, after: str) -> None:
    text = (project / path).read_text()
    assert before in text
    (project / path).write_text(text.replace(before, after))


def test_equal_programs_pass_and_a_dirty_head_is_said(project: Path) -> None:
    (project / "notes.txt").write_text("not committed")
    done, document = compare(project, "--tolerance", "1", *BRIEF)
    assert done.returncode == 0, done.stderr
    assert "with 1 file that is not committed" in done.stdout
    assert "losses: the same to the last bit" in done.stdout
    assert "neither program loaded one" in done.stdout
    assert "operations: equal, " in done.stdout
    assert {"throughput", "peak_memory_bytes", "first_step_s"} <= document["ratios"].keys()
    assert document["outcome"] in ("pass", "inconclusive")
    assert document["num_pairs"] == 3


@pytest.mark.serial
def test_a_slow_phase_is_found_and_named(project: Path) -> None:
    # In the package: the tree's own must be found, wherever another copy may be installed.
    change(project, "src/tiny/model.py", "return self.layers(x)", "spin(0.02)\n        return self.layers(x)")
    done, document = compare(project, *BRIEF)
    assert done.returncode == 1, done.stdout + done.stderr
    assert document["outcome"] == "regressed"
    assert [phase["phase"] for phase in document["phases"] if phase["is_named"]] == ["forward"]
    assert "; slower: forward " in done.stdout
    assert document["loaded_changes"] == ["src/tiny/model.py"]
    assert f"Next: git diff {git(project, 'rev-parse', 'first').strip()} -- src/tiny/model.py" in done.stdout
    assert document["has_equal_losses"]


@pytest.mark.serial
def test_two_revisions_are_compared_and_the_work_tree_is_left_alone(project: Path) -> None:
    change(project, "train.py", "optimizer.step()", "optimizer.step()\n    spin(0.02)")
    git(project, "commit", "--quiet", "--all", "--message=slow")
    (project / "train.py").write_text("raise SystemExit(3)")
    done, document = compare(project, "--head", "main", *BRIEF)
    assert done.returncode == 1, done.stdout + done.stderr
    assert document["outcome"] == "regressed"
    assert [phase["phase"] for phase in document["phases"] if phase["is_named"]] == ["other"]


def test_a_script_named_by_an_absolute_path_is_refused(project: Path) -> None:
    change(project, "train.py", "lr=1e-3", "lr=1e-4")
    done, document = compare(project, words=(sys.executable, str(project / "train.py")))
    assert done.returncode == 2, done.stdout
    assert "both programs ran the same code" in done.stderr
    assert f"__main__: {project / 'train.py'}, of train.py" in done.stderr
    assert document["outcome"] == "not observed"


def test_a_package_that_only_the_work_tree_offers_is_refused(project: Path) -> None:
    git(project, "mv", "src", "python")
    git(project, "commit", "--quiet", "--message=moved")
    git(project, "tag", "--force", "first")
    change(project, "python/tiny/model.py", "torch.nn.ReLU()", "torch.nn.GELU()")
    # As an editable install does, which names the folder of the work tree.
    site = project.parent / "site"
    site.mkdir()
    (site / "usercustomize.py").write_text(f"import sys; sys.path.append({str(project / 'python')!r})")
    change(project, "train.py", "import sys\n", f"import sys\nsys.path.append({str(project / 'python')!r})\n")
    git(project, "commit", "--quiet", "--message=path", "train.py")
    git(project, "tag", "--force", "first")
    done, _ = compare(project)
    assert done.returncode == 2, done.stdout
    assert "tiny.model: " in done.stderr


@pytest.mark.parametrize(
    ("before", "after", "timeout_s", "told"),
    [
        (
            "loss.backward()",
            "assert step < 9, 'out of cheese'; loss.backward()",
            "60",
            "AssertionError: out of cheese",
        ),
        ("    optimizer.step()\n", "", "60", "trained no step that could be seen"),
        ("2000", "4", "60", "too few steps to compare"),
        (
            "optimizer.step()\n",
            "optimizer.step()\n    if step == 9: __import__('time').sleep(600)\n",
            "30",
            "ended no step for 30 s",
        ),
    ],
    ids=["crash", "no step", "too few steps", "hang"],
)
def test_a_head_that_does_not_train_is_told_and_nothing_is_left(
    project: Path, before: str, after: str, timeout_s: str, told: str
) -> None:
    change(project, "train.py", before, after)
    done, document = compare(project, "--timeout", timeout_s, "--max-steps", "40")
    assert done.returncode == 2, done.stdout
    assert told in done.stderr
    assert "head" in done.stderr
    assert document["outcome"] == "not observed"


@pytest.mark.parametrize("given", [None, "4096"])
def test_the_allocator_keeps_memory_where_the_user_says_nothing(project: Path, given: str | None) -> None:
    code = "import os, sys; sys.exit('keeps ' + os.environ['MALLOC_TRIM_THRESHOLD_'])"
    env = {} if given is None else {"MALLOC_TRIM_THRESHOLD_": given}
    done, _ = compare(project, words=(sys.executable, "-c", code), env=env)
    assert done.returncode == 2
    assert f"Its last words: keeps {given or 2**30}\n" in done.stderr


def test_a_deep_folder_for_temporary_files_is_no_obstacle(project: Path) -> None:
    deep = project.parent / ("deep" * 25)
    deep.mkdir()
    done, _ = compare(project, words=(sys.executable, "-c", "print('came here')"), env={"TMPDIR": str(deep)})
    assert done.returncode == 2
    assert "Its last words: came here\n" in done.stderr
    assert not any(deep.iterdir())


def test_what_git_does_not_hold_is_prepared_and_unlike_numbers_of_steps_are_said(project: Path) -> None:
    change(project, "train.py", "import sys\n", "import sys\nopen('data.txt').read()\n")
    change(project, "train.py", "2000", "30")
    (project / ".gitignore").write_text("data.txt\n")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "--message=data")
    git(project, "tag", "--force", "first")
    (project / "data.txt").write_text("data")
    done, _ = compare(project)
    assert done.returncode == 2
    assert "--prepare CMD can bring them" in done.stderr
    change(project, "train.py", "30", "40")
    prepare = 'cp "$HARNESS_AB_ROOT/data.txt" .'
    done, _ = compare(project, "--tolerance", "1", "--allowance", "1", "--prepare", prepare)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "note: base trains 30 steps and head " in done.stdout
    done, _ = compare(project, "--prepare", "echo no such tool; exit 3")
    assert done.returncode == 2
    assert "exited with code 3 in base.\nno such tool" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_neither_processes_nor_work_trees(
    project: Path, number: signal.Signals
) -> None:
    change(
        project,
        "train.py",
        "torch.manual_seed(0)",
        "print(__import__('os').getpid(), file=open('../pid', 'w'))",
    )
    process = subprocess.Popen(build_command(), cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    started = project.parent / "pid"
    while not (started.exists() and started.read_text().strip()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate()
    assert process.returncode not in (0, 1)
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


def test_what_a_killed_comparison_left_is_taken_away_by_the_next(project: Path) -> None:
    orphan, lost, foreign = (
        Path(tempfile.mkdtemp(prefix=f"{PREFIX}{machine}-4194303-"))
        for machine in (name_machine(), name_machine(), "elsewhere")
    )
    away = project.parent / "away"
    for place in (orphan / "base", lost / "base", foreign / "base", away):
        git(project, "worktree", "add", "--quiet", "--detach", str(place))
    for gone in (lost, away):
        shutil.rmtree(gone)
    try:
        done, _ = compare(project, "--prepare", "exit 3")
        assert done.returncode == 2
        assert not orphan.exists()
        listed = git(project, "worktree", "list")
        assert orphan.name not in listed
        assert lost.name not in listed
        # Of another container that shares the folders, and a user's own on a disk that is not there.
        assert (foreign / "base" / "train.py").is_file()
        assert str(away) in listed
    finally:
        shutil.rmtree(foreign)
        git(project, "worktree", "prune")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--base", "no-such-branch"), "is no revision"),
        (("--tolerance", "5"), "is no share from 0 to 1"),
        (("--threads", "0"), "must be above 0"),
        (("--max-steps", "0"), "--max-steps 0 must be above 0"),
        (("--allowance", "nan"), "--allowance nan must be above 0"),
        (("--timeout", "nan"), "--timeout nan must be above 0"),
    ],
)
def test_misuse_is_told(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    told: str,
) -> None:
    monkeypatch.chdir(project)
    assert main(["ab", "--base", "first", *options, "--", sys.executable, "train.py"]) == 2
    assert told in capsys.readouterr().err


def test_outside_of_a_repository_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert main(["ab", "--base", "first", "--", sys.executable, "train.py"]) == 2
    assert "lies in no git work tree" in capsys.readouterr().err
