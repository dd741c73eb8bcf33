"""Rules about memory and compilation within one run."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from harness.rules.finding import Bound, Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.deep import DeepObservation
    from harness.record.run import TrainingRun

MIN_POINTS = 3
MIN_GRAPHS = 8
MIB = 2**20
MIN_SAMPLES = 8
RISING_SHARE = 0.9
WARM_UP_STEPS = 10


def _find_marked(run: TrainingRun) -> list[DeepObservation]:
    """The deep steps at whose end enough graphs of earlier steps were looked for."""
    deep_steps = run.observed.deep_steps if run.observed else []
    return [deep for deep in deep_steps if deep.num_marked_graphs >= MIN_GRAPHS]


def _check_graphs(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    deep_steps = _find_marked(run)
    shares = [deep.num_held_graphs / deep.num_marked_graphs for deep in deep_steps]
    if min(shares) < bounds["min_share"]:
        return
    last = deep_steps[-1]
    samples = [s.rss_bytes for s in (run.observed.steps if run.observed else []) if s.rss_bytes is not None]
    grown = ""
    if len(samples) > 1 and samples[-1] > samples[0]:
        grown = f"; the resident set grew by {(samples[-1] - samples[0]) / MIB:.0f} MiB"
    yield Evidence(
        message=f"autograd graphs are kept: {last.num_held_graphs} of {last.num_marked_graphs} graphs looked at, of "
        f"steps before step {last.step}, are still held when it ends (allowed {bounds['min_share']:.0%}){grown}.",
        cause="losses or outputs that are collected, or added up, together with their graph.",
        advice="collect loss.item() or loss.detach(); evaluate under torch.no_grad().",
        subject="autograd graphs",
        step=last.step,
    )


GRAPHS_KEPT = Rule(
    code="R101",
    name="graphs-kept",
    severity=Severity.WARNING,
    summary="A step leaves no autograd graph behind.",
    explanation="""\
In the first 16 steps and in every eighth, the graphs that backwards begin at get a mark, which goes when the graph
goes. At the end of every step watched in depth the marks of earlier steps are counted. A warning when `min_share` of
at least eight of them are still there, at every such step. A loop that drops what it has used holds none; so do
queues of detached features and averages of numbers, and truncated backpropagation through time holds a few.

A list that is emptied at the end of each epoch looks the same within the first one.""",
    cases=("total_loss += loss (transformers#6999)", "outputs collected for a metric with their graph"),
    bounds=(Bound("min_share", 0.9, "smallest share of the earlier graphs still held that counts"),),
    find_obstacle=lambda run: (
        None
        if _find_marked(run)
        else f"it needs a step watched in depth with {MIN_GRAPHS} backwards before it"
    ),
    check=_check_graphs,
    explains=("R102",),
)


def _list_resident(run: TrainingRun) -> list[tuple[int, int]]:
    """Steps and resident sets of the second half of the run."""
    steps = run.observed.steps if run.observed else []
    return [
        (step.step, step.rss_bytes)
        for step in steps
        if step.rss_bytes is not None and 2 * step.step >= steps[-1].step
    ]


def _check_resident(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    points = _list_resident(run)
    (first_step, first), (last_step, last) = points[0], points[-1]
    num_rising = sum(after > before for (_, before), (_, after) in pairwise(points))
    grown = last - first
    if num_rising < RISING_SHARE * (len(points) - 1):
        return
    if grown < bounds["min_share"] * first or grown < bounds["min_mib"] * MIB:
        return
    yield Evidence(
        message=f"the resident set grows from {first / MIB:.0f} to {last / MIB:.0f} MiB between step {first_step} and "
        f"step {last_step}, in nearly every sample: {grown / MIB / (last_step - first_step):.1f} MiB per step "
        f"(allowed {bounds['min_share']:.0%}).",
        cause="something that is collected with every step: outputs, batches, a cache of samples, a replay buffer.",
        advice="look at what lists and dicts hold after the step, or use tracemalloc.",
        subject="resident set",
        step=first_step,
    )


MEMORY_GROWS = Rule(
    code="R102",
    name="memory-grows",
    severity=Severity.NOTE,
    summary="Once warm, a program needs no more memory with every step.",
    explanation="""\
A note when, over the second half of the run and at least eight samples of the resident set, nine of ten samples are
above the one before, and the growth is both `min_share` of the set and `min_mib`. No more than a note, as caches of
samples and replay buffers fill up on purpose. GPU memory is not looked at.""",
    cases=("batches kept in a list for a metric",),
    bounds=(
        Bound("min_share", 0.2, "smallest growth, as a share of the set"),
        Bound("min_mib", 100.0, "smallest growth, in MiB"),
    ),
    find_obstacle=lambda run: (
        None
        if len(_list_resident(run)) >= MIN_SAMPLES
        else f"it needs {MIN_SAMPLES} samples of the resident set, at most ten a second, in the second half of the run"
    ),
    check=_check_resident,
)


def _check_recompiles(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    deep_steps = run.observed.deep_steps if run.observed else []
    counts = [(deep.step, deep.num_compiled_graphs) for deep in deep_steps]
    warm = [(step, number) for step, number in counts if step >= WARM_UP_STEPS]
    if len(warm) >= MIN_POINTS and all(after > before for (_, before), (_, after) in pairwise(warm)):
        first, last = warm[0], warm[-1]
    elif counts:
        first, last = counts[0], counts[-1]
        # Per graph of the first step: one for other sizes, and the same again for evaluation.
        if not first[1] or last[1] < bounds["max_factor"] * first[1]:
            return
    else:
        return
    if last[1] - first[1] < bounds["min_graphs"]:
        return
    yield Evidence(
        message=f"torch.compile goes on compiling: {first[1]} graphs after step {first[0]}, {last[1]} after step "
        f"{last[0]} (allowed: fewer than {bounds['min_graphs']:g} more, or {bounds['max_factor']:g} times as many).",
        cause="shapes, numbers or flags that differ from step to step and are compiled in as constants; past its limit "
        "of 8 for one function the compiler gives up, and runs it uncompiled.",
        advice="look at TORCH_LOGS=recompiles; pad to a few lengths, mark dimensions dynamic, or pass numbers "
        "as tensors.",
        subject="torch.compile",
        step=first[0],
    )


RECOMPILES = Rule(
    code="R103",
    name="recompiles",
    severity=Severity.WARNING,
    summary="torch.compile is done once the program is warm.",
    explanation="""\
Graphs made by the end of each step watched in depth. A warning when there are more at every such step than at the
one before, from step 10 on, three of them at least; or when there are `max_factor` times those of the first step:
other sizes and evaluation need twice as many each. `min_graphs` more they have to be in all.""",
    cases=("a new graph for every sequence length (torchtune#522)",),
    bounds=(
        Bound("min_graphs", 3.0, "fewest graphs after the first ones that count"),
        Bound("max_factor", 7.0, "graphs at the end that count, in units of those of the first step"),
    ),
    find_obstacle=lambda run: (
        None if run.observed and run.observed.compilation.is_used else "torch.compile was not used"
    ),
    check=_check_recompiles,
)

RULES = (GRAPHS_KEPT, MEMORY_GROWS, RECOMPILES)
