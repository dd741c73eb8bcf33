"""Names of tensors and modules, for people."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_NAMES = 3


def name_group(names: Sequence[str]) -> str:
    """Tensors or modules for people: `` `blocks.1.*` `` where all share a beginning that is a module."""
    if not names or names[0] == "*":
        return "some tensors"
    if len(names) == 1:
        return f"`{names[0]}`"
    shared = _find_common([name.split(".") for name in names])
    if shared and len(names) > MAX_NAMES:
        return f"`{'.'.join(shared)}.*`"
    shown = ", ".join(f"`{name}`" for name in names[:MAX_NAMES])
    return f"{shown} and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else shown


def _find_common(paths: Sequence[Sequence[str]]) -> list[str]:
    """The parts that all paths begin with."""
    parts = zip(*paths, strict=False)
    return [part[0] for part in itertools.takewhile(lambda part: len(set(part)) == 1, parts)]


def agree(names: Sequence[str], one: str, many: str) -> str:
    """The verb that goes with so many names."""
    return one if len(names) == 1 and names != ("*",) else many
