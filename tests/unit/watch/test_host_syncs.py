from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING

import pytest
import torch

from harness.watch.host_syncs import MESSAGE, OFF, WARN, HostSyncs

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def mode(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    modes = [OFF]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    yield modes
    assert modes[-1] == OFF


def wait_for_device() -> None:
    warnings.warn(f"{MESSAGE} (Triggered internally at c10/cuda/CUDAFunctions.cpp:150.)", stacklevel=1)


def test_every_wait_is_counted_and_the_first_is_named(mode: list[int]) -> None:
    syncs = HostSyncs()
    filters, show = list(warnings.filters), warnings.showwarning
    assert syncs.open()
    assert mode[-1] == WARN
    for _ in range(3):
        wait_for_device()
    syncs.close()
    assert syncs.num == 3
    assert syncs.first == f"{__file__}:{wait_for_device.__code__.co_firstlineno + 1}"
    assert warnings.filters == filters
    assert warnings.showwarning is show
    syncs.close()


def test_other_warnings_reach_whoever_listens_for_them(mode: list[int]) -> None:
    del mode
    syncs = HostSyncs()
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        syncs.open()
        warnings.warn("of the program", stacklevel=1)
        syncs.close()
    assert [str(warning.message) for warning in shown] == ["of the program"]
    assert syncs.num == 0


def test_waits_of_the_watcher_and_of_other_threads_are_not_the_programs(mode: list[int]) -> None:
    del mode
    from harness.watch import host_syncs

    own = compile(f"import warnings; warnings.warn({MESSAGE!r})", host_syncs.__file__, "exec")
    torchs = compile(f"import warnings; warnings.warn({MESSAGE!r})", torch.__file__, "exec")
    syncs = HostSyncs()
    syncs.open()
    exec(own)  # noqa: S102  a line of the watcher's
    thread = threading.Thread(target=wait_for_device)
    thread.start()
    thread.join()
    assert syncs.num == 0
    exec(torchs)  # noqa: S102  a line of torch's
    syncs.close()
    assert syncs.num == 1
    assert syncs.first is not None
    assert syncs.first.startswith(f"{__file__}:")


@pytest.mark.parametrize("before", [WARN, 2])
def test_a_program_that_uses_the_debug_mode_itself_is_let_alone(
    before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: before)
    syncs = HostSyncs()
    show = warnings.showwarning
    assert not syncs.open()
    syncs.close()
    assert warnings.showwarning is show


def test_what_the_program_puts_over_it_stays(mode: list[int]) -> None:
    del mode
    syncs = HostSyncs()
    before = warnings.showwarning
    seen: list[str] = []
    try:
        syncs.open()
        ours = warnings.showwarning

        def mine(message: object, *_: object, **__: object) -> None:
            seen.append(str(message))

        warnings.showwarning = mine
        syncs.close()
        assert warnings.showwarning is mine
        with warnings.catch_warnings(record=True) as shown:
            # Put back late, it only hands on.
            warnings.showwarning = ours
            warnings.simplefilter("always")
            wait_for_device()
        assert len(shown) == 1
        assert syncs.num == 0
    finally:
        warnings.showwarning = before
