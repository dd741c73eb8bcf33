"""A store of pools in the test's folder, and a judge by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.baselines.pools import PoolStore
from harness.baselines.shelves import FolderShelf
from harness.budgets.judge import Judge
from tests.unit.judging import CLASS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> PoolStore:
    return PoolStore(FolderShelf(tmp_path))


@pytest.fixture
def judge(store: PoolStore) -> Judge:
    return Judge(store, CLASS)
