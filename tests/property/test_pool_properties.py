"""Baselines of any test come back, and no two tests share a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from harness.baselines.pools import Launch, PoolStore
from harness.baselines.shelves import FolderShelf

if TYPE_CHECKING:
    import pytest

    from harness.record.environment import Environment

NODEIDS = st.text(st.sampled_from("aA1[]/:.#- üß\\\n_="), min_size=1, max_size=12) | st.text(
    min_size=1, max_size=400
)
VALUES = st.dictionaries(
    st.sampled_from(["wall_clock_s", "step_time_s", "final_loss"]), st.floats(1e-9, 1e9), min_size=1
)


@given(tests=st.lists(NODEIDS, min_size=2, max_size=2, unique=True))
def test_two_tests_have_two_file_names_that_a_file_system_takes(tests: list[str]) -> None:
    paths = [PoolStore(FolderShelf(Path("/b"))).path(test, "some-class") for test in tests]
    assert paths[0] != paths[1]
    for path in paths:
        assert path.parent == Path("/b/budgets/some-class")
        assert len(f".{path.name}.12345678.tmp".encode()) <= 255
        assert not path.name.startswith(".")


@given(test=NODEIDS, values=VALUES, reason=st.text(st.characters(), max_size=20))
def test_a_launch_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory,
    environment: Environment,
    test: str,
    values: dict[str, float],
    reason: str,
) -> None:
    store = PoolStore(FolderShelf(tmp_path_factory.mktemp("baselines")))
    launch = Launch(values, recorded_at="2026-11-02", commit=None, is_dirty=True, reason=reason)
    store.extend(test, [launch], environment, "some-class")
    pool = store.read(test, "some-class")
    assert pool is not None
    assert pool.launches == (launch,)
