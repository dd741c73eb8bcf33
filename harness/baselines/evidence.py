"""All that is known of how two runs part: the first step that goes another way, and their settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.baselines.pairs import HELD
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from harness.baselines.pairs import Difference, Pair
    from harness.baselines.setting_changes import SettingChange


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of how two runs part.

    Attributes:
        pair: The first step that goes another way.
        first_index: The first step in which what is blamed differs; before that one or the same.
        differences: What differs in that step, in order.
        changes: Settings in which the runs differ.
        phase: What is blamed.
        is_exact: Whether every bit was compared.
    """

    pair: Pair
    first_index: int
    differences: tuple[Difference, ...]
    changes: tuple[SettingChange, ...]
    phase: Phase = Phase.DATA
    is_exact: bool = True

    @property
    def is_from_start(self) -> bool:
        """Whether the runs part before or in the first step."""
        return self.first_index == 0

    @property
    def seen(self) -> frozenset[Phase]:
        """The phases of all that differs in the step."""
        return frozenset(found.phase for found in self.differences)

    @property
    def moved(self) -> Phase:
        """The first phase in which something differs that moves the training."""
        return next(found.phase for found in self.differences if found.moves)

    def find(self, phase: Phase) -> Difference | None:
        """The first difference of a phase; what optimizers hold before what follows from it."""
        own = [found for found in self.differences if found.phase is phase]
        return next((found for found in own if found.item.startswith(HELD)), own[0] if own else None)

    def list_changes(self, phase: Phase) -> list[SettingChange]:
        """The settings of a phase that differ; the order of samples, which follows from others, aside."""
        return [change for change in self.changes if change.phase is phase and not change.is_order]
