"""The layout of a stored trajectory: JSON that people can read, and that changes little where little changes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

SPREAD = (
    "",
    "provenance",
    "provenance.environment",
    "machine",
    "settings",
    "settings.*",
    "parameters",
    "parameters.*",
    "sources",
    "project_files",
    "points",
    "points.rows",
    "deep",
    "deep.*",
    "deep.*.inputs",
    "deep.*.outputs",
    "deep.*.losses",
    "deep.*.tensors",
    "deep.*.still",
)
"""Parts whose entries get a line each; whatever lies deeper stands on one line: a step, a tensor, a setting."""


def render(document: dict[str, Any]) -> str:
    """The document as JSON text, with a line for every step, tensor and setting, and none for a single number.

    Reading it as JSON gives the document back.

    Raises:
        ValueError: It holds a number that is not finite.
    """
    return _render(document, ()) + "\n"


def _render(value: Any, path: Sequence[str]) -> str:
    if not value or not isinstance(value, (dict, list)) or not _is_spread(path):
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    if isinstance(value, list):
        opening, closing = "[", "]"
        rows = [_render(part, (*path, "*")) for part in value]
    else:
        opening, closing = "{", "}"
        rows = [
            f"{json.dumps(str(name), ensure_ascii=False)}: {_render(part, (*path, str(name)))}"
            for name, part in value.items()
        ]
    indent = " " * len(path)
    return f"{opening}\n" + ",\n".join(f"{indent} {row}" for row in rows) + f"\n{indent}{closing}"


def _is_spread(path: Sequence[str]) -> bool:
    return any(_matches(path, pattern.split(".") if pattern else []) for pattern in SPREAD)


def _matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    return len(path) == len(pattern) and all(
        wanted in ("*", name) for name, wanted in zip(path, pattern, strict=True)
    )
