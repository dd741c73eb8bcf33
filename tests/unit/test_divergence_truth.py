"""The proof of "what changed first" is whole: every edit fits, and every mutant has its truth."""

from __future__ import annotations

import ast

from benchmarks.detection.section import BEGIN, END, find_section, put_section
from benchmarks.divergence.changes import CHANGES, SLICE
from benchmarks.divergence.rows import PROGRAMS, SLICED, find_truth, list_mutants
from harness.baselines.trajectory import Phase

MAX_PHASES = 2
NUM_CHANGES = 40


def test_every_change_makes_a_program_and_every_mutant_has_a_truth() -> None:
    for mutant in list_mutants(PROGRAMS, None):
        ast.parse(mutant.build_source())
        assert len(find_truth(mutant).phases) <= MAX_PHASES, mutant.name


def test_there_are_enough_changes_and_every_phase_is_among_them() -> None:
    names = [change.fault.id for change in CHANGES]
    assert len(names) == len(set(names)) >= NUM_CHANGES
    assert {change.truth.phases[0] for change in CHANGES if change.truth.phases} == set(Phase)


def test_the_slice_has_a_change_for_every_phase() -> None:
    mutants = [mutant for mutant in list_mutants(PROGRAMS, [SLICED]) if mutant.fault]
    assert len(mutants) == len(SLICE)
    assert {phase for mutant in mutants for phase in find_truth(mutant).phases} == set(Phase)


def test_the_section_stays_when_the_page_is_made_anew() -> None:
    first, second = f"{BEGIN}\nold\n{END}", f"{BEGIN}\nnew\n{END}"
    page = put_section("# A page\n", first)
    assert find_section(page) == first
    assert put_section(page, second) == f"# A page\n\n{second}\n"
    assert put_section("# Made anew\n", find_section(page)) == f"# Made anew\n\n{first}\n"
    assert put_section("# A page\n", find_section("none")) == "# A page\n"
