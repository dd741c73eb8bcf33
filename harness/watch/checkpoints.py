"""Sees checkpoints written: where, when, and with which keys."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.record.artifacts import find_defect
from harness.record.observation import CheckpointObservation
from harness.watch.options import Depth
from harness.watch.saved import (
    LiveModel,
    compare_saved,
    is_copy_of,
    is_saved,
    list_empty_parts,
    list_numbers,
    list_pickled_modules,
    read_live_models,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.watch.modules import ModuleHooks
    from harness.watch.session import Session
    from harness.watch.updates import OptimizerHooks

MAX_KEYS = 5_000
MAX_DEPTH = 3
MAX_SHOWN = 4
MAX_COMPARED = 256
MAX_CHECKED_FILES = 8
MAX_CHECKED_BYTES = 64 * 2**20
# Writers that exist only once their package is imported: module, function, position and name of object and path.
LATE_WRITERS = (
    ("safetensors.torch", "save_file", (0, "tensors"), (1, "filename")),
    ("safetensors.torch", "save_model", (0, "model"), (1, "filename")),
    ("lightning.fabric.utilities.cloud_io", "_atomic_save", (0, "checkpoint"), (1, "filepath")),
    ("lightning_fabric.utilities.cloud_io", "_atomic_save", (0, "checkpoint"), (1, "filepath")),
    ("torch.distributed.checkpoint.state_dict_saver", "save", (0, "state_dict"), (9, "checkpoint_id")),
)


class CheckpointHooks:
    """Listens to `torch.save`, to safetensors and to distributed checkpoints."""

    def __init__(self, session: Session, modules: ModuleHooks, optimizers: OptimizerHooks) -> None:
        self._session = session
        self._modules = modules
        self._optimizers = optimizers
        self._is_writing = False

    def install(self) -> None:
        """Starts to listen."""
        self._listen_to(torch.save, "torch.save", (0, "obj"), (1, "f"))
        self.install_late()

    def install_late(self) -> None:
        """Listens to writers whose package has been imported in the meantime."""
        for module_name, name, content, target in LATE_WRITERS:
            if (module := sys.modules.get(module_name)) is not None and hasattr(module, name):
                self._listen_to(getattr(module, name), f"{module_name}.{name}", content, target)

    def _listen_to(
        self, function: Callable[..., Any], writer: str, content: tuple[int, str], target: tuple[int, str]
    ) -> None:
        def around(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            # A writer that uses another one has written one checkpoint.
            if self._is_writing:
                return call(*args, **kwargs)
            self._is_writing = True
            try:
                result = call(*args, **kwargs)
            finally:
                self._is_writing = False
            self._session.attempt(
                "checkpoint", self._note, writer, _pick(args, kwargs, content), _pick(args, kwargs, target)
            )
            return result

        if not self._session.taps.is_on(function):
            self._session.taps.on_function(function, around)

    def _note(self, writer: str, content: object, target: object) -> None:
        path = target if isinstance(target, (str, os.PathLike)) else getattr(target, "name", None)
        shown = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
        num_bytes = None
        if isinstance(shown, str) and Path(shown).is_file():
            num_bytes = Path(shown).stat().st_size
        keys = list_keys(content)
        if len(keys) > MAX_KEYS:
            self._session.add_blind_spot(
                f"checkpoint {shown}: only {MAX_KEYS} of its {len(keys)} keys are kept"
            )
        found = CheckpointObservation(
            path=None if shown is None else str(Path(str(shown)).absolute()),
            writer=writer,
            after_step=self._session.num_steps,
            keys=keys[:MAX_KEYS],
            num_bytes=num_bytes,
        )
        self._session.run.checkpoints.append(found)
        if self._session.options.depth is Depth.DEEP and len(self._session.run.checkpoints) <= MAX_COMPARED:
            self._session.attempt("checkpoint", self._compare, found, content)

    def _compare(self, found: CheckpointObservation, content: object) -> None:
        """Adds what it holds of the models that train."""
        session = self._session
        found.numbers = list_numbers(content)
        found.empty_parts = list_empty_parts(content)
        if found.writer == "torch.save":
            found.pickled_modules = list_pickled_modules(content)[:MAX_SHOWN]
        held = {
            id(parameter)
            for optimizer in self._optimizers.find_optimizers()
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        models = read_live_models(self._modules.find_roots(), held)
        evaluated = [module for reference in session.evaluated or () if (module := reference()) is not None]
        copies = [
            LiveModel.read(module, held)
            for module in evaluated
            if not any(id(parameter) in held for parameter in module.parameters())
        ]
        found.models = compare_saved(content, models, session.first_fingerprints, copies)
        for copy in copies if found.models else ():
            is_copy = any(is_copy_of(model, copy, session.first_fingerprints) for model in models)
            if is_copy and not is_saved(copy, content) and copy.kind not in found.unsaved_copies:
                found.unsaved_copies.append(copy.kind)

    def check_files(self) -> None:
        """Whether the last files written are there and can be read; those of some size are not opened."""
        if self._session.options.depth is not Depth.DEEP:
            return
        latest = {found.path: found for found in self._session.run.checkpoints if found.path is not None}
        for shown, found in list(latest.items())[-MAX_CHECKED_FILES:]:
            path = Path(shown)
            found.is_kept = path.exists()
            if not path.is_file() or path.stat().st_size > MAX_CHECKED_BYTES:
                continue
            found.defect = find_defect(path)
            if found.defect is None and found.writer == "torch.save" and found.models:
                found.unsafe = _find_unsafe(path)


def _find_unsafe(path: Path) -> str | None:
    """Why a file can't be loaded without unpickling whatever is in it; None when it can."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001  whatever it is, that is what a loader would meet
            return str(error).partition("\n")[0][:300]
    return None


def list_keys(content: object, prefix: str = "", depth: int = 0) -> list[str]:
    """The keys of nested mappings down to tensors, joined by dots; the class of anything else."""
    if not isinstance(content, Mapping):
        return [prefix or type(content).__name__]
    if depth == MAX_DEPTH or not content:
        return [prefix] if prefix else []
    return [
        key
        for name, part in content.items()
        for key in list_keys(part, f"{prefix}.{name}" if prefix else str(name), depth + 1)
    ]


def _pick(args: tuple[Any, ...], kwargs: dict[str, Any], place: tuple[int, str]) -> Any:
    position, name = place
    return args[position] if len(args) > position else kwargs.get(name)
