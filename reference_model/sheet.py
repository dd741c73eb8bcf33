"""Draws the sample sheet: one row per class, generated digits beside held-out ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from reference_model.codec import NUM_GREYS

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

_SCALE = 8
_GAP = 10
_MARGIN = 28
_LABEL_WIDTH = 44
_HEADER_HEIGHT = 96
_GROUP_GAP = 34
_PAPER, _INK, _SOFT = (250, 249, 246), (28, 30, 38), (122, 124, 132)


def draw_sheet(generated_KN88: Tensor, real_KN88: Tensor, title: str, subtitle: str) -> Image.Image:
    """A picture with K labelled rows: N real images of the class, then N generated ones.

    Args:
        generated_KN88: greys 0..16 of the generated images, by class.
        real_KN88: greys 0..16 of real images, by class; the second size may differ.
        title: first line.
        subtitle: second, smaller line.
    """
    num_rows, num_generated = generated_KN88.shape[:2]
    num_real = real_KN88.shape[1]
    cell = 8 * _SCALE + _GAP
    real_left = _MARGIN + _LABEL_WIDTH
    generated_left = real_left + num_real * cell + _GROUP_GAP
    width = max(generated_left + num_generated * cell - _GAP + _MARGIN, 460)
    height = _HEADER_HEIGHT + num_rows * cell - _GAP + _MARGIN
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 16), title, _INK, font=ImageFont.load_default(20))
    draw.text((_MARGIN, 43), subtitle, _SOFT, font=ImageFont.load_default(14))
    draw.text((real_left, 71), "held out", _SOFT, font=ImageFont.load_default(14))
    draw.text((generated_left, 71), "generated", _SOFT, font=ImageFont.load_default(14))
    for row in range(num_rows):
        top = _HEADER_HEIGHT + row * cell
        draw.text((_MARGIN, top + 16), str(row), _INK, font=ImageFont.load_default(26))
        for left, images_N88 in ((real_left, real_KN88[row]), (generated_left, generated_KN88[row])):
            for column, image_88 in enumerate(images_N88):
                sheet.paste(_draw_digit(image_88), (left + column * cell, top))
    return sheet


def _draw_digit(image_88: Tensor) -> Image.Image:
    """Dark ink on white, enlarged smoothly: the eye reads strokes where it would else read squares."""
    side = image_88.shape[0]
    digit = Image.new("RGB", (side, side))
    shares = (image_88.double() / (NUM_GREYS - 1)).flatten().tolist()
    digit.putdata([_mix(share) for share in shares])
    return digit.resize((side * _SCALE, side * _SCALE), Image.Resampling.BICUBIC)


def _mix(share: float) -> tuple[int, int, int]:
    red, green, blue = (round(255 + (ink - 255) * share) for ink in _INK)
    return red, green, blue


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write the picture as PNG, in 64 shades: less than half the size to the same eye."""
    sheet.quantize(64).save(path, format="PNG", optimize=True)
