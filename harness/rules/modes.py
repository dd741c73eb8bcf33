"""Rules about training and evaluation mode while a model trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.record.watched import has_several_optimizers
from harness.rules.deep_steps import observed_of, tell_names, tell_steps
from harness.rules.finding import Bound, Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.record.run import TrainingRun
    from harness.record.structure import PassObservation

DETERMINISTIC = ("LBFGS",)
"""Optimizers that compare the losses of one batch, so that dropout is off on purpose."""


def find_obstacle_to_passes(run: TrainingRun) -> str | None:
    """Why modes can't be judged; None when they can."""
    if run.observed is None:
        return "nothing was watched"
    if not any(list_trained(run)):
        return "no deep step saw a model train"
    return None


def find_obstacle_to_single_model(run: TrainingRun) -> str | None:
    """Why the modes of one model that trains alone can't be judged; None when they can."""
    obstacle = find_obstacle_to_passes(run)
    if obstacle is None and has_several_optimizers(observed_of(run)):
        return "several optimizers take turns, each with modes of its own"
    return obstacle


def list_trained(run: TrainingRun) -> list[tuple[int, PassObservation]]:
    """The passes on deep steps that a gradient came back to, of models that the optimizers hold."""
    observed = run.observed
    return [
        (deep.step, found)
        for deep in (observed.deep_steps if observed else ())
        for found in deep.passes
        if found.got_gradient and found.num_trained
    ]


def _list_acting(passes: Sequence[PassObservation]) -> list[str]:
    """The modules that act by mode, in some passes."""
    return list(dict.fromkeys(name for found in passes for name in [*found.active, *found.inactive]))


def _find_steps_in_eval_mode(run: TrainingRun) -> list[int]:
    """Steps with a backward and no forward in training mode, but some in eval mode that recorded a graph."""
    observed = observed_of(run)
    evaluated = {found.after_step for found in observed.evaluations if found.num_trained_with_gradient}
    return [
        step.step
        for step in observed.steps
        if step.num_micro_batches and not step.batch_shapes and step.step in evaluated
    ]


