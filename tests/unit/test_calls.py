from __future__ import annotations

import functools

import pytest

from harness.calls import names_function

NAME = "assert_matches_baseline"


def assert_matches_baseline() -> None: ...


class Module:
    assert_matches_baseline = staticmethod(assert_matches_baseline)


def calls() -> None:
    assert_matches_baseline()


def calls_as_attribute() -> None:
    Module.assert_matches_baseline()


def calls_in_a_helper() -> None:
    for _ in range(1):
        again()


def again() -> None:
    calls_in_a_helper()
    calls()


def calls_in_a_closure() -> None:
    def inner() -> None:
        assert_matches_baseline()

    inner()


@functools.wraps(calls)
def wrapped() -> None: ...


class Tests:
    def calls(self) -> None:
        assert_matches_baseline()


@pytest.mark.parametrize(
    "test",
    [calls, calls_as_attribute, calls_in_a_helper, calls_in_a_closure, wrapped, Tests().calls, Tests.calls],
)
def test_a_call_is_seen_in_the_test_and_in_what_its_module_gives_it(test: object) -> None:
    assert names_function(test, NAME)


def mentions() -> str:
    """Never calls assert_matches_baseline."""
    return "assert_matches_baseline"


@pytest.mark.parametrize("test", [mentions, len, None, "assert_matches_baseline", functools.partial(calls)])
def test_what_calls_nothing_by_name_is_seen_to_call_nothing(test: object) -> None:
    assert not names_function(test, NAME)
