"""What several rules read off the checkpoints of a run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from harness.rules.deep_steps import observed_of

if TYPE_CHECKING:
    from harness.record.observation import CheckpointObservation
    from harness.record.run import TrainingRun
    from harness.record.saved import SavedModelObservation

PARTS = {
    "optimizer": re.compile(r"optim"),
    "scheduler": re.compile(r"sched"),
    "scaler": re.compile(r"(^|[_-])(grad_?|loss_?)?scaler|(^|[_-])amp([_-]|$)"),
    "generators": re.compile(r"(^|[_-])rng|random_state|generator_state"),
}
"""By part: what its key, or the name of its file, looks like."""
OWN_KEYS = {
    "optimizer": {"param_groups"},
    "scheduler": {"_step_count", "_last_lr", "num_bad_epochs"},
    "scaler": {"_growth_tracker"},
}
"""By part: keys that its state has, whatever it is called itself."""
PROGRESS = ("step", "global_step", "iteration", "iter", "iter_num", "num_steps", "steps", "epoch", "epochs")
ON_PURPOSE = (
    "ema",
    "swa",
    "averag",
    "target",
    "teacher",
    "momentum",
    "init",
    "ref",
    "pretrain",
    "start",
    "best",
)
"""Parts of names of states that are not the model as it is, and are not meant to be."""


def find_obstacle_to_checkpoints(run: TrainingRun) -> str | None:
    """Why nothing can be said of checkpoints; None when something can."""
    if run.observed is None:
        return "nothing was watched"
    return None if run.observed.checkpoints else "no checkpoint was written"


@dataclass(frozen=True, slots=True)
class Save:
    """Files written into one folder after the same step, which make one checkpoint together."""

    after_step: int
    files: tuple[CheckpointObservation, ...]

    @property
    def models(self) -> list[SavedModelObservation]:
        """What they hold of the models that train."""
        return [model for file in self.files for model in file.models]

    @property
    def name(self) -> str:
        """The file with the model in words, or the first one."""
        return tell_file(next((file for file in self.files if file.models), self.files[0]))

    def has(self, part: str) -> bool:
        """Whether a part of `PARTS` is in one of the files, or is a file of its own."""
        own = OWN_KEYS.get(part, set())
        if any(key.rpartition(".")[2] in own for file in self.files for key in file.keys):
            return True
        return any(
            PARTS[part].search(text)
            for file in self.files
            for text in (*_list_heads(file), "" if file.models else PurePath(file.path or "").stem.lower())
        )

    @property
    def has_progress(self) -> bool:
        """Whether it tells a step or an epoch."""
        return any(file.numbers or any(head in PROGRESS for head in _list_heads(file)) for file in self.files)


def _list_heads(file: CheckpointObservation) -> set[str]:
    """The first parts of its keys; of a model's own keys, as those of a bare state dict, none."""
    is_bare = any(not model.place for model in file.models)
    return set() if is_bare else {key.partition(".")[0].lower() for key in file.keys}


def list_saves(run: TrainingRun) -> list[Save]:
    """The checkpoints of a run in order, files of one folder and step together."""
    groups: dict[tuple[str, int], list[CheckpointObservation]] = {}
    for file in observed_of(run).checkpoints:
        folder = str(PurePath(file.path).parent) if file.path is not None else f"memory {id(file)}"
        groups.setdefault((folder, file.after_step), []).append(file)
    return [Save(after_step, tuple(files)) for (_, after_step), files in groups.items()]


def tell_file(file: CheckpointObservation) -> str:
    """A file in backquotes."""
    return "a checkpoint in memory" if file.path is None else f"`{PurePath(file.path).name}`"


def is_meant_otherwise(*names: str | None) -> bool:
    """Whether a name says that a state is an average, a target or the like."""
    return any(word in (name or "").lower() for name in names for word in ON_PURPOSE)
