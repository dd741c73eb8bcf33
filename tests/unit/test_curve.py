from __future__ import annotations

import math

from harness.report.curve import draw_curve, draw_sparkline


def test_a_curve_shows_its_shape_and_the_ends_of_both_axes() -> None:
    assert draw_curve([(0, 3.0), (1, 2.0), (2, 1.0)], height=3).splitlines() == [
        "   3 |*",
        "     | *",
        "   1 |  *",
        "     +---",
        "step  0 2",
    ]


def test_a_value_that_is_not_finite_is_marked() -> None:
    assert "*x*" in draw_curve([(0, 1.0), (1, math.nan), (2, 1.0)])
    assert draw_curve([(0, math.inf)]).count("x") == 1


def test_more_points_than_columns_are_averaged() -> None:
    drawn = draw_curve([(step, float(step)) for step in range(1000)], width=10)
    assert drawn.count("*") == 10
    assert drawn.splitlines()[-1] == " step  0      999"


def test_no_points_draw_nothing() -> None:
    assert draw_curve([]) == ""
    assert draw_sparkline([]) == ""


def test_a_sparkline_shows_the_shape_in_one_line() -> None:
    assert draw_sparkline([3.0, math.nan, 2.0, 1.0]) == "█x▅▁"
    assert len(draw_sparkline([1.0] * 500)) == 12


def test_the_largest_numbers_can_be_drawn() -> None:
    assert draw_sparkline([-1.7e308, 0.0, 1.7e308]) == "▁▅█"
    assert draw_curve([(0, -1.7e308), (1, 1.7e308)]).count("*") == 2
    assert draw_sparkline([math.inf, -math.inf] * 20, width=4) == "xxxx"


def test_the_lower_axis_has_the_name_it_is_given() -> None:
    assert draw_curve([(0, 1.0), (1, 2.0)], axis="night").splitlines()[-1].startswith("night  0")
