"""Rules about evaluation: its mode, its gradients, what it looks at, and whether it is deterministic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.rules.deep_steps import observed_of, tell_names, tell_steps
from harness.rules.finding import Bound, Evidence, Rule, Severity
from harness.rules.modes import find_obstacle_to_passes, find_obstacle_to_single_model, list_trained

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.observation import EvaluationObservation
    from harness.record.run import TrainingRun

MIN_EVALUATIONS = 2


def _list_evaluations(run: TrainingRun, bounds: Mapping[str, float]) -> list[EvaluationObservation]:
    """Evaluations of models that train, unless there is one in so many steps that it is a part of the step."""
    observed = observed_of(run)
    found = [evaluation for evaluation in observed.evaluations if evaluation.num_trained]
    return found if len(found) <= bounds["max_share"] * max(len(observed.steps), 1) else []


def _check_training_mode(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    observed = observed_of(run)
    if observed.environments:
        return
    evaluations = _list_evaluations(run, bounds)
    found = [evaluation for evaluation in evaluations if evaluation.num_trained_in_training_mode]
    trained = [seen for _, seen in list_trained(run) if seen.is_training]
    active = list(dict.fromkeys(name for seen in trained for name in [*seen.active, *seen.asking]))
    if not found or not active:
        return
    in_eval_mode = [e for e in evaluations if e.num_trained > e.num_trained_in_training_mode]
    num_forwards = sum(evaluation.num_trained_in_training_mode for evaluation in found)
    has_batch_norm = any("BatchNorm" in name for name in active)
    effect = (
        "batch norm uses the statistics of each batch there, and its running ones take in the held-out data"
        if has_batch_norm
        else "what is measured is the model as it trains"
    )
    yield Evidence(
        message=f"{num_forwards} evaluation passes of the model, without gradients and the first after "
        f"{found[0].after_step} steps, ran in training mode: {tell_names(active)} "
        f"{'were' if len(active) > 1 else 'was'} active, and {effect}.",
        cause="model.eval() is missing before the evaluation, or model.train() is called in between.",
        advice="call model.eval() before evaluating and model.train() after it.",
        subject="model.training",
        step=found[0].after_step,
        severity=Severity.NOTE if in_eval_mode else None,
    )


def _check_gradient(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    observed = observed_of(run)
    if any(text.startswith("torch.autograd.grad") for text in observed.not_seen):
        return
    steps = {step.step: step for step in observed.steps}
    found = []
    for evaluation in _list_evaluations(run, bounds):
        step = steps.get(evaluation.after_step)
        # Every backward of the step has a forward in training mode of its own, so that none is for these.
        is_spare = step is None or (step.batch_shapes and len(step.batch_shapes) >= step.num_micro_batches)
        if evaluation.num_trained_with_gradient and is_spare:
            found.append(evaluation)
    num_forwards = sum(evaluation.num_trained_with_gradient for evaluation in found)
    if not found:
        return
    yield Evidence(
        message=f"{num_forwards} evaluation passes of the model, the first after {found[0].after_step} steps, recorded "
        "a graph that no backward used.",
        cause="torch.no_grad() is missing around the evaluation: it takes the memory and the time of a training step.",
        advice="evaluate under torch.inference_mode() or torch.no_grad().",
        subject="evaluation",
        step=found[0].after_step,
        severity=None if num_forwards >= MIN_EVALUATIONS else Severity.NOTE,
    )


def _check_repeat(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for probe in observed_of(run).probes:
        change = probe.repeat_change or 0.0
        if probe.dropouts:
            share = f", and the same batch twice gives outputs that differ by {change:.1%}" if change else ""
            yield Evidence(
                message=f"in eval mode {probe.module} still drops: {'; '.join(probe.dropouts[:3])}{share}.",
                cause="functional.dropout without training=self.training, or attention with dropout_p for both modes.",
                advice="use nn.Dropout, or hand self.training on: dropout_p=self.p if self.training else 0.0.",
                subject=probe.dropouts[0],
                step=probe.step,
            )
        elif change > bounds["max_change"] and not probe.random_functions:
            yield Evidence(
                message=f"in eval mode {probe.module} gives other outputs for the same batch: they differ by "
                f"{change:.1%} of the largest (allowed {bounds['max_change']:g}).",
                cause="state that its forward changes, random numbers of another library, or kernels that are not "
                "deterministic.",
                advice="call it twice in eval mode and compare the modules' outputs one by one.",
                subject=probe.module,
                step=probe.step,
                severity=Severity.NOTE,
            )


def _check_other_weights(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    observed = observed_of(run)
    if any(evaluation.num_trained for evaluation in observed.evaluations):
        return
    for copy in observed.copies:
        has_stayed = any(copy.model_has_moved) and not any(copy.has_moved)
        is_rare = copy.num_evaluated_steps <= bounds["max_share"] * len(observed.steps)
        first = copy.distances[0] if copy.distances else None
        # At its first deep step it is where the model was before that step.
        began_as_model = copy.steps[:1] == [0] and first is not None and first < bounds["max_distance"]
        # What is evaluated only after the last look may have moved by then, as a stochastic weight average does.
        was_looked_at = any(each.after_step <= copy.steps[-1] for each in observed.evaluations)
        is_told = has_stayed and is_rare and began_as_model and was_looked_at
        if not (copy.num_evaluations and is_told) or copy.is_same_object:
            continue
        name = f"`{copy.name}` in {copy.place}" if copy.name else f"another {copy.kind}"
        yield Evidence(
            message=f"{copy.num_evaluations} evaluation passes were of {name}, which has not changed since the start "
            f"({tell_steps(copy.steps)}) while the {copy.model} that trains did; that one was never evaluated.",
            cause="evaluation holds a copy of the model made before training, or loads the first weights.",
            advice="hand the model that trains to the evaluation, or copy its weights over each time.",
            subject=copy.name or copy.kind,
            step=copy.steps[-1],
        )
        return


MAX_SHARE = Bound("max_share", 0.34, "evaluations per step above which they are taken for a part of the step")

TRAINING_MODE_EVALUATION = Rule(
    code="T703",
    name="evaluated-in-training-mode",
    severity=Severity.WARNING,
    summary="The model that trains is evaluated in eval mode.",
    explanation="""\
