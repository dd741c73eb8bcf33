from __future__ import annotations

from pathlib import Path

import pytest

from reference_model import ConfigError, TrainConfig, build_config
from reference_model.settings import dump_config, key_types


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_command_line_wins_over_file_and_file_over_default(tmp_path: Path) -> None:
    file = write(tmp_path / "run.yaml", "max_steps: 7\nmodel: {width: 32}\noptim.lr: 1e-3\n")
    config = build_config({"train.max_steps": "9"}, file)
    assert config.max_steps == 9
    assert config.model.width == 32
    assert config.optim.lr == 1e-3
    assert config.model.layers == TrainConfig().model.layers


def test_mode_on_the_command_line_shortens_the_run_of_a_file(tmp_path: Path) -> None:
    file = write(tmp_path / "run.yaml", "max_steps: 700\nseed: 5\n")
    config = build_config({"mode": "ci"}, file)
    assert config.max_steps <= 40
    assert config.seed == 5


def test_keys_win_over_the_mode_named_beside_them(tmp_path: Path) -> None:
    file = write(tmp_path / "run.yaml", "train: {mode: ci, max_steps: 12}\n")
    assert build_config({}, file).max_steps == 12
    assert build_config({"mode": "ci", "max_steps": 3}, file).max_steps == 3


def test_mode_of_the_file_has_no_effect_when_the_command_line_names_another(tmp_path: Path) -> None:
    file = write(tmp_path / "run.yaml", "mode: ci\n")
    assert build_config({"mode": "normal"}, file).max_steps == TrainConfig().max_steps


def test_preset_sets_the_size_of_the_model() -> None:
    assert build_config({"preset": "tiny"}).model.width < TrainConfig().model.width
    assert build_config({"preset": "tiny", "mode": "ci"}).max_steps <= 40


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("max_step", "max_steps"),
        ("lr", "optim.lr"),
        ("model.widht", "model.width"),
        ("train.batchsize", "batch_size"),
        ("data.contxt", "data.context"),
    ],
)
def test_unknown_key_is_refused_with_the_nearest_one(key: str, suggestion: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown key '{key}'.*did you mean.*'{suggestion}'"):
        build_config({key: 1})


def test_unknown_key_of_a_file_names_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "run.yaml", "optim: {learning_rate: 1}\n")
    with pytest.raises(ConfigError, match=r"unknown key 'optim.learning_rate' \(from .*run.yaml\)"):
        build_config({}, file)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("max_steps", "many", "max_steps must be of type int, got 'many'"),
        ("max_steps", "2.5", "max_steps must be of type int"),
        ("max_steps", True, "max_steps must be of type int, got True"),
        ("compile", "maybe", "compile must be of type bool"),
        ("seed", "none", "seed must be of type int"),
        ("mode", "norml", "mode must be one of normal, ci.*did you mean 'normal'"),
        ("model.width", 30, r"model.width must be a multiple of model.heads \(4\), got 30"),
        ("optim.lr", -1, r"optim.lr must be in \[0, 1\]"),
        ("optim.lr", "nan", r"optim.lr must be in \[0, 1\]"),
        ("batch_size", 0, "batch_size must be at least 1"),
        ("accumulation_steps", 3, r"batch_size must be a multiple of accumulation_steps \(3\)"),
        ("run_id", "../up", "run_id must be one plain directory name"),
        ("run_id", "", "run_id must be one plain directory name"),
        ("run_id", "..", "run_id must be one plain directory name"),
    ],
)
def test_wrong_value_is_refused_by_name(key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config({key: value})


def test_values_are_converted_to_the_declared_type() -> None:
    config = build_config(
        {"optim.lr": "1e-3", "compile": "yes", "data.path": "f.txt", "max-duration-seconds": "2"}
    )
    assert config.optim.lr == 1e-3
    assert config.compile is True
    assert config.data.path == Path("f.txt")
    assert config.max_duration_seconds == 2.0
    assert build_config({"max_duration_seconds": "none"}).max_duration_seconds is None


def test_dumped_config_reads_back_equal(tmp_path: Path) -> None:
    config = build_config({"mode": "ci", "model.width": 32, "data.path": "f.txt", "seed": 3})
    assert build_config({}, write(tmp_path / "config.yaml", dump_config(config))) == config


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [\n", "just words\n"])
def test_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        build_config({}, write(tmp_path / "run.yaml", text))


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the configuration file"):
        build_config({}, tmp_path / "none.yaml")


def test_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert build_config({}, write(tmp_path / "run.yaml", "")) == TrainConfig()


def test_every_key_has_a_type() -> None:
    assert {"max_steps", "model.width", "data.path", "optim.lr", "out", "run_id"} <= key_types().keys()
