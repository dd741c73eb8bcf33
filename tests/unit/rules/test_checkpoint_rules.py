from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from harness.record.observation import CheckpointObservation, Outcome, RunObservation
from harness.record.optimizer_observation import (
    OptimizerGroup,
    OptimizerObservation,
    ScalerObservation,
    SchedulerObservation,
)
from harness.record.saved import SavedModelObservation
from harness.record.step_observation import StepObservation
from harness.rules import checkpoint_state, checkpoint_writing, checkpoints
from harness.rules.finding import Severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.record.run import TrainingRun
    from harness.rules.finding import Rule

    MakeRun = Callable[..., TrainingRun]

WHOLE = SavedModelObservation("model", "Net", 4, num_found=4, num_moved=4, num_equal=4, similarity=1.0)
KEYS = ["model.body.weight", "optimizer.state.0", "optimizer.param_groups", "scheduler.last_epoch", "step"]


def observe(*files: CheckpointObservation, **changes: Any) -> RunObservation:
    whole: dict[str, Any] = {
        "steps": [StepObservation(step, optimizers=[0]) for step in range(20)],
        "optimizers": [OptimizerObservation("AdamW", [OptimizerGroup({"lr": 0.1}, ["body.weight"], 4)], 20)],
        "schedulers": [SchedulerObservation("StepLR", num_steps=20)],
        "checkpoints": list(files) or [make_file(10), make_file(20)],
        "outcome": Outcome.COMPLETED,
    }
    return RunObservation(**whole | changes)


def make_file(after_step: int, **changes: Any) -> CheckpointObservation:
    whole: dict[str, Any] = {
        "path": "/run/last.pt",
        "writer": "torch.save",
        "after_step": after_step,
        "keys": KEYS,
        "num_bytes": 1000,
        "models": [WHOLE],
        "numbers": {"step": after_step},
        "is_kept": True,
    }
    return CheckpointObservation(**whole | changes)


def model(**changes: Any) -> list[SavedModelObservation]:
    return [replace(WHOLE, **changes)]


def without(*words: str) -> list[str]:
    return [key for key in KEYS if not key.startswith(words)]


@pytest.mark.parametrize(
    ("rule", "observed", "severity", "message"),
    [
        (
            checkpoints.BROKEN_CHECKPOINT,
            observe(make_file(10), make_file(20, defect="member data is damaged")),
            Severity.ERROR,
            "`last.pt`, written after step 20, can't be read at the end of the run: member data is damaged",
        ),
        (checkpoints.BROKEN_CHECKPOINT, observe(make_file(20, num_bytes=0)), Severity.ERROR, "it is empty"),
        (
            checkpoints.BROKEN_CHECKPOINT,
            observe(make_file(20, models=[], empty_parts=["model"])),
            Severity.ERROR,
            "`model` in `last.pt`",
        ),
        (
            checkpoints.MISSING_WEIGHTS,
            observe(make_file(20, models=model(num_found=3, num_missing=1, missing=["head.weight"]))),
            Severity.WARNING,
            "lacks 1 of the 4 trained tensors of `Net`: `head.weight`",
        ),
        (
            checkpoints.MISSING_WEIGHTS,
            observe(make_file(20, models=model(missing_buffers=["norm.running_mean"]))),
            Severity.WARNING,
            "not the statistics of its norms: `norm.running_mean`",
        ),
        (
            checkpoints.FIRST_WEIGHTS,
            observe(*(make_file(step, models=model(num_equal=0, num_initial=4)) for step in (10, 20))),
            Severity.ERROR,
            "all 4 tensors of `Net`",
        ),
        (
            checkpoints.OTHER_WEIGHTS,
            observe(make_file(20, models=model(num_equal=0, num_initial=1, similarity=0.01))),
            Severity.WARNING,
            "their cosine is 0.010",
        ),
        (
            checkpoints.NON_FINITE_CHECKPOINT,
            observe(make_file(20, models=model(non_finite=["head.bias"]))),
            Severity.ERROR,
            "`head.bias`",
        ),
        (
            checkpoint_writing.CHECKPOINT_TOO_EARLY,
            observe(make_file(0)),
            Severity.WARNING,
            "before the first of 20 steps",
        ),
        (
            checkpoint_state.CANNOT_RESUME,
            observe(make_file(20, keys=without("optimizer"))),
            Severity.WARNING,
            "it does not hold the optimizer's state",
        ),
        (
            checkpoint_state.CANNOT_RESUME,
            observe(make_file(20, keys=without("optimizer", "scheduler"))),
            Severity.NOTE,
            "it does not hold the optimizer's state",
        ),
        (
            checkpoint_state.CANNOT_RESUME,
            observe(make_file(20, empty_parts=["optimizer.state"])),
            Severity.WARNING,
            "what it holds is empty",
        ),
        (
            checkpoint_state.CANNOT_RESUME,
            observe(make_file(20, keys=without("scheduler"))),
            Severity.WARNING,
            "the scheduler's position",
        ),
        (
            checkpoint_state.CANNOT_RESUME,
            observe(make_file(20), scaler=ScalerObservation(num_scaled=20)),
            Severity.WARNING,
            "the GradScaler's state",
        ),
        (
            checkpoint_state.CANNOT_RESUME,
            observe(make_file(20, keys=without("step"), numbers={})),
            Severity.NOTE,
            "a step or an epoch",
        ),
        (
            checkpoint_state.STEP_STUCK,
            observe(make_file(10, numbers={"step": 3}), make_file(20, numbers={"step": 3})),
            Severity.WARNING,
            "`step` in `last.pt` is 3 in all 2 checkpoints",
        ),
        (
            checkpoint_state.STEP_STUCK,
            observe(make_file(20, numbers={"step": 0})),
            Severity.WARNING,
            "written after 20 steps",
        ),
        (
            checkpoint_state.UNSAVED_AVERAGE,
            observe(make_file(20, unsaved_copies=["Net"])),
            Severity.WARNING,
            "second copy of `Net`",
        ),
        (
            checkpoint_state.PICKLED_CODE,
            observe(make_file(20, pickled_modules=["Net"])),
            Severity.NOTE,
            "a whole module, pickled: `Net`",
        ),
        (
            checkpoint_state.PICKLED_CODE,
            observe(make_file(20, unsafe="Weights only load failed")),
            Severity.NOTE,
            "does not load with weights_only=True",
        ),
    ],
)
def test_faults_of_checkpoints_are_told(
    make_run: MakeRun, rule: Rule, observed: RunObservation, severity: Severity, message: str
) -> None:
    run = make_run(observed=observed)
    assert rule.find_obstacle(run) is None
    (finding,) = rule.apply(run)
    assert finding.code == rule.code
    assert finding.severity is severity
    assert message in finding.message


