from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date, timedelta
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import pytest

from harness.baselines.pools import MAX_LAUNCHES, Launch, PoolStore
from harness.baselines.shelves import FolderShelf
from harness.errors import BaselineError
from harness.record.fixed_work import FixedWork

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.baselines.pools import Pool
    from harness.record.environment import Environment

    MakeLaunch = Callable[..., Launch]

TEST = "tests/test_a.py::test_a"
CLASS = "some-class"


@pytest.fixture
def extend(store: PoolStore, environment: Environment, make_launch: MakeLaunch) -> Callable[..., None]:
    def extend(test: str = TEST, *, runner_class: str = CLASS, anew: bool = False, **values: float) -> None:
        launch = make_launch(**values or {"wall_clock_s": 1.0})
        store.extend(test, [launch], environment, runner_class, anew=anew)

    return extend


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document["harness"])
    path.write_text(json.dumps(document), encoding="utf-8")


def test_a_test_without_a_file_has_no_pool(store: PoolStore) -> None:
    assert store.read(TEST, CLASS) is None
    assert store.find_classes(TEST) == []


def test_launches_come_back_in_order(store: PoolStore, extend: Callable[..., None]) -> None:
    extend(wall_clock_s=1.0)
    extend(wall_clock_s=2.0, final_loss=0.5)
    pool = store.read(TEST, CLASS)
    assert pool is not None
    assert pool.values("wall_clock_s") == [1.0, 2.0]
    assert pool.values("final_loss") == [0.5]


def test_how_fast_the_machine_was_comes_back_with_a_launch(
    store: PoolStore, make_launch: MakeLaunch, environment: Environment
) -> None:
    work = FixedWork(0.005, "1, Python 3.11.7, torch 2.13.0")
    launches = [make_launch(wall_clock_s=1.0), replace(make_launch(wall_clock_s=2.0), fixed_work=work)]
    store.extend(TEST, launches, environment, CLASS)
    pool = store.read(TEST, CLASS)
    assert pool is not None
    assert [launch.fixed_work for launch in pool.launches] == [None, work]


def test_starting_anew_drops_the_launches_before(store: PoolStore, extend: Callable[..., None]) -> None:
    extend(wall_clock_s=1.0)
    extend(wall_clock_s=2.0, anew=True)
    pool = store.read(TEST, CLASS)
    assert pool is not None
    assert pool.values("wall_clock_s") == [2.0]


def test_the_newest_launches_are_kept(store: PoolStore, extend: Callable[..., None]) -> None:
    for number in range(MAX_LAUNCHES + 2):
        extend(wall_clock_s=float(number + 1))
    pool = store.read(TEST, CLASS)
    assert pool is not None
    assert pool.values("wall_clock_s") == [float(number + 3) for number in range(MAX_LAUNCHES)]


def list_occasions(pool: Pool, metric: str) -> list[list[float]]:
    return [[launch.values[metric] for launch in occasion] for occasion in pool.list_occasions(metric)]


def test_launches_an_hour_apart_are_of_two_occasions(
    store: PoolStore, make_launch: MakeLaunch, environment: Environment
) -> None:
    for minute, value in ((0, 1.0), (40, 2.0), (80, 3.0), (141, 4.0)):
        at = f"2026-11-02T{10 + minute // 60}:{minute % 60:02}:00+00:00"
        names = {"wall_clock_s": value} | ({"final_loss": value} if value > 1 else {})
        launch = replace(make_launch(**names), recorded_at=at)
        store.extend(TEST, [launch], environment, CLASS)
    pool = store.read(TEST, CLASS)
    assert pool is not None
    assert list_occasions(pool, "wall_clock_s") == [[1.0, 2.0, 3.0], [4.0]]
    assert list_occasions(pool, "final_loss") == [[2.0, 3.0], [4.0]]
    assert list_occasions(pool, "step_time_s") == []


@pytest.mark.parametrize(
    ("each", "num", "kept"),
    [(20, 3, [13, 13, 14]), (20, 14, [4] * 10), (1, 50, [1] * 40), (3, 20, [1, *[3] * 13])],
)
def test_of_many_launches_a_night_those_of_many_nights_are_kept(
    store: PoolStore, make_launch: MakeLaunch, environment: Environment, each: int, num: int, kept: list[int]
) -> None:
    for night in range(num):
        for value in range(each):
            at = f"{date(2026, 1, 1) + timedelta(night)}T03:00:{value:02}+00:00"
            launch = replace(make_launch(wall_clock_s=night + 1 + value / 100), recorded_at=at)
            store.extend(TEST, [launch], environment, CLASS)
    pool = store.read(TEST, CLASS)
    assert pool is not None
    occasions = list_occasions(pool, "wall_clock_s")
    assert [len(occasion) for occasion in occasions] == kept
    # The newest of each.
    assert occasions[-1][-1] == num + (each - 1) / 100
    assert all(occasion[-1] % 1 == pytest.approx((each - 1) / 100) for occasion in occasions)


