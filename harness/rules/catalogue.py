"""All rules, in the order in which causes come before what follows from them."""

from __future__ import annotations

from harness.rules import finite, loss
from harness.rules.finding import Rule  # noqa: TC001  the type of the constant is looked at when docs are made

RULES: tuple[Rule, ...] = (
    *finite.RULES,
    *loss.RULES,
)
BY_CODE = {rule.code: rule for rule in RULES}

FAMILIES = {
    "T1": "loss curve",
    "T2": "numbers that are not finite",
    "T3": "what reaches the loss function",
    "T4": "gradients, accumulation and clipping",
    "T5": "optimizer and updates",
    "T6": "schedule",
    "T7": "modes and evaluation",
    "T8": "data",
    "T9": "structure and copies of the model",
    "A1": "checkpoints",
    "A2": "logs and artifacts",
    "R1": "memory and time",
}
"""What the beginnings of codes stand for. `P` is kept for what needs a second run."""
