"""A fault, and the mutant that it makes of a program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAMS_FOLDER = Path(__file__).parent / "programs"
HOMES = {
    "": PROGRAMS_FOLDER,
    "clean": Path(__file__).parent / "clean",
    "divergence": Path(__file__).parents[1] / "divergence" / "programs",
}
"""Folders of programs, by what stands before their names."""
CLEAN = "clean"

Edits = tuple[tuple[str, str], ...]


class EditError(Exception):
    """An edit of a fault does not fit its program."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, as a change of one or a few lines in every program it fits.

    Attributes:
        id: Stable name.
        summary: What is wrong, in one sentence.
        expected: Codes of rules, or beginnings of codes such as "T4", that name the cause.
        source: Where a project shipped it, or where it is described; empty where it is common knowledge.
        edits: By program: texts that occur exactly once, and what takes their place.
    """

    id: str
    summary: str
    expected: tuple[str, ...]
    source: str
    edits: Mapping[str, Edits]

    @property
    def family(self) -> str:
        """The family of rules that should name it, such as "T4"."""
        return self.expected[0][:2]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A program with a fault in it, or the clean one.

    Attributes:
        program: Its name; `clean/` before it for one of the clean set, `divergence/` for one of that benchmark's.
        fault: None for a clean program.
        arguments: Of its command line, besides seed and output folder.
    """

    program: str
    fault: Fault | None
    arguments: tuple[str, ...] = ()

    @property
    def fault_id(self) -> str:
        """The name of the fault; "clean", with the arguments, without one."""
        settings = "".join(f" {argument.removeprefix('--')}" for argument in self.arguments)
        return CLEAN + settings.replace(" ", "-") if self.fault is None else self.fault.id

    @property
    def name(self) -> str:
        """Program and fault, for messages."""
        return f"{self.program}/{self.fault_id}"

    def build_source(self) -> str:
        """The text of the program, with the fault in it.

        Raises:
            EditError: A text to replace does not occur exactly once.
        """
        source = read_program(self.program)
        for old, new in self.fault.edits[self.program] if self.fault else ():
            if source.count(old) != 1:
                raise EditError(f"{self.name}: {old!r} occurs {source.count(old)} times, not once")
            source = source.replace(old, new)
        return source


def read_program(program: str) -> str:
    """The text of a clean program."""
    folder, _, name = program.rpartition("/")
    return (HOMES[folder] / f"{name}.py").read_text(encoding="utf-8")


def line(old: str, new: str) -> Edits:
    """One replacement."""
    return ((old, new),)
