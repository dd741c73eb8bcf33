"""Rules about averages and other copies of the model that trains."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.record.observation import Outcome
from harness.rules.deep_steps import observed_of, tell_steps
from harness.rules.finding import Bound, Evidence, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.run import TrainingRun
    from harness.record.structure import CopyObservation

AVERAGE = re.compile(r"(^|_)(ema|avg|averaged?|shadow|polyak|mean|momentum)(?=_|\d|$)|EMA|Averag")
KEPT_AVERAGE = re.compile(r"(^|_)(ema|shadow)(?=_|\d|$)|EMA")
SNAPSHOT = re.compile(r"(^|_)(best|backup|snapshot|initial|init)(?=_|\d|$)")
LATE = re.compile(r"(^|_)swa(?=_|\d|$)|SWA")


def _find_obstacle(run: TrainingRun) -> str | None:
    if run.observed is None:
        return "nothing was watched"
    return None if run.observed.copies else "no copy of the model was found"


def _is_average(copy: CopyObservation) -> bool:
    # The class of the model itself, such as one with an average pooling, says nothing about its copy.
    kind = "" if copy.kind == copy.model else copy.kind
    return bool(AVERAGE.search(copy.name) or AVERAGE.search(kind))


def _tell(copy: CopyObservation) -> str:
    if not copy.name:
        return f"the {copy.kind}"
    place = copy.place if copy.place.endswith("()") or " " in copy.place else f"an attribute of {copy.place}"
    return f"`{copy.name}` ({copy.kind}, {place})"


def _check_never_moves(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    observed = observed_of(run)
    num_steps = len(observed.steps)
    for copy in observed.copies:
        if not _is_average(copy) or copy.is_same_object or copy.shares_storage:
            continue
        is_late = copy.steps[-1] < bounds["min_part"] * num_steps
        if copy.num_updates is not None:
            if copy.num_updates or observed.outcome is not Outcome.COMPLETED:
                continue
            seen = f"{_tell(copy)} is never updated: update_parameters() was not called in {num_steps} steps"
        elif (
            any(copy.has_moved)
            or not any(copy.model_has_moved)
            or is_late
            or LATE.search(copy.name + copy.kind)
        ):
            continue
        else:
            seen = (
                f"{_tell(copy)} is named as an average of {copy.model} and never moves: it is the same, bit for bit, "
                f"on {tell_steps(copy.steps)} of {num_steps}, while the model changes"
            )
        yield Evidence(
            message=f"{seen}.",
            cause="its update is missing, its decay is 1, or it follows a model that is not the one that trains.",
            # One that starts late has not begun when the run is ended.
            severity=Severity.NOTE if observed.outcome is Outcome.STOPPED else None,
            advice="call its update after every optimizer step, with the model that the optimizer holds.",
            subject=copy.name or copy.kind,
            step=copy.steps[-1],
        )
        return


def _check_is_model(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for copy in observed_of(run).copies:
        if not _is_average(copy):
            continue
        late = [distance for distance in copy.distances if distance is not None]
        if copy.is_same_object or copy.shares_storage:
            what = (
                "is the model that trains itself" if copy.is_same_object else "holds the model's own tensors"
            )
            seen = f"{_tell(copy)} {what}, so that it averages nothing"
            cause = "a missing copy.deepcopy, or a state_dict() whose tensors were not cloned."
            advice = "build it from copy.deepcopy(model), or clone the tensors."
        elif _is_close(copy, late, bounds):
            seen = (
                f"{_tell(copy)} follows {copy.model} so closely that it averages nothing: after a step it is "
                f"{late[-1]:.2f} updates away (above {bounds['max_distance']:g} for an average over several steps)"
            )
            cause = "decay and its complement have changed places, or the decay is near 0."
            advice = (
                "check which of decay and 1 - decay goes to the new weights: the new ones take the small one."
            )
        else:
            continue
        yield Evidence(
            message=f"{seen}.",
            cause=cause,
            advice=advice,
            subject=copy.name or copy.kind,
            step=copy.steps[-1],
        )
        return


def _is_close(copy: CopyObservation, distances: list[float], bounds: Mapping[str, float]) -> bool:
    """Whether it was near the model at every look and moved between all of them, to a late step."""
    if copy.name and LATE.search(copy.name + copy.kind):
        return False
    is_followed = len(copy.has_moved) > 1 and all(copy.has_moved) and copy.steps[-1] >= bounds["min_step"]
    # One begun anew late equals the model once.
    is_begun = copy.num_updates is None or copy.num_updates >= bounds["min_step"]
    is_measured = len(distances) == len(copy.steps)
    return is_followed and is_begun and is_measured and max(distances) < bounds["max_distance"]


def _check_not_restored(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    observed = observed_of(run)
    num_steps = len(observed.steps)
    kept = []
    for position, load in enumerate(observed.loads):
        following = observed.loads[position + 1 : position + 2]
        is_restored = any(other.after_step == load.after_step for other in following)
        source = next((name for name in load.sources if KEPT_AVERAGE.search(name)), None)
        if source is not None and not is_restored and load.after_step < num_steps:
            kept.append((load, source))
    if not kept:
        return
    load, source = kept[0]
    yield Evidence(
        message=f"after {load.after_step} steps the weights of `{source}` are loaded into {load.model}, and training "
        f"goes on from them ({len(kept)} times in {num_steps} steps): the model's own weights are lost.",
        cause="the average was put in for an evaluation or a checkpoint, and the model's weights were not put back.",
        advice="evaluate the average itself, or keep the model's state_dict (cloned) and load it again afterwards.",
        subject=source,
        step=load.after_step,
    )


def _check_snapshot(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for copy in observed_of(run).copies:
        if not SNAPSHOT.search(copy.name) or not copy.shares_storage or copy.is_same_object:
            continue
        yield Evidence(
            message=f"{_tell(copy)} holds the tensors of {copy.model} themselves on step {copy.steps[-1]}: it changes "
            "with every step, and is no snapshot.",
            cause="model.state_dict() gives references; what is kept of it follows the training.",
            advice="copy.deepcopy(model.state_dict()), unless it is written to disk at once.",
            subject=copy.name,
            step=copy.steps[-1],
        )
        return


NEVER_MOVES = Rule(
    code="T911",
    name="average-never-moves",
    severity=Severity.WARNING,
    summary="An average of the model's weights moves while the model does.",
    explanation="""\
