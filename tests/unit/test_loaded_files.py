"""Two programs that loaded the same file, although their revisions differ in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.budgets.loaded_files import find_loaded_changes, find_shared_modules

BASE, HEAD = Path("/trees/base"), Path("/repo")
SITE = "/venv/lib/python3.11/site-packages"


def find(base: dict[str, str], head: dict[str, str], *changed: str) -> list[str]:
    return [found.module for found in find_shared_modules(base, head, roots=[BASE, HEAD], changed=changed)]


def test_each_its_own_file_is_right() -> None:
    assert find({"pkg.a": "/trees/base/pkg/a.py"}, {"pkg.a": "/repo/pkg/a.py"}, "pkg/a.py") == []


def test_one_file_of_the_work_tree_for_both_is_found() -> None:
    assert find({"__main__": "/repo/train.py"}, {"__main__": "/repo/train.py"}, "train.py") == ["__main__"]


def test_one_file_in_which_they_do_not_differ_is_let_be() -> None:
    assert find({"__main__": "/repo/train.py"}, {"__main__": "/repo/train.py"}, "README.md") == []


@pytest.mark.parametrize("source", ["pkg/a.py", "src/pkg/a.py", "python/pkg/a.py", "native/pkg/a.cpp"])
def test_an_installed_copy_is_found_by_the_name_of_its_module(source: str) -> None:
    loaded = {"pkg.a": f"{SITE}/pkg/a.py"}
    assert find(loaded, loaded, source) == ["pkg.a"]


@pytest.mark.parametrize("source", ["tests/pkg/b.py", "docs/pkg/a.md", "a.py", "pkg/sub/a.py"])
def test_an_installed_package_of_others_is_let_be(source: str) -> None:
    loaded = {"pkg.a": f"{SITE}/pkg/a.py", "yaml": f"{SITE}/yaml/__init__.py"}
    assert find(loaded, loaded, source) == []


def test_a_package_is_found_by_its_init_file() -> None:
    loaded = {"pkg": f"{SITE}/pkg/__init__.py"}
    assert find(loaded, loaded, "src/pkg/__init__.py") == ["pkg"]
    assert find(loaded, loaded, "examples/deep/pkg/__init__.py") == []


def test_a_virtual_environment_inside_the_repository_is_no_source() -> None:
    loaded = {"torch.a": "/repo/.venv/lib/python3.11/site-packages/torch/a.py"}
    assert find(loaded, loaded, "pkg/a.py") == []


def test_changes_that_were_loaded_are_listed() -> None:
    loaded = {"pkg.a": "/repo/pkg/a.py", "pkg.b": "/repo/pkg/b.py", "os": "/usr/lib/os.py"}
    assert find_loaded_changes(loaded, HEAD, {"pkg/b.py", "README.md"}) == ["pkg/b.py"]
