"""Names of the parameters that optimizers hold: the same ones whether or not a copy of the model was seen as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from harness.record.observation import RunObservation


@dataclass(frozen=True, slots=True)
class FirstNames:
    """The names that the first step has.

    Names are completed by that of the model once there are several, an average of the weights among them; when that is
    depends on the moment they were looked at. The first step has them as short as they can be.

    Attributes:
        known: Names of the parameters of the first step.
        prefix: What stands before those of the first model once there are others; empty where that is not known, as
            of a compiled one, and then it may be anything.
    """

    known: frozenset[str] = frozenset()
    prefix: str = ""

    @classmethod
    def read(cls, observed: RunObservation) -> Self:
        """Those of a run."""
        if not observed.deep_steps:
            return cls()
        first = observed.deep_steps[0]
        # The outermost module is through last, and is called as its class is.
        outermost = next((module for module in reversed(first.modules) if module.name == module.kind), None)
        return cls(
            frozenset({found.name for found in first.parameters} | {found.name for found in first.unheld}),
            "" if outermost is None else f"{outermost.kind}.",
        )

    def shorten(self, name: str) -> str:
        """A name as the first step has it, of a parameter of the first model; any other as it is."""
        if name in self.known:
            return name
        short = name.removeprefix(self.prefix) if self.prefix else name.partition(".")[2]
        return short if short in self.known else name


def list_group_names(observed: RunObservation) -> list[list[list[str]]]:
    """The names in every group of every optimizer."""
    first_names = FirstNames.read(observed)
    return [
        [[first_names.shorten(name) for name in group.parameters] for group in optimizer.groups]
        for optimizer in observed.optimizers
    ]
