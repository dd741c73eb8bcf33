"""Faults of the data, each in a tiny training that is watched in process, beside the training without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, SubsetRandomSampler, TensorDataset

from harness.rules.diagnosis import diagnose
from harness.rules.finding import Severity
from harness.watch.call import run_call
from harness.watch.launch import RunOptions
from harness.watch.options import ObserverOptions
from harness.watch.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from torch import Tensor

    from harness.rules.finding import Finding

    Batches = Iterable[tuple[Tensor, Tensor]]
    Find = Callable[[Callable[[], None]], dict[str, Finding]]

SIZE = 8
OPTIONS = ObserverOptions(deep_steps=(0, 1, 4, 8))


@pytest.fixture
def find(tmp_path: Path) -> Find:
    """Watches a training and gives its findings about data, by code."""

    def find_in(train: Callable[[], None]) -> dict[str, Finding]:
        options = RunOptions(name="train", run_dir=tmp_path, seed=0, threads=1, watch=OPTIONS)
        run = run_call(train, options=options, recorder=Recorder())
        assert run.observed is not None
        assert not [text for text in run.observed.not_seen if "itself failed" in text]
        return {finding.code: finding for finding in diagnose(run).findings if finding.code.startswith("T8")}

    return find_in


def make_data(num: int = 64, seed: int = 0, inputs: Tensor | None = None) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(num, 8, generator=generator) if inputs is None else inputs
    return TensorDataset(features, torch.randint(0, 4, (num,), generator=generator))


def fit(
    epochs: Iterable[Batches],
    evaluation: Batches | None = None,
    *,
    before_step: Callable[[], object] | None = None,
) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for batches in epochs:
        model.train()
        for inputs, targets in batches:
            if before_step is not None:
                before_step()
            optimizer.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        if evaluation is not None:
            model.eval()
            with torch.no_grad():
                for inputs, _ in evaluation:
                    model(inputs)


def make_loader(data: Any = None, **options: Any) -> DataLoader[Any]:
    return DataLoader(
        make_data() if data is None else data, **{"batch_size": SIZE, "shuffle": True, **options}
    )


def train_well() -> None:
    fit([make_loader()] * 3, make_loader(make_data(16, seed=1), shuffle=False))


def train_on_one_batch() -> None:
    batch = next(iter(make_loader()))
    fit([[batch] * 12])


def train_on_first_batches() -> None:
    loader = make_loader(shuffle=False)
    fit([(next(iter(loader)) for _ in range(12))])


def train_on_random_first_batches() -> None:
    loader = make_loader()
    fit([(next(iter(loader)) for _ in range(12))])


def train_on_all_at_once() -> None:
    fit([make_loader(batch_size=64, shuffle=False)] * 12)


def train_reseeded_every_epoch() -> None:
    fit([make_loader(generator=torch.Generator().manual_seed(0)) for _ in range(3)])


def train_twice_alike() -> None:
    for _ in range(3):
        torch.manual_seed(0)
        fit([make_loader()])


def train_reseeded_every_step() -> None:
    fit([make_loader()] * 3, before_step=lambda: torch.manual_seed(0))


def train_on_repeated_indices() -> None:
    fit([make_loader(shuffle=False, sampler=SubsetRandomSampler([index % 8 for index in range(64)]))] * 2)


def train_cut_short() -> None:
    loader = make_loader(shuffle=False)
    fit([(batch for batch, _ in zip(loader, range(2), strict=False)) for _ in range(6)])


def train_with_empty_evaluation() -> None:
    fit([make_loader()] * 2, make_loader(make_data(4, seed=1), drop_last=True))


def train_sorted() -> None:
    data = make_data()
    data.tensors = (data.tensors[0], data.tensors[1].sort().values)
    fit([make_loader(data, shuffle=False, batch_size=4)] * 3)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        data = make_data()
        for index in range(len(data)):
            yield data[index]


class Jittered(Dataset[Any]):
    def __init__(self) -> None:
        self.data = make_data()
        self.noise = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        inputs, label = self.data[index]
        return inputs + torch.randn(8, generator=self.noise), label


def train_on_doubled_stream() -> None:
    fit([make_loader(Stream(), shuffle=False, num_workers=2)])


def train_on_copied_generator() -> None:
    fit([make_loader(Jittered(), num_workers=2)])


def train_on_nan() -> None:
    inputs = torch.randn(64, 8)
    inputs[9, 3] = torch.nan
    fit([make_loader(make_data(inputs=inputs))] * 2)


def train_on_zeros() -> None:
    fit([make_loader(make_data(inputs=torch.zeros(64, 8)))] * 2)


def train_on_large_numbers() -> None:
    fit([make_loader(make_data(inputs=1e4 * torch.randn(64, 8)))] * 2)


def train_on_one_label() -> None:
    data = make_data()
    data.tensors = (data.tensors[0], torch.full((64,), 2))
    fit([make_loader(data)] * 2)


def evaluate_on_training_data() -> None:
    data = make_data()
    fit([make_loader(data)] * 2, make_loader(data, shuffle=False))


def evaluate_on_copies() -> None:
    fit([make_loader(make_data())] * 2, make_loader(make_data(32), shuffle=False))


def evaluate_on_the_rest() -> None:
    data = make_data()
    fit(
        [make_loader(Subset(data, range(48)))] * 2,
        make_loader(Subset(data, range(48, 64)), shuffle=False),
    )


@pytest.mark.parametrize(
    ("train", "code", "severity", "message"),
    [
        (train_on_one_batch, "T801", Severity.WARNING, "has 8 batches; 1 of them was read"),
        (train_on_first_batches, "T801", Severity.WARNING, "was started anew 12 times"),
        (train_reseeded_every_epoch, "T802", Severity.WARNING, "3 passes one after the other"),
        (train_reseeded_every_step, "T803", Severity.WARNING, "`torch` is in the very same state"),
        (train_on_repeated_indices, "T804", Severity.WARNING, "only 8 different ones: each 8 times"),
        (train_cut_short, "T804", Severity.WARNING, "went beyond batch 3 of 8"),
        (train_with_empty_evaluation, "T806", Severity.WARNING, "never gave a batch"),
        (train_sorted, "T807", Severity.WARNING, "hold one label only"),
        (train_on_doubled_stream, "T808", Severity.WARNING, "every 2 in a row are equal"),
        (train_on_copied_generator, "T808", Severity.WARNING, "a generator of its own, `noise`"),
        (train_on_nan, "T811", Severity.ERROR, "1 of the first 8 batches"),
        (train_on_zeros, "T812", Severity.WARNING, "every number that the model is called with is 0"),
        (train_on_large_numbers, "T813", Severity.NOTE, "and above 300 at"),
        (evaluate_on_training_data, "T814", Severity.NOTE, "about 100% of the 64 samples"),
        (evaluate_on_copies, "T814", Severity.WARNING, "by the contents of the samples"),
        (train_on_one_label, "T815", Severity.WARNING, "every label"),
    ],
)
def test_faulty_data_are_told(
    find: Find, train: Callable[[], None], code: str, severity: Severity, message: str
) -> None:
    findings = find(train)
    assert code in findings
    assert findings[code].severity is severity
    assert message in findings[code].message


@pytest.mark.parametrize(
    "train",
    [
        train_well,
        train_on_random_first_batches,
        train_on_all_at_once,
        train_twice_alike,
        evaluate_on_the_rest,
    ],
)
def test_look_alikes_of_faulty_data_are_silent(find: Find, train: Callable[[], None]) -> None:
    assert [finding for finding in find(train).values() if finding.severity is not Severity.NOTE] == []