Passes without gradients of a model that trains, in training mode, although dropout or batch norm in it act. A note
where other passes of the same model ran in eval mode.

Silent where there is such a pass in more than `max_share` of the steps: then it is a part of the step, as in gradient
caching and sampling; about other models than the one that trains, such as teachers and averages; in programs with
an environment; and where optimizers take turns, as in a GAN.""",
    cases=("model.eval() missing before validation",),
    bounds=(MAX_SHARE,),
    find_obstacle=find_obstacle_to_single_model,
    check=_check_training_mode,
)

EVALUATED_WITH_GRADIENT = Rule(
    code="T704",
    name="evaluated-with-gradient",
    severity=Severity.WARNING,
    summary="Evaluation records no graph.",
    explanation="""\
Passes in eval mode of a model that trains, with gradients enabled, between steps whose every backward has a forward in
training mode of its own. A note for a single pass.

Silent in programs that call torch.autograd.grad, which may need the graph, and where such passes are a part of the
step.""",
    cases=("torch.no_grad() forgotten around validation, which doubles its memory",),
    bounds=(MAX_SHARE,),
    find_obstacle=find_obstacle_to_single_model,
    check=_check_gradient,
)

OTHER_WEIGHTS_EVALUATED = Rule(
    code="T705",
    name="evaluates-other-weights",
    severity=Severity.WARNING,
    summary="What is evaluated is what was trained.",
    explanation="""\
The model that trains is never evaluated; a copy of it is, which held the first weights on the first deep step and has
not moved on any since.

Silent about copies that move, such as averages; about copies called in more than `max_share` of the steps, such as a
fixed reference; and about teachers, which began elsewhere.""",
    cases=("an evaluator that was given a deep copy of the model at the start",),
    bounds=(
        MAX_SHARE,
        Bound(
            "max_distance",
            1.5,
            "distance from the model after the first step, in updates, of a copy of its start",
        ),
    ),
    find_obstacle=find_obstacle_to_passes,
    check=_check_other_weights,
    explains=("T911",),
)

NOT_DETERMINISTIC = Rule(
    code="T707",
    name="evaluation-not-deterministic",
    severity=Severity.WARNING,
    summary="In eval mode the same batch gives the same outputs.",
    explanation="""\
After the run a copy of the model, in eval mode, is called twice with a batch it was trained on. A warning where a
dropout function was in force on the way; a note where outputs differ by more than `max_change` for no reason that is
seen.

Silent about models that draw noise on purpose, as autoencoders and diffusion do. Not tried on compiled and distributed
models, on those above 32 MiB or slow to call, and on those with hooks of their own.""",
    cases=(
        "functional.dropout(x, 0.2) without training=self.training",
        "scaled_dot_product_attention with dropout_p in evaluation",
    ),
    bounds=(Bound("max_change", 1e-3, "largest change of an output, as a share of the largest output"),),
    find_obstacle=lambda run: (
        None if run.observed and run.observed.probes else "no model could be probed after the run"
    ),
    check=_check_repeat,
)

RULES = (
    TRAINING_MODE_EVALUATION,
    EVALUATED_WITH_GRADIENT,
    OTHER_WEIGHTS_EVALUATED,
    NOT_DETERMINISTIC,
)
