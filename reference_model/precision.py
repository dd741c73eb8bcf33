"""Number formats: autocast around the forward pass, and loss scaling where a format needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from reference_model.config import Precision

_AUTOCAST_DTYPE = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The autocast context of a precision; `fp32` changes nothing."""
    return torch.autocast(device.type, _AUTOCAST_DTYPE.get(precision), enabled=precision in _AUTOCAST_DTYPE)


def build_scaler(device: torch.device, precision: Precision) -> torch.amp.GradScaler:
    """A loss scaler that acts under `fp16`, where small gradients would vanish, and else passes through."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
