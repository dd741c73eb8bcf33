"""Compares what a checkpoint is given with the models that train, at the moment it is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from harness.record.saved import SavedModelObservation
from harness.watch.fingerprints import fingerprint_tensor
from harness.watch.naming import clean_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_DEPTH = 3
MAX_PLACES = 16
MAX_NAMES = 8
MAX_COMPARED_BYTES = 256 * 2**20
MIN_MATRIX_ELEMENTS = 64
MIN_MATCH = 0.3
PROGRESS = ("step", "steps", "global_step", "iteration", "iter", "iter_num", "num_steps", "epoch", "epochs")
CLEANED = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")


@dataclass(slots=True)
class LiveModel:
    """A model that trains: its trained tensors with all their names, its other ones, its persistent buffers."""

    kind: str
    trained: list[tuple[tuple[str, ...], torch.Tensor]] = field(default_factory=list)
    frozen: list[tuple[str, torch.Tensor]] = field(default_factory=list)
    buffers: list[tuple[str, torch.Tensor]] = field(default_factory=list)

    @classmethod
    def read(cls, root: nn.Module, held: set[int]) -> LiveModel:
        """The tensors of a module, those in `held` as trained ones."""
        live = cls(type(root).__name__)
        names: dict[int, tuple[torch.Tensor, list[str]]] = {}
        for name, parameter in root.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), (parameter, []))[1].append(clean_name(root, name))
        for identity, (tensor, all_names) in names.items():
            if identity in held:
                live.trained.append((tuple(all_names), tensor))
            else:
                live.frozen.append((all_names[0], tensor))
        for prefix, module in root.named_modules():
            left_out = module._non_persistent_buffers_set  # noqa: SLF001  no public name
            live.buffers += [
                (clean_name(root, f"{prefix}.{name}" if prefix else name), buffer)
                for name, buffer in module._buffers.items()  # noqa: SLF001  of this module alone
                if buffer is not None and name not in left_out
            ]
        return live


def read_live_models(roots: Sequence[nn.Module], held: set[int]) -> list[LiveModel]:
    """The models that train, without those that are a part of another one."""
    found: list[LiveModel] = []
    seen: set[int] = set()
    for root in sorted(roots, key=lambda root: -sum(1 for _ in root.parameters())):
        members = {id(parameter) for parameter in root.parameters()}
        if members & held and not members <= seen:
            found.append(LiveModel.read(root, held))
            seen |= members
    return found


def compare_saved(
    content: object,
    models: Sequence[LiveModel],
    first_fingerprints: Mapping[int, str],
    others: Sequence[LiveModel] = (),
) -> list[SavedModelObservation]:
    """Every mapping of tensors in a checkpoint that has names of a model that trains, with what it lacks.

    Args:
        content: What is written.
        models: The models that train.
        first_fingerprints: Of their parameters before the first step, by identity.
        others: Further models of the program; a mapping with the values of one is none of a model that trains.
    """
    found = []
    for place, tensors in _list_places(content):
        matches = [_match(place, tensors, model) for model in models]
        most = max((match[0].num_found for match in matches), default=0)
        candidates = []
        for saved, pairs, rest in matches:
            if saved.num_found == most and most >= max(1.0, MIN_MATCH * saved.num_trained):
                _compare_values(saved, pairs, rest, first_fingerprints)
                candidates.append(saved)
        if candidates:
            best = max(candidates, key=lambda saved: (saved.num_equal, saved.similarity or -1.0))
            if best.num_equal or not any(is_saved(other, tensors) for other in others):
                found.append(best)
    return found


def list_pickled_modules(content: object) -> list[str]:
    """Classes of the modules in an object or in a mapping, down to a few levels."""
    return [type(module).__name__ for module in _list_modules(content)]


def list_numbers(content: object) -> dict[str, int]:
    """The whole numbers that tell how far a training is, of the checkpoint's first two levels."""
    found: dict[str, int] = {}
    if isinstance(content, Mapping):
        for name, value in content.items():
            inner = list_numbers(value) if _is_progress_holder(name, value) else {}
            found |= {f"{name}.{key}": number for key, number in inner.items()}
            if str(name).lower() not in PROGRESS:
                continue
            if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_floating_point():
                value = int(value)  # noqa: PLW2901  a number in a tensor is a number
            if isinstance(value, int) and not isinstance(value, bool):
                found[str(name)] = value
    return found


