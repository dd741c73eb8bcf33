"""A refusal ends at the user's own line, whatever lies between it and what refused."""

from __future__ import annotations

import contextlib
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.arguments import check_text
from harness.errors import UsageError
from harness.tracebacks import cut_own_frames

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__)


@contextlib.contextmanager
def within() -> Iterator[None]:
    """Frames of Python's own come between."""
    check_text("name", 5, source="here")
    yield


def refuse() -> None:
    with within():
        pass


def catch(function: object = refuse) -> UsageError:
    with pytest.raises(UsageError) as caught:
        function()  # type: ignore[operator]
    return caught.value


def list_functions(error: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def test_what_lies_behind_the_last_line_of_the_users_is_cut() -> None:
    error = catch()
    assert list_functions(error)[-1] == "check_text"
    cut_own_frames(error, HERE.parent)
    assert list_functions(error) == ["catch", "refuse", "__enter__", "within"]


def test_python_itself_is_not_the_users_wherever_it_lies() -> None:
    def enter() -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(check_text, "name", 5, source="here")

    error = catch(enter)
    cut_own_frames(error, Path("/"))
    assert list_functions(error) == ["catch", "enter"]


def test_without_a_line_of_the_users_it_stays_whole() -> None:
    error = catch()
    before = list_functions(error)
    cut_own_frames(error, Path("/nowhere"))
    assert list_functions(error) == before


@pytest.mark.parametrize(("is_of_library", "is_kept"), [(False, False), (True, True)])
def test_a_cause_is_kept_where_more_than_the_harness_led_to_it(
    tmp_path: Path, *, is_of_library: bool, is_kept: bool
) -> None:
    file = tmp_path / "site-packages" / "library.py" if is_of_library else Path(contextlib.__file__)
    space: dict[str, object] = {}
    exec(compile("def fail():\n    raise ValueError('out of cheese')", file, "exec"), space)  # noqa: S102  a file of another place

    def refuse_for() -> None:
        error = UsageError("no")
        try:
            space["fail"]()  # type: ignore[operator]
        except ValueError as cause:
            # Where it was caught is not what led to it here.
            error.__cause__ = cause.with_traceback(
                cause.__traceback__.tb_next if cause.__traceback__ else None
            )
        raise error

    error = catch(refuse_for)
    cut_own_frames(error, HERE.parent)
    assert (error.__cause__ is not None) is is_kept
