"""How two runs differ in what they were set up with."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.baselines.run_settings import EQUAL_ROWS, NOT_HELD, ORDER, UNOWNED
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from harness.baselines.trajectory import Settings

LOADER = re.compile(r"(loader \d+) (.*)")
CALL = re.compile(r"(.*) \d+")
HOW = (" implementation", " order")
"""Ends of settings of an optimizer that choose how it computes, and what a saved state belongs to."""
COVERS = "clipping covers"
ADDED = (*HOW, EQUAL_ROWS, COVERS, "clipping comes")
"""Ends of settings that baselines of earlier versions lack: told where both runs have them."""


@dataclass(frozen=True, slots=True)
class SettingChange:
    """One setting in which two runs differ; None where a run does not have it."""

    phase: Phase
    name: str
    baseline: Any
    observed: Any

    def __str__(self) -> str:
        if self.baseline is None:
            return f"{self.name} is new: {_show(self.observed)}"
        if self.observed is None:
            return f"{self.name} is gone (was {_show(self.baseline)})"
        return f"{self.name}: {_show(self.baseline)} -> {_show(self.observed)}"

    @property
    def is_order(self) -> bool:
        """Whether it is the order of the samples, which follows from the generators and other settings."""
        return ORDER in self.name

    @property
    def is_neutral(self) -> bool:
        """Whether the same numbers are computed either way, but for rounding."""
        if self.phase is not Phase.OPTIMIZER:
            return False
        return self.name.endswith(HOW) or self._has_other_names_alone()

    def _has_other_names_alone(self) -> bool:
        """Whether a group holds as many tensors and numbers, under other names."""
        whole = [str(value).partition(" (") for value in (self.baseline, self.observed)]
        has_names = all(names for _, _, names in whole)
        return self.name.endswith(" parameters") and has_names and whole[0][0] == whole[1][0]


def _show(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def list_changes(baseline: Settings, observed: Settings) -> list[SettingChange]:
    """The settings in which two runs differ, in the order of phases.

    Phases that one of the runs tells nothing of are passed over: it was watched less closely.
    """
    changes: list[SettingChange] = []
    for phase in Phase:
        before, now = baseline.get(phase), observed.get(phase)
        if before is None or now is None:
            continue
        if phase is Phase.DATA:
            now = _match_loaders(before, now)
        elif phase is Phase.LOSS:
            before, now = _number_calls(before), _number_calls(now)
        elif phase is Phase.INITIALISATION:
            before, now = _describe_model(before, now), _describe_model(now, before)
        elif phase is Phase.CLIPPING:
            before, now = _drop_uncounted(before), _drop_uncounted(now)
        changes += [
            SettingChange(phase, name, before.get(name), now.get(name))
            for name in dict.fromkeys([*before, *now])
            if before.get(name) != now.get(name) and not _is_open(name, before.get(name), now.get(name))
        ]
    return changes


def _is_open(name: str, before: Any, now: Any) -> bool:
    """Whether nothing can be said of two values: one was not recorded, or passes did not go equally far."""
    if before is not None and now is not None:
        if name.endswith(" parameters") and ("(" in str(before)) != ("(" in str(now)):
            # One of them does not know all names.
            return str(before).partition(" (")[0] == str(now).partition(" (")[0]
        return ORDER in name and str(before).partition("/")[2] != str(now).partition("/")[2]
    return ORDER in name or name.endswith(ADDED)


def _drop_uncounted(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of clipping; by value, earlier versions did not count the gradients of a generator of parameters."""
    is_open = str(settings.get("clipping")).startswith("value ") and str(settings.get(COVERS)).startswith(
        "0 of "
    )
    return {name: value for name, value in settings.items() if not (is_open and name == COVERS)}


def _match_loaders(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run's loaders, each under the number that the same loader has in the baseline.

    Loaders are numbered as they are first read: an evaluation before the training turns their numbers round.
    """
    theirs, own = _part_loaders(before), _part_loaders(now)
    free = list(own)
    numbers: dict[str, str] = {}
    for wanted, settings in theirs.items():
        same = next((name for name in free if _is_same_loader(own[name], settings)), None)
        if same is not None:
            numbers[same] = wanted
            free.remove(same)
    left = [name for name in theirs if name not in numbers.values()]
    # What is left over keeps the order in which it was read.
    spare = (
        f"loader {number}" for number in range(len(own) + len(theirs)) if f"loader {number}" not in theirs
    )
    for name in free:
        numbers[name] = left.pop(0) if left else next(spare)
    return {_rename(name, numbers): value for name, value in now.items()}


def _part_loaders(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        if match := LOADER.fullmatch(name):
            found.setdefault(match[1], {})[match[2]] = value
    return found


def _is_same_loader(one: dict[str, Any], other: dict[str, Any]) -> bool:
    first, second = (
        {key: part for key, part in loader.items() if ORDER not in key} for loader in (one, other)
    )
    return first == second


def _rename(name: str, numbers: dict[str, str]) -> str:
    match = LOADER.fullmatch(name)
    return f"{numbers[match[1]]} {match[2]}" if match else name


def _number_calls(settings: dict[str, Any]) -> dict[str, Any]:
    """The calls of each loss function, counted from 0: those of an evaluation before the step were counted too."""
    counts: Counter[str] = Counter()
    found = {}
    for name, value in settings.items():
        match = CALL.fullmatch(name)
        if match is None:
            found[name] = value
            continue
        found[f"{match[1]} {counts[match[1]]}"] = value
        counts[match[1]] += 1
    return found


def _describe_model(settings: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The parameters of the models; which optimizer holds them, if any, is a matter of the optimizer.

    Those that no model owns are left out, and so is the type where the other run does not tell it.
    """
    found = {}
    for name, value in settings.items():
        if name.startswith(UNOWNED):
            continue
        text = str(value)
        if NOT_HELD in text or NOT_HELD in str(other.get(name, "")):
            frozen = " frozen" if " frozen" in text else ""
            text = f"{text.partition(' ')[0]}{frozen}"
        found[name] = text
    return found
