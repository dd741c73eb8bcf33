"""Rules about the weights in checkpoints."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from harness.rules.deep_steps import observed_of, tell_names
from harness.rules.finding import Bound, Evidence, Rule, Severity
from harness.rules.saves import (
    find_obstacle_to_checkpoints,
    is_meant_otherwise,
    list_saves,
    tell_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.observation import CheckpointObservation
    from harness.record.run import TrainingRun
    from harness.record.saved import SavedModelObservation
    from harness.rules.saves import Save

PARTS_ON_PURPOSE = ("encoder", "backbone", "adapter", "lora", "trunk", "feature", "body", "embed")
WEIGHTS = ("model", "net", "weight", "state_dict", "param", "ema", "checkpoint", "ckpt")
MODELS = ("generator", "discriminator", "actor", "critic", "policy", "student", "decoder")
SETTINGS = (
    "config",
    "cfg",
    "kwarg",
    "args",
    "hyper",
    "hparam",
    "option",
    "setting",
    "meta",
    "info",
    "history",
    "metric",
)
"""What stands in names of mappings that may well be empty, such as `policy_kwargs`."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def _check_readable(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for file in observed_of(run).checkpoints:
        if file.defect is not None or file.num_bytes == 0:
            what = "it is empty" if file.num_bytes == 0 else file.defect
            yield Evidence(
                message=f"{tell_file(file)}, written after step {file.after_step}, can't be read at the end of the "
                f"run: {what}.",
                cause="the file was cut off or changed after it was written: a full disk, a writer that was stopped, "
                "or two writers at once.",
                advice="write to a temporary name in the same folder, then rename; load it once after writing.",
                subject=PurePath(file.path or "").name,
                step=file.after_step,
            )
            return
    for file in observed_of(run).checkpoints:
        empty = next((part for part in file.empty_parts if _is_for_weights(part, file)), None)
        is_whole = empty is not None and any(word in empty.lower() for word in MODELS)
        if empty is not None and (is_whole or not file.models) and file.after_step:
            place = f"`{empty}` in {tell_file(file)}" if empty else tell_file(file)
            yield Evidence(
                message=f"{place}, written after step {file.after_step}, is an empty mapping: it holds no weights.",
                cause="the state dict of a wrapper that has none, or of a rank or stage that holds no "
                "part of the model.",
                advice="save the state dict of the module that trains, and check that it is not empty.",
                subject=empty or PurePath(file.path or "").name,
                step=file.after_step,
            )
            return


def _is_for_weights(part: str, file: CheckpointObservation) -> bool:
    name = (part or PurePath(file.path or "").stem).lower()
    return any(word in name.split(".")[-1] for word in (*WEIGHTS, *MODELS)) and not any(
        word in name for word in ("optim", "sched", *SETTINGS)
    )


