"""Rules about the order in which a training reads its data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.rules.deep_steps import find_obstacle_to_deep, list_deep, observed_of, tell_steps
from harness.rules.finding import Evidence, Rule, Severity
from harness.rules.loaders import (
    count_batches,
    find_obstacle_to_loaders,
    list_pairs,
    list_training_loaders,
    tell_loader,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.loader_observation import LoaderObservation
    from harness.record.run import TrainingRun

MIN_DEEP_STEPS = 3
MIN_STEPS = 10
MIN_PASSES = 3
MIN_SAMPLES = 8


def _check_same_batch(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    loaders = list_training_loaders(run)
    restarted = next((loader for loader in loaders if _is_restarted(loader)), None)
    if restarted is not None:
        yield Evidence(
            message=f"{tell_loader(restarted)} was started anew {len(restarted.epochs)} times and gave one batch "
            f"each time, always the same {restarted.batch_size or 'few'} samples.",
            cause="next(iter(loader)) in the loop: without shuffling that is the first batch for ever.",
            advice="iterate over the loader itself (for batch in loader), or keep one iterator.",
            subject=restarted.dataset,
            step=0,
        )
        return
    steps = _find_steps_alike(run)
    source = next((loader for loader in loaders if _has_more(loader)), None)
    num_steps = len(observed_of(run).steps)
    if source is not None and (
        steps or (len(loaders) == 1 and num_steps >= MIN_STEPS and _is_read_once(source))
    ):
        num_read = max(epoch.num_batches for epoch in source.epochs)
        seen = f"the model is called with the same batch at {tell_steps(steps)}, though " if steps else ""
        yield Evidence(
            message=f"{seen}{tell_loader(source)} has {count_batches(source)} batches; {num_read} of them "
            f"{'was' if num_read == 1 else 'were'} read{'' if steps else f', in {num_steps} steps'}.",
            cause="a batch taken once, before the loop, is used in every step.",
            advice="read from the loader in the loop; where one batch is overfitted on purpose, ignore this rule.",
            subject=source.dataset,
            step=steps[-1] if steps else 0,
        )
    elif steps and not loaders:
        yield Evidence(
            message=f"the model is called with the same batch at {tell_steps(steps)}.",
            cause="the whole data set is one batch, or one batch is overfitted to see that the model can learn; "
            "if neither is meant, the data are never exchanged.",
            advice="nothing where it is meant; else look at where the batch is read.",
            subject="batch",
            step=steps[-1],
            severity=Severity.NOTE,
        )


def _find_steps_alike(run: TrainingRun) -> list[int]:
    """The deep steps, if the model was called with one and the same batch in all of them; else none."""
    deep_steps = [deep for _, deep in list_deep(run)]
    seen = {print_ for deep in deep_steps for print_ in deep.batch_fingerprints}
    # Fingerprints sample large tensors; their ranges are of the whole.
    ranges = {
        tuple((tensor.minimum, tensor.maximum, tensor.mean, tensor.std) for tensor in deep.inputs)
        for deep in deep_steps
    }
    is_alike = len(seen) == 1 and "" not in seen and len(ranges) == 1 and not observed_of(run).environments
    return [deep.step for deep in deep_steps] if is_alike and len(deep_steps) >= MIN_DEEP_STEPS else []


def _is_read_once(loader: LoaderObservation) -> bool:
    return sum(epoch.num_batches for epoch in loader.epochs) == 1


def _is_restarted(loader: LoaderObservation) -> bool:
    orders = {epoch.order for epoch in loader.epochs}
    return (
        len(loader.epochs) >= MIN_PASSES
        and all(epoch.num_batches <= 1 and not epoch.is_complete for epoch in loader.epochs)
        and len(orders) == 1
        and None not in orders
        and (count_batches(loader) or 0) > 1
    )


def _has_more(loader: LoaderObservation) -> bool:
    """Whether it has more batches than were ever read."""
    num_batches = count_batches(loader)
    return num_batches is not None and num_batches > max(epoch.num_batches for epoch in loader.epochs)


def _check_same_order(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    pairs = [
        pair
        for pair in list_pairs(run)
        if pair.loader.is_shuffled
        and pair.first.num_indices == pair.second.num_indices
        and min(pair.first.num_distinct or 0, pair.second.num_distinct or 0) >= MIN_SAMPLES
        and pair.first.order is not None
        and pair.first.num_batches > 1
    ]
    same = [pair for pair in pairs if pair.first.order == pair.second.order]
    are_whole = any(pair.first.is_complete and pair.second.is_complete for pair in same)
    if not same or len(same) < len(pairs) or not (are_whole or len(same) >= MIN_PASSES - 1):
        return
    first = same[0]
    is_distributed = first.loader.sampler == "DistributedSampler"
    cause = (
        "set_epoch is not called, and a DistributedSampler draws from its seed and the epoch alone."
        if is_distributed
        else "the generator is seeded again before every epoch, by torch.manual_seed or by a generator that is built "
        "anew with the loader; dropout and augmentation repeat themselves then, too."
    )
    advice = (
        "call sampler.set_epoch(epoch) before every epoch."
        if is_distributed
        else "seed once, before the first epoch; to make single epochs repeatable, seed with seed + epoch."
    )
    yield Evidence(
        message=f"{tell_loader(first.loader)} shuffles ({first.loader.sampler}), yet {len(same) + 1} passes one after "
        f"the other gave their {first.first.num_indices} samples in the very same order.",
        cause=cause,
        advice=advice,
        subject=first.loader.dataset,
        step=first.second.after_step,
    )


def _check_generators(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    deep_steps = [deep for _, deep in list_deep(run) if deep.rng_fingerprints_after]
    if len(deep_steps) < MIN_DEEP_STEPS:
        return
    reset = [
        name
        for name, begin in deep_steps[0].rng_fingerprints.items()
        if all(
            deep.rng_fingerprints.get(name) == begin
            and deep.rng_fingerprints_after.get(name, begin) not in (begin, "")
            for deep in deep_steps
        )
    ]
    if not reset:
        return
    names = " and ".join(f"`{name}`" for name in reset)
    yield Evidence(
        message=f"the random generator {names} is in the very same state at the beginning of "
        f"{tell_steps([deep.step for deep in deep_steps])}, and each of these steps draws from it.",
        cause="it is seeded, or a saved state is put back, in every step: dropout, noise and sampling are the same "
        "each time.",
        advice="seed once, before the loop; look for manual_seed, set_rng_state and seed_everything inside it, and "
        "in what evaluates or logs in every step.",
        subject=reset[0],
        step=deep_steps[1].step,
    )


GENERATORS_RESET = Rule(
    code="T803",
    name="generators-reset",
    severity=Severity.WARNING,
    summary="Random generators move on from step to step.",
    explanation="""\
