"""Rows of cells as lines of text, in columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

GAP = 2


def align_columns(rows: Sequence[Sequence[str]], is_right: Container[int] = ()) -> list[str]:
    """Rows as lines of text, with columns of one width; some stand to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        (" " * GAP)
        .join(
            cell.rjust(width) if column in is_right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        .rstrip()
        for row in rows
    ]
