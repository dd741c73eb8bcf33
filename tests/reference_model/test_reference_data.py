from __future__ import annotations

import os
import subprocess
import sys
from itertools import chain, islice
from pathlib import Path

import pytest
import torch

from reference_model import ConfigError, DataConfig, data
from reference_model.codec import BytesCodec, DigitsCodec
from reference_model.data import IGNORED, build_loader, read_corpus
from reference_model.distributed import World
from reference_model.sampler import MicroBatchSampler

ROOT = Path(__file__).parents[2]


def sampler(world: World | None = None, *, accumulation_steps: int = 1, seed: int = 0) -> MicroBatchSampler:
    return MicroBatchSampler(
        num_sequences=40,
        batch_size=12,
        accumulation_steps=accumulation_steps,
        seed=seed,
        world=world or World(),
    )


def test_digits_are_1500_to_learn_and_297_held_out() -> None:
    corpus = read_corpus(DataConfig())
    assert (len(corpus.train), corpus.num_variants, len(corpus.val)) == (5 * 1500, 5, 297)
    assert corpus.context == 64
    tokens = corpus.train.sequences_NT
    assert set(tokens[:, 0].tolist()) == set(range(17, 27))
    assert set(tokens[:, 1:].flatten().tolist()) == set(range(17))


def test_digits_are_read_without_the_import_of_scikit_learn() -> None:
    code = (
        "import sys\n"
        "from reference_model import DataConfig\n"
        "from reference_model.data import read_corpus\n"
        "print(len(read_corpus(DataConfig()).val), 'sklearn' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    child = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert child.stdout.split() == ["297", "False"]


def test_a_scikit_learn_that_keeps_its_file_elsewhere_gives_the_same_digits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = read_corpus(DataConfig())
    monkeypatch.setattr(data, "DIGITS_FILE", ("elsewhere.csv.gz",))
    assert read_corpus(DataConfig()).description == found.description


def test_split_is_disjoint_complete_and_the_same_every_time() -> None:
    corpus, again = read_corpus(DataConfig()), read_corpus(DataConfig())
    rows = [
        tuple(row.tolist())
        for part in (corpus.train.sequences_NT[:1500], corpus.val.sequences_NT)
        for row in part
    ]
    assert len(set(rows)) == 1797
    assert torch.equal(corpus.val.sequences_NT, again.val.sequences_NT)
    other = read_corpus(DataConfig(split_seed=1))
    assert not torch.equal(corpus.val.sequences_NT, other.val.sequences_NT)


def test_targets_are_the_next_tokens() -> None:
    corpus = read_corpus(DataConfig())
    inputs, targets = corpus.train.__getitems__([3, 7])
    assert inputs.shape == targets.shape == (2, 64)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert torch.equal(corpus.train[3][1], targets[0])


def test_digits_codec_gives_the_image_back() -> None:
    images = torch.arange(128).reshape(2, 8, 8) % 17
    codec = DigitsCodec()
    tokens = codec.encode(images, torch.tensor([3, 9]))
    assert tokens[:, 0].tolist() == [20, 26]
    assert torch.equal(codec.decode(tokens), images)


def test_bytes_codec_gives_the_text_back() -> None:
    codec = BytesCodec(num_generated=8)
    assert codec.decode(codec.encode("grüße".encode())) == "grüße"


def test_text_windows_cover_every_byte_once_and_ignore_the_padding(tmp_path: Path) -> None:
    text = bytes(range(97, 97 + 25))
    (tmp_path / "text.txt").write_bytes(text)
    corpus = read_corpus(DataConfig(path=tmp_path / "text.txt", context=5, val_fraction=0.2))
    assert (len(corpus.train), len(corpus.val)) == (4, 1)
    every = torch.cat([corpus.train.sequences_NT[:, 1:], corpus.val.sequences_NT[:, 1:]]).flatten()
    assert sorted(every[every != IGNORED].tolist()) == list(text[1:])
    assert (every == IGNORED).sum() == 1
    inputs, targets = corpus.train.__getitems__([0, 1, 2, 3])
    assert inputs.min() >= 0
    assert targets.max() < 256


@pytest.mark.parametrize("content", [None, b"", b"short"])
def test_text_that_cannot_be_split_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"text\.txt"):
        read_corpus(DataConfig(path=path))