def list_empty_parts(content: object, prefix: str = "", depth: int = 0) -> list[str]:
    """The keys of empty mappings; "" for an empty checkpoint."""
    if not isinstance(content, Mapping) or depth == MAX_DEPTH:
        return []
    if not content:
        return [prefix]
    return [
        found
        for name, part in content.items()
        for found in list_empty_parts(part, f"{prefix}.{name}" if prefix else str(name), depth + 1)
    ][:MAX_PLACES]


def is_copy_of(model: LiveModel, copy: LiveModel, first_fingerprints: Mapping[int, str]) -> bool:
    """Whether a model that no optimizer trains has the tensors of one, with values of its own that move."""
    trained = {names[0]: tensor for names, tensor in model.trained}
    values = {name: tensor for name, tensor in copy.frozen if name in trained}
    if len(values) != len(trained) or any(
        values[name].shape != tensor.shape for name, tensor in trained.items()
    ):
        return False
    if not all(_is_plain(values[name]) and _is_plain(tensor) for name, tensor in trained.items()):
        return False
    is_first = all(
        fingerprint_tensor(values[name]) == first_fingerprints.get(id(tensor))
        for name, tensor in trained.items()
    )
    return not is_first and not all(
        _is_same(values[name], tensor.detach()) for name, tensor in trained.items()
    )


def is_saved(copy: LiveModel, content: object) -> bool:
    """Whether a checkpoint holds the values of a model."""
    matrices = [(name, tensor) for name, tensor in copy.frozen if tensor.numel() >= MIN_MATRIX_ELEMENTS]
    return bool(matrices) and any(
        all(
            any(_is_same(saved, tensor.detach()) for key, saved in tensors.items() if key.endswith(name))
            for name, tensor in matrices[:2]
        )
        for _, tensors in _list_places(content)
    )


def _is_progress_holder(name: object, value: object) -> bool:
    words = ("optim", "sched", "model", "state_dict", "ema", "config", "args", "params", "loops", "callback")
    is_small = isinstance(value, Mapping) and len(value) <= 2 * MAX_PLACES
    return is_small and not any(word in str(name).lower() for word in words)


def _list_modules(content: object, depth: int = 0) -> Iterator[nn.Module]:
    if isinstance(content, nn.Module):
        yield content
    elif isinstance(content, Mapping) and depth < MAX_DEPTH:
        for part in content.values():
            yield from _list_modules(part, depth + 1)


