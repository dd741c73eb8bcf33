"""Turns digits and text into tokens and generated tokens back into something to look at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name the field uses

IMAGE_SIDE = 8
NUM_PIXELS = IMAGE_SIDE * IMAGE_SIDE
NUM_GREYS = 17
NUM_CLASSES = 10


@dataclass(frozen=True)
class DigitsCodec:
    """Greys 0..16 are tokens 0..16, classes 0..9 are tokens 17..26; an image is class, then 64 pixels."""

    vocab_size: int = NUM_GREYS + NUM_CLASSES
    num_choices: int = NUM_GREYS
    num_generated: int = NUM_PIXELS
    row_length: int = IMAGE_SIDE
    unit: str = "pixel"

    def encode(self, images_N88: Tensor, classes_N: Tensor) -> Tensor:
        """Token sequences [N, 65], int64, of images with greys 0..16."""
        return torch.cat([classes_N[:, None] + NUM_GREYS, images_N88.flatten(1)], dim=1).long()

    def decode(self, tokens_NT: Tensor) -> Tensor:
        """Images [N, 8, 8] with greys 0..16 of sequences [N, 65]."""
        return tokens_NT[:, 1:].reshape(-1, IMAGE_SIDE, IMAGE_SIDE)

    def shifted(self, tokens_NT: Tensor) -> list[Tensor]:
        """The images moved by one pixel down, up, right and left; what moves in is blank."""
        images_N88 = self.decode(tokens_NT)
        padded_NHW = F.pad(images_N88, (1, 1, 1, 1))
        return [
            self.encode(
                padded_NHW[:, top : top + IMAGE_SIDE, left : left + IMAGE_SIDE], tokens_NT[:, 0] - NUM_GREYS
            )
            for top, left in ((0, 1), (2, 1), (1, 0), (1, 2))
        ]

    def prompts(self, num_per_class: int) -> Tensor:
        """First tokens [10 * num_per_class, 1]: every class in order."""
        return torch.arange(NUM_CLASSES).repeat_interleave(num_per_class)[:, None] + NUM_GREYS


@dataclass(frozen=True)
class BytesCodec:
    """Every byte is its own token."""

    num_generated: int
    vocab_size: int = 256
    num_choices: int = 256
    unit: str = "byte"

    @property
    def row_length(self) -> int:
        """Text is one row."""
        return self.num_generated

    def encode(self, text: bytes) -> Tensor:
        """Tokens [len(text)], int64."""
        return torch.frombuffer(bytearray(text), dtype=torch.uint8).long()

    def decode(self, tokens_T: Tensor) -> str:
        """Text of the tokens; bytes that are not UTF-8 become the replacement character."""
        return bytes(tokens_T.tolist()).decode("utf-8", errors="replace")

    def prompts(self, num_samples: int) -> Tensor:
        """First tokens [num_samples, 1]: a line break, after which text begins anew."""
        return torch.full((num_samples, 1), ord("\n"))


Codec = DigitsCodec | BytesCodec
