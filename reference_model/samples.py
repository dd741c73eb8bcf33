"""Writes what the model generates at the end of a run: a sheet of digits, or a page of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from reference_model.codec import IMAGE_SIDE, NUM_CLASSES, NUM_GREYS, BytesCodec, DigitsCodec
from reference_model.sampling import generate

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from reference_model.config import TrainConfig
    from reference_model.data import Corpus
    from reference_model.run_context import RunContext

_NUM_REAL = 2


def write_samples(model: nn.Module, corpus: Corpus, run: RunContext, config: TrainConfig, step: int) -> Path:
    """Generate samples and write them; returns the PNG, or the text file when the model learned text."""
    codec = corpus.codec
    device = next(model.parameters()).device
    tokens_NT = generate(
        model,
        codec.prompts(config.samples_per_class).to(device),
        num_tokens=codec.num_generated,
        num_choices=codec.num_choices,
        temperature=config.sample_temperature,
        seed=config.seed,
    ).cpu()
    if isinstance(codec, BytesCodec):
        path = run.samples(step, ".txt")
        pieces = [codec.decode(tokens_T) for tokens_T in tokens_NT]
        path.write_text("\n---\n".join(pieces), encoding="utf-8")
        return path
    return _write_sheet(tokens_NT, codec, corpus, run.samples(step, ".png"), config, step)


def _write_sheet(
    tokens_NT: Tensor, codec: DigitsCodec, corpus: Corpus, path: Path, config: TrainConfig, step: int
) -> Path:
    from reference_model.sheet import draw_sheet, save_sheet  # noqa: PLC0415 - text runs need no Pillow

    generated_KN88 = codec.decode(tokens_NT).reshape(
        NUM_CLASSES, config.samples_per_class, IMAGE_SIDE, IMAGE_SIDE
    )
    held_out_NT = corpus.val.sequences_NT
    # The first few of each class; a short held-out set may lack one, and then its cell stays white.
    real_KN88 = torch.zeros(NUM_CLASSES, _NUM_REAL, IMAGE_SIDE, IMAGE_SIDE, dtype=torch.long)
    for label in range(NUM_CLASSES):
        images_N88 = codec.decode(held_out_NT[held_out_NT[:, 0] == label + NUM_GREYS])[:_NUM_REAL]
        real_KN88[label, : len(images_N88)] = images_N88
    title = "Handwritten digits, generated class by class"
    subtitle = f"after {step:,} steps, temperature {config.sample_temperature:g}"
    save_sheet(draw_sheet(generated_KN88, real_KN88, title, subtitle), path)
    return path
