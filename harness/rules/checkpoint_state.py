"""Rules about what a checkpoint holds beside the weights, to go on from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.record.watched import has_several_optimizers
from harness.rules.deep_steps import observed_of, tell_names
from harness.rules.finding import Evidence, Rule, Severity
from harness.rules.saves import find_obstacle_to_checkpoints, list_saves, tell_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.record.run import TrainingRun
    from harness.rules.saves import Save

STEP_NAMES = ("step", "global_step", "iteration", "iter", "iter_num")


def _check_resumable(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    saves = [save for save in list_saves(run) if save.models and save.after_step]
    if not saves:
        return
    found = [lack for save in saves for lack in _list_lacks(run, save)]
    if not found:
        return
    # What only some lack is meant: a last one to go on from, and weights alone of the best one.
    lasting = [lack for lack in found if sum(other[1] == lack[1] for other in found) == len(saves)]
    if not lasting:
        return
    save, what, cause, severity = min(lasting, key=lambda lack: lack[3] is Severity.NOTE)
    others = [lack[1] for lack in lasting if lack[1] != what and lack[0] is save]
    also = f" (nor {' nor '.join(others)})" if others else ""
    yield Evidence(
        message=f"{save.name}, written after step {save.after_step}, can't be gone on from as from where "
        "it was: it does "
        f"not hold {what}{also}.",
        cause=cause,
        advice="save the state_dict() of everything that has a state: optimizer, scheduler, GradScaler, and the step; "
        "then compare a resumed run with an uninterrupted one.",
        subject=what,
        step=save.after_step,
        severity=severity,
    )


def _list_lacks(run: TrainingRun, save: Save) -> Iterator[tuple[Save, str, str, Severity]]:
    observed = observed_of(run)
    is_stateful = any(
        optimizer.name != "SGD" or any(group.hyperparameters.get("momentum") for group in optimizer.groups)
        for optimizer in observed.optimizers
    )
    has_schedule = any(schedule.num_steps for schedule in observed.schedulers)
    has_scaler = observed.scaler is not None and observed.scaler.num_scaled > 0
    if not save.has("optimizer"):
        is_to_resume = save.has("scheduler") or save.has("scaler") or save.has("generators")
        if is_stateful and (is_to_resume or save.has_progress):
            yield (
                save,
                "the optimizer's state",
                "it was left out: momentum and second moments begin from zero when training is resumed.",
                Severity.WARNING if is_to_resume else Severity.NOTE,
            )
        return
    if is_stateful and any(
        part.endswith("state") and "optim" in f"{part} {file.path}".lower()
        for file in save.files
        for part in file.empty_parts
    ):
        yield (
            save,
            "the state of an optimizer that has stepped (what it holds is empty)",
            "an optimizer built anew was saved, not the one that trains.",
            Severity.WARNING,
        )
    num_states = sum(key.endswith("param_groups") for file in save.files for key in file.keys)
    if 0 < num_states < len(observed.optimizers) and has_several_optimizers(observed):
        yield (
            save,
            f"the state of {len(observed.optimizers) - num_states} of {len(observed.optimizers)} optimizers",
            "one optimizer was left out: its momentum and second moments begin from zero when training is resumed.",
            Severity.WARNING,
        )
    if has_schedule and not save.has("scheduler"):
        yield (
            save,
            "the scheduler's position",
            "it was left out: the learning rate begins again with its warm-up when training is resumed.",
            Severity.WARNING,
        )
    if has_scaler and not save.has("scaler"):
        yield (
            save,
            "the GradScaler's state",
            "it was left out: the loss scale begins again at its first value, and steps are skipped until it fits.",
            Severity.WARNING,
        )
    if not save.has_progress and len(save.files) == 1:
        # Who keeps a schedule's place and the generators wants to go on exactly where it was.
        is_exact = has_schedule and save.has("scheduler") and save.has("generators")
        yield (
            save,
            "a step or an epoch",
            "it was left out: a resumed run counts from 0.",
            Severity.WARNING if is_exact else Severity.NOTE,
        )


def _check_step(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    told: dict[str, list[tuple[Save, int]]] = {}
    for save in list_saves(run):
        for file in save.files:
            for name, number in file.numbers.items():
                if name.lower().rpartition(".")[2] in STEP_NAMES:
                    told.setdefault(name, []).append((save, number))
    for name, pairs in told.items():
        (first, number), (last, _) = pairs[0], pairs[-1]
        numbers = {number for _, number in pairs}
        is_stuck = len(numbers) == 1 and first.after_step < last.after_step
        is_zero = numbers == {0} and last.after_step > 1
        if is_stuck or is_zero:
            yield Evidence(
                message=f"`{name}` in {last.name} is {number}"
                + (f" in all {len(pairs)} checkpoints" if len(pairs) > 1 else "")
                + f", the last of which was written after {last.after_step} steps.",
                cause="a counter that does not move is saved, or a number that was written down.",
                advice="save the counter of the loop; a resumed run repeats what was done, with the "
                "wrong learning rate.",
                subject=name,
                step=last.after_step,
            )
            return


def _check_average(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    saves = [save for save in list_saves(run) if save.models and save.after_step and save.has("optimizer")]
    lacking = [save for save in saves if any(file.unsaved_copies for file in save.files)]
    if not lacking or len(lacking) < len(saves):
        return
    kinds = dict.fromkeys(kind for file in lacking[-1].files for kind in file.unsaved_copies)
    yield Evidence(
        message=f"{lacking[-1].name}, written after step {lacking[-1].after_step}, holds the model and "
        "its optimizer, but "
        f"not the second copy of {tell_names(kinds)} that the program evaluates, which has values of its own.",
        cause="the averaged weights are left out: when training is resumed, the average begins again.",
        advice="save the average's state_dict() beside the model's, and load it with it.",
        subject=next(iter(kinds)),
        step=lacking[-1].after_step,
    )


def _check_safe(run: TrainingRun, _bounds: Mapping[str, float]) -> Iterator[Evidence]:
    for file in observed_of(run).checkpoints:
        if file.pickled_modules:
            yield Evidence(
                message=f"{tell_file(file)} holds a whole module, pickled: {tell_names(file.pickled_modules)}.",
                cause="the model itself was saved, not its state dict.",
                advice="save model.state_dict(): a pickled module needs the very code it was made by, "
                "and runs code when "
                "it is loaded.",
                subject=file.pickled_modules[0],
                step=file.after_step,
            )
            return
        if file.unsafe is not None:
            yield Evidence(
                message=f"{tell_file(file)} does not load with weights_only=True: {file.unsafe}",
                cause="it holds objects other than tensors, numbers, texts and containers of them.",
                advice="turn them into such before saving; torch.load refuses others by default.",
                subject=tell_file(file).strip("`"),
                step=file.after_step,
            )
            return


CANNOT_RESUME = Rule(
    code="A106",
    name="checkpoint-cannot-resume",
    severity=Severity.WARNING,
    summary="A checkpoint that is meant to be gone on from holds all that has a state.",
    explanation="""\