def _list_places(
    content: object, place: str = "", depth: int = 0
) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Every mapping with tensors in it, by its key, and modules as the mapping of their tensors."""
    if isinstance(content, nn.Module):
        content = dict(content.named_parameters(remove_duplicate=False)) | dict(content.named_buffers())
    if not isinstance(content, Mapping):
        return
    tensors = {_clean(str(name)): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if tensors:
        yield place, tensors
    if depth < MAX_DEPTH:
        for name, part in content.items():
            # The state of an optimizer is a mapping of tensors too, but by number.
            if isinstance(part, (Mapping, nn.Module)) and not isinstance(name, int):
                yield from _list_places(part, f"{place}.{name}" if place else str(name), depth + 1)


def _clean(name: str) -> str:
    for part in CLEANED:
        name = name.replace(part, "")
    return name.removeprefix("module.")


def _match(
    place: str, tensors: Mapping[str, torch.Tensor], model: LiveModel
) -> tuple[
    SavedModelObservation, list[tuple[str, torch.Tensor, torch.Tensor]], list[tuple[str, torch.Tensor]]
]:
    """What a mapping has of a model: the record, pairs of saved and live tensors, other saved tensors."""
    prefix, part = _find_prefix(tensors, model), ""
    if not any(prefix + name in tensors for names, _ in model.trained for name in names):
        part = _find_part(tensors, model)
    saved = SavedModelObservation(place, model.kind, len(model.trained))
    pairs = []
    for names, tensor in model.trained:
        there = next(
            (found for name in names if (found := tensors.get(_rename(name, prefix, part))) is not None), None
        )
        if there is not None and there.shape == tensor.shape:
            pairs.append((names[0], there, tensor))
        else:
            saved.num_missing += 1
            if len(saved.missing) < MAX_NAMES:
                saved.missing.append(names[0])
    saved.num_found = len(pairs)
    saved.num_missing_frozen = sum(_rename(name, prefix, part) not in tensors for name, _ in model.frozen)
    buffers = [(name, tensors.get(_rename(name, prefix, part))) for name, _ in model.buffers]
    saved.missing_buffers = [name for name, there in buffers if there is None][:MAX_NAMES]
    others = [(name, there) for name, there in buffers if there is not None]
    return saved, pairs, others


def _find_prefix(tensors: Mapping[str, torch.Tensor], model: LiveModel) -> str:
    """What stands before the model's names in the mapping: that of the model in a larger module."""
    names = [names[0] for names, _ in model.trained]
    prefixes = {""} | {
        key.removesuffix(name)
        for name in (names[0], names[len(names) // 2], names[-1])
        for key in tensors
        if key.endswith(f".{name}")
    }
    return max(sorted(prefixes), key=lambda prefix: sum(prefix + name in tensors for name in names))


def _find_part(tensors: Mapping[str, torch.Tensor], model: LiveModel) -> str:
    """The part of the model that was saved alone, with the names it has by itself; "" where none fits."""
    names = [names[0] for names, _ in model.trained]
    parts = dict.fromkeys(f"{name.partition('.')[0]}." for name in names)
    fits = {part: sum(_rename(name, "", part) in tensors for name in names) for part in parts}
    best = max(fits, key=fits.__getitem__, default="")
    return best if best and fits[best] == len(tensors) - _count_buffers(tensors) else ""


def _count_buffers(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in tensors)


def _rename(name: str, prefix: str, part: str) -> str:
    """The name under which a tensor of the model stands in the mapping; of another part than the saved one, none."""
    if not part:
        return prefix + name
    return name.removeprefix(part) if name.startswith(part) else ""


def _compare_values(
    saved: SavedModelObservation,
    pairs: Sequence[tuple[str, torch.Tensor, torch.Tensor]],
    others: Sequence[tuple[str, torch.Tensor]],
    first_fingerprints: Mapping[int, str],
) -> None:
    num_bytes = 0
    product = saved_square = live_square = 0.0
    for name, there, parameter in pairs:
        live = parameter.detach()
        num_bytes += live.numel() * live.element_size()
        if num_bytes > MAX_COMPARED_BYTES or not _is_plain(there) or not _is_plain(live):
            continue
        with torch.no_grad():
            if there.is_floating_point() and not _is_finite(there):
                saved.non_finite.append(name)
                continue
            first = first_fingerprints.get(id(parameter))
            if first is not None and fingerprint_tensor(live) != first:
                saved.num_moved += 1
                saved.num_equal += _is_same(there, live)
                saved.num_initial += there.dtype == live.dtype and fingerprint_tensor(there) == first
            if live.dim() > 1 and live.numel() >= MIN_MATRIX_ELEMENTS:
                one, two = there.detach().double().cpu().reshape(-1), live.double().cpu().reshape(-1)
                product += float(one @ two)
                saved_square += float(one @ one)
                live_square += float(two @ two)
    saved.non_finite += [
        name
        for name, there in others
        if _is_plain(there) and there.is_floating_point() and not _is_finite(there)
    ]
    del saved.non_finite[MAX_NAMES:]
    if saved_square > 0 and live_square > 0:
        saved.similarity = product / math.sqrt(saved_square * live_square)


def _is_plain(tensor: torch.Tensor) -> bool:
    return (
        type(tensor) in (torch.Tensor, nn.Parameter)
        and tensor.layout is torch.strided
        and tensor.device.type != "meta"
    )


def _is_same(saved: torch.Tensor, live: torch.Tensor) -> bool:
    """Whether a saved tensor holds the values of the model's, in its own precision and place."""
    # Sharded ones are compared by all ranks together or not at all, and a checkpoint may be that of one.
    if saved.shape != live.shape or not _is_plain(saved) or not _is_plain(live):
        return False
    there = saved.detach()
    return bool(torch.equal(there, live.to(device=there.device, dtype=there.dtype)))


def _is_finite(tensor: torch.Tensor) -> bool:
    return math.isfinite(float(tensor.detach().sum(dtype=torch.float64))) or bool(
        torch.isfinite(tensor).all()
    )