def _check_missing(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for save in reversed(list_saves(run)):
        for kind in dict.fromkeys(model.model for model in save.models):
            model = min(
                (model for model in save.models if model.model == kind), key=lambda model: model.num_missing
            )
            is_part = any(word in f"{save.name} {model.place}".lower() for word in PARTS_ON_PURPOSE)
            is_most = model.num_found >= bounds["min_share"] * model.num_trained or save.has("optimizer")
            if model.num_missing and is_most and not is_part:
                yield Evidence(
                    message=f"{_tell_place(save, model)} lacks {model.num_missing} of the {model.num_trained} trained "
                    f"tensors of `{kind}`: {tell_names(model.missing)}"
                    f"{' and more' if model.num_missing > len(model.missing) else ''}.",
                    cause="a filter by name or by module leaves them out, or they were renamed or resized.",
                    advice="save model.state_dict() whole; whoever loads this gets random weights for what is missing.",
                    subject=model.missing[0],
                    step=save.after_step,
                )
                return
            statistics = [name for name in model.missing_buffers if name.endswith(STATISTICS)]
            if statistics and not model.num_missing and not model.num_missing_frozen and not is_part:
                yield Evidence(
                    message=f"{_tell_place(save, model)} holds all trained tensors of `{kind}`, but not the statistics "
                    f"of its norms: {tell_names(statistics)}.",
                    cause="it was made from parameters() or named_parameters(), which have no buffers.",
                    advice="save model.state_dict(), which has them.",
                    subject=statistics[0],
                    step=save.after_step,
                )
                return


def _list_trained(run: TrainingRun) -> dict[str, list[tuple[Save, SavedModelObservation]]]:
    """By class of model: of every save after the first step, what comes closest to the model as it is."""
    found: dict[str, list[tuple[Save, SavedModelObservation]]] = {}
    for save in list_saves(run):
        for kind in dict.fromkeys(model.model for model in save.models):
            if save.after_step:
                same = [model for model in save.models if model.model == kind]
                same = [model for model in same if not is_meant_otherwise(model.place)] or same
                best = max(
                    same, key=lambda model: (model.num_equal, -model.num_initial, model.similarity or -1)
                )
                found.setdefault(kind, []).append((save, best))
    return found


def _check_moved(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for kind, saves in _list_trained(run).items():
        if any(not model.num_moved or model.num_initial < model.num_moved for _, model in saves):
            continue
        save, model = saves[-1]
        if any(
            is_meant_otherwise(model.place, file.path and PurePath(file.path).name) for file in save.files
        ):
            continue
        yield Evidence(
            message=f"{_tell_place(save, model)}, written after step {save.after_step}, holds all {model.num_initial} "
            f"tensors of `{kind}` that training has moved as they were before the first step.",
            cause="a copy of the model, or of its state dict, made before training was saved; or the model was "
            "copied when the optimizer or a wrapper was built.",
            advice="call state_dict() of the model that trains at the moment of saving.",
            subject=model.place or kind,
            step=save.after_step,
        )
        return


def _check_similar(run: TrainingRun, bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for kind, saves in _list_trained(run).items():
        save, model = saves[-1]
        if model.similarity is None or model.num_equal or not 0 <= model.num_initial < model.num_moved:
            continue
        if abs(model.similarity) < bounds["min_similarity"]:
            yield Evidence(
                message=f"{_tell_place(save, model)}, written after step {save.after_step}, has the "
                "names and shapes of "
                f"`{kind}`, but nothing of its weights: their cosine is {model.similarity:.3f} (an average or an older "
                "state of the same model is near 1).",
                cause="a model that was built anew is saved in place of the one that trains.",
                advice="save the very object that the optimizer was built over.",
                subject=model.place or kind,
                step=save.after_step,
            )
            return


def _check_finite(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for save in list_saves(run):
        for model in save.models:
            if model.non_finite:
                yield Evidence(
                    message=f"{_tell_place(save, model)}, written after step {save.after_step}, holds numbers that are "
                    f"not finite in {tell_names(model.non_finite)}.",
                    cause="training had already broken down when it was written, or a cast overflowed.",
                    advice="check the weights before writing, and keep the checkpoint before.",
                    subject=model.non_finite[0],
                    step=save.after_step,
                )
                return


def _tell_place(save: Save, model: SavedModelObservation) -> str:
    return f"`{model.place}` in {save.name}" if model.place else save.name


BROKEN_CHECKPOINT = Rule(
    code="A101",
    name="broken-checkpoint",
    severity=Severity.ERROR,
    summary="Checkpoints can be read, and hold weights.",
    explanation="""\
At the end of the run the last eight files of up to 64 MiB are read member by member, with their checksums, without
unpickling them. A file of no bytes and an empty mapping where the weights should be count, too.

Files that are gone by then, as where only the last ones are kept, are silent.""",
    cases=(
        "a checkpoint without the weights of a stage (transformers#46628)",
        "a file cut off by a full disk",
    ),
    find_obstacle=find_obstacle_to_checkpoints,
    check=_check_readable,
    explains=("A102", "A106"),
)
MISSING_WEIGHTS = Rule(
    code="A102",
    name="checkpoint-misses-weights",
    severity=Severity.WARNING,
    summary="A checkpoint holds every tensor that training changes.",
    explanation="""\
What is given to torch.save, safetensors or Lightning is compared by name and shape with the model that trains, when it
is written; prefixes that wrappers and larger modules put before names are taken off, and of tied tensors one name is
enough. The statistics of batch norms count where all parameters are there.

Silent where only what no optimizer trains is missing (adapters, a head over a frozen backbone), where less than half
of the trained tensors are there and no optimizer, and where the name says that a part is meant (encoder, backbone,
adapter and the like). Blind to a module saved alone under names of its own.""",
    cases=("keys dropped when saving (Automodel#2571)", "named_parameters() saved in place of state_dict()"),
    bounds=(Bound("min_share", 0.5, "share of the trained tensors from which on the whole model is meant"),),
    find_obstacle=find_obstacle_to_checkpoints,
    check=_check_missing,
)
FIRST_WEIGHTS = Rule(
    code="A103",
    name="checkpoint-of-first-weights",
    severity=Severity.ERROR,
    summary="A checkpoint holds what training made of the weights.",
    explanation="""\
Every checkpoint written after the first step holds each tensor that training has moved with the very bits it had
before the first step. Silent as soon as one checkpoint has others, about tensors that did not move, and about names
that say average, target, teacher, reference, initial or best.""",
    cases=("a state dict copied before training", "an optimizer over a copy of the model (accelerate#2665)"),
    find_obstacle=find_obstacle_to_checkpoints,
    check=_check_moved,
    explains=("A104",),
)
OTHER_WEIGHTS = Rule(
    code="A104",
    name="checkpoint-of-another-model",
    severity=Severity.WARNING,
    summary="A checkpoint holds the weights of the model that trains.",
    explanation="""\
The cosine of all saved matrices with those of the model, when they are written. An average, the best state so far or
an older one is near 1; weights drawn anew are near 0. Of several states in one checkpoint the nearest counts, and one
that equals another living model of the program is passed over.""",
    cases=("a model built a second time for saving or for export",),
    bounds=(Bound("min_similarity", 0.2, "cosine below which nothing is left of the model's weights"),),
    find_obstacle=find_obstacle_to_checkpoints,
    check=_check_similar,
)
NON_FINITE_CHECKPOINT = Rule(
    code="A105",
    name="non-finite-checkpoint",
    severity=Severity.ERROR,
    summary="Saved weights are finite.",
    explanation="""\
The tensors of the model, and its buffers, when they are written; up to 256 MiB of them.""",
    cases=("a last checkpoint that was written after the loss had become NaN",),
    find_obstacle=find_obstacle_to_checkpoints,
    check=_check_finite,
)
RULES = (BROKEN_CHECKPOINT, NON_FINITE_CHECKPOINT, FIRST_WEIGHTS, OTHER_WEIGHTS, MISSING_WEIGHTS)
