"""Describes a run: what it consists of, and the circumstances that it is compared by."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import torch

from harness.watch.compilation import note_compilation
from harness.watch.events import NEVER
from harness.watch.numerics import START, capture_numerics, capture_start
from harness.watch.provenance import describe_modules, find_sources, list_project_files

if TYPE_CHECKING:
    from harness.watch.data import DataHooks
    from harness.watch.loss import LossHooks
    from harness.watch.modules import ModuleHooks
    from harness.watch.session import Session
    from harness.watch.updates import OptimizerHooks

ENVIRONMENTS = ("gymnasium", "gym", "pettingzoo", "dm_env", "envpool")
NAMED_EVERY = 8
"""Steps between two looks at the optimizers that are new: some programs build one for every step."""


class RunDescription:
    """Fills in the record of a run from what its hooks know.

    Args:
        session: Of the observer.
        modules: Knows the models.
        optimizers: Knows the optimizers.
        data: Knows the data loaders.
        loss: Knows the scale of a GradScaler.
    """

    def __init__(
        self,
        session: Session,
        modules: ModuleHooks,
        optimizers: OptimizerHooks,
        data: DataHooks,
        loss: LossHooks,
    ) -> None:
        self._session = session
        self._modules = modules
        self._optimizers = optimizers
        self._data = data
        self._loss = loss
        self._start: dict[str, str] = {}
        self._num_named = self._next_naming = 0

    def begin(self) -> None:
        """Takes what a run is told from: before anything else is watched."""
        self._start = capture_start()
        self._session.leave_out_graphs((0, 0))

    def take_all(self) -> None:
        """All there is to tell so far."""
        run = self._session.run
        self.take_living()
        self._session.attempt("samples", self._data.describe)
        run.environments = [name for name in ENVIRONMENTS if name in sys.modules]
        self._loss.note_scale()

    def take_living(self) -> None:
        """What may be gone when the run is over, such as models and the process group, and what hooks go by."""
        run = self._session.run
        run.rank, run.world_size = find_rank()
        run.has_process_group |= torch.distributed.is_available() and torch.distributed.is_initialized()
        names = self._name_optimizers()
        run.trainable_parameters = self._modules.names.count_trainable(names) or run.trainable_parameters
        if not run.numerics and run.optimizers:
            self._session.attempt("numerics", self._take_circumstances, names)
        # Last: where an optimizer's step is compiled, the compiler follows this, and changes what it counts.
        note_compilation(run.compilation, self._session.foreign_graphs)

    def name_new_optimizers(self) -> None:
        """Names what those hold that have stepped since the last time, while their parameters live."""
        if len(self._session.run.optimizers) > self._num_named:
            self._name_optimizers(self._num_named)

    def find_naming(self, number: int) -> int:
        """The first step from this one on at whose end optimizers are to be named; of many, not each by itself."""
        if len(self._session.run.optimizers) == self._num_named:
            return NEVER
        return number if number < self._session.options.traced_steps else max(number, self._next_naming)

    def _name_optimizers(self, start: int = 0) -> dict[int, str]:
        """Names what they hold, from one on; returns the names of all parameters, by identity."""
        names = self._modules.names.name_parameters()
        self._optimizers.describe(names, start=start)
        self._num_named = len(self._session.run.optimizers)
        self._next_naming = self._session.num_steps + NAMED_EVERY
        return names

    def _take_circumstances(self, names: dict[int, str]) -> None:
        """What a run is compared with another by, once it trains."""
        run = self._session.run
        run.seed = torch.initial_seed()
        run.numerics = capture_numerics() | {START: self._start}
        if not self._session.options.traced_steps:
            return
        roots = self._modules.find_roots()
        run.modules = describe_modules(roots, names, self._modules.names.name_models())
        kinds = {type(module) for root in roots for module in root.modules()}
        run.sources = find_sources([*kinds, *self._data.list_dataset_kinds()], self._session.folder)
        run.project_files = list_project_files(self._session.folder)


def find_rank() -> tuple[int, int]:
    """Rank and world size: of the process group where there is one, else of the launcher's environment."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
