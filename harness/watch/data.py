"""Sees DataLoaders give batches: how long the program waited, what it got, and in which order."""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Mapping
from threading import get_ident
from typing import TYPE_CHECKING, Any, Self

import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter

from harness.record.loader_observation import EpochObservation, LoaderObservation
from harness.watch.fingerprints import fingerprint_batch, fingerprint_indices
from harness.watch.options import Depth
from harness.watch.samples import LoaderSamples, SampleLedger
from harness.watch.timing import DATA, OTHER
from harness.watch.waiting_batches import WaitingBatches

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.watch.session import Session

MAX_FINGERPRINTS = 20_000
MAX_DISTINCT = 200_000
DRAWS_TOGETHER = 64


class _Pass:
    """One iterator over a loader: its record, and the indices its sampler has drawn."""

    def __init__(self, loader: LoaderObservation, after_step: int) -> None:
        self.loader = loader
        self.epoch = EpochObservation(after_step)
        loader.epochs.append(self.epoch)
        self.indices: set[int] = set()
        self.order = 0
        self.samples: LoaderSamples | None = None
        self.waiting_draws: list[list[Any]] = []

    def add_indices(self, drawn: list[int]) -> None:
        """Takes note of what the sampler drew, in one draw or several."""
        epoch = self.epoch
        epoch.num_indices += len(drawn)
        self.order = fingerprint_indices(drawn, self.order)
        epoch.order = f"{self.order:08x}"
        if epoch.num_indices <= MAX_DISTINCT:
            self.indices.update(drawn)
            epoch.num_distinct = len(self.indices)
        else:
            epoch.num_distinct = None


