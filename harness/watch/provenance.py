"""Reads how a model is put together, and from which of the project's own files."""

from __future__ import annotations

import inspect
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.record.own_files import name_own_file
from harness.watch.naming import clean_name, find_prefix, unwrap

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

MAX_MODULES = 4096
MAX_SETTINGS = 16
MAX_TEXT = 40
PLAIN = (bool, int, float, str)
PASSING = ("training", "call_super_init", "dump_patches")
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
"""Of a function or object; another one in every process."""


def describe_modules(
    roots: Iterable[nn.Module], names: dict[int, str], models: Mapping[int, str]
) -> dict[str, str]:
    """Class and settings of the modules of the models, by name: `dropout: Dropout(p=0.1, inplace=False)`.

    Settings are what a module tells of itself, or else its plain public attributes; a module without any that only
    holds others is left out. Where there are several models, a module is named with its model's name before it, as
    its parameters are in `names`; one that several models share, once, after the first of them.

    Args:
        roots: The models, and parts of them that are called by themselves.
        names: The name of every parameter, by identity.
        models: What stands before those of each model, by identity.
    """
    found: dict[str, str] = {}
    seen: set[int] = set()
    for root in roots:
        inside, prefix = set(found), models.get(id(root), "") or find_prefix(root, names)
        for name, module in unwrap(root).named_modules():
            if len(found) >= MAX_MODULES:
                return found
            if id(module) in seen:
                continue
            seen.add(id(module))
            settings = module.extra_repr() or _list_settings(module)
            if settings or next(module.children(), None) is None:
                parts = [part for part in (prefix, clean_name(root, name)) if part]
                whole = ".".join(parts) or type(module).__name__
                # Models without parameters have no names of their own.
                while whole in inside:
                    whole += "'"
                found.setdefault(whole, f"{type(module).__name__}({ADDRESS.sub('', settings)})")
    return found


def _list_settings(module: nn.Module) -> str:
    plain = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, PLAIN) and not name.startswith("_") and name not in PASSING
    }
    shown = [f"{name}={value!r}" for name, value in plain.items() if len(repr(value)) <= MAX_TEXT]
    return ", ".join(shown[:MAX_SETTINGS])


def find_folder() -> Path:
    """The working directory; one in which no file lies where it has been deleted."""
    try:
        # Without links, as POSIX has it.
        return Path.cwd()
    except OSError:
        return Path(os.devnull)


def find_sources(kinds: Iterable[type], folder: Path) -> dict[str, str]:
    """The file of every class that is the project's own, relative to the folder the program began in, by class."""
    found = {}
    for kind in kinds:
        try:
            path = inspect.getsourcefile(kind)
        except (TypeError, OSError):
            continue
        if path is not None and (own := name_own_file(path, folder)) is not None:
            found[kind.__name__] = own
    return found


def list_project_files(folder: Path) -> list[str]:
    """The Python files of the project that this process has imported, relative to the folder it began in, sorted."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    own = {name_own_file(path, folder) for path in files if isinstance(path, str) and path.endswith(".py")}
    return sorted(path for path in own if path is not None)
