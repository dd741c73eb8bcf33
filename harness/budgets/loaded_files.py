"""Whether two programs that were compared ran the code of their own revisions, told by the files they loaded."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SOURCES = (".py", ".pyx", ".c", ".cc", ".cpp", ".cu", ".rs")
INIT = "__init__"


class SharedModule(NamedTuple):
    """A module that both programs loaded from one file, although their revisions differ in its source."""

    module: str
    file: str
    source: str


def find_shared_modules(
    base: Mapping[str, str], head: Mapping[str, str], *, roots: Sequence[Path], changed: Iterable[str]
) -> list[SharedModule]:
    """Modules for which both programs loaded one file, and of which the revisions hold different sources.

    None: no such module was found, and what differs was either loaded from two trees, or not loaded at all.

    Args:
        base: Files of the modules that the base loaded, by module name.
        head: The same of the head.
        roots: Top folders of trees of the repository: a file below one is known by its path there, any other by
            the name of its module.
        changed: Paths that differ between the revisions, relative to the top.
    """
    by_path = set(changed)
    by_module = {_strip(path): path for path in sorted(by_path) if PurePosixPath(path).suffix in SOURCES}
    places = [root.resolve() for root in roots]
    shared = []
    for module, file in head.items():
        if module not in base or os.path.realpath(base[module]) != os.path.realpath(file):
            continue
        path = _find_path(Path(file).resolve(), places)
        source = path if path in by_path else None
        if path is None:
            source = _find_source(module, by_module)
        if source is not None:
            shared.append(SharedModule(module, file, source))
    return shared


def find_loaded_changes(loaded: Mapping[str, str], root: Path, changed: Iterable[str]) -> list[str]:
    """Which of the changed files a program has loaded, of its own tree."""
    place = root.resolve()
    paths = {_find_path(Path(file).resolve(), [place]) for file in loaded.values()}
    return sorted(path for path in changed if path in paths)


def _find_path(file: Path, roots: Sequence[Path]) -> str | None:
    """The path of a file below the innermost of the roots; None where it is below none, or installed."""
    inside = [root for root in roots if file.is_relative_to(root)]
    if not inside or "site-packages" in file.parts:
        return None
    return file.relative_to(max(inside, key=lambda root: len(root.parts))).as_posix()


def _find_source(module: str, by_module: Mapping[tuple[str, ...], str]) -> str | None:
    """The changed source of an installed module: `src/package/part.py` of `package.part`."""
    words = tuple(module.split("."))
    for path, source in by_module.items():
        is_top_level = len(path) - len(words) <= 1 or len(words) > 1
        if is_top_level and path[-len(words) :] == words:
            return source
    return None


def _strip(path: str) -> tuple[str, ...]:
    """A path as the words of a module's name."""
    parts = PurePosixPath(path).with_suffix("").parts
    return parts[:-1] if parts[-1] == INIT else parts