class DataHooks:
    """Listens to `DataLoader.__iter__`, to the iterators it gives, and to their samplers."""

    def __init__(self, session: Session) -> None:
        self._session = session
        # For handlers, and where events are handled at once: what waits is not in them yet.
        self._clock, self._steps = session.clock, session.ledger
        self._is_deep = session.options.depth is Depth.DEEP
        self._loaders: list[tuple[weakref.ref[DataLoader[Any]], LoaderObservation]] = []
        self._passes: weakref.WeakKeyDictionary[_BaseDataLoaderIter, _Pass] = weakref.WeakKeyDictionary()
        self._ledger = SampleLedger(session.run)
        self._waiting = WaitingBatches()
        # Held, as an iterator may be dropped before its end.
        self._drawn_from: list[_Pass] = []
        self._samples: dict[int, LoaderSamples] = {}
        self._latest: tuple[weakref.ref[_BaseDataLoaderIter], _Pass] | None = None

    def install(self) -> None:
        """Starts to listen."""
        taps = self._session.taps
        taps.on_method(DataLoader, "__iter__", self._around_iter)
        taps.wrap_method(_BaseDataLoaderIter, "__next__", self._build_next)
        if self._is_deep:
            taps.wrap_method(_BaseDataLoaderIter, "_next_index", self._build_index)

    def _around_iter(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # Workers are started in here, and draw their first indices; both belong to waiting for data.
        before = self._session.clock.switch(DATA) if self._session.is_training_thread() else None
        # Persistent workers reuse their iterator, and draw for the new epoch before it is handed out.
        if (reused := getattr(args[0], "_iterator", None)) is not None:
            self._passes.pop(reused, None)
            self._latest = None
        try:
            iterator = call(*args, **kwargs)
        finally:
            if before is not None:
                self._session.clock.switch(before)
        self._session.attempt("DataLoader", self._note_iterator, args[0], iterator)
        return iterator

    def _note_iterator(self, loader: DataLoader[Any], iterator: object) -> None:
        if isinstance(iterator, _BaseDataLoaderIter):
            found = self._find_loader(loader)
            known = self._passes.get(iterator)
            if known is None:
                self._passes[iterator] = known = _Pass(found, self._session.num_steps)
            elif known.loader is not found:
                # It drew indices inside `__iter__`, where its loader was not known yet.
                self._look_at_waiting()
                self._note_draws(known)
                found.epochs.append(known.epoch)
                known.loader = found
                if (samples := self._samples.get(id(found))) is not None:
                    samples.add_indices(sorted(known.indices))
            known.samples = self._samples.get(id(found))

    def _find_loader(self, loader: DataLoader[Any]) -> LoaderObservation:
        for reference, found in self._loaders:
            if reference() is loader:
                return found
        found = _describe_loader(loader)
        self._loaders.append((weakref.ref(loader), found))
        self._session.run.loaders.append(found)
        if self._is_deep:
            samples = self._session.attempt("samples", self._ledger.open, loader, found)
            if samples is not None:
                self._samples[id(found)] = samples
        return found

    def _find_pass(self, iterator: _BaseDataLoaderIter) -> _Pass:
        if self._latest is not None and self._latest[0]() is iterator:
            return self._latest[1]
        found = self._passes.get(iterator)
        if found is None:
            sampler = getattr(iterator, "_index_sampler", None)
            stray = LoaderObservation(
                dataset=type(getattr(iterator, "_dataset", None)).__name__,
                num_samples=None,
                batch_size=getattr(sampler, "batch_size", None),
                num_workers=int(getattr(iterator, "_num_workers", 0)),
                sampler=type(getattr(sampler, "sampler", sampler)).__name__,
                drop_last=bool(getattr(sampler, "drop_last", False)),
            )
            found = self._passes[iterator] = _Pass(stray, self._session.num_steps)
        self._latest = (weakref.ref(iterator), found)
        return found

    def _build_index(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watch_index(*args: Any, **kwargs: Any) -> Any:
            drawn = call(*args, **kwargs)
            latest = self._latest
            if type(drawn) is list and latest is not None and latest[0]() is args[0]:
                waiting = latest[1].waiting_draws
                if not waiting:
                    self._drawn_from.append(latest[1])
                # A batch sampler may hand out the same list again.
                waiting.append(drawn[:])
                if len(waiting) >= DRAWS_TOGETHER:
                    self._session.attempt("sampler", self._note_all_draws)
            elif isinstance(drawn, (list, int)):
                self._session.attempt("sampler", self._note_indices, args[0], drawn)
            return drawn

        return watch_index

    def _note_indices(self, iterator: _BaseDataLoaderIter, drawn: list[Any] | int) -> None:
        found = self._find_pass(iterator)
        found.waiting_draws.append([drawn] if isinstance(drawn, int) else drawn)
        self._note_draws(found)

    def _note_all_draws(self) -> None:
        passes, self._drawn_from = self._drawn_from, []
        for found in passes:
            self._note_draws(found)

    def _note_draws(self, found: _Pass) -> None:
        """Takes note of the indices that wait, in the order they were drawn."""
        draws, found.waiting_draws = found.waiting_draws, []
        with contextlib.suppress(TypeError, ValueError):
            plain = [
                index if type(index) is int else int(index)
                for index in itertools.chain.from_iterable(
                    indices for indices in draws if indices and indices[0] is not None
                )
            ]
            if plain:
                found.add_indices(plain)
                if (samples := self._samples.get(id(found.loader))) is not None:
                    samples.add_indices(plain)

    def _build_next(self, call: Callable[..., Any]) -> Callable[..., Any]:
        session, events, read_s = self._session, self._session.events, self._clock.read_s
        begin, end = self._begin_wait, self._end_wait

        def watch_next(*args: Any, **kwargs: Any) -> Any:
            if session.thread is not None and session.thread != get_ident():
                batch = call(*args, **kwargs)
                session.attempt("batch", self._note_batch, args[0], batch)
                return batch
            events.note((begin, read_s(), None))
            try:
                batch = call(*args, **kwargs)
            except StopIteration:
                session.attempt("samples", self._note_end, args[0])
                raise
            finally:
                events.note((end, read_s(), None))
            latest = self._latest
            try:
                if latest is None or self._is_deep or latest[0]() is not args[0]:
                    self._note_batch(args[0], batch)
                else:
                    latest[1].epoch.num_batches += 1
            except Exception as error:  # noqa: BLE001  whatever it is, the program must go on
                session.note_failure("batch", error)
            return batch

        return watch_next

    def _begin_wait(self, at_s: float, told: object) -> None:
        del told
        if self._steps.last is not None:
            self._steps.begin()
        self._clock.switch(DATA, at_s)

    def _end_wait(self, at_s: float, told: object) -> None:
        del told
        self._clock.switch(OTHER, at_s)

    def _note_read(self, at_s: float, samples: LoaderSamples) -> None:
        del at_s
        self._ledger.note_read(samples)

    def _note_batch(self, iterator: _BaseDataLoaderIter, batch: object) -> None:
        found = self._find_pass(iterator)
        if not found.epoch.num_batches and all(
            found.loader is not known for known in self._session.run.loaders
        ):
            self._session.run.loaders.append(found.loader)
        found.epoch.num_batches += 1
        if not self._is_deep:
            return
        if found.samples is not None:
            self._session.events.note((self._note_read, 0.0, found.samples))
        if not self._waiting.add(found, batch):
            self._look_at_waiting()
            self._look_at(found, batch)
        elif self._waiting.is_full or (
            self._session.events.is_direct and self._session.ledger.open.trace is not None
        ):
            # A step that is traced begins with the batch it was given.
            self._look_at_waiting()

    def _look_at_waiting(self) -> None:
        for found, batch in self._waiting.take():
            self._session.attempt("batch", self._look_at, found, batch)

    def _look_at(self, found: _Pass, batch: object) -> None:
        if len(found.loader.fingerprints) < MAX_FINGERPRINTS:
            fingerprint = fingerprint_batch(batch)
            if fingerprint is not None:
                found.loader.fingerprints.append(fingerprint)
        # Those of a loader that was found by its iterator alone are not looked at.
        if found.samples is not None and found.loader.epochs[0] is found.epoch:
            self._session.attempt("samples", self._ledger.look_at, found.samples, batch)

    def _note_end(self, iterator: _BaseDataLoaderIter) -> None:
        if (found := self._passes.get(iterator)) is not None:
            found.epoch.is_complete = True
            self._note_draws(found)
        self._session.settle()
        self._ledger.settle()

    def list_dataset_kinds(self) -> list[type]:
        """The classes of the data sets whose loaders are still alive."""
        loaders = (reference() for reference, _ in self._loaders)
        return [type(loader.dataset) for loader in loaders if loader is not None]

    def describe(self) -> None:
        """Fills in how much evaluation and training have in common."""
        if self._is_deep:
            self._look_at_waiting()
            self._note_all_draws()
            self._ledger.settle()
            self._ledger.describe()


def _describe_loader(loader: DataLoader[Any]) -> LoaderObservation:
    try:
        num_samples: int | None = len(loader.dataset)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        num_samples = None
    # With a batch sampler of the program's own, what the loader itself says of these is not in force.
    batches = loader.batch_sampler if loader.batch_size is None else loader
    sampler = _find_sampler(loader if batches is None else batches)
    return LoaderObservation(
        dataset=type(loader.dataset).__name__,
        num_samples=num_samples,
        batch_size=getattr(batches, "batch_size", None),
        num_workers=loader.num_workers,
        sampler=type(sampler).__name__,
        drop_last=bool(getattr(batches, "drop_last", False)),
        is_shuffled=_is_shuffled(sampler),
    )


def _is_shuffled(sampler: object) -> bool | None:
    data = torch.utils.data
    if isinstance(sampler, data.SequentialSampler):
        return False
    if isinstance(sampler, data.DistributedSampler):
        return bool(sampler.shuffle)
    if isinstance(sampler, (data.RandomSampler, data.SubsetRandomSampler, data.WeightedRandomSampler)):
        return True
    return None


def _find_sampler(batches: object) -> object:
    """The sampler that decides the order; batch samplers, which may wrap one another, only group it."""
    while (inner := getattr(batches, "sampler", None) or getattr(batches, "batch_sampler", None)) is not None:
        batches = inner
    return batches


class BatchSize:
    """What the tensors of one micro-batch say about its size."""

    __slots__ = ("num_samples", "num_tokens", "sequence_length", "shapes")

    def __init__(self, batch: object) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.num_samples = 0
        self.num_tokens = 0
        self.sequence_length = 0
        self._add(batch)

    @classmethod
    def of_tensor(cls, shape: tuple[int, ...], dtype: torch.dtype) -> Self:
        """The size of a batch that is one tensor."""
        size = cls(())
        size._add_tensor(tuple(shape), dtype)
        return size

    def with_shapes(self, shapes: list[tuple[int, ...]]) -> BatchSize:
        """The same size, of other tensors."""
        other = BatchSize(())
        other.num_samples, other.num_tokens = self.num_samples, self.num_tokens
        other.sequence_length, other.shapes = self.sequence_length, shapes
        return other

    def _add(self, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            self._add_tensor(tuple(value.shape), value.dtype)
        elif isinstance(value, (list, tuple)):
            for part in value:
                self._add(part)
        elif isinstance(value, Mapping):
            for part in value.values():
                self._add(part)

    def _add_tensor(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        if not self.shapes and shape:
            self.num_samples = shape[0]
            # Whole numbers in two dimensions are token ids: samples by positions.
            if len(shape) == TOKEN_DIMENSIONS and not dtype.is_floating_point:
                self.num_tokens = shape[0] * shape[1]
                self.sequence_length = shape[1]
        self.shapes.append(shape)


TOKEN_DIMENSIONS = 2
