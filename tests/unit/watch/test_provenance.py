"""How a model is put together, and from which files of the project."""

from __future__ import annotations

import json
import sys
import types
from typing import TYPE_CHECKING

from torch import nn

from harness.record.own_files import name_own_file
from harness.watch.provenance import (
    describe_modules,
    find_folder,
    find_sources,
    list_project_files,
)

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class Scaled(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self._hidden = 1
        self.layer = nn.Linear(2, 2)


class Called(nn.Module):
    def extra_repr(self) -> str:
        return f"function={print_nothing}, other={object()}"


def print_nothing() -> None:
    """Has another address in every process."""


def test_modules_are_described_by_what_they_tell_or_by_their_plain_attributes() -> None:
    model = nn.Sequential(Scaled(0.5), nn.Dropout(0.1))
    assert describe_modules([model], {}, {}) == {
        "0": "Scaled(scale=0.5)",
        "0.layer": "Linear(in_features=2, out_features=2, bias=True)",
        "1": "Dropout(p=0.1, inplace=False)",
    }


def test_addresses_of_functions_and_objects_are_no_setting() -> None:
    (told,) = describe_modules([Called()], {}, {}).values()
    assert told == "Called(function=<function print_nothing>, other=<object object>)"


def test_parts_of_several_models_that_are_called_alike_are_all_described() -> None:
    models = [nn.Sequential(nn.Dropout(p)) for p in (0.1, 0.2, 0.3)]
    assert list(describe_modules(models, {}, {}).values()) == [
        f"Dropout(p={p}, inplace=False)" for p in (0.1, 0.2, 0.3)
    ]


def test_only_files_of_the_project_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, installed = tmp_path / "project" / "model.py", tmp_path / "project" / "site-packages" / "model.py"
    outside = tmp_path / "model.py"
    for path in (own, installed, outside):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    monkeypatch.chdir(own.parent)
    folder = find_folder()
    # Where the program works later does not matter.
    monkeypatch.chdir(tmp_path)
    assert name_own_file(str(own), folder) == "model.py"
    assert name_own_file("model.py", folder) == "model.py"
    for other in (str(installed), str(outside), str(own.with_name("missing.py")), nn.__file__, json.__file__):
        assert name_own_file(other, folder) is None
    module = types.ModuleType("made")
    module.__file__ = str(own)
    monkeypatch.setitem(sys.modules, "made", module)
    assert "model.py" in list_project_files(folder)


def test_classes_of_libraries_have_no_source_of_the_project(
    request: pytest.FixtureRequest,
) -> None:
    found = find_sources([Scaled, nn.Linear, int], request.config.rootpath)
    assert found == {"Scaled": "tests/unit/watch/test_provenance.py"}


def test_a_working_directory_that_is_gone_holds_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert name_own_file(__file__, find_folder()) is None