def test_an_epoch_repeats_no_sequence_and_the_next_has_another_order() -> None:
    batches = list(islice(sampler(), 6))
    first, second = list(chain(*batches[:3])), list(chain(*batches[3:]))
    assert len(set(first)) == len(set(second)) == 36
    assert first != second


def test_moved_images_keep_their_class_and_lose_one_line_of_pixels() -> None:
    corpus = read_corpus(DataConfig())
    codec = DigitsCodec()
    original, down, up, right, left = corpus.train.sequences_NT.reshape(5, 1500, 65)
    assert all(torch.equal(original[:, 0], moved[:, 0]) for moved in (down, up, right, left))
    assert torch.equal(codec.decode(down)[:, 1:], codec.decode(original)[:, :-1])
    assert torch.equal(codec.decode(up)[:, :-1], codec.decode(original)[:, 1:])
    assert torch.equal(codec.decode(right)[:, :, 1:], codec.decode(original)[:, :, :-1])
    assert torch.equal(codec.decode(left)[:, :, :-1], codec.decode(original)[:, :, 1:])
    assert codec.decode(down)[:, 0].sum() == codec.decode(left)[:, :, -1].sum() == 0


@pytest.mark.parametrize("fraction", [0.0, 0.4, 1.0])
def test_the_wanted_share_of_an_epoch_is_served_as_a_variant(fraction: float) -> None:
    varied = MicroBatchSampler(
        num_sequences=1000,
        batch_size=10,
        accumulation_steps=1,
        seed=0,
        world=World(),
        num_variants=3,
        variant_fraction=fraction,
    )
    indices = list(chain(*islice(varied, 100)))
    assert len({index % 1000 for index in indices}) == 1000
    assert sum(index >= 1000 for index in indices) / 1000 == pytest.approx(fraction, abs=0.05)
    assert max(indices) < 3000


def test_order_depends_on_the_seed_alone() -> None:
    assert list(islice(sampler(), 5)) == list(islice(sampler(), 5))
    assert list(islice(sampler(), 5)) != list(islice(sampler(seed=1), 5))


@pytest.mark.parametrize("taken", range(1, 8))
def test_a_restored_position_continues_with_the_next_batch(taken: int) -> None:
    straight = list(islice(sampler(), 9))
    first = sampler()
    list(islice(first, taken))
    resumed = sampler()
    resumed.position = dict(first.position)
    assert list(islice(resumed, 9 - taken)) == straight[taken:]


def test_ranks_and_micro_batches_cut_the_same_batch() -> None:
    (whole,) = islice(sampler(), 1)
    pieces = [
        piece
        for rank in range(2)
        for piece in islice(sampler(World(rank=rank, size=2), accumulation_steps=3), 3)
    ]
    assert sorted(chain(*pieces)) == sorted(whole)
    assert all(len(piece) == 2 for piece in pieces)


def test_batch_that_cannot_be_cut_or_filled_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of accumulation_steps x ranks"):
        MicroBatchSampler(num_sequences=40, batch_size=9, accumulation_steps=1, seed=0, world=World(size=2))
    with pytest.raises(ConfigError, match="larger than the 8 training sequences"):
        MicroBatchSampler(num_sequences=8, batch_size=9, accumulation_steps=1, seed=0, world=World())


def test_loader_leaves_the_global_random_state_alone() -> None:
    corpus = read_corpus(DataConfig())
    before = torch.get_rng_state()
    next(iter(build_loader(corpus.train, sampler())))
    assert torch.equal(before, torch.get_rng_state())
