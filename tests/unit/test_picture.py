"""The picture of a run against its baseline."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from harness.report.document import replace_non_finite
from harness.report.folder import publish_pictures
from harness.report.picture import INSTALL, draw_trajectory, has_matplotlib

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("matplotlib")


def describe(**changes: Any) -> dict[str, Any]:
    curve = [[0, 3.0], [1, 2.0], [2, 1.0]]
    described = {
        "test": "tests/test_a.py::test_a[$x_1$]",
        "verdict": "diverged",
        "numerics_class": "cpu-fast",
        "baseline": {"accepted_at": "2026-11-02T10:00:00+00:00"},
        "divergence": {"phase": "gradients", "step": 1},
        "curves": {
            "loss": {"observed": [[0, 3.0], [1, math.nan], [2, 1e6]], "baseline": curve},
            "gradient norm": {"observed": curve, "baseline": []},
            "learning rate": {"observed": [], "baseline": []},
        },
        "band": {"loss": [[0, 2.9, 3.1], [1, 1.9, 2.1]]},
        "picture": None,
    }
    plain: dict[str, Any] = replace_non_finite(described | changes)
    return plain


def read_texts(path: Path) -> list[str]:
    return ["".join(entry.itertext()) for entry in ET.parse(path).iter() if entry.tag.endswith("}text")]  # noqa: S314  ours


def test_the_picture_names_test_verdict_and_curves(tmp_path: Path) -> None:
    draw_trajectory(describe(), tmp_path / "a.svg")
    texts = read_texts(tmp_path / "a.svg")
    for text in ("loss", "gradient norm", "step", "baseline", "observed", "allowed", "first difference"):
        assert text in texts
    assert "learning rate" not in texts
    assert "tests/test_a.py::test_a[$x_1$]" in texts
    assert "diverged: gradients at step 1, baseline of 2026-11-02 (cpu-fast)" in texts


def test_the_same_data_give_the_same_picture_whatever_the_users_style(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib as mpl

    draw_trajectory(describe(), tmp_path / "a.svg")
    with mpl.rc_context({"font.size": 30, "svg.hashsalt": "other"}):
        draw_trajectory(describe(), tmp_path / "b.svg")
        assert mpl.rcParams["font.size"] == 30
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    draw_trajectory(describe(), tmp_path / "c.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "c.svg").read_bytes()
    draw_trajectory(describe(divergence=None), tmp_path / "d.svg")
    assert "first difference" not in read_texts(tmp_path / "d.svg")


@pytest.mark.parametrize(
    "changes",
    [
        {"baseline": None, "divergence": None, "verdict": "missing baseline", "band": {}},
        {"curves": {}},
        {"curves": {"loss": {"observed": [[0, math.nan]], "baseline": []}}},
        {"curves": {"loss": {"observed": [[0, 0.0], [1, -5.0]], "baseline": [[0, math.inf]]}}},
    ],
)
def test_a_picture_of_little_is_drawn_all_the_same(tmp_path: Path, changes: dict[str, Any]) -> None:
    draw_trajectory(describe(**changes), tmp_path / "a.svg")
    assert read_texts(tmp_path / "a.svg")


def test_pictures_lie_in_the_report_and_are_noted(tmp_path: Path) -> None:
    tests = [{"trajectories": [describe(), describe(test="test_b.py::test_b")]}]
    assert publish_pictures(tmp_path, tests) == ""
    paths = [each["picture"] for each in tests[0]["trajectories"]]
    assert paths[1] == "trajectories/test_b.py.test_b.svg"
    assert all((tmp_path / path).is_file() for path in paths)
    assert publish_pictures(tmp_path / "none", [{"trajectories": []}]) == ""
    assert not (tmp_path / "none").exists()


def test_pictures_of_the_session_before_go_and_files_of_others_stay(tmp_path: Path) -> None:
    gone, kept = (
        [{"trajectories": [describe(test="test_old.py::test_old")]}],
        tmp_path / "trajectories" / "own.svg",
    )
    publish_pictures(tmp_path, gone)
    outside = tmp_path / "outside.svg"
    for path in (kept, outside):
        path.touch()
    gone.append({"trajectories": [{"picture": "trajectories/../outside.svg"}, {"picture": None}]})
    (tmp_path / "session.json").write_text(json.dumps({"tests": gone}), encoding="utf-8")
    tests = [{"trajectories": [describe()]}]
    publish_pictures(tmp_path, tests)
    left = {path.name for path in (tmp_path / "trajectories").iterdir()}
    assert left == {"own.svg", tests[0]["trajectories"][0]["picture"].rpartition("/")[2]}
    assert outside.exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"tests": [{"trajectories": [1]}]}'])
def test_a_report_that_cannot_be_read_names_no_pictures(text: str, tmp_path: Path) -> None:
    (tmp_path / "session.json").write_text(text, encoding="utf-8")
    assert publish_pictures(tmp_path, [{"trajectories": [describe()]}]) == ""


def test_without_matplotlib_the_report_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not has_matplotlib()
    tests = [{"trajectories": [describe()]}]
    assert publish_pictures(tmp_path, tests) == f"pictures of trajectories need matplotlib: {INSTALL}"
    assert tests[0]["trajectories"][0]["picture"] is None


def test_a_picture_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "trajectories").touch()
    assert publish_pictures(tmp_path, [{"trajectories": [describe()]}]).startswith(
        "a picture could not be drawn: "
    )
