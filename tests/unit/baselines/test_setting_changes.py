"""In what two runs differ, of what they were set up with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from harness.baselines.setting_changes import SettingChange, list_changes
from harness.baselines.trajectory import Phase

if TYPE_CHECKING:
    from harness.baselines.trajectory import Settings


def test_changes_are_listed_in_the_order_of_phases_and_say_what_is_new_or_gone() -> None:
    before: Settings = {"schedule": {"rate": 0.1}, "data": {"size": 8, "drop": True}}
    after: Settings = {"schedule": {"rate": 0.3}, "data": {"size": 8, "shuffle": True}}
    changes = list_changes(before, after)
    assert changes == [
        SettingChange(Phase.DATA, "drop", True, None),
        SettingChange(Phase.DATA, "shuffle", None, True),
        SettingChange(Phase.SCHEDULE, "rate", 0.1, 0.3),
    ]
    assert [str(change) for change in changes] == [
        "drop is gone (was True)", "shuffle is new: True", "rate: 0.1 -> 0.3",
    ]  # fmt: skip


def test_orders_of_passes_that_did_not_go_equally_far_are_not_compared() -> None:
    name = "loader 0 order of pass 2"
    assert not list_changes({"data": {name: "aa/8"}}, {"data": {name: "bb/16"}})
    assert not list_changes({"data": {name: "aa/8"}}, {"data": {}})
    assert list_changes({"data": {name: "aa/8"}}, {"data": {name: "bb/8"}})


def describe_loader(number: int, num_samples: int, order: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {f"loader {number} dataset": "Texts", f"loader {number} num_samples": num_samples}
    return found | ({f"loader {number} order of pass 1": order} if order else {})


def test_loaders_are_the_same_ones_though_another_is_read_first() -> None:
    before = describe_loader(0, 512, "aa/512") | describe_loader(1, 64)
    turned = describe_loader(0, 64) | describe_loader(1, 512, "bb/512")
    assert list_changes({"data": before}, {"data": turned}) == [
        SettingChange(Phase.DATA, "loader 0 order of pass 1", "aa/512", "bb/512")
    ]


def test_a_loader_that_changed_is_told_beside_one_that_did_not_and_a_new_one_is_new() -> None:
    before = describe_loader(0, 512) | describe_loader(1, 64)
    changed = describe_loader(0, 64) | describe_loader(1, 500)
    assert [str(change) for change in list_changes({"data": before}, {"data": changed})] == [
        "loader 0 num_samples: 512 -> 500"
    ]
    more = before | describe_loader(2, 9)
    assert [change.name for change in list_changes({"data": before}, {"data": more})] == [
        "loader 2 dataset", "loader 2 num_samples",
    ]  # fmt: skip
    less = describe_loader(0, 64)
    assert [str(change) for change in list_changes({"data": before}, {"data": less})] == [
        "loader 0 dataset is gone (was Texts)", "loader 0 num_samples is gone (was 512)",
    ]  # fmt: skip


def test_calls_of_a_loss_function_are_counted_without_those_of_an_evaluation_before() -> None:
    before = {"cross_entropy 0": "mean", "cross_entropy 1": "mean", "micro-batches": 2}
    behind = {"cross_entropy 2": "mean", "cross_entropy 3": "mean", "micro-batches": 2}
    assert not list_changes({"loss": before}, {"loss": behind})
    behind["cross_entropy 3"] = "sum"
    assert [str(change) for change in list_changes({"loss": before}, {"loss": behind})] == [
        "cross_entropy 1: mean -> sum"
    ]


def test_which_optimizer_holds_a_parameter_is_no_matter_of_the_model() -> None:
    before = {"weight": "2x4 float32", "bias": "4 float32"}
    left_out = {"weight": "2x4 float32", "bias": "4 in no optimizer", "?0": "4 float32"}
    assert not list_changes({"initialisation": before}, {"initialisation": left_out})
    assert not list_changes({"initialisation": left_out}, {"initialisation": before})
    wider = left_out | {"bias": "6 in no optimizer"}
    assert [
        str(change) for change in list_changes({"initialisation": before}, {"initialisation": wider})
    ] == ["bias: 4 -> 6"]
    frozen = left_out | {"bias": "4 frozen in no optimizer"}
    assert [
        str(change) for change in list_changes({"initialisation": before}, {"initialisation": frozen})
    ] == ["bias: 4 -> 4 frozen"]


@pytest.mark.parametrize(
    ("phase", "name"),
    [
        ("optimizer", "optimizer 0 group 0 implementation"),
        ("optimizer", "optimizer 0 group 0 order"),
        ("initialisation", "matrices of equal rows"),
        ("clipping", "clipping covers"),
        ("clipping", "clipping comes"),
    ],
)
def test_settings_that_earlier_versions_did_not_store_are_no_difference(phase: str, name: str) -> None:
    stored: Settings = {phase: {}}
    assert not list_changes(stored, {phase: {name: "one"}})
    assert not list_changes({phase: {name: "one"}}, stored)
    assert len(list_changes({phase: {name: "one"}}, {phase: {name: "another"}})) == 1


def test_gradients_clipped_by_value_that_an_earlier_version_did_not_count_are_no_change() -> None:
    before = {"clipping": {"clipping": "value to 0.1", "clipping covers": "0 of 4 gradients"}}
    now = {"clipping": {"clipping": "value to 0.1", "clipping covers": "all gradients"}}
    assert list_changes(before, now) == []
    by_norm = [{"clipping": settings["clipping"] | {"clipping": "norm to 0.1"}} for settings in (before, now)]
    assert [change.name for change in list_changes(*by_norm)] == ["clipping covers"]