The state of each generator (Python's, NumPy's, PyTorch's, that of the GPU) at the first forward of a step and right
before its optimizer steps, on at least three steps watched in depth. If every one of them begins in the very same
state and draws from it, the randomness of all steps is the same.

A generator that nobody draws from stays as it is, and is no finding. Blind to generators of the program's own, and
to a reset between steps that are not watched in depth.""",
    cases=("seeding in the training loop", "an evaluation in every step that seeds for its own sake"),
    find_obstacle=find_obstacle_to_deep,
    check=_check_generators,
    explains=("T802", "T801"),
)
SAME_BATCH = Rule(
    code="T801",
    name="same-batch-again",
    severity=Severity.WARNING,
    summary="Steps train on different batches.",
    explanation="""\
Told by a loader that is started anew for every batch and draws the same indices each time, or by equal fingerprints
of what the model is called with on every step watched in depth (three at least), while a DataLoader that training
reads has more batches than were ever read; or by a loader that is the only one for training, and of whose batches
one was read.

A note where no loader proves that there are more data: training on one whole data set is as common. Silent where the
one batch of a loader is all its data, about loaders that shuffle when started anew, and in reinforcement learning.""",
    cases=(
        "next(iter(loader)) in the training loop",
        "a batch read before the loop, left over from overfitting one batch",
    ),
    find_obstacle=find_obstacle_to_deep,
    check=_check_same_batch,
    explains=("T1", "T807"),
)
SAME_ORDER = Rule(
    code="T802",
    name="same-order-every-epoch",
    severity=Severity.WARNING,
    summary="A loader that shuffles gives every epoch another order.",
    explanation="""\
Fingerprints of the indices that the sampler draws, of passes that follow each other in one training: of one loader,
or of loaders of one pass each that are built anew. Passes between which the optimizer changes are not compared, as
two trainings may begin alike on purpose. Silent about samplers of the program's own, and about passes that were not
read to their end where there are only two.""",
    cases=(
        "a DistributedSampler without set_epoch (pytorch#31771)",
        "torch.manual_seed at the beginning of every epoch",
    ),
    find_obstacle=find_obstacle_to_loaders,
    check=_check_same_order,
)
RULES = (GENERATORS_RESET, SAME_BATCH, SAME_ORDER)