LORA = model(num_missing_frozen=12, missing_buffers=["body.1.running_mean"])


@pytest.mark.parametrize(
    "observed",
    [
        observe(),
        # Weights alone, an adapter over a frozen model, an average beside nothing else, the best state so far.
        observe(make_file(20, keys=["weight"], models=model(place=""), numbers={})),
        observe(make_file(20, path="/run/adapter.pt", keys=["lora.weight"], models=LORA, numbers={})),
        observe(
            make_file(20, path="/run/ema.pt", keys=["w"], models=model(place="", num_equal=0), numbers={})
        ),
        observe(
            make_file(
                12, path="/run/best.pt", keys=["model.w", "epoch"], models=model(num_equal=0), numbers={}
            ),
            make_file(20),
        ),
        # Names that only sound like a GradScaler's or a generator's.
        observe(make_file(20, path="/run/upscaler.pt", keys=["weight"], models=model(place=""), numbers={})),
        observe(make_file(20, keys=["generator.weight", "sampler.weight"], numbers={})),
        # A part of the model, on purpose.
        observe(
            make_file(
                20, path="/run/encoder.pt", models=model(num_found=2, num_missing=2, missing=["head.weight"])
            )
        ),
        # A state from before training beside one from after it.
        observe(make_file(20, models=[replace(WHOLE, place="first", num_equal=0, num_initial=4), WHOLE])),
        # Files of one folder, each with a part.
        observe(
            make_file(20, path="/run/20/model.safetensors", keys=["w"], models=model(place=""), numbers={}),
            make_file(
                20, path="/run/20/optimizer.pt", keys=["state.0", "param_groups"], models=[], numbers={}
            ),
            make_file(20, path="/run/20/scheduler.pt", keys=["last_epoch"], models=[], numbers={}),
        ),
        # A resumed run that counts on, in micro-batches.
        observe(make_file(10, numbers={"step": 520}), make_file(20, numbers={"step": 560})),
        # A search for a learning rate that puts the first state back, and a run that was ended from outside.
        observe(make_file(0, is_kept=False)),
        observe(make_file(0), outcome=Outcome.STOPPED),
        observe(make_file(20, path="/run/metrics.pt", keys=["dict"], models=[], numbers={})),
    ],
)
def test_whole_checkpoints_and_exports_are_silent(make_run: MakeRun, observed: RunObservation) -> None:
    run = make_run(observed=observed)
    found = [
        finding
        for rule in (*checkpoints.RULES, *checkpoint_writing.RULES, *checkpoint_state.RULES)
        if rule.find_obstacle(run) is None
        for finding in rule.apply(run)
    ]
    assert found == []


def test_ranks_that_write_one_file_are_told(make_run: MakeRun) -> None:
    ranks = [observe(make_file(20), rank=rank, world_size=2) for rank in range(2)]
    (finding,) = checkpoint_writing.SHARED_BY_RANKS.apply(make_run(observed=ranks[0], ranks=tuple(ranks)))
    assert "was written by 2 ranks after step 20" in finding.message


def test_one_rank_that_writes_and_one_that_does_not_are_silent(make_run: MakeRun) -> None:
    ranks = [observe(make_file(20)), observe(make_file(20, path="/run/rank1.pt"), rank=1)]
    assert checkpoint_writing.SHARED_BY_RANKS.apply(make_run(observed=ranks[0], ranks=tuple(ranks))) == []


def test_what_was_seen_of_checkpoints_survives_the_record() -> None:
    observed = observe(make_file(20, empty_parts=["a"], unsafe="it is"))
    assert RunObservation.from_json(observed.to_json()) == observed
