"""Run by Python at the start of a watched process: has the watcher loaded once torch has been imported.

Standard library only, and as little of it as possible: processes that never import torch pay for this file
alone. The folder it lies in is taken off `sys.path`, and a sitecustomize of the user's own is run.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

VARIABLE = "HARNESS_WATCH"
HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120  pathlib costs 5 ms
PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))  # noqa: PTH120


class TorchFinder:
    """Finds torch as everybody does, and has the watcher started when its import is over.

    It stays until then: `importlib.util.find_spec("torch")`, with which packages ask whether torch is
    installed, finds torch without importing it.
    """

    def __init__(self) -> None:
        self._is_asking = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The specification of torch, with a loader that tells when it is done; None for all else."""
        if name != "torch" or self._is_asking:
            return None
        self._is_asking = True
        try:
            for finder in sys.meta_path:
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    if spec.loader is not None:
                        spec.loader = TorchLoader(spec.loader, self)  # type: ignore[assignment]
                    return spec
        finally:
            self._is_asking = False
        return None


class TorchLoader:
    """Loads torch with its own loader, which it gives back the place of."""

    def __init__(self, loader: Any, finder: TorchFinder) -> None:
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """The empty module, as its own loader makes it."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Runs torch's own code, then starts the watcher."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
            start_watching()


def start_watching() -> None:
    """Loads the watcher and starts it; a failure is told on stderr and never reaches the program."""
    try:
        if load_package():
            from harness.watch.bootstrap import process  # noqa: PLC0415

            process.start()
    except Exception as error:  # noqa: BLE001  whatever it is, the program must go on
        sys.stderr.write(f"harness: this process is not watched: {type(error).__name__}: {error}\n")


def load_package() -> bool:
    """Loads the package by its place, without a change to `sys.path`; False where the program has its own."""
    if "harness" in sys.modules:
        return PACKAGE in getattr(sys.modules["harness"], "__path__", [])
    spec = importlib.machinery.PathFinder.find_spec("harness")
    places = [] if spec is None else (spec.submodule_search_locations or [])
    # Another copy of this package, as in a checkout of this project, gives way to ours.
    if spec is not None and PACKAGE not in places and not any(map(is_copy, places)):
        sys.stderr.write(
            f"harness: this process is not watched: it has a module named harness, {spec.origin}\n"
        )
        return False
    spec = importlib.util.spec_from_file_location(
        "harness",
        os.path.join(PACKAGE, "__init__.py"),  # noqa: PTH118  pathlib is not worth loading here
        submodule_search_locations=[PACKAGE],
    )
    if spec is None or spec.loader is None:
        return False
    module = importlib.util.module_from_spec(spec)
    sys.modules["harness"] = module
    spec.loader.exec_module(module)
    return True


def is_copy(package: str) -> bool:
    """Whether a package's folder holds a file like this one."""
    return os.path.isfile(HERE.replace(PACKAGE, package, 1) + "/sitecustomize.py")  # noqa: PTH113


def run_users_own() -> None:
    """Runs the sitecustomize that this one hides."""
    mine = sys.modules.pop("sitecustomize", None)
    try:
        importlib.import_module("sitecustomize")  # another file: this folder is off the path by now
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
        if mine is not None:
            sys.modules["sitecustomize"] = mine


sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != HERE]  # noqa: PTH100
if VARIABLE in os.environ:
    sys.meta_path.insert(0, TorchFinder())
run_users_own()