Files of one folder and step are taken together. One that holds the optimizer is meant to be gone on from, and lacks
something if that optimizer's state is empty, or if a scheduler that steps or a GradScaler in use is not in it. One
that holds a scheduler, a GradScaler or generators lacks the optimizer. Notes: weights with a step or an epoch, but no
optimizer that has a state, and an optimizer without any step or epoch.

Silent about weights alone, about SGD without momentum, and where another checkpoint of the run has what one lacks.
Blind to whether what is there is loaded again; resuming and comparing tells that.""",
    cases=(
        "a missing optimizer state (accelerate#4071)",
        "a learning rate schedule that starts again after resuming (starVLA#204)",
    ),
    find_obstacle=find_obstacle_to_checkpoints,
    check=_check_resumable,
)
STEP_STUCK = Rule(
    code="A107",
    name="checkpoint-step-stuck",
    severity=Severity.WARNING,
    summary="The step in a checkpoint moves with training.",
    explanation="""\
Whole numbers under step, global_step, iteration and the like: the same in several checkpoints although steps were done
between them, or 0 after several steps. Where it begins, and in which unit it counts, does not matter: a resumed run
starts high, and some programs count micro-batches.""",
    cases=("a step that was captured when the saving function was made",),
    find_obstacle=find_obstacle_to_checkpoints,
    check=_check_step,
)
UNSAVED_AVERAGE = Rule(
    code="A111",
    name="checkpoint-without-average",
    severity=Severity.WARNING,
    summary="Averaged weights are saved with the model.",
    explanation="""\
A model that was evaluated, that has the names and shapes of one that trains, and values which are neither the trained
ones nor those before training, is an average or a target. If every checkpoint with an optimizer lacks it, resuming
loses it. Silent about weights alone, about frozen references, and about copies that were never called.""",
    cases=("an exponential moving average that was not saved (yolov5#97)",),
    find_obstacle=find_obstacle_to_checkpoints,
    check=_check_average,
)
PICKLED_CODE = Rule(
    code="A108",
    name="checkpoint-pickles-code",
    severity=Severity.NOTE,
    summary="Checkpoints load with weights_only=True.",
    explanation="""\
Whole modules given to torch.save, and files of up to 64 MiB with weights that torch.load refuses at the end of the
run. A note: it works where it was written, until the code moves.""",
    cases=("torch.save(model)",),
    find_obstacle=find_obstacle_to_checkpoints,
    check=_check_safe,
)

RULES = (CANNOT_RESUME, STEP_STUCK, UNSAVED_AVERAGE, PICKLED_CODE)