def test_a_clock_that_was_put_back_and_moments_without_offset_are_of_other_occasions_as_well(
    store: PoolStore, make_launch: MakeLaunch, environment: Environment
) -> None:
    moments = ("2026-11-02T10:00:00+00:00", "2026-11-02T10:30:00", "2026-10-20T10:30:00+00:00")
    launches = [replace(make_launch(wall_clock_s=1.0), recorded_at=moment) for moment in moments]
    pool, num_added = store.extend(TEST, launches, environment, CLASS)
    assert list_occasions(pool, "wall_clock_s") == [[1.0, 1.0], [1.0]]
    assert num_added == 3


def test_of_more_launches_than_a_pool_holds_the_newest_are_kept_and_counted(
    store: PoolStore, make_launch: MakeLaunch, environment: Environment
) -> None:
    launches = [make_launch(wall_clock_s=float(number)) for number in range(1, 101)]
    pool, num_added = store.extend(TEST, launches, environment, CLASS)
    assert pool.values("wall_clock_s") == [float(number) for number in range(61, 101)]
    assert num_added == MAX_LAUNCHES
    again, num_added = store.extend(TEST, launches[:1], environment, CLASS)
    assert (len(again.launches), num_added) == (MAX_LAUNCHES, 1)


def test_a_moment_that_is_none_is_told(store: PoolStore, extend: Callable[..., None]) -> None:
    extend()
    edit(store.path(TEST, CLASS), lambda header: header["launches"][0].update(recorded_at="yesterday"))
    with pytest.raises(BaselineError, match="yesterday"):
        store.read(TEST, CLASS)


def test_a_pinned_release_outlives_the_launches_and_the_pool(
    store: PoolStore, extend: Callable[..., None]
) -> None:
    assert store.pin(TEST, CLASS, name="v1", reason="released", pinned_at="2026-11-03T00:00:00+00:00") is None
    extend(wall_clock_s=1.0)
    extend(wall_clock_s=2.0)
    pinned = store.pin(TEST, CLASS, name="v1", reason="released", pinned_at="2026-11-03T00:00:00+00:00")
    assert pinned == store.read(TEST, CLASS)
    extend(wall_clock_s=3.0, anew=True)
    for number in range(MAX_LAUNCHES):
        extend(wall_clock_s=float(number + 4))
    pool = store.read(TEST, CLASS)
    assert pool is not None
    assert pool.anchor is not None
    assert (pool.anchor.name, pool.anchor.values("wall_clock_s")) == ("v1", [1.0, 2.0])
    assert min(pool.values("wall_clock_s")) == 4.0


def test_a_damaged_pinned_release_is_refused(store: PoolStore, extend: Callable[..., None]) -> None:
    extend()
    edit(store.path(TEST, CLASS), lambda header: header.update(anchor={"name": "v1"}))
    with pytest.raises(BaselineError, match="incomplete"):
        store.read(TEST, CLASS)


def test_files_are_found_and_tell_whose_they_are(store: PoolStore, extend: Callable[..., None]) -> None:
    extend()
    pools = [store.read_file(name) for name in store.list_names()]
    assert [(pool.test, pool.runner_class) for pool in pools if pool] == [(TEST, CLASS)]


def test_the_classes_of_a_test_are_found(store: PoolStore, extend: Callable[..., None]) -> None:
    extend(runner_class="b")
    extend(runner_class="a")
    extend("tests/test_b.py::test_b", runner_class="c")
    assert store.find_classes(TEST) == ["a", "b"]


def test_the_file_is_a_document_of_pytest_benchmark(store: PoolStore, extend: Callable[..., None]) -> None:
    extend(wall_clock_s=1.0, step_time_s=0.5)
    extend(wall_clock_s=1.0, step_time_s=0.7)
    document = json.loads(store.path(TEST, CLASS).read_text(encoding="utf-8"))
    (benchmark,) = document["benchmarks"]
    assert benchmark["fullname"] == TEST
    assert benchmark["stats"]["data"] == [0.5, 0.7]
    assert benchmark["stats"]["median"] == pytest.approx(0.6)
    assert {"machine_info", "commit_info", "datetime", "version"} <= set(document)


def test_a_common_test_has_a_readable_file_name(store: PoolStore) -> None:
    assert store.path("tests/a/test_b.py::test_c[cpu-1]", CLASS).name == "tests.a.test_b.py.test_c-cpu-1.json"


