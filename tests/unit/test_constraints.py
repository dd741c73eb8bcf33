from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def read_pins(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    pins = (line.split("#")[0].split(";")[0].strip() for line in lines)
    return {name.lower(): version for pin in pins if pin for name, version in [pin.split("==")]}


def read_lower_bounds(*groups: str) -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"].values()
    listed = [*project["project"]["dependencies"], *(name for extra in extras for name in extra)]
    listed += [name for group in ("test", *groups) for name in project["dependency-groups"][group]]
    matches = [re.fullmatch(r"([a-z0-9-]+)>=([0-9.]+)", requirement) for requirement in listed]
    assert all(matches), listed
    return {match[1]: match[2] for match in matches if match}


def test_minimums_are_the_lower_bounds_of_pyproject() -> None:
    assert read_pins(ROOT / "constraints/minimums.txt") == read_lower_bounds()


def test_ci_constraints_pin_every_direct_dependency_within_its_range() -> None:
    pins = read_pins(ROOT / "constraints/ci.txt")
    for name, lowest in read_lower_bounds("frameworks").items():
        assert name in pins, name
        pinned, bound = ([int(part) for part in version.split(".")[:2]] for version in (pins[name], lowest))
        assert pinned >= bound, name
