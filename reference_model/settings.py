"""Builds one TrainConfig from defaults, presets, a YAML file and overrides, and refuses unknown keys.

Later sources win: defaults, then the file, then the command line. A preset or a mode stands just below the
keys of the source that names it, so `--mode ci` shortens the run of any file and `--max_steps` still wins.
Keys are dotted (`model.width`); those of the loop may carry the prefix `train.`.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import yaml

from reference_model.config import TrainConfig
from reference_model.errors import ConfigError
from reference_model.presets import MODES, PRESETS

_LOOP_PREFIX = "train."
_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}


@cache
def key_types() -> dict[str, object]:
    """The type of every dotted key, in the order of declaration."""

    def walk(config_type: type, prefix: str) -> dict[str, object]:
        found: dict[str, object] = {}
        for name, hint in typing.get_type_hints(config_type).items():
            if dataclasses.is_dataclass(hint) and isinstance(hint, type):
                found |= walk(hint, f"{prefix}{name}.")
            else:
                found[prefix + name] = hint
        return found

    return walk(TrainConfig, "")


def normalize_key(key: str, source: str) -> str:
    """The dotted key as declared: dashes become underscores, the loop's prefix goes.

    Raises:
        ConfigError: if no such key exists; names the nearest ones.
    """
    name = key.replace("-", "_").removeprefix(_LOOP_PREFIX)
    known = key_types()
    if name in known:
        return name
    by_leaf = {known_key.rpartition(".")[2]: known_key for known_key in known}
    leaf = name.rpartition(".")[2]
    near = difflib.get_close_matches(name, known, n=2)
    near += [by_leaf[match] for match in difflib.get_close_matches(leaf, by_leaf, n=2)]
    hint = " or ".join(f"'{match}'" for match in dict.fromkeys(near))
    advice = f"did you mean {hint}?" if hint else "see --help for all keys"
    raise ConfigError(f"unknown key '{key}' ({source}): {advice}")


def coerce(key: str, value: object, source: str) -> object:
    """The value as the key's declared type; text such as "1e-3" or "none" counts as what it spells.

    Raises:
        ConfigError: if the value does not spell one of that type.
    """
    hint = key_types()[key]
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if types.NoneType in options and (value is None or str(value).lower() in {"none", "null"}):
        return None
    (wanted,) = (option for option in options if option is not types.NoneType)
    if typing.get_origin(wanted) is typing.Literal:
        choices = typing.get_args(wanted)
        if value in choices:
            return value
        near = difflib.get_close_matches(str(value), choices, n=1)
        advice = f"; did you mean '{near[0]}'?" if near else ""
        raise ConfigError(f"{key} must be one of {', '.join(choices)}, got {value!r} ({source}){advice}")
    try:
        return _convert(value, wanted)
    except (TypeError, ValueError, OverflowError):
        name = getattr(wanted, "__name__", str(wanted)).lower()
        raise ConfigError(f"{key} must be of type {name}, got {value!r} ({source})") from None


def _convert(value: object, wanted: object) -> object:
    text = str(value).strip()
    if wanted is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise ValueError(text)
    if isinstance(value, bool) or value is None:
        raise TypeError(text)
    if wanted is int:
        return int(text)
    if wanted is float:
        return float(text)
    if wanted is Path:
        return Path(text)
    return text


def build_config(overrides: Mapping[str, object] | None = None, file: Path | None = None) -> TrainConfig:
    """The configuration that defaults, file and overrides add up to.

    Args:
        overrides: dotted keys and their values, as the command line gives them; strings are converted.
        file: YAML file with the same keys, nested or dotted.

    Raises:
        ConfigError: for an unknown key, a value of the wrong type or range, or an unreadable file.
    """
    from_file = _normalized(_flatten(_read_yaml(file)), f"from {file}") if file else {}
    from_caller = _normalized(overrides or {}, "from the command line")
    values: dict[str, object] = {}
    for given, later in ((from_file, from_caller), (from_caller, {})):
        for selector, table in (("preset", PRESETS), ("mode", MODES)):
            if selector in given and selector not in later:
                values |= table[str(given[selector])]
        values |= given
    return _construct(TrainConfig, values, "")


def flatten_config(config: TrainConfig) -> dict[str, object]:
    """Dotted keys and plain values (paths as text) of a configuration."""
    nested = dataclasses.asdict(config)
    return {key: str(v) if isinstance(v, Path) else v for key, v in _flatten(nested).items()}


def dump_config(config: TrainConfig) -> str:
    """The configuration as YAML that `build_config` reads back to an equal one."""
    nested: dict[str, object] = {}
    for key, value in flatten_config(config).items():
        section, _, leaf = key.rpartition(".")
        if section:
            typing.cast("dict[str, object]", nested.setdefault(section, {}))[leaf] = value
        else:
            nested[leaf] = value
    return yaml.safe_dump(nested, sort_keys=False)


def _construct(config_type: type[TrainConfig], values: Mapping[str, object], prefix: str) -> TrainConfig:
    arguments: dict[str, object] = {}
    for name, hint in typing.get_type_hints(config_type).items():
        key = prefix + name
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            arguments[name] = _construct(typing.cast("type[TrainConfig]", hint), values, f"{key}.")
        elif key in values:
            arguments[name] = values[key]
    return config_type(**typing.cast("dict[str, typing.Any]", arguments))


def _normalized(given: Mapping[str, object], source: str) -> dict[str, object]:
    named = {normalize_key(key, source): value for key, value in given.items()}
    return {key: coerce(key, value, source) for key, value in named.items()}


def _flatten(nested: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _read_yaml(file: Path) -> Mapping[str, object]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {file}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise ConfigError(f"{file} must hold a mapping of keys to values, got {type(content).__name__}")
    return content
