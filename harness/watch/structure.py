"""Looks at the trained models between deep steps: which they are, their copies, and what to probe at the end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.watch.copies import CopyWatch
from harness.watch.probe import ModelProbe

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from harness.watch.deep import DeepStep
    from harness.watch.modules import ModuleHooks
    from harness.watch.session import Session


class StructureWatch:
    """What is kept of the models from one deep step to the next; installed at depth `deep` only."""

    def __init__(self, session: Session, modules: ModuleHooks) -> None:
        self._session = session
        self._modules = modules
        self._copies = CopyWatch(session, modules)
        self._probe = ModelProbe(session)

    def install(self) -> None:
        """Starts to listen."""
        self._copies.install()

    def look(self, deep: DeepStep, optimizers: list[Optimizer]) -> None:
        """At the end of a deep step, in the program's thread and below its frames."""
        session = self._session
        updates = deep.list_updates()
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        held = {id(parameter) for group in groups for parameter in group["params"]}
        passes, trained, captured = deep.passes.finish(set(updates) | held)
        deep.record.passes = passes
        self._modules.note_trained(trained)

        def measure_update(identities: list[int]) -> float:
            norms = [updates.get(identity) or 0.0 for identity in identities]
            return math.sqrt(sum(norm * norm for norm in norms))

        session.attempt("copies", self._copies.look, deep.record.step, trained, measure_update)
        if captured is not None:
            session.attempt("structure", self._probe.keep, captured, deep.record.step)

    def finish(self, *, is_complete: bool) -> None:
        """After the run, when nothing is listened to any more."""
        self._session.attempt("copies", self._copies.finish)
        if is_complete:
            self._session.attempt("structure", self._probe.run)