@pytest.mark.parametrize(
    "tests",
    [
        ("t.py::test_a[1]", "t.py::test_a[-1]"),
        ("t.py::test_a[a/b]", "t.py::test_a[a.b]"),
        ("t.py::test_a[x]", "t.py::test_a[X]"),
        ("t.py::test_a[lr=1]", "t.py::test_a[lr-1]"),
        ("t.py::test_a[2]", "t.py::test_a#2"),
        ("t.py::test_a[ü]", "t.py::test_a[é]"),
        (f"t.py::test_a[{'x' * 5000}]", f"t.py::test_a[{'x' * 5001}]"),
    ],
    ids=lambda tests: f"{tests[0][:20]} {tests[1][:20]}",
)
def test_tests_with_similar_names_have_pools_of_their_own(
    store: PoolStore, extend: Callable[..., None], tests: tuple[str, str]
) -> None:
    for test in tests:
        extend(test)
    for test in tests:
        pool = store.read(test, CLASS)
        assert pool is not None
        assert (pool.test, len(pool.launches)) == (test, 1)


def test_a_file_of_another_test_is_refused(store: PoolStore, extend: Callable[..., None]) -> None:
    extend()
    edit(store.path(TEST, CLASS), lambda header: header.update(test="other"))
    with pytest.raises(BaselineError, match=f"belongs to other on {CLASS}, not to {TEST} on {CLASS}"):
        store.read(TEST, CLASS)


def test_a_file_of_another_class_is_refused(store: PoolStore, extend: Callable[..., None]) -> None:
    extend()
    edit(store.path(TEST, CLASS), lambda header: header.update(runner_class="other"))
    with pytest.raises(BaselineError, match=f"belongs to {TEST} on other, not to {TEST} on {CLASS}"):
        store.read(TEST, CLASS)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda header: header.update(schema_version=99), r"has schema 99; .* pip install -U"),
        (lambda header: header.pop("schema_version"), "no harness.schema_version"),
        (lambda header: header.update(launches=[]), "holds no launch"),
        (lambda header: header.pop("launches"), "incomplete: 'launches'"),
        (lambda header: header.update(launches=["x"]), "incomplete"),
        (lambda header: header["launches"][0].pop("reason"), "incomplete"),
        (lambda header: header["launches"][0].update(values=[1]), "incomplete"),
        (lambda header: header["launches"][0].update(counted=5), "incomplete"),
        (lambda header: header["launches"][0].update(fixed_work=5), "incomplete"),
        (lambda header: header["launches"][0].update(fixed_work={"time_s": 1}), "incomplete"),
        (
            lambda header: header["launches"][0].update(fixed_work={"time_s": 0, "made_with": "1"}),
            "incomplete: fixed work took 0 s",
        ),
        (lambda header: header["launches"][0].update(counted={"step": 1, "x": 1}), "incomplete"),
        (
            lambda header: header["launches"][0].update(counted={"step": 1, "ops": {"forward": 5}}),
            "incomplete",
        ),
        (
            lambda header: header["launches"][0].update(counted={"step": 1, "ops": {"forward": {"mm": "2"}}}),
            "incomplete: mm is counted as '2'",
        ),
        (lambda header: header["launches"][0]["values"].update(a="1"), "incomplete: a is '1'"),
        (lambda header: header["launches"][0]["values"].update(a=float("nan")), "incomplete: a is nan"),
    ],
)
def test_a_file_with_other_content_is_refused_and_left_alone(
    store: PoolStore, extend: Callable[..., None], change: Callable[[dict[str, Any]], object], told: str
) -> None:
    extend()
    path = store.path(TEST, CLASS)
    edit(path, change)
    before = path.read_bytes()
    with pytest.raises(BaselineError, match=f"(?s){told}") as caught:
        store.read(TEST, CLASS)
    assert "Next:" in str(caught.value)
    with pytest.raises(BaselineError):
        extend()
    assert path.read_bytes() == before


def extend_often(folder: Path, environment: Environment, launch: Launch) -> None:
    for _ in range(8):
        PoolStore(FolderShelf(folder)).extend(TEST, [launch], environment, CLASS)


def test_two_processes_that_extend_at_once_lose_nothing(
    tmp_path: Path, environment: Environment, make_launch: MakeLaunch
) -> None:
    launch = make_launch(wall_clock_s=1.0)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        for done in [executor.submit(extend_often, tmp_path, environment, launch) for _ in range(2)]:
            done.result()
    pool = PoolStore(FolderShelf(tmp_path)).read(TEST, CLASS)
    assert pool is not None
    assert len(pool.launches) == 16
