from __future__ import annotations

import csv
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from torch.nn import functional

from reference_model import cli
from reference_model.settings import key_types

ROOT = Path(__file__).parents[2]
QUICK = ["--model.width", "16", "--model.layers", "1", "--device", "cpu", "--batch_size=8"]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "reference_model", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "RUN_ID"} | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A text to learn in place of the digits."""
    path = tmp_path / "text.txt"
    path.write_bytes(b"signals arrive at any time. " * 100)
    return path


def test_arguments_may_be_written_with_blank_or_equals_sign() -> None:
    overrides, file = cli.parse_arguments(
        [
            "--train.max_steps",
            "30",
            "--model.width=64",
            "--compile",
            "--config",
            "a.yaml",
            "--max-duration-seconds",
            "5",
        ]
    )
    assert overrides == {
        "train.max_steps": "30",
        "model.width": "64",
        "compile": "true",
        "max-duration-seconds": "5",
    }
    assert file == Path("a.yaml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.widht", "64"], "error: unknown key 'model.widht' (from the command line): did you mean"),
        (["--max_steps"], "error: --max_steps needs a value"),
        (["--max_step"], "error: unknown key 'max_step'"),
        (["go"], "error: unexpected argument 'go'"),
        (["--config", "missing.yaml"], "error: cannot read the configuration file missing.yaml"),
        (["--mode", "fast"], "error: mode must be one of normal, ci"),
        (["--data.path", "missing.txt"], "error: cannot read data.path missing.txt"),
        (["--resume", "missing.pt"], "error: no checkpoint to resume from at missing.pt"),
    ],
)
def test_misuse_is_one_message_and_exit_code_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert errors[0].startswith(message)


def test_broken_training_is_one_message_and_exit_code_1(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(functional, "cross_entropy", lambda logits, *_, **__: logits.mean() * math.nan)
    arguments = [*QUICK, "--data.path", str(text), "--out", str(tmp_path), "--max_nonfinite_steps", "2"]
    assert cli.main(arguments) == 1
    assert "error: loss or gradient was not finite in 3 steps in a row" in capsys.readouterr().err


def test_help_names_every_key_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"--{key} " in text for key in key_types())


def test_a_mistyped_key_does_not_import_torch() -> None:
    code = "import sys; from reference_model import cli; cli.main(['--x', '1']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), check=False).returncode == 0


def stop_by_signal(arguments: list[object], number: signal.Signals) -> tuple[int, str]:
    """Exit code and remaining messages of a run that is sent the signal after its first step."""
    endless = ("--max_steps", 10**6, "--eval_every", 10**6, "--checkpoint_every", 10**6)
    with subprocess.Popen(
        command(*arguments, *endless),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=environment(),
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "train_step_end" in line:
                process.send_signal(number)
                break
        messages = process.stderr.read()
    return process.returncode, messages


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_leaves_a_checkpoint_from_which_the_run_continues(
    number: signal.Signals, tmp_path: Path, text: Path
) -> None:
    run: list[object] = ["--out", tmp_path, "--run_id", "run", *QUICK, "--data.path", text, "--log_every", 1]
    exit_code, messages = stop_by_signal(run, number)
    assert exit_code == 128 + number
    assert "Traceback" not in messages
    assert "emergency" in (tmp_path / "run" / "checkpoints" / "history.jsonl").read_text(encoding="utf-8")
    (saved,) = (tmp_path / "run" / "checkpoints").glob("step_*.pt")
    steps = int(saved.stem.removeprefix("step_")) + 2
    assert cli.main([*map(str, run), "--resume", str(tmp_path / "run"), "--max_steps", str(steps)]) == 0


@pytest.mark.slow
def test_two_ranks_train_on_different_halves_of_the_same_batch(tmp_path: Path, text: Path) -> None:
    run = [*QUICK, "--out", str(tmp_path), "--data.path", str(text), "--model.dropout", "0"]
    run += ["--max_steps", "6", "--log_every", "1", "--accumulation_steps", "2"]
    assert cli.main([*run, "--run_id", "alone"]) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    pair = subprocess.run(
        [*torchrun, "-m", "reference_model", *run, "--run_id", "pair"],
        env=environment() | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
        text=True,
    )
    assert pair.returncode == 0, pair.stderr
    assert {path.name for path in (tmp_path / "pair" / "logs").iterdir()} == {
        "train_rank0.log",
        "train_rank1.log",
    }
    alone_losses, pair_losses = (read_losses(tmp_path / name / "metrics.csv") for name in ("alone", "pair"))
    assert len(alone_losses) == 7
    assert pair_losses == pytest.approx(alone_losses, rel=1e-4)


def read_losses(metrics: Path) -> list[float]:
    with metrics.open(newline="", encoding="utf-8") as file:
        return [float(row["train/loss"] or row["val/loss"]) for row in csv.DictReader(file)]


def test_documentation_has_every_setting_as_it_is() -> None:
    page = (ROOT / "docs" / "reference-model.md").read_text(encoding="utf-8")
    for key, kind, default, meaning in cli.describe_keys():
        escaped = kind.replace("|", r"\|")
        assert f"| `{key}` | {escaped} | {default} | {meaning} |" in page