def _check_left_in_eval(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    observed = observed_of(run)
    trained = list_trained(run)
    if has_several_optimizers(observed):
        yield from _check_models_in_turns(run)
        return
    in_training = [step.step for step in observed.steps if step.batch_shapes]
    in_eval = _find_steps_in_eval_mode(run)
    # What deep steps saw decides, where they saw any of those steps.
    modes = {step: found.is_training for step, found in trained}
    if not in_training or not in_eval or any(modes.get(step) for step in in_eval):
        return
    acting = _list_acting([found for _, found in trained])
    asking = list(dict.fromkeys(name for _, found in trained for name in found.asking))
    if not (acting or asking) or not any(modes.values()):
        return
    last_training = max(in_training)
    tail = [step for step in in_eval if step > last_training]
    if tail and len(tail) == len(in_eval):
        when = f"from step {tail[0]} on the model trains in eval mode, {len(tail)} steps of {len(observed.steps)}"
    else:
        when = (
            f"{len(in_eval)} of {len(observed.steps)} steps, the first of them step {in_eval[0]}, are made in eval "
            "mode, and later ones in training mode again"
        )
    before = [
        found.after_step
        for found in observed.evaluations
        if found.after_step <= in_eval[0] and found.num_trained
    ]
    after = f", since the evaluation after {before[-1]} steps" if before else ""
    yield Evidence(
        message=f"{when}{after}: {tell_names(acting or asking)} act there as in evaluation.",
        cause="model.train() is missing after an evaluation, or comes only with the next epoch; or the evaluation "
        "itself takes optimizer steps, on held-out data.",
        advice="call model.train() at the end of the evaluation, or at the start of each step; and look whether the "
        "function that evaluates calls backward().",
        subject="model.training",
        step=in_eval[0],
        # What a module of the program's own makes of the mode is not known.
        severity=None if acting else Severity.WARNING,
    )


def _check_models_in_turns(run: TrainingRun) -> Iterator[Evidence]:
    """The same for models that take turns, by what deep steps saw alone."""
    # The backward of a forward may belong to the next step, that of the other optimizer.
    trained = [
        (deep.step, found)
        for deep in observed_of(run).deep_steps
        for found in deep.passes
        if found.with_gradient and found.num_trained
    ]
    for module in dict.fromkeys(found.module for _, found in trained):
        passes = [(step, found) for step, found in trained if found.module == module]
        modes: dict[int, bool] = {}
        for step, found in passes:
            modes[step] = modes.get(step, False) or found.is_training
        later = [step for step, is_training in modes.items() if not is_training]
        acting = _list_acting([found for _, found in passes]) or [
            n for _, found in passes for n in found.asking
        ]
        if not acting or not later or later[-1] != max(modes) or not modes[min(modes)]:
            continue
        yield Evidence(
            message=f"{module} trains in training mode at step {min(modes)} and in eval mode at {tell_steps(later)}: "
            f"{tell_names(dict.fromkeys(acting))} act there as in evaluation.",
            cause="it was put into eval mode to look at samples, and train() is not called again.",
            advice="call train() on it after looking at samples, or at the start of each step.",
            subject=module,
            step=later[0],
            severity=Severity.WARNING,
        )
        return


def _check_never_in_training(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    observed = observed_of(run)
    passes = [found for _, found in list_trained(run)]
    if any(found.is_training for found in passes) or any(step.batch_shapes for step in observed.steps):
        return
    acting = list(dict.fromkeys(name for found in passes for name in found.inactive))
    if not acting:
        return
    num_dropouts = max(found.num_dropouts for found in passes)
    num_untouched = max(found.num_untouched_batch_norms for found in passes)
    is_chosen = any(optimizer.name in DETERMINISTIC for optimizer in observed.optimizers)
    is_frozen = not num_dropouts and not num_untouched
    birth = " (batch norm uses the statistics it was born with)" if num_untouched else ""
    yield Evidence(
        message=f"{passes[0].module} trains in eval mode on every step that was watched in depth: "
        f"{tell_names(acting)} {'do' if len(acting) > 1 else 'does'} not act{birth}.",
        cause="model.train() is never called, on a model that was loaded (from_pretrained gives it in eval mode) or "
        "evaluated before; or it is meant so.",
        advice="call model.train() before the first step; to switch dropout off on purpose, set it to 0.",
        subject="model.training",
        step=list_trained(run)[0][0],
        severity=Severity.NOTE if is_chosen or is_frozen else None,
    )


def _check_momentum(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for step, found in list_trained(run):
        momenta = found.batch_norm_momenta
        if not found.is_training or not momenta:
            continue
        is_still = bool(found.still_batch_norms)
        if not is_still and momenta[0] < bounds["max_momentum"]:
            continue
        # Only the first names are kept, and a class of the program's own may be called otherwise.
        known = [name for name in found.active if "BatchNorm" in name]
        names = found.still_batch_norms or known or [found.module]
        told = tell_names(names)
        value = 0.0 if is_still else momenta[0]
        effect = (
            "the running statistics never move, and evaluation uses those it was born with"
            if is_still
            else "the running statistics are those of the last batches, and evaluation hangs on these"
        )
        yield Evidence(
            message=f"batch norm has momentum {value:g} ({told}): {effect}.",
            cause="the weight of what is kept, as other libraries count it; torch counts the weight of what is new.",
            advice="leave momentum at 0.1, or give 1 minus the value that was meant.",
            subject=names[0],
            step=step,
            severity=None if is_still else Severity.NOTE,
        )
        return


LEFT_IN_EVAL = Rule(
    code="T701",
    name="trained-in-eval-mode",
    severity=Severity.ERROR,
    summary="Once a model has trained in training mode, no step is made in eval mode.",
    explanation="""\
A step with a backward whose forward ran in eval mode with gradients, and with none in training mode, in a run that has
steps in training mode. Deep steps confirm it where they fall on such steps: there a gradient came back to what the
model returned.

Silent about models without dropout and batch norm, to which the mode means nothing; about frozen batch norm, where the
model itself is in training mode; and about steps that have a forward in eval mode beside one in training mode, as
adversarial training does. A warning where only modules of the program's own look at the mode, and where optimizers take
turns; there deep steps alone decide.""",
    cases=(
        "model left in eval mode after validation (lerobot#3668)",
        "an evaluation that takes optimizer steps",
    ),
    find_obstacle=find_obstacle_to_passes,
    check=_check_left_in_eval,
    explains=("T704", "T1"),
)

NEVER_IN_TRAINING = Rule(
    code="T702",
    name="never-in-training-mode",
    severity=Severity.WARNING,
    summary="A model with dropout or batch norm trains in training mode.",
    explanation="""\
On every deep step the model that trained was in eval mode, and holds dropout or batch norm that would act. A note where
it holds only batch norm whose statistics come from earlier training, which is a way to freeze it, and with LBFGS, which
needs the same loss for the same weights.

Silent where only some modules are in eval mode.""",
    cases=("from_pretrained gives a model in eval mode, and train() is never called",),
    find_obstacle=find_obstacle_to_single_model,
    check=_check_never_in_training,
    explains=("T704",),
)

BATCH_NORM_MOMENTUM = Rule(
    code="T706",
    name="batch-norm-momentum",
    severity=Severity.WARNING,
    summary="The running statistics of batch norm follow the data.",
    explanation="""\
Batch norm in training mode whose momentum is 0, so that evaluation uses mean 0 and variance 1. A note where it is
`max_momentum` or more in all of them: then evaluation uses what the last batch had. A momentum of None, which averages
over all batches, is right.""",
    cases=("momentum=0.99 brought over from Keras, where it is the share that is kept",),
    bounds=(Bound("max_momentum", 0.9, "highest usual momentum of batch norm"),),
    find_obstacle=find_obstacle_to_passes,
    check=_check_momentum,
)

RULES = (LEFT_IN_EVAL, NEVER_IN_TRAINING, BATCH_NORM_MOMENTUM)
