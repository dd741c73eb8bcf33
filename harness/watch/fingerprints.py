"""Short names for the contents of batches, parameters and generators: equal contents, equal fingerprints."""

from __future__ import annotations

import array
import ctypes
import functools
import random
import sys
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch

SAMPLE_BYTES = 2048
PIECE_BYTES = 4 * 2**20
MAX_PARTS = 64
PLAIN_TENSORS = (torch.Tensor, torch.nn.Parameter)


def fingerprint_batch(batch: object) -> str | None:
    """A fingerprint of shapes, types and the first and last 2 KiB of every tensor; None without any content.

    Sampled, because it is taken of every batch. Tensors off the CPU count with shape and type only.
    """
    parts: list[object] = []
    _collect(batch, parts)
    if not parts:
        return None
    checksum = 0
    for part in parts[:MAX_PARTS]:
        if isinstance(part, torch.Tensor):
            checksum = zlib.crc32(_describe(part.shape, part.dtype), checksum)
            for sample in _sample(part):
                checksum = zlib.crc32(sample, checksum)
        else:
            checksum = zlib.crc32(repr(part).encode(), checksum)
    return f"{checksum:08x}"


def fingerprint_tensor(tensor: torch.Tensor) -> str | None:
    """A fingerprint of every bit of a tensor; of this rank's shard where it is sharded; None without storage."""
    local = getattr(tensor, "_local_tensor", tensor)
    if local.layout is not torch.strided or local.device.type == "meta":
        return None
    if local.device.type == "cpu":
        # A view without gradient takes as long as the checksum of a small tensor.
        whole = local if local.is_contiguous() else local.detach().contiguous()
        # In place: a copy of the bytes takes as long as their checksum.
        return f"{zlib.crc32((ctypes.c_char * whole.nbytes).from_address(whole.data_ptr())):08x}"
    return f"{int(_sum_words(local.detach().contiguous()).item()) & 0xFFFFFFFF:08x}"


def fingerprint_outputs(value: object) -> str | None:
    """A fingerprint of every bit of the tensors in a value that have a dimension; None without any."""
    parts: list[object] = []
    _collect(value, parts)
    tensors = [part for part in parts if isinstance(part, torch.Tensor) and part.dim()]
    return fingerprint_whole(tensors) if tensors else None


def fingerprint_whole(value: object) -> str | None:
    """A fingerprint of every bit of the tensors in a value, its other numbers and texts; None without any."""
    parts: list[object] = []
    _collect(value, parts)
    found = [
        fingerprint_tensor(part) if isinstance(part, torch.Tensor) else repr(part)
        for part in parts[:MAX_PARTS]
    ]
    return f"{zlib.crc32(repr(found).encode()):08x}" if found else None


def _sum_words(whole: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor's bytes, each times its place, on its own device."""
    words = whole.reshape(-1).view(torch.uint8)
    total = torch.zeros((), dtype=torch.int64, device=words.device)
    # Piece by piece: as whole numbers of eight bytes, with their places, they take 24 times their size.
    for start in range(0, words.numel(), PIECE_BYTES):
        piece = words[start : start + PIECE_BYTES].to(torch.int64)
        total += (piece * torch.arange(start + 1, start + 1 + piece.numel(), device=words.device)).sum()
    return total


def fingerprint_indices(indices: Iterable[int], before: int = 0) -> int:
    """A checksum of a sequence of indices, going on from an earlier one."""
    return zlib.crc32(array.array("q", indices).tobytes(), before)


def fingerprint_generators() -> dict[str, str]:
    """A fingerprint of the state of each random generator that the process has loaded; none is advanced."""
    version, words, gauss = random.getstate()
    # Of whole numbers alone, a hash is the same in every process.
    found = {"python": f"{zlib.crc32(repr((version, hash(words), gauss)).encode()):08x}"}
    if (numpy := sys.modules.get("numpy")) is not None and hasattr(numpy, "random"):
        found["numpy"] = _fingerprint_numpy(numpy.random.get_state(legacy=False))
    return found | _fingerprint_torch()


def fingerprint_torch_generators() -> str:
    """One fingerprint for the states of torch's own generators."""
    return " ".join(_fingerprint_torch().values())


def _fingerprint_torch() -> dict[str, str]:
    found = {"torch": fingerprint_tensor(torch.get_rng_state()) or ""}
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found["cuda"] = fingerprint_tensor(torch.cuda.get_rng_state()) or ""
    return found


def _fingerprint_numpy(state: Mapping[str, Any]) -> str:
    """A fingerprint of the global generator; a program may have set another kind of one."""
    if state["bit_generator"] == "MT19937":
        rest = [state["state"]["pos"], state["has_gauss"], state["gauss"]]
        return f"{zlib.crc32(repr(rest).encode(), zlib.crc32(state['state']['key'].tobytes())):08x}"
    parts: list[object] = []
    _list_state(state, parts)
    return f"{zlib.crc32(repr(parts).encode()):08x}"


def _list_state(state: Any, parts: list[object]) -> None:
    if isinstance(state, Mapping):
        for name, part in state.items():
            parts.append(name)
            _list_state(part, parts)
    else:
        parts.append(state.tobytes() if hasattr(state, "tobytes") else state)


@functools.lru_cache(maxsize=1024)
def _describe(shape: torch.Size, dtype: torch.dtype) -> bytes:
    return repr((tuple(shape), dtype)).encode()


def _collect(value: Any, parts: list[object]) -> None:
    if isinstance(value, (torch.Tensor, str, bytes, int, float)):
        parts.append(value)
    elif isinstance(value, (list, tuple)):
        for part in value[:MAX_PARTS]:
            _collect(part, parts)
    elif isinstance(value, Mapping):
        for part in value.values():
            _collect(part, parts)


def _sample(tensor: torch.Tensor) -> tuple[bytes, ...]:
    if not tensor.is_cpu or tensor.layout is not torch.strided or type(tensor) not in PLAIN_TENSORS:
        return ()
    if not tensor.is_contiguous():
        tensor = tensor.detach().reshape(-1)[: SAMPLE_BYTES // tensor.element_size()].contiguous()
    num_bytes = tensor.nbytes
    if not num_bytes:
        return ()
    if num_bytes <= 2 * SAMPLE_BYTES:
        return (_view_bytes(tensor, 0, num_bytes),)
    return (
        _view_bytes(tensor, 0, SAMPLE_BYTES),
        _view_bytes(tensor, num_bytes - SAMPLE_BYTES, SAMPLE_BYTES),
    )


def read_rows(batch: torch.Tensor) -> list[bytes]:
    """The first and last 2 KiB of every sample of a batch on the CPU."""
    whole = batch.detach().contiguous()
    length = whole.nbytes // whole.shape[0]
    if length <= 2 * SAMPLE_BYTES:
        together = _view_bytes(whole, 0, whole.nbytes)
        return [together[start : start + length] for start in range(0, whole.nbytes, length)]
    return [
        _view_bytes(whole, start, SAMPLE_BYTES)
        + _view_bytes(whole, start + length - SAMPLE_BYTES, SAMPLE_BYTES)
        for start in range(0, whole.nbytes, length)
    ]


def _view_bytes(tensor: torch.Tensor, start: int, length: int) -> bytes:
    return ctypes.string_at(tensor.data_ptr() + start, length)
