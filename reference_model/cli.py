"""The command line: turns arguments into settings, runs, and reports in one line or one exit code."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import signal
import sys
import typing
from pathlib import Path

from reference_model import config as config_module
from reference_model.errors import ConfigError, TrainingError
from reference_model.settings import build_config, flatten_config, key_types, normalize_key

if typing.TYPE_CHECKING:
    from collections.abc import Sequence

_USAGE = """usage: python -m reference_model [--config FILE] [--KEY VALUE | --KEY=VALUE ...]

Trains a small transformer on handwritten digits, or on the bytes of --data.path FILE.
Later sources win: defaults, FILE, command line. Exit code 0: done; 1: training broke;
2: wrong arguments; 128 + n: ended by signal n, with a checkpoint to resume from.

  --config FILE  YAML file with any of the keys below
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    if {"-h", "--help"} & set(arguments):
        print(render_help())  # noqa: T201 - the answer to --help
        return 0
    try:
        overrides, file = parse_arguments(arguments)
        config = build_config(overrides, file)
        from reference_model.training import train  # noqa: PLC0415 - a mistyped key need not wait for torch

        result = train(config)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the one message of a wrong call
        return 2
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the one message of a broken training
        return 1
    print(  # noqa: T201 - the program's result
        f"{result.run_dir}: {result.steps} steps, train loss {result.train_loss_smoothed:.4f}, validation "
        f"{result.val_bits_per_token:.4f} bits per token, {result.wall_s:.1f} s ({result.stop_reason})"
    )
    if result.stop_reason.startswith("SIG"):
        return 128 + signal.Signals[result.stop_reason]
    return 0


def parse_arguments(arguments: Sequence[str]) -> tuple[dict[str, object], Path | None]:
    """Overrides by key as written, and the configuration file.

    A yes-or-no key may stand without a value.

    Raises:
        ConfigError: for a stray word or a key without its value.
    """
    overrides: dict[str, object] = {}
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or word == "--":
            raise ConfigError(
                f"unexpected argument '{word}': settings are written --key value or --key=value"
            )
        key, has_value, value = word[2:].partition("=")
        if not has_value:
            if words and not words[0].startswith("--"):
                value = words.pop(0)
            elif key != "config" and key_types()[normalize_key(key, "on the command line")] is bool:
                value = "true"
            else:
                raise ConfigError(f"--{key} needs a value")
        overrides[key] = value
    file = overrides.pop("config", None)
    return overrides, Path(str(file)) if file is not None else None


def describe_keys() -> list[tuple[str, str, str, str]]:
    """Key, type, default and meaning of every setting, in the order of declaration."""
    defaults = flatten_config(config_module.TrainConfig())
    meanings = _read_meanings()
    return [
        (key, _name_type(hint), _name_value(defaults[key]), meanings[key])
        for key, hint in key_types().items()
    ]


def render_help() -> str:
    """The usage and the list of all settings."""
    lines = [
        f"  --{key} {kind}\n      {meaning} [{default}]" for key, kind, default, meaning in describe_keys()
    ]
    return _USAGE + "\n".join(lines)


def _read_meanings() -> dict[str, str]:
    """The docstring under each field; Python keeps none at run time, so they are read from the source."""
    classes = {
        node.name: {
            field.target.id: inspect.cleandoc(text.value.value)
            for field, text in zip(node.body, node.body[1:], strict=False)
            if isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        }
        for node in ast.parse(inspect.getsource(config_module)).body
        if isinstance(node, ast.ClassDef)
    }
    meanings = dict(classes["TrainConfig"])
    for name, hint in typing.get_type_hints(config_module.TrainConfig).items():
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            meanings |= {f"{name}.{leaf}": text for leaf, text in classes[hint.__name__].items()}
    return meanings


def _name_type(hint: object) -> str:
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    if typing.get_origin(hint) is typing.Literal:
        return "|".join(options)
    if options:
        return f"{_name_type(options[0])}|none"
    if hint is Path or hint is str:
        return "PATH" if hint is Path else "TEXT"
    return str(getattr(hint, "__name__", hint)).upper()


def _name_value(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
