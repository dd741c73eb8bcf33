"""Which programs are run, with which changes, and the truth about each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.detection.clean.settings import RUNS
from benchmarks.detection.fault import CLEAN, Mutant
from benchmarks.detection.faults import FAULTS
from benchmarks.detection.faults import PROGRAMS as GALLERY_PROGRAMS
from benchmarks.divergence.change import Truth
from benchmarks.divergence.changes import CHANGES, SLICE
from benchmarks.divergence.changes.several_models import SEVERAL_CHANGES
from benchmarks.divergence.truth import find_gallery_truth

if TYPE_CHECKING:
    from collections.abc import Sequence

CHANGES_BY_ID = {change.fault.id: change for change in CHANGES}
SEVERAL_IDS = {change.fault.id for change in SEVERAL_CHANGES}
PROGRAMS = tuple(
    dict.fromkeys((*GALLERY_PROGRAMS, *(name for change in SEVERAL_CHANGES for name in change.fault.edits)))
)
"""Those of the gallery, and those of the clean set that have several models or optimizers."""
GALLERY, CHANGE, SEVERAL, SLICED = "gallery", "changes", "several", "slice"


def find_truth(mutant: Mutant) -> Truth:
    """The truth about a mutant; a clean program has nothing to show."""
    if mutant.fault is None:
        return Truth()
    if mutant.fault_id in CHANGES_BY_ID:
        return CHANGES_BY_ID[mutant.fault_id].find_truth(mutant.program)
    return find_gallery_truth(mutant.program, mutant.fault_id)


def find_set(mutant: Mutant) -> str:
    """Whether a mutant is one of the gallery's or one of the changes that no single run shows; of several models."""
    if mutant.fault_id in SEVERAL_IDS:
        return SEVERAL
    return CHANGE if mutant.fault_id in CHANGES_BY_ID else GALLERY


def list_mutants(programs: Sequence[str], words: Sequence[str] | None) -> list[Mutant]:
    """The clean programs, then every mutant of them.

    Args:
        programs: Of these programs alone.
        words: Ids, "gallery", "changes", "several", or "slice" for a dozen of two programs; None takes all.

    Raises:
        SystemExit: A word names nothing.
    """
    faults = [*(change.fault for change in CHANGES), *FAULTS]
    known = {GALLERY, CHANGE, SEVERAL, SLICED, CLEAN, *(fault.id for fault in faults)}
    if strange := [word for word in words or () if word not in known]:
        raise SystemExit(f"no change is called {', '.join(strange)}; `list` shows all of them")
    mutants = [Mutant(program, fault) for fault in faults for program in PROGRAMS if program in fault.edits]
    wanted = [
        mutant
        for mutant in mutants
        if mutant.program in programs
        and (
            words is None
            or mutant.fault_id in words
            or find_set(mutant) in words
            or _is_sliced(mutant, words)
        )
    ]
    if words is not None and CLEAN not in words:
        programs = [program for program in programs if any(mutant.program == program for mutant in wanted)]
    return [*(Mutant(program, None) for program in PROGRAMS if program in programs), *wanted]


def _is_sliced(mutant: Mutant, words: Sequence[str]) -> bool:
    return SLICED in words and (mutant.program, mutant.fault_id) in SLICE


def list_clean_programs() -> list[Mutant]:
    """The six programs and those of the clean set, with their defaults."""
    names = [f"clean/{run.program.removesuffix('.py')}" for run in RUNS]
    return [Mutant(program, None) for program in dict.fromkeys((*GALLERY_PROGRAMS, *names))]