At the end of deep steps, copies of the model that trains are looked for among the variables and attributes of the
program: modules of the same shapes, mappings by the same names, lists of such tensors. One whose name or class says
that it is an average (ema, avg, shadow, mean, momentum) must have moved between deep steps, if the last of these lies
behind `min_part` of the run. A note in a run that was ended from outside, as an average may start late. For torch's
AveragedModel the calls of `update_parameters` are counted.

Silent about teachers, reference models, target networks and initial weights, which stay as they are on purpose or are
copied over now and then; and about stochastic weight averaging, which starts late.""",
    cases=(
        "the average was never updated (lightly-train#892)",
        "an average whose updates were lost (YOLO#97)",
        "a decay of 1",
    ),
    bounds=(Bound("min_part", 0.4, "part of the run behind which the last look must lie"),),
    find_obstacle=_find_obstacle,
    check=_check_never_moves,
    explains=("A1", "A207"),
)

IS_THE_MODEL = Rule(
    code="T912",
    name="average-is-the-model",
    severity=Severity.WARNING,
    summary="An average of the model's weights is not the model.",
    explanation="""\
A copy that is named as an average is the model itself, shares its tensors, or moves between all deep steps, to one of
`min_step` or later, and is never `max_distance` updates away from the model right after a step. An average over n steps
lags several updates behind.

Silent about averages that are begun late, which equal the model once, and about warmed up ones, which lag later.""",
    cases=("decay and 1 - decay exchanged", "an average built without deepcopy"),
    bounds=(
        Bound(
            "max_distance", 1.15, "distance from the model after a step, in updates, above which it averages"
        ),
        Bound(
            "min_step",
            20,
            "step that the last look must have reached, and updates that torch's own average must have had",
        ),
    ),
    find_obstacle=_find_obstacle,
    check=_check_is_model,
)

SNAPSHOT_FOLLOWS = Rule(
    code="T913",
    name="snapshot-follows-the-model",
    severity=Severity.NOTE,
    summary="A snapshot of the weights stays as it was taken.",
    explanation="""\
A mapping or list named as a snapshot (best, backup, snapshot, initial) holds the tensors of the model that trains. A
note, as it is harmless where it was written to disk at once.""",
    cases=("best_state = model.state_dict(), and the best model is the last one",),
    find_obstacle=_find_obstacle,
    check=_check_snapshot,
)

NOT_RESTORED = Rule(
    code="T914",
    name="average-not-restored",
    severity=Severity.WARNING,
    summary="An average that is put into the model for an evaluation is taken out again.",
    explanation="""\
Right after a `load_state_dict`, the model that trains equals a copy of it that is named as a moving average (ema,
shadow), no other weights are loaded before the next step, and there is a next step.

Silent about averages loaded after the last step; about weights loaded and put back; and about averages of other names,
which rounds of federated training or slow weights load on purpose. Weights that are copied in without `load_state_dict`
are not seen.""",
    cases=("the average swapped in for sampling was trained on (waifu-diffusion#31)",),
    find_obstacle=lambda run: (
        None if run.observed and run.observed.loads else "no weights were loaded while training"
    ),
    check=_check_not_restored,
)

RULES = (NEVER_MOVES, IS_THE_MODEL, NOT_RESTORED, SNAPSHOT_FOLLOWS)
